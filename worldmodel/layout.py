"""The layout of one frame's codes: a pyramid of scales, coarse to fine, flattened into one row."""

import itertools
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Scale:
    """One level of the pyramid: a grid of codes out of one vocabulary, with one or more planes of them."""

    height: int
    width: int
    vocabulary: int
    planes: int = 1

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

    @property
    def slices(self) -> tuple[slice, ...]:
        """Where every scale lies in the flat codes."""
        stops = list(itertools.accumulate(scale.num_codes for scale in self.scales))
        return tuple(slice(start, stop) for start, stop in zip([0, *stops], stops, strict=False))

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of the finest scale, which is the latent's grid."""
        return self.scales[-1].height, self.scales[-1].width

    def describe(self) -> list[list[int]]:
        """Plain form for attributes and checkpoints: [[height, width, vocabulary], ...], and planes where several."""
        return [
            [scale.height, scale.width, scale.vocabulary, *([scale.planes] if scale.planes > 1 else [])]
            for scale in self.scales
        ]

    @classmethod
    def from_description(cls, description: list[Any]) -> "Pyramid":
        """Read back what `describe` wrote."""
        return cls(tuple(Scale(*map(int, scale)) for scale in description))
