"""The tables of JPEG (ITU-T T.81, annex K): quantisation, zigzag, lengths of the Huffman codes."""

import numpy as np
from jaxtyping import Int

LUMA = """
    16 11 10 16  24  40  51  61
    12 12 14 19  26  58  60  55
    14 13 16 24  40  57  69  56
    14 17 22 29  51  87  80  62
    18 22 37 56  68 109 103  77
    24 35 55 64  81 104 113  92
    49 64 78 87 103 121 120 101
    72 92 95 98 112 100 103  99
"""
CHROMA = """
    17 18 24 47 99 99 99 99
    18 21 26 66 99 99 99 99
    24 26 56 99 99 99 99 99
    47 66 99 99 99 99 99 99
    99 99 99 99 99 99 99 99
    99 99 99 99 99 99 99 99
    99 99 99 99 99 99 99 99
    99 99 99 99 99 99 99 99
"""

# Bits of the Huffman code of a DC difference, by its category (the bits of its magnitude).
DC_BITS = ((2, 3, 3, 3, 3, 3, 4, 5, 6, 7, 8, 9), (2, 2, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11))
# AC symbols (16 * run of zeros + category) by the bits of their code, where these are fewer than 16; luma, then chroma.
SHORT_AC_CODES = (
    {
        2: (1, 2),
        3: (3,),
        4: (0, 4, 17),
        5: (5, 18, 33),
        6: (49, 65),
        7: (6, 19, 81, 97),
        8: (7, 34, 113),
        9: (20, 50, 129, 145, 161),
        10: (8, 35, 66, 177, 193),
        11: (21, 82, 209, 240),
        12: (36, 51, 98, 114),
        15: (130,),
    },
    {
        2: (0, 1),
        3: (2,),
        4: (3, 17),
        5: (4, 5, 33, 49),
        6: (6, 18, 65, 81),
        7: (7, 97, 113),
        8: (19, 34, 50, 129),
        9: (8, 20, 66, 145, 161, 177, 193),
        10: (9, 35, 51, 82, 240),
        11: (21, 98, 114, 209),
        12: (10, 22, 36, 52),
        14: (225,),
        15: (37, 241),
    },
)
LONGEST_AC_CODE = 16


def zigzag(block: int) -> Int[np.ndarray, " frequency"]:
    """Row-major places of a block's coefficients in the order in which JPEG reads them, low frequencies first."""
    places = [(row, column) for row in range(block) for column in range(block)]
    # Odd diagonals run down, even ones up.
    places.sort(key=lambda at: (sum(at), at[0] if sum(at) % 2 else at[1]))
    return np.array([row * block + column for row, column in places])


def quantization_table(quality: int, chroma: bool, block: int = 8) -> Int[np.ndarray, " frequency"]:
    """Steps of the coefficients in zigzag order, by libjpeg's scaling of the standard tables (baseline: 1 to 255).

    A block of 4 or 16 takes the step of the same spatial frequency, bilinearly between those of the standard table: the
    transform is orthonormal, so a step means the same error of the picture whatever the size of the block.

    Args:
        quality: 1 to 100.
        chroma: the table of the colours instead of that of the luma.
        block: side of a block.
    """
    standard = np.array((CHROMA if chroma else LUMA).split(), float).reshape(8, 8)
    at = np.minimum(np.arange(block) * 8 / block, 7)
    rows = np.stack([np.interp(at, np.arange(8), row) for row in standard])
    whole = np.stack([np.interp(at, np.arange(8), column) for column in rows.T], axis=1)
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    steps = np.clip((np.rint(whole).astype(np.int64) * percent + 50) // 100, 1, 255)
    return steps.reshape(-1)[zigzag(block)]


def ac_code_bits(chroma: bool) -> Int[np.ndarray, " symbol"]:
    """Bits of the Huffman code of every AC symbol (16 * run of zeros + category)."""
    bits = np.full(256, LONGEST_AC_CODE)
    for length, symbols in SHORT_AC_CODES[int(chroma)].items():
        bits[list(symbols)] = length
    return bits
