from pathlib import Path

import numpy as np
import pytest

from tests.streams.ffmpeg import reference
from tools.bench.ffmpeg import ffmpeg, true_frames
from tools.bench.footage import Footage, bits_per_second, make_footage


def test_footage_is_what_its_name_says(footage: list[Footage]):
    [file] = footage
    assert (file.name, file.rows, file.gop) == ("64p GOP 12", 64, 12)
    _, seconds = reference(file.path, 64, 112)
    np.testing.assert_allclose(seconds, np.arange(90) / 30, atol=1e-6)
    keys = ffmpeg(
        "-skip_frame", "nokey", "-i", file.path, "-map", "0:v", "-fps_mode", "passthrough", "-f", "framecrc", "-"
    )
    frames = [line for line in keys.decode().splitlines() if line and not line.startswith("#")]
    assert len(frames) == -(-90 // 12)


def test_the_silent_copy_has_the_same_pictures_and_no_sound(footage: list[Footage]):
    [file] = footage
    same = [ffmpeg("-i", path, "-map", "0:v", "-f", "md5", "-") for path in (file.path, file.silent)]
    assert same[0] == same[1]
    streams = ffmpeg("-i", file.silent, "-map", "0", "-c", "copy", "-f", "framecrc", "-").decode()
    assert "audio" not in streams
    assert "audio" in ffmpeg("-i", file.path, "-map", "0", "-c", "copy", "-f", "framecrc", "-").decode()


def test_footage_moves_in_every_frame_and_is_not_noise(footage: list[Footage]):
    frames = true_frames(footage[0].silent, 64, 112, 60).astype(np.float32)
    steps = np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3))
    assert steps.min() > 0.3
    # Neighbouring frames are much more alike than frames a second apart.
    assert np.median(steps) < 0.5 * np.abs(frames[30:] - frames[:30]).mean()
    assert 20e3 < bits_per_second(footage[0], 3.0) < 500e3


def test_what_was_made_is_kept(footage: list[Footage], folder: Path):
    before = footage[0].path.stat().st_mtime_ns
    assert list(make_footage(folder, [64], [12], 3.0)) == footage
    assert footage[0].path.stat().st_mtime_ns == before


def test_real_videos_are_joined(tmp_path: Path):
    videos = []
    for colour in ("red", "blue"):
        videos.append(tmp_path / f"{colour}.mp4")
        ffmpeg("-f", "lavfi", "-i", f"color={colour}:s=64x48:r=25:d=1", "-pix_fmt", "yuv420p", videos[-1])
    [file] = make_footage(tmp_path, [64], [12], 1.0, videos)
    frames = true_frames(file.silent, 64, 112, 30)
    assert len(frames) == pytest.approx(30, abs=1)
    assert frames[2].mean(axis=(1, 2)).argmax() == 0
    assert frames[-3].mean(axis=(1, 2)).argmax() == 2
