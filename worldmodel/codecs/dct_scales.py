"""Frequency bands as scales: how the coefficients of a frame's blocks lie in one row, and how values become codes.

A scale is a band of frequencies over all blocks of a frame, chroma (red's planes behind blue's) before luma, whose grid
is the finest; one plane holds one frequency. A quantised coefficient has a largest magnitude, which the transform and
the table's step prove; a code is the value moved up by the largest one of its scale, so that nothing has to be clipped
and no escape is needed: coarse steps leave few values, at quality 20 at most 77 in a scale.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from worldmodel.layout import Scale

# (item, planes, frequency, row, column) of luma (1 plane) and of chroma (2 planes).
Coefficients = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class BandLayout:
    """The order of a frame's coefficients.

    Attributes:
        luma_grid: (rows, columns) of luma's blocks.
        chroma_grid: the same of each chroma.
        stops: where the bands of zigzag frequencies stop; the last is the number of frequencies.
    """

    luma_grid: tuple[int, int]
    chroma_grid: tuple[int, int]
    stops: tuple[int, ...]

    @property
    def bands(self) -> tuple[slice, ...]:
        """Frequencies of every band."""
        return tuple(slice(start, stop) for start, stop in zip((0, *self.stops), self.stops, strict=False))

    def scales(self, luma_bounds: Sequence[int], chroma_bounds: Sequence[int]) -> list[Scale]:
        """Two scales for every band, chroma and luma, whose vocabulary holds all values up to its bounds.

        Args:
            luma_bounds: largest magnitude at every frequency.
            chroma_bounds: the same of chroma.
        """
        scales = []
        for band in self.bands:
            size = band.stop - band.start
            scales.append(Scale(*self.chroma_grid, 2 * max(chroma_bounds[band]) + 1, 2 * size))
            scales.append(Scale(*self.luma_grid, 2 * max(luma_bounds[band]) + 1, size))
        return scales

    def flatten(self, luma: Tensor, chroma: Tensor) -> Int[Tensor, "item coefficient"]:
        """One row per frame: band after band, chroma and luma, plane by plane."""
        parts = [part[:, :, band].flatten(1) for band in self.bands for part in (chroma, luma)]
        return torch.cat(parts, 1)

    def unflatten(self, flat: Int[Tensor, "item coefficient"]) -> Coefficients:
        """Luma and chroma of rows that `flatten` gave."""
        parts: tuple[list[Tensor], list[Tensor]] = ([], [])
        start = 0
        for band in self.bands:
            for found, planes, grid in ((parts[1], 2, self.chroma_grid), (parts[0], 1, self.luma_grid)):
                shape = (planes, band.stop - band.start, *grid)
                stop = start + shape[0] * shape[1] * shape[2] * shape[3]
                found.append(flat[:, start:stop].unflatten(1, shape))
                start = stop
        return torch.cat(parts[0], 2), torch.cat(parts[1], 2)

    def spread(self, tables: Int[Tensor, "item 2 frequency"]) -> Int[Tensor, "item coefficient"]:
        """A value per frequency, of luma and of chroma, at every coefficient."""
        luma, chroma = tables[..., None, None].split(1, 1)
        return self.flatten(luma.expand(-1, 1, -1, *self.luma_grid), chroma.expand(-1, 2, -1, *self.chroma_grid))


def differences(values: Int[Tensor, "item plane row column"], bound: int) -> Int[Tensor, "item plane row column"]:
    """Values (up to `bound` in magnitude) minus those at their left, or above at the left edge.

    The difference is taken round a circle of all 2 * bound + 1 values, so it needs no larger vocabulary than they do.
    """
    before = torch.zeros_like(values)
    before[..., 1:] = values[..., :-1]
    before[..., 1:, 0] = values[..., :-1, 0]
    return _wrapped(values - before, bound)


def sums(changes: Int[Tensor, "item plane row column"], bound: int) -> Int[Tensor, "item plane row column"]:
    """The values of which `differences` gave the changes."""
    first = changes[..., :1].cumsum(-2)
    return _wrapped(torch.cat((first, changes[..., 1:]), -1).cumsum(-1), bound)


def _wrapped(values: Tensor, bound: int) -> Tensor:
    return (values + bound) % (2 * bound + 1) - bound
