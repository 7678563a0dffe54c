"""The layout of one frame's codes: a pyramid of scales, coarse to fine, flattened into one row."""

import itertools
from dataclasses import dataclass
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class Scale:
    """One level of the pyramid: a grid of codes out of one vocabulary, with one or more planes of them.

    Attributes:
        height: rows of the grid.
        width: columns of the grid.
        vocabulary: codes there are.
        planes: codes at one place.
        whole_frame: the scale is a part of a row of codes that are of the whole frame, and not of places in it.
    """

    height: int
    width: int
    vocabulary: int
    planes: int = 1
    whole_frame: bool = False

    @property
    def num_places(self) -> int:
        """Places of the grid, at each of which is a code of every plane."""
        return self.height * self.width

    @property
    def num_codes(self) -> int:
        """Codes of this scale in one frame."""
        return self.planes * self.num_places


@dataclass(frozen=True)
class Pyramid:
    """All scales of one frame, coarse to fine. Codes are stored flat, scale after scale, plane by plane, row by row."""

    scales: tuple[Scale, ...]

    @property
    def num_codes(self) -> int:
        """Codes of one frame over all scales."""
        return sum(scale.num_codes for scale in self.scales)

    @cached_property
    def slices(self) -> tuple[slice, ...]:
        """Where every scale lies in the flat codes."""
        stops = list(itertools.accumulate(scale.num_codes for scale in self.scales))
        return tuple(slice(start, stop) for start, stop in zip([0, *stops], stops, strict=False))

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of the latent's grid: the finest scale's, or one row of all codes of the whole frame."""
        return (1, self.num_codes) if self.whole_frame else (self.scales[-1].height, self.scales[-1].width)

    @property
    def whole_frame(self) -> bool:
        """Whether codes are of the whole frame, and not of places in it."""
        return self.scales[-1].whole_frame

    def describe(self) -> list[list[int]]:
        """Plain form for attributes and checkpoints: [[height, width, vocabulary], ...].

        Planes follow where there are several, and a 1 after them where codes are of the whole frame.
        """
        plain = [
            [scale.height, scale.width, scale.vocabulary, scale.planes, int(scale.whole_frame)] for scale in self.scales
        ]
        return [each if each[4] else each[:4] if each[3] > 1 else each[:3] for each in plain]

    @classmethod
    def from_description(cls, description: list[Any]) -> "Pyramid":
        """Read back what `describe` wrote."""
        return cls(tuple(Scale(*map(int, scale[:4]), whole_frame=bool(scale[4:])) for scale in description))
