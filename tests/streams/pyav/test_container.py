import ctypes
import gc
from pathlib import Path

import pytest
import torch
from upath import UPath

from streams.addresses import address_of
from streams.errors import MediaError
from streams.pyav.pictures import PyAVReader
from streams.pyav.sound import SoundReader, read_sound
from tests.streams.ffmpeg import ffmpeg
from tests.streams.web import serving


def test_frames_larger_than_8k_are_refused_before_they_are_decoded(ours: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("streams.pyav.container.MAX_PIXELS", 64 * 96 - 1)
    with pytest.raises(MediaError, match="96x64 pixels are larger"):
        PyAVReader(ours)


class HeapInfo(ctypes.Structure):
    """What glibc's mallinfo2 gives; `used` are the bytes in use."""

    _fields_ = [(name, ctypes.c_size_t) for name in ("arena", "a", "b", "c", "mapped", "d", "e", "used", "free", "top")]


def heap_bytes_in_use() -> int:
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = HeapInfo
    gc.collect()
    return mallinfo().used


def test_seeking_leaves_no_memory_behind(ours: Path):
    with PyAVReader(ours) as reader, SoundReader(ours, 16000, 1) as sound:

        def seek(count: int) -> int:
            before = heap_bytes_in_use()
            for _ in range(count):
                for place in (40, 3):
                    reader.frames_at([place])
                    sound.read(place / 24, (place + 1) / 24)
            return heap_bytes_in_use() - before

        seek(50)
        # Four seeks each time: one that leaves its packets open costs 144 bytes, always.
        assert min(seek(100) for _ in range(3)) < 100 * 72


def test_metadata_that_is_not_text_does_not_matter(ours: Path, tmp_path: Path):
    ffmpeg("-i", ours, "-c", "copy", "-metadata", "title=TITLE", tmp_path / "a.mkv")
    content = (tmp_path / "a.mkv").read_bytes()
    (tmp_path / "a.mkv").write_bytes(content.replace(b"TITLE", b"\xff\xfe\xff\xe9\xe9"))
    with PyAVReader(tmp_path / "a.mkv") as reader:
        assert len(reader.seconds) == 48


@pytest.mark.parametrize("in_parts", [True, False])
def test_a_file_on_a_server_is_read_as_the_local_one(ours: Path, in_parts: bool):
    with serving(ours.parent, in_parts) as server:
        address = address_of(f"{server}/{ours.name}")
        with PyAVReader(address) as reader, PyAVReader(ours) as local:
            assert torch.equal(reader.frames_at([40, 3, 17]), local.frames_at([40, 3, 17]))
        sound, expected = read_sound(address, 0.5, 1.0, 16000), read_sound(ours, 0.5, 1.0, 16000)
        assert sound is not None
        assert expected is not None
        assert torch.equal(sound, expected)
        gc.collect()  # file objects left open would warn, and warnings are errors


def test_a_playlist_on_a_server_opens_nothing_else(ours: Path):
    playlist = UPath("memory://playlist.mp4")
    playlist.write_bytes(f"#EXTM3U\n#EXTINF:1,\n{ours}\n".encode())
    with pytest.raises(MediaError, match="cannot be decoded .Invalid data"):
        PyAVReader(playlist)
    joined = UPath("memory://joined.mp4")
    joined.write_bytes(f"ffconcat version 1.0\nfile '{ours}'\n".encode())
    with pytest.raises(MediaError, match="cannot be decoded .Invalid"):
        PyAVReader(joined)


def test_a_server_that_falls_silent_is_a_media_error(ours: Path):
    with serving(ours.parent, silent=True) as server, pytest.raises(MediaError, match="cannot be read"):
        PyAVReader(address_of(f"{server}/{ours.name}", timeout_seconds=0.3))
