import struct
from pathlib import Path

import pytest

from streams.pyav.edit_lists import rearranges_pictures
from tests.streams.ffmpeg import ffmpeg, make_video


def box(name: bytes, *contents: bytes) -> bytes:
    content = b"".join(contents)
    return struct.pack(">I4s", len(content) + 8, name) + content


def track(kind: bytes, *edits: tuple[int, int, int]) -> bytes:
    """A track with edits of (length, start, rate)."""
    rows = b"".join(struct.pack(">Iihh", length, start, rate, 0) for length, start, rate in edits)
    elst = box(b"elst", struct.pack(">II", 0, len(edits)), rows)
    return box(b"trak", box(b"edts", elst), box(b"mdia", box(b"hdlr", bytes(8), kind, bytes(12))))


@pytest.mark.parametrize(
    ("edits", "expected"),
    [
        ([(100, 0, 1)], False),
        ([(100, 1024, 1)], False),  # x264's reordered frames
        ([(50, -1, 1), (100, 0, 1)], True),  # begins late
        ([(50, 0, 1), (100, 700, 1)], True),  # leaves out the middle
        ([(100, 0, 2)], True),  # faster
    ],
)
def test_edits_that_rearrange_are_told_from_plain_ones(tmp_path: Path, edits: list, expected: bool):
    path = tmp_path / "a.mp4"
    path.write_bytes(box(b"ftyp", b"isom") + box(b"moov", track(b"soun", (9, -1, 1)), track(b"vide", *edits)))
    assert rearranges_pictures(path) == expected


@pytest.mark.parametrize("content", [b"", b"moov", box(b"moov", b"\0" * 40), b"\0\0\0\2moov" * 9, b"\0\0\0\1moov\0"])
def test_damaged_boxes_are_no_edits(tmp_path: Path, content: bytes):
    (tmp_path / "a.mp4").write_bytes(content)
    assert not rearranges_pictures(tmp_path / "a.mp4")


def test_long_boxes_are_passed_over(tmp_path: Path):
    long = struct.pack(">I4sQ", 1, b"mdat", 16 + 100) + bytes(100)
    (tmp_path / "a.mp4").write_bytes(long + box(b"moov", track(b"vide", (5, -1, 1))))
    assert rearranges_pictures(tmp_path / "a.mp4")


def test_ffmpegs_late_picture_is_seen_and_its_plain_file_is_plain(tmp_path: Path):
    plain = make_video("long_gop", tmp_path)
    assert not rearranges_pictures(plain)
    tone = ("-f", "lavfi", "-i", "sine=duration=3")
    ffmpeg(*tone, "-itsoffset", "0.5", "-i", plain, "-map", "1:v", "-map", "0:a", "-c:v", "copy", tmp_path / "late.mp4")
    assert rearranges_pictures(tmp_path / "late.mp4")
