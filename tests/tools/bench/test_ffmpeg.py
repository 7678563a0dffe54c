from pathlib import Path

import numpy as np
import pytest

from streams.errors import UserError
from tools.bench import ffmpeg


def test_a_failure_is_told_in_the_words_of_ffmpeg(tmp_path: Path):
    with pytest.raises(UserError, match="(?s)ffmpeg failed: .*gone.mp4.*No such file"):
        ffmpeg.ffmpeg("-i", tmp_path / "gone.mp4", "-f", "null", "-")


def test_a_missing_program_is_told_with_its_remedy(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "imageio_ffmpeg", None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="pip install imageio-ffmpeg"):
        ffmpeg.program.__wrapped__()


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path):
    path = tmp_path / "new" / "a.mkv"
    with pytest.raises(UserError):
        ffmpeg.write_whole(path, "-f", "lavfi", "-i", "nonsense")
    assert not path.exists()
    made = ("-f", "lavfi", "-i", "color=red:s=32x16:d=0.2:r=10", "-c:v", "ffv1")
    assert ffmpeg.write_whole(path, *made) == path
    before = path.stat().st_mtime_ns
    ffmpeg.write_whole(path, *made)
    assert path.stat().st_mtime_ns == before
    assert [file.name for file in path.parent.iterdir()] == ["a.mkv"]


def test_true_frames_have_the_pixels_that_were_written(tmp_path: Path):
    written = np.random.default_rng(0).integers(0, 256, (4, 16, 32, 3), dtype=np.uint8)
    path = tmp_path / "a.mkv"
    raw = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "32x16", "-r", "10", "-i", "-")
    ffmpeg.ffmpeg(*raw, "-c:v", "ffv1", "-pix_fmt", "gbrp", path, sent=written.tobytes())
    np.testing.assert_array_equal(ffmpeg.true_frames(path, 16, 32, 3), written[:3].transpose(0, 3, 1, 2))


def test_the_version_names_ffmpeg():
    assert ffmpeg.version().startswith("ffmpeg version")
