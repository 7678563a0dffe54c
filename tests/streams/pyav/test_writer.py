from pathlib import Path

import numpy as np
import pytest
import torch

from streams.pyav.sound import read_sound
from streams.pyav.writer import write_video
from tests.streams.ffmpeg import number_of, numbered_frames, reference
from tests.streams.pyav.clicks import HZ


def test_a_written_video_is_what_ffmpeg_reads(ours: Path):
    frames, seconds = reference(ours, 64, 96)
    np.testing.assert_allclose(seconds, np.arange(48) / 20.0, atol=1e-6)
    assert [number_of(frame) for frame in frames] == list(range(48))
    away = np.abs(frames.astype(int) - numbered_frames(48).transpose(0, 3, 1, 2))
    assert away.mean() < 4.0


def test_a_written_video_leaves_no_partial_file(ours: Path):
    assert [path.name for path in ours.parent.iterdir()] == ["a.mp4"]


def test_a_video_without_sound_has_no_sound_track(tmp_path: Path):
    write_video(tmp_path / "a.mp4", torch.zeros(3, 3, 16, 32, dtype=torch.uint8), 10.0)
    assert read_sound(tmp_path / "a.mp4", 0.0, 0.3, HZ) is None


def test_pixels_are_repeated_on_request(tmp_path: Path):
    frames = torch.zeros(2, 3, 15, 16, dtype=torch.uint8)
    frames[:, :, 5:10, 4:8] = 200
    write_video(tmp_path / "a.mp4", frames, 10.0, factor=4)
    shown, _ = reference(tmp_path / "a.mp4", 60, 64)
    expected = frames.repeat_interleave(4, 2).repeat_interleave(4, 3).numpy()
    assert shown.shape == expected.shape
    assert np.abs(shown.astype(int) - expected).mean() < 4.0


def test_odd_sizes_cannot_be_written(tmp_path: Path):
    with pytest.raises(ValueError, match="15x16: height and width must be even"):
        write_video(tmp_path / "a.mp4", torch.zeros(3, 3, 15, 16, dtype=torch.uint8), 10.0)
