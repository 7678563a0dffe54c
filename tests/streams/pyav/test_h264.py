from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from streams.pyav.h264 import picture_bytes, recode
from tests.streams.ffmpeg import ffmpeg


def film() -> Tensor:
    """A square that moves over a slope of grey."""
    frames = torch.arange(64, dtype=torch.uint8).expand(12, 3, 48, 64).clone() * 2
    for number, frame in enumerate(frames):
        frame[:, 10:26, 3 * number : 3 * number + 16] = 200
    return frames


def test_frames_come_back_in_order_and_better_with_more_bits():
    errors, sizes = [], []
    for crf in (10.0, 30.0, 45.0):
        back, bits = recode(film(), 10.0, crf)
        assert back.shape == film().shape
        away = [(back[n].float() - film().float()).square().mean(dim=(1, 2, 3)) for n in range(12)]
        assert [int(each.argmin()) for each in away] == list(range(12))
        errors.append(float((back.float() - film().float()).square().mean()))
        sizes.append(bits)
    assert errors == sorted(errors)
    assert sizes == sorted(sizes, reverse=True)


def test_the_same_frames_take_the_same_bits():
    (one, one_bits), (other, other_bits) = recode(film(), 10.0, 30.0), recode(film(), 10.0, 30.0)
    assert one_bits == other_bits
    assert torch.equal(one, other)


def test_pictures_are_counted_as_ffmpeg_filters_them(tmp_path: Path):
    # ffmpeg writes the same film; its own filter keeps the units of pictures alone.
    raw, whole, slices = tmp_path / "a.rgb", tmp_path / "a.h264", tmp_path / "b.h264"
    raw.write_bytes(film().permute(0, 2, 3, 1).numpy().tobytes())
    given = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "64x48", "-r", "10", "-i", raw]
    ffmpeg(*given, "-c:v", "libx264", "-pix_fmt", "yuv420p", whole)
    keep = ["-c", "copy", "-bsf:v", "filter_units=pass_types=1|5", "-f", "h264", slices]
    ffmpeg("-i", whole, *keep)
    data = slices.read_bytes()
    marks = data.count(b"\x00\x00\x01")
    starts = 3 * marks + data.count(b"\x00\x00\x00\x01")
    assert picture_bytes(whole.read_bytes()) == len(data) - starts
    assert picture_bytes(whole.read_bytes()) < len(whole.read_bytes()) - 500  # x264's remark about itself alone


def test_odd_sizes_cannot_be_coded():
    with pytest.raises(ValueError, match="15x16: height and width must be even"):
        recode(torch.from_numpy(np.zeros((2, 3, 15, 16), np.uint8)), 10.0, 20.0)
