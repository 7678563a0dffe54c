"""FFmpeg's scaler against torch's antialiased resize of the full-size frame."""

from pathlib import Path

import av
import numpy as np
import pytest
import torch

from streams.geometry import resize_crop
from streams.pyav.pictures import PyAVReader
from streams.pyav.scaling import Scaler
from streams.pyav.writer import write_video
from tests.streams.ffmpeg import X264, ffmpeg, reference


def smooth_noise(rows: int, columns: int) -> torch.Tensor:
    """Six frames with the spectrum of a photograph: much at low frequencies, a little at all."""
    generator = torch.Generator().manual_seed(0)
    frames = torch.zeros(6, 3, rows, columns)
    for side in (4, 8, 16, 32, 64):
        noise = torch.randn(6, 3, side, side, generator=generator)
        frames += torch.nn.functional.interpolate(noise, (rows, columns), mode="bicubic") * 90 / side**0.7
    return (frames + 128).clamp(0, 255).to(torch.uint8)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scaling") / "a.mp4"
    write_video(path, smooth_noise(240, 426), 25.0)
    return path


@pytest.mark.parametrize("size", [(64, 64), (120, 213), (32, 100), (240, 426), (60, 40)])
def test_scaling_is_in_the_mean_within_a_grey_level_of_the_antialiased_resize(video: Path, size: tuple[int, int]):
    with PyAVReader(video) as reader:
        full, scaled = reader.frames_at(range(6)), reader.frames_at(range(6), size)
    assert scaled.shape == (6, 3, *size)
    away = (scaled.int() - resize_crop(full, *size).int()).abs()
    assert away.float().mean() < 0.7
    assert (away <= 2).float().mean() > 0.97
    assert 10 * np.log10(255**2 / float(away.float().square().mean() + 1e-9)) > 48


@pytest.mark.parametrize("stored", ["yuv420p", "yuv422p", "yuv420p10le"])
def test_colours_stored_at_the_size_of_the_result_are_smoothed_as_in_a_resize_of_full_size_frames(
    stored: str, tmp_path: Path
):
    noise = smooth_noise(256, 456).float()
    grey = noise.mean(dim=1, keepdim=True)
    saturated = (grey + 2 * (noise - grey)).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
    raw = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "456x256", "-r", "25", "-i", "-")
    ffmpeg(*raw, *X264, "-pix_fmt", stored, tmp_path / "a.mp4", sent=saturated.numpy().tobytes())
    exact = "accurate_rnd+full_chroma_int+full_chroma_inp+bitexact+bicubic"
    full = torch.from_numpy(reference(tmp_path / "a.mp4", 256, 456, "-sws_flags", exact)[0].copy())
    expected = torch.nn.functional.interpolate(full[..., 100:356].float(), (128, 128), mode="bilinear", antialias=True)
    with PyAVReader(tmp_path / "a.mp4") as reader:
        away = reader.frames_at(range(6), (128, 128)).float() - expected
    assert 10 * np.log10(255**2 / float(away.square().mean())) > 53.5


def test_frames_are_turned_upright():
    picture = np.zeros((8, 12, 3), dtype=np.uint8)
    picture[:4, :6] = 200
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
    scaler = Scaler()
    for turns in range(4):
        expected = np.rot90(picture, turns).transpose(2, 0, 1)
        out = np.empty(expected.shape, dtype=np.uint8)
        scaler(frame, out, crop=True, turns=turns)
        np.testing.assert_array_equal(out, expected)


def test_wide_pixels_are_shown_wide():
    picture = np.zeros((20, 20, 3), dtype=np.uint8)
    picture[:, 4:16] = 200
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
    out = np.empty((3, 20, 20), dtype=np.uint8)
    Scaler(pixel_aspect=2.0)(frame, out, crop=True)
    # The picture is 40 wide and 20 high: its middle 10 columns fill the square.
    assert out.min() > 150


def test_a_change_of_format_in_the_middle_is_followed():
    scaler = Scaler()
    for value, name in ((40, "rgb24"), (90, "gray"), (200, "rgb24")):
        shape = (10, 14, 3) if name == "rgb24" else (10, 14)
        frame = av.VideoFrame.from_ndarray(np.full(shape, value, dtype=np.uint8), format=name)
        out = np.empty((3, 6, 6), dtype=np.uint8)
        scaler(frame, out, crop=True)
        assert np.abs(out.astype(int) - value).max() <= 2
    assert len(scaler.graphs) == 1
