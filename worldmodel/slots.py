"""Keys and values of the last frames in memory that stays where it is: frame t has slot t % window_frames."""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

# Keys and values of a block, (item, head, row, channel).
Layer = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Slot:
    """Where the next keys and values belong.

    Attributes:
        layer: all slots.
        rows: that are written over.
        num_seen: rows, from the first on, that are taken then.
    """

    layer: Layer
    rows: Int[Tensor, " row"]
    num_seen: int

    def take(self, new: Layer) -> Layer:
        """Writes them there; returns all that are taken."""
        key, value = (x.index_copy_(2, self.rows, y) for x, y in zip(self.layer, new, strict=True))
        return key[:, :, : self.num_seen], value[:, :, : self.num_seen]


@dataclass(frozen=True)
class Slots:
    """The slots of a layer. Numbers of frames may be tensors, where steps are recorded and replayed at other times.

    Attributes:
        window_frames: number of slots.
        num_rows: rows of a slot.
    """

    window_frames: int
    num_rows: int

    def rows(self, first: int | Tensor, num_frames: int, device: torch.device) -> Int[Tensor, " row"]:
        """Where the rows of these frames are."""
        slots = (first + torch.arange(num_frames, device=device)) % self.window_frames
        return (self.num_rows * slots[:, None] + torch.arange(self.num_rows, device=device)).flatten()

    def last(self, layer: Layer, num_frames: int) -> Layer:
        """Of keys and values in order, those of the last frames, of as many as there are."""
        start = max(0, layer[0].shape[2] - num_frames * self.num_rows)
        return layer[0][:, :, start:], layer[1][:, :, start:]

    def fill(self, layer: Layer, num_frames: int | Tensor) -> Layer:
        """New slots, from keys and values in order of the last of so many frames."""
        key, value = self.last(layer, self.window_frames)
        num_kept = key.shape[2] // self.num_rows if self.num_rows else 0
        rows = self.rows(num_frames - num_kept, num_kept, key.device)
        empty = [x.new_zeros(*x.shape[:2], self.window_frames * self.num_rows, x.shape[3]) for x in layer]
        return empty[0].index_copy_(2, rows, key), empty[1].index_copy_(2, rows, value)

    def in_order(self, layer: Layer, num_frames: int | Tensor, num_last: int) -> Layer:
        """Keys and values of the last of so many frames, the oldest first."""
        rows = self.rows(num_frames - num_last, num_last, layer[0].device)
        return layer[0][:, :, rows], layer[1][:, :, rows]
