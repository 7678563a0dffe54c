"""RGB to quantisable coefficients and back, bit for bit as libjpeg does it, on any device and in batches.

Colours, the halving of the chroma and the transform follow libjpeg's accurate integer path (jccolor.c, jcsample.c,
jfdctint.c, jidctint.c, and jdsample.c with "fancy upsampling"). All of it is whole numbers, which float64 holds
exactly, so the result depends neither on the device nor on the order of the sums.
"""

import math
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float64, Int, UInt8
from torch import Tensor, nn

from worldmodel.codecs.jpeg_tables import zigzag

CONSTANT_BITS = 13  # of the transform's constants
SPARE_BITS = 2  # that the first of its two passes keeps
# The left half of the 8-point transform that libjpeg's butterflies (Loeffler et al. 1989) amount to. Their constants
# are rounded one by one, which moves a few of the products by one.
BUTTERFLIES = (
    (8192, 8192, 8192, 8192),
    (11363, 9633, 6437, 2260),
    (10703, 4433, -4433, -10703),
    (9633, -2259, -11362, -6436),
    (8192, -8192, -8192, 8192),
    (6437, -11362, 2261, 9633),
    (4433, -10704, 10704, -4433),
    (2260, -6436, 9633, -11363),
)
# Of red, green and blue in luma and chroma, and of chroma in the three, as libjpeg rounds them to 2**-16.
TO_LUMA = (0.299, 0.587, 0.114)
TO_BLUE_CHROMA = (-0.168735892, -0.331264108, 0.5)
TO_RED_CHROMA = (0.5, -0.418687589, -0.081312411)
RED, BLUE, GREEN_OF_BLUE, GREEN_OF_RED = 1.402, 1.772, 0.34414, 0.71414


class BlockTransform(nn.Module):
    """Frames to the coefficients of their blocks and back.

    Args:
        block: side of a block: 4, 8 or 16.
        chroma: half is JPEG's 4:2:0 (half as many rows and columns of colour), full is 4:4:4.
    """

    def __init__(self, block: int, chroma: Literal["half", "full"]) -> None:
        super().__init__()
        self.block, self.halved = block, chroma == "half"
        # Whole numbers, which no change of the module's precision touches.
        self.register_buffer("matrix", torch.from_numpy(transform_matrix(block)).int(), persistent=False)
        order = torch.from_numpy(zigzag(block))
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("back", order.argsort(), persistent=False)
        self.matrix: Tensor
        self.order: Tensor
        self.back: Tensor

    @property
    def side(self) -> int:
        """Both sides of a frame are multiples of this."""
        return self.block * (2 if self.halved else 1)

    @property
    def peaks(self) -> Float64[np.ndarray, " frequency"]:
        """Largest magnitude that `forward` can give at every frequency, its own rounding included."""
        matrix = np.abs(transform_matrix(self.block))
        sums = matrix.sum(1)
        # The first pass rounds by half a unit at most, and the second adds that up.
        rounding = 0.5 * sums / 2 ** (CONSTANT_BITS + SPARE_BITS) + 0.5
        exact = 128 * np.outer(sums, sums) / 2 ** (2 * CONSTANT_BITS)
        return (exact + rounding[:, None]).reshape(-1)[zigzag(self.block)]

    def forward(
        self, frames: UInt8[Tensor, "item 3 height width"]
    ) -> tuple[Int[Tensor, "item 1 frequency row column"], Int[Tensor, "item 2 frequency small_row small_column"]]:
        """Coefficients of luma and chroma in zigzag order, times the side of a block, as libjpeg leaves them.

        To quantise, divide by the side times the table's step.
        """
        luma, chroma = to_luma_and_chroma(frames)
        return self._analyse(luma), self._analyse(halve(chroma) if self.halved else chroma)

    def inverse(
        self,
        luma: Int[Tensor, "item 1 frequency row column"],
        chroma: Int[Tensor, "item 2 frequency small_row small_column"],
    ) -> UInt8[Tensor, "item 3 height width"]:
        """Frames of coefficients (value times the table's step, so those of `forward` over the side of a block)."""
        colours = self._synthesise(chroma)
        return to_rgb(self._synthesise(luma), double(colours) if self.halved else colours)

    def _analyse(self, samples: Tensor) -> Tensor:
        blocks = to_blocks(samples.double() - 128, self.block)
        matrix = self.matrix.double()
        rows = _descale(blocks @ matrix.T, CONSTANT_BITS - SPARE_BITS)
        both = _descale(matrix @ rows, CONSTANT_BITS + SPARE_BITS)
        return both.flatten(-2)[..., self.order].movedim(-1, -3).int()

    def _synthesise(self, coefficients: Tensor) -> Tensor:
        both = coefficients.double().movedim(-3, -1)[..., self.back].unflatten(-1, (self.block, self.block))
        matrix = self.matrix.double()
        rows = _descale(matrix.T @ both, CONSTANT_BITS - SPARE_BITS)
        blocks = _descale(rows @ matrix, CONSTANT_BITS + SPARE_BITS + int(math.log2(self.block)))
        return (from_blocks(blocks) + 128).clamp(0, 255).int()


def transform_matrix(block: int) -> Float64[np.ndarray, "frequency sample"]:
    """The discrete cosine transform in whole numbers: orthonormal times the root of its size times 2**13."""
    frequency, sample = np.arange(block)[:, None], np.arange(block)
    if block == 8:
        left = np.array(BUTTERFLIES, dtype=np.float64)
        return np.hstack((left, np.where(frequency % 2, -1, 1) * left[:, ::-1]))
    cosines = np.cos(np.pi * (2 * sample + 1) * frequency / (2 * block))
    return np.rint(2**CONSTANT_BITS * np.where(frequency, math.sqrt(2), 1) * cosines)


def to_blocks(planes: Tensor, block: int) -> Tensor:
    """(..., height, width) as (..., row, column, block, block)."""
    return planes.unflatten(-1, (-1, block)).unflatten(-3, (-1, block)).transpose(-3, -2)


def from_blocks(blocks: Tensor) -> Tensor:
    """The inverse of `to_blocks`."""
    return blocks.transpose(-3, -2).flatten(-4, -3).flatten(-2)


def to_luma_and_chroma(
    frames: UInt8[Tensor, "item 3 height width"],
) -> tuple[Int[Tensor, "item 1 height width"], Int[Tensor, "item 2 height width"]]:
    """JPEG's YCbCr (JFIF) from 0 to 255."""
    red, green, blue = frames.int().unbind(1)
    half, middle = 2**15, 128 * 2**16

    def mixed(weights: tuple[float, float, float], offset: int) -> Tensor:
        r, g, b = map(_fixed, weights)
        return (r * red + g * green + b * blue + offset) >> 16

    luma = mixed(TO_LUMA, half)
    chroma = [mixed(weights, middle + half - 1) for weights in (TO_BLUE_CHROMA, TO_RED_CHROMA)]
    return luma[:, None], torch.stack(chroma, 1)


def to_rgb(
    luma: Int[Tensor, "item 1 height width"], chroma: Int[Tensor, "item 2 height width"]
) -> UInt8[Tensor, "item 3 height width"]:
    """The inverse of `to_luma_and_chroma`, with clamped colours."""
    blue, red = (chroma - 128).unbind(1)
    half = 2**15
    more_red = (_fixed(RED) * red + half) >> 16
    more_blue = (_fixed(BLUE) * blue + half) >> 16
    more_green = (half - _fixed(GREEN_OF_BLUE) * blue - _fixed(GREEN_OF_RED) * red) >> 16
    return (luma + torch.stack((more_red, more_green, more_blue), 1)).clamp(0, 255).to(torch.uint8)


def halve(planes: Int[Tensor, "item 2 height width"]) -> Int[Tensor, "item 2 half_height half_width"]:
    """Means of 2x2 samples, rounded down and up by turns along a row."""
    sums = planes.unflatten(-1, (-1, 2)).sum(-1).unflatten(-2, (-1, 2)).sum(-2)
    bias = 1 + torch.arange(sums.shape[-1], device=planes.device) % 2
    return ((sums + bias) >> 2).int()


def double(planes: Int[Tensor, "item 2 height width"]) -> Int[Tensor, "item 2 double_height double_width"]:
    """Twice the rows and columns by a triangle filter: three quarters of the near sample, a quarter of the far one."""
    padded = F.pad(planes.float(), (0, 0, 1, 1), mode="replicate").int()  # padding knows no integers
    rows = torch.stack((3 * planes + padded[..., :-2, :], 3 * planes + padded[..., 2:, :]), -2).flatten(-3, -2)
    padded = F.pad(rows.float(), (1, 1, 0, 0), mode="replicate").int()
    left, right = (3 * rows + padded[..., :-2] + 8) >> 4, (3 * rows + padded[..., 2:] + 7) >> 4
    return torch.stack((left, right), -1).flatten(-2)


def _descale(values: Tensor, bits: int) -> Tensor:
    return torch.floor((values + 2 ** (bits - 1)) / 2**bits)


def _fixed(weight: float) -> int:
    return math.floor(abs(weight) * 2**16 + 0.5) * (1 if weight >= 0 else -1)
