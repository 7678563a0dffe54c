"""What every contender offers: open files, in one or several forms of which the fastest is taken."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from jaxtyping import Shaped, UInt8
from torch import Tensor

from streams.geometry import crop_box

# All output is square, cut at the centre.
SIDE = 128


class Pictures(Protocol):
    """An open video."""

    def num_frames(self) -> int:
        """Frames that the library says the file has."""
        ...

    def clip(self, indices: Sequence[int]) -> UInt8[Tensor, "frame 3 height width"]:
        """Frames by their place, in any memory layout."""
        ...

    def close(self) -> None:
        """Frees the decoder."""
        ...


# Path, and the side of the output; None for full size.
Opener = Callable[[Path, int | None], Any]


@dataclass(frozen=True)
class Contender:
    """A library.

    Attributes:
        name: short name.
        forms: ways to use it that give the same frames, by what they are.
        errors: what it raises on files that it cannot read.
        restless: has threads that work also when nobody asks, so that it is measured in a process of its own.
    """

    name: str
    forms: dict[str, Opener]
    errors: tuple[type[Exception], ...] = (RuntimeError, ValueError, IndexError)
    restless: bool = False


def to_square(
    frames: Shaped[Tensor, "frame 3 rows columns"], side: int | None
) -> Shaped[Tensor, "frame 3 height width"]:
    """Cuts the centre and scales it, antialiased; torch is several times faster here on frames of interleaved colours.

    Args:
        frames: full size.
        side: of the output; None leaves frames as they are.
    """
    if side is None:
        return frames
    box = crop_box(frames.shape[-2], frames.shape[-1], side, side)
    square = frames[..., box.top : box.top + box.height, box.left : box.left + box.width]
    return torch.nn.functional.interpolate(square, (side, side), mode="bilinear", antialias=True)
