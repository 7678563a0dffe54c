import pytest
import torch

from tests.jpeg import Chroma, num_scan_bytes, synthetic, written
from worldmodel.codecs.dct_transform import BlockTransform
from worldmodel.codecs.jpeg_bits import jpeg_bits
from worldmodel.codecs.jpeg_tables import quantization_table

PICTURES = synthetic()


@pytest.mark.parametrize("chroma", ["half", "full"])
@pytest.mark.parametrize("quality", [1, 10, 20, 50, 90, 100])
def test_the_bits_are_those_of_the_file_that_libjpeg_writes(quality: int, chroma: Chroma):
    frames = torch.stack(list(PICTURES.values()))
    values = []
    for coefficients, is_chroma in zip(BlockTransform(8, chroma)(frames), (False, True), strict=True):
        step = 8 * torch.from_numpy(quantization_table(quality, is_chroma))[:, None, None]
        values.append(coefficients.sign() * ((coefficients.abs() + step // 2) // step))
    bits = jpeg_bits(*values)
    assert [-(-int(count) // 8) for count in bits] == [
        num_scan_bytes(written(picture, quality, chroma)) for picture in PICTURES.values()
    ]


def test_what_has_no_code_costs_the_longest_one_and_its_own_bits():
    luma, chroma = torch.zeros(2, 1, 256, 2, 2, dtype=torch.int64), torch.zeros(2, 2, 256, 1, 1, dtype=torch.int64)
    empty, large = jpeg_bits(luma, chroma).tolist()
    assert empty == large == 4 * (2 + 4) + 2 * (2 + 2)
    luma[1, 0, 1, 0, 0] = 3000  # 12 bits, more than JPEG's 10
    assert jpeg_bits(luma, chroma).tolist() == [empty, empty + 16 + 12]
