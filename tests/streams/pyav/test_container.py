from pathlib import Path

import pytest

from streams.errors import MediaError
from streams.pyav.pictures import PyAVReader
from tests.streams.ffmpeg import ffmpeg


def test_frames_larger_than_8k_are_refused_before_they_are_decoded(ours: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("streams.pyav.container.MAX_PIXELS", 64 * 96 - 1)
    with pytest.raises(MediaError, match="96x64 pixels are larger"):
        PyAVReader(ours)


def test_metadata_that_is_not_text_does_not_matter(ours: Path, tmp_path: Path):
    ffmpeg("-i", ours, "-c", "copy", "-metadata", "title=TITLE", tmp_path / "a.mkv")
    content = (tmp_path / "a.mkv").read_bytes()
    (tmp_path / "a.mkv").write_bytes(content.replace(b"TITLE", b"\xff\xfe\xff\xe9\xe9"))
    with PyAVReader(tmp_path / "a.mkv") as reader:
        assert len(reader.seconds) == 48
