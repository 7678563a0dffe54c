import io

import numpy as np
import pytest
from PIL import Image

from tests.jpeg import synthetic, written
from worldmodel.codecs.jpeg_tables import ac_code_bits, quantization_table, zigzag


@pytest.mark.parametrize("quality", [1, 10, 20, 30, 49, 50, 51, 75, 99, 100])
def test_the_tables_are_those_that_libjpeg_writes(quality: int):
    image = Image.open(io.BytesIO(written(synthetic(16, 16)["noise"], quality, "half")))
    tables = image.quantization  # type: ignore[attr-defined]  # row by row
    for chroma in (False, True):
        steps = np.array(tables[int(chroma)])[zigzag(8)]
        assert np.array_equal(quantization_table(quality, chroma), steps)


def test_the_zigzag_begins_as_in_the_standard_and_ends_in_the_corner():
    assert zigzag(8)[:10].tolist() == [0, 1, 8, 16, 9, 2, 3, 10, 17, 24]
    for block in (4, 8, 16):
        order = zigzag(block)
        assert sorted(order.tolist()) == list(range(block**2))
        assert order[-1] == block**2 - 1


def test_other_blocks_have_the_steps_of_the_same_spatial_frequencies():
    whole = np.empty(64, int)
    whole[zigzag(8)] = quantization_table(50, False)
    small, large = np.empty(16, int), np.empty(256, int)
    small[zigzag(4)], large[zigzag(16)] = quantization_table(50, False, 4), quantization_table(50, False, 16)
    whole, small, large = whole.reshape(8, 8), small.reshape(4, 4), large.reshape(16, 16)
    assert np.array_equal(small, whole[::2, ::2])
    assert np.array_equal(large[::2, ::2], whole)
    assert np.abs(large[1:-1:2, ::2] * 2 - whole[1:] - whole[:-1]).max() <= 1


def test_the_lengths_of_the_codes_fill_the_code_space_but_for_the_one_that_jpeg_leaves_free():
    symbols = [0, 240, *(16 * run + category for run in range(16) for category in range(1, 11))]
    for chroma in (False, True):
        space = (2.0 ** -ac_code_bits(chroma)[symbols].astype(float)).sum()
        assert space == 1 - 2.0**-16
