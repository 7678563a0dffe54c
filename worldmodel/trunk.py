"""The trunk: a causal transformer over frames. state[t] is what is known after frame t.

Its blocks attend over all tokens of the window at once, or in turn over the places of a frame and the times of a place
(factorised: ViViT's model 3, Arnab et al. 2021; for video worlds Genie, Bruce et al. 2024).
"""

from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.attention import attend, rotary_frequencies, rotary_turns, turns_of
from worldmodel.blocks import Block, joined
from worldmodel.frame_group import FrameGroup
from worldmodel.modules import Modules
from worldmodel.settings import TransformerSettings
from worldmodel.sight import Sight
from worldmodel.slots import Layer, Slot, Slots

# What a block attends over: all tokens of the window, the places of a frame, or the times of a place.
Axis = Literal["both", "space", "time"]


@dataclass
class TrunkCache:
    """Keys and values of the frames that the next frame can still see, and how many frames were read.

    Where the window is full, a frame takes the slot of the one that it no longer sees, and nothing moves.

    Attributes:
        layers: slots of every block; an item is a clip, or a place of one.
        num_frames: read so far; a tensor where the steps are recorded, to be replayed at another time.
        num_kept: how many slots are taken.
    """

    layers: list[Layer] = field(default_factory=list)
    num_frames: int | Tensor = 0
    num_kept: int = 0

    def branch(self, num_clips: int, count: int) -> None:
        """Go on with `count` copies of every clip, next to each other."""
        copies = lambda x: x.unflatten(0, (num_clips, -1)).repeat_interleave(count, 0).flatten(0, 1)  # noqa: E731
        self.layers = [(copies(key), copies(value)) for key, value in self.layers]


class Trunk(nn.Module):
    """Every token of frame t attends to all tokens of the frames t - window_frames + 1 ... t."""

    def __init__(
        self,
        settings: TransformerSettings,
        window_frames: int,
        places: Float[Tensor, "token 2"],
        factorised: bool = False,
    ) -> None:
        """Build for frames whose tokens stand at `places`, (row, column) from 0 to 1.

        Args:
            settings: of the blocks.
            window_frames: frames that a frame sees, itself included.
            places: of the tokens of a frame.
            factorised: blocks attend over space and over time in turn, space first.
        """
        super().__init__()
        self.window_frames, self.num_tokens = window_frames, len(places)
        self.head_dim = settings.dim // settings.num_heads
        self.register_buffer("places", places, persistent=False)
        self.places: Tensor
        self.place_turns: Tensor
        turns = rotary_turns(torch.zeros(len(places)), places, self.head_dim)
        self.register_buffer("place_turns", turns, persistent=False)
        self.time_frequencies: Tensor
        self.register_buffer("time_frequencies", rotary_frequencies(self.head_dim)[0], persistent=False)
        self.blocks = Modules[Block](
            Block(settings.dim, settings.num_heads, settings.attention) for _ in range(settings.depth)
        )
        turn: list[Axis] = ["space", "time"] if factorised else ["both"]
        self.axes: list[Axis] = [turn[number % len(turn)] for number in range(settings.depth)]
        counts: dict[Axis, int] = {"both": self.num_tokens, "time": 1, "space": 0}
        self.slots = {axis: Slots(window_frames, count) for axis, count in counts.items()}
        self.norm = nn.LayerNorm(settings.dim, bias=False)

    def forward(self, tokens: Float[Tensor, "batch frame token dim"]) -> Float[Tensor, "batch frame token dim"]:
        """States of whole clips that start at time 0."""
        return self._whole_clips(tokens, None)

    def share(
        self, tokens: Float[Tensor, "batch part token dim"], group: FrameGroup
    ) -> Float[Tensor, "batch part token dim"]:
        """States of this process's frames of whole clips, of which the others have as many each; see `forward`."""
        return self._whole_clips(tokens, group)

    def _whole_clips(self, tokens: Tensor, group: FrameGroup | None) -> Tensor:
        num_frames = tokens.shape[1]
        rank, size = (0, 1) if group is None else (group.rank, group.size)
        x, turns = tokens, self._turns(rank * num_frames, num_frames)
        for block, axis in zip(self.blocks, self.axes, strict=True):
            by = attend if group is None or axis == "space" else group.attend
            x = unfold(block(fold(x, axis), turns[axis], None, self._sight(axis, size * num_frames), by), axis, x)
        return self.norm(x)

    def step(self, tokens: Float[Tensor, "batch token dim"], cache: TrunkCache) -> Float[Tensor, "batch token dim"]:
        """State of the next frame; of the cache its slot alone is written, in place."""
        if not cache.layers:
            return self.read(tokens[:, None], cache)[:, 0]
        turns, num_kept = self._turns(cache.num_frames, 1), min(cache.num_kept + 1, self.window_frames)
        x = tokens[:, None]
        rows = {axis: self.slots[axis].rows(cache.num_frames, 1, x.device) for axis in set(self.axes)}
        for block, axis, layer in zip(self.blocks, self.axes, cache.layers, strict=True):
            slot = None if axis == "space" else Slot(layer, rows[axis], num_kept * self.slots[axis].num_rows)
            x = unfold(block.extend(fold(x, axis), turns[axis], slot, None)[0], axis, x)
        cache.num_frames, cache.num_kept = cache.num_frames + 1, num_kept
        return self.norm(x)[:, 0]

    def read(
        self, tokens: Float[Tensor, "batch frame token dim"], cache: TrunkCache, num_states: int | None = None
    ) -> Float[Tensor, "batch state token dim"]:
        """States of the next frames in one pass; the cache never grows beyond the window.

        Keys keep the rotation of their absolute time: attention depends on differences of time only, so nothing is
        recomputed when the window slides. Where the states of the last frames alone are asked for, every block leaves
        out what no later one would look at.
        """
        num_frames = tokens.shape[1]
        num_past = min(cache.num_kept, self.window_frames - 1)
        num_in, *nums_out = self._nums_needed(num_frames, num_states or num_frames)
        x, layers, turns = tokens[:, -num_in:], [], self._turns(cache.num_frames, num_frames)
        for number, (block, axis, num_out) in enumerate(zip(self.blocks, self.axes, nums_out, strict=True)):
            slots, past = self.slots[axis], None
            if cache.layers and axis != "space":
                past = slots.in_order(cache.layers[number], cache.num_frames, num_past)
            num_early, rows = x.shape[1] - num_out, fold(x, axis)
            here = turns[axis][-rows.shape[1] :]
            stop = rows.shape[1] // x.shape[1] * num_early
            if stop:  # frames that others see, but that see no others themselves
                early = block.attention.keys_values(block.attention_norm(rows[:, :stop]), here[:stop])
                past = slots.last(joined(past, early), self.window_frames - 1)
            # One frame sees all that is kept.
            seen = min(num_past + num_early, self.window_frames - 1)
            sight = self._sight(axis, num_out, seen) if num_out > 1 else None
            out, layer = block.extend(rows[:, stop:], here[stop:], past, sight)
            layers.append(slots.fill(layer, cache.num_frames + num_frames))
            x = unfold(out, axis, x[:, num_early:])
        cache.layers, cache.num_frames = layers, cache.num_frames + num_frames
        cache.num_kept = min(cache.num_kept + num_frames, self.window_frames)
        return self.norm(x)

    def _nums_needed(self, num_frames: int, num_states: int) -> list[int]:
        """How many of the last frames enter the first block, and leave every block."""
        nums = [num_states]
        for axis in reversed(self.axes):
            nums.append(min(num_frames, nums[-1] + (0 if axis == "space" else self.window_frames - 1)))
        return nums[::-1]

    def _sight(self, axis: Axis, num_frames: int, num_past: int = 0) -> Sight | None:
        if axis == "space":
            return None
        return Sight.of_frames(num_frames, self.num_tokens if axis == "both" else 1, self.window_frames, num_past)

    def _turns(self, start: int | Tensor, num_frames: int) -> dict[Axis, Tensor]:
        """Of the tokens of an item, for every axis that blocks attend over; along one they differ in nothing else."""
        times = start + torch.arange(num_frames, device=self.places.device)
        time_turns = turns_of(times[:, None] * self.time_frequencies)
        both = (time_turns[:, None] * self.place_turns).flatten(0, 1)
        return {"both": both, "space": self.place_turns, "time": time_turns}


def fold(x: Float[Tensor, "batch frame token dim"], axis: Axis) -> Float[Tensor, "item row dim"]:
    """The rows that a block attends over, along one axis or both."""
    if axis == "time":
        return x.transpose(1, 2).flatten(0, 1)
    return x.flatten(0, 1) if axis == "space" else x.flatten(1, 2)


def unfold(
    rows: Float[Tensor, "item row dim"], axis: Axis, like: Float[Tensor, "batch frame token dim"]
) -> Float[Tensor, "batch frame token dim"]:
    """What `fold` made into rows, as it was before."""
    batch, frames, tokens = like.shape[:3]
    if axis == "time":
        return rows.unflatten(0, (batch, tokens)).transpose(1, 2)
    return rows.reshape(batch, frames, tokens, -1)
