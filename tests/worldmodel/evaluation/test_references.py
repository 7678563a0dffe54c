import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from worldmodel.evaluation import references
from worldmodel.evaluation.metrics import psnr
from worldmodel.evaluation.references import coded_bits, h264_with, jpeg_with, standard_tables


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


def jpeg_file(quality: int, optimize: bool = False) -> tuple[bytes, Tensor]:
    """One frame as Pillow writes and reads it."""
    buffer = io.BytesIO()
    Image.fromarray(clips()[0, 0].permute(1, 2, 0).numpy()).save(buffer, "JPEG", quality=quality, optimize=optimize)
    back = torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1)
    return buffer.getvalue(), back


def segments_of(jpeg: bytes) -> list[bytes]:
    """All segments before the scan's data, by walking through them."""
    place, found = 2, []
    while True:
        length = 2 + int.from_bytes(jpeg[place + 2 : place + 4], "big")
        found.append(jpeg[place : place + length])
        if jpeg[place + 1] == 0xDA:
            return found
        place += length


def segments_bytes(jpeg: bytes) -> int:
    """Bytes of all segments before the scan's data, and of the two lone markers."""
    return 4 + sum(map(len, segments_of(jpeg)))


@pytest.mark.parametrize("quality", [1, 30, 95])
def test_headers_and_the_tables_of_the_standard_are_left_out(quality: int):
    jpeg, _ = jpeg_file(quality)
    assert coded_bits(jpeg) == 8 * (len(jpeg) - segments_bytes(jpeg))
    assert 200 < segments_bytes(jpeg) < 900


@pytest.mark.parametrize("quality", [1, 30, 95])
def test_tables_that_a_file_has_of_its_own_count(quality: int):
    jpeg, _ = jpeg_file(quality, optimize=True)
    tables = sum(len(segment) for segment in segments_of(jpeg) if segment[1] == 0xC4)
    assert 60 < tables < 450
    assert coded_bits(jpeg) == 8 * (len(jpeg) - segments_bytes(jpeg) + tables)


def test_the_standard_has_two_tables_for_means_and_two_for_the_rest():
    # Annex K.3: table class and number are the first byte behind the segment's length.
    assert sorted(segment[4] for segment in standard_tables()) == [0x00, 0x01, 0x10, 0x11]
    assert sorted(map(len, standard_tables())) == [33, 33, 183, 183]


def test_a_large_picture_pays_for_its_own_tables_and_a_small_one_does_not():
    noise = np.random.default_rng(0).integers(0, 256, (512, 512, 3), np.uint8)
    for side, own in ((16, False), (512, True)):
        jpeg = references._jpeg(Image.fromarray(noise[:side, :side]), 50)
        assert own != standard_tables().issubset(segments_of(jpeg))


def test_with_the_bits_of_a_quality_jpeg_is_as_good_as_at_that_quality(monkeypatch: pytest.MonkeyPatch):
    frame = clips()[:1, :1]
    jpeg, back = jpeg_file(40)
    best = jpeg_with(frame, float(coded_bits(jpeg)))
    monkeypatch.setattr(references, "SHRINKS", (1,))
    found = jpeg_with(frame, float(coded_bits(jpeg)))
    assert found.bits_per_frame == coded_bits(jpeg)
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
