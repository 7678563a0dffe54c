import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from worldmodel.evaluation import references
from worldmodel.evaluation.metrics import psnr
from worldmodel.evaluation.references import h264_with, jpeg_with, scan_bits


def clips() -> Tensor:
    """Two films of a square that moves over a soft pattern with a little noise."""
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[:48, :64]
    ground = 110 + 50 * np.sin(columns / 9) + 30 * np.cos(rows / 7)
    films = np.repeat(ground[None, None, None], 2, 0).repeat(6, 1).repeat(3, 2) + generator.normal(
        0, 2, (2, 6, 3, 48, 64)
    )
    for number in range(6):
        films[:, number, 1, 8:24, 4 * number : 4 * number + 16] = 220
    return torch.from_numpy(films.clip(0, 255).astype(np.uint8))


def jpeg_file(quality: int) -> tuple[bytes, Tensor]:
    """One frame as Pillow writes and reads it."""
    buffer = io.BytesIO()
    Image.fromarray(clips()[0, 0].permute(1, 2, 0).numpy()).save(buffer, "JPEG", quality=quality, optimize=True)
    back = torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1)
    return buffer.getvalue(), back


def segments_bytes(jpeg: bytes) -> int:
    """Bytes of all segments before the scan's data and of the two lone markers, by walking through them."""
    place, total = 2, 4
    while True:
        length = 2 + int.from_bytes(jpeg[place + 2 : place + 4], "big")
        total += length
        if jpeg[place + 1] == 0xDA:
            return total
        place += length


@pytest.mark.parametrize("quality", [1, 30, 95])
def test_headers_and_tables_are_left_out(quality: int):
    jpeg, _ = jpeg_file(quality)
    assert scan_bits(jpeg) == 8 * (len(jpeg) - segments_bytes(jpeg))
    assert 200 < segments_bytes(jpeg) < 900


def test_with_the_bits_of_a_quality_jpeg_is_as_good_as_at_that_quality(monkeypatch: pytest.MonkeyPatch):
    frame = clips()[:1, :1]
    jpeg, back = jpeg_file(40)
    best = jpeg_with(frame, float(scan_bits(jpeg)))
    monkeypatch.setattr(references, "SHRINKS", (1,))
    found = jpeg_with(frame, float(scan_bits(jpeg)))
    assert found.bits_per_frame == scan_bits(jpeg)
    assert torch.equal(found.frames[0, 0], back)
    assert found.setting == "quality 40, 64x48"
    assert psnr(best.frames, frame) >= psnr(back, frame[0, 0])


@pytest.mark.parametrize("bits", [500.0, 2000.0, 5000.0])
def test_bits_are_spent_and_not_exceeded(bits: float):
    jpeg, film = jpeg_with(clips(), bits), h264_with(clips(), 10.0, bits)
    assert jpeg.fits
    assert film.fits
    assert 0.85 * bits < jpeg.bits_per_frame <= bits
    assert 0.85 * bits < film.bits_per_frame <= bits
    assert jpeg.frames.shape == film.frames.shape == clips().shape


def test_more_bits_give_better_pictures_and_motion_compensation_pays():
    quality = [float(psnr(jpeg_with(clips(), bits).frames, clips()).mean()) for bits in (300.0, 1000.0, 4000.0)]
    assert quality == sorted(quality)
    film = float(psnr(h264_with(clips(), 10.0, 1000.0).frames, clips()).mean())
    assert film > quality[1] + 1


def test_too_few_bits_are_said_to_be_too_few():
    jpeg, film = jpeg_with(clips(), 1.0), h264_with(clips(), 10.0, 1.0)
    assert not jpeg.fits
    assert not film.fits
    assert jpeg.bits_per_frame > 1
    assert jpeg.setting == "quality 1, 16x12"
    assert film.setting == "crf 51.0"
