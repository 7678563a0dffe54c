"""How many bits JPEG's entropy coder spends on quantised coefficients, counted without writing them."""

import torch
from jaxtyping import Int
from torch import Tensor

from worldmodel.codecs.jpeg_tables import DC_BITS, ac_code_bits

RUN = 16  # zeros that one symbol can stand for
LARGEST_AC = 10  # category for which a code exists


def jpeg_bits(
    luma: Int[Tensor, "item 1 frequency row column"],
    chroma: Int[Tensor, "item 2 frequency small_row small_column"],
) -> Int[Tensor, " item"]:
    """Bits of baseline JPEG with the Huffman codes of ITU-T T.81, annex K (without headers and stuffed bytes).

    What JPEG knows no code for (blocks of 16 have larger values, see `LARGEST_AC`) is charged as its largest category
    and the bits above it.

    Args:
        luma: quantised values in zigzag order.
        chroma: the same; where it has half the rows and columns, luma's blocks are taken in JPEG's order, by fours.
    """
    rows, columns = luma.shape[-2:]
    if chroma.shape[-2:] == (rows, columns):
        by_turns = luma.flatten(-2)
    else:
        by_turns = luma.unflatten(-1, (-1, 2)).unflatten(-3, (-1, 2)).transpose(-3, -2).flatten(-4)
    return _plane_bits(by_turns, False) + _plane_bits(chroma.flatten(-2), True)


def _plane_bits(values: Int[Tensor, "item plane frequency place"], chroma: bool) -> Int[Tensor, " item"]:
    values = values.transpose(-2, -1)
    dc = values[..., 0].diff(dim=-1, prepend=torch.zeros_like(values[..., :1, 0]))
    category = _category(dc)
    lengths = torch.tensor(DC_BITS[int(chroma)], device=values.device)
    bits = lengths[category.clamp(max=len(lengths) - 1)] + category
    return (bits.sum((1, 2)) + _ac_bits(values[..., 1:], chroma).sum((1, 2))).long()


def _ac_bits(values: Int[Tensor, "item plane place frequency"], chroma: bool) -> Int[Tensor, "item plane place"]:
    lengths = torch.from_numpy(ac_code_bits(chroma)).to(values.device)
    position = torch.arange(1, values.shape[-1] + 1, device=values.device).expand(values.shape)
    occupied = values != 0
    last = torch.where(occupied, position, 0).cummax(-1).values
    before = torch.cat((torch.zeros_like(last[..., :1]), last[..., :-1]), -1)
    zeros = position - before - 1
    category = _category(values)
    symbol = zeros % RUN * RUN + category.clamp(max=LARGEST_AC)
    bits = lengths[symbol] + category + zeros // RUN * lengths[(RUN - 1) * RUN]
    end = (last[..., -1] < values.shape[-1]) * lengths[0]
    return torch.where(occupied, bits, 0).sum(-1) + end


def _category(values: Tensor) -> Tensor:
    """Bits of the magnitude."""
    return torch.frexp(values.abs().double()).exponent.long()
