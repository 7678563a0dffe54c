"""One suite for all readers, against the ffmpeg program."""

from contextlib import suppress
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pytest
from upath import UPath

from streams.errors import MediaError
from streams.reader import open_video
from tests.streams.ffmpeg import DERIVED, HEIGHT, KINDS, NUM_FRAMES, WIDTH, make_video, number_of, reference

# decord must say so where it cannot tell the right frames.
Reader = Literal["pyav", "decord"]
REFUSED: set[tuple[Reader, str]] = {
    ("decord", kind) for kind in ("edit_list", "hevc", "mpeg2_program", "mpeg4_avi", "mpeg4_mkv", "transport")
}
CASES: list[tuple[Reader, str]] = [(reader, kind) for reader in get_args(Reader) for kind in (*KINDS, *DERIVED)]
READABLE = [case for case in CASES if case not in REFUSED]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("readers")


@pytest.fixture
def video(kind: str, folder: Path) -> Path:
    made = sorted((folder / kind).glob("a.*"))
    return made[0] if made else make_video(kind, folder / kind)


def size_of(kind: str) -> tuple[int, int]:
    return (WIDTH, HEIGHT) if kind == "rotated" else (HEIGHT, WIDTH)


def assert_same(frames: np.ndarray, expected: np.ndarray) -> None:
    # Colour conversions differ by a few grey levels; another frame differs by a bar, 25 grey levels in the mean.
    away = np.abs(frames.astype(np.int16) - expected).mean(axis=(1, 2, 3))
    assert away.max() < 3.0, away


@pytest.mark.parametrize(("reader", "kind"), READABLE)
def test_all_frames_and_times_are_those_of_ffmpeg(reader: Reader, kind: str, video: Path):
    expected, seconds = reference(video, *size_of(kind))
    with open_video(video, reader) as opened:
        np.testing.assert_allclose(opened.seconds, seconds, atol=1.1e-3)
        frames = opened.frames_at(range(len(opened.seconds))).numpy()
    assert frames.shape == expected.shape
    assert_same(frames, expected)
    if kind != "rotated":
        assert [number_of(frame) for frame in frames] == [number_of(frame) for frame in expected]


@pytest.mark.parametrize(("reader", "kind"), READABLE)
def test_frames_at_random_are_those_of_ffmpeg(reader: Reader, kind: str, video: Path):
    expected, _ = reference(video, *size_of(kind))
    generator = np.random.default_rng(0)
    with open_video(video, reader) as opened:
        for _ in range(12):
            # Any order, repeats allowed, single frames and several.
            chosen = generator.integers(0, len(expected), generator.integers(1, 6)).tolist()
            assert_same(opened.frames_at(chosen).numpy(), expected[chosen])


@pytest.mark.parametrize(("reader", "kind"), sorted(REFUSED))
def test_a_reader_that_would_give_wrong_frames_refuses_the_file(reader: Reader, kind: str, video: Path):
    with pytest.raises(MediaError, match="read it with pyav"):
        open_video(video, reader)


@pytest.mark.parametrize(("reader", "kind"), [("pyav", "constant"), ("decord", "constant")])
def test_a_frame_carries_its_own_number(reader: Reader, kind: str, video: Path):
    with open_video(video, reader) as opened:
        frames = opened.frames_at([NUM_FRAMES - 1, 0, 17]).numpy()
    assert [number_of(frame) for frame in frames] == [NUM_FRAMES - 1, 0, 17]


@pytest.mark.parametrize(("reader", "kind"), [("pyav", "constant"), ("decord", "constant")])
@pytest.mark.parametrize("index", [-1, NUM_FRAMES])
def test_a_frame_that_is_not_there_is_an_error(reader: Reader, kind: str, video: Path, index: int):
    with open_video(video, reader) as opened, pytest.raises(IndexError, match=f"of {NUM_FRAMES}"):
        opened.frames_at([0, index])


@pytest.mark.parametrize("reader", ["pyav", "decord"])
@pytest.mark.parametrize("content", [b"", b"This is no video.\n" * 100, b"#EXTM3U\n#EXTINF:1,\n/etc/hostname\n"])
def test_a_file_that_is_no_video_is_refused_with_its_path(reader: Reader, content: bytes, tmp_path: Path):
    path = tmp_path / "text.mp4"
    path.write_bytes(content)
    with pytest.raises(MediaError, match=r"text\.mp4: cannot be decoded"):
        open_video(path, reader)


@pytest.mark.parametrize("reader", ["pyav", "decord"])
def test_a_missing_file_is_refused_with_its_path(reader: Reader, tmp_path: Path):
    with pytest.raises(MediaError, match=r"gone\.mp4: cannot be decoded \(No such file"):
        open_video(tmp_path / "gone.mp4", reader)


@pytest.mark.parametrize(("reader", "kind"), [("pyav", "constant"), ("decord", "constant")])
def test_damaged_files_give_frames_or_a_media_error(reader: Reader, kind: str, video: Path, tmp_path: Path):
    content = video.read_bytes()
    generator = np.random.default_rng(1)
    # decord aborts the whole process on some damaged files, so it gets only files cut short.
    for number in range(20 if reader == "pyav" else 3):
        damaged = bytearray(content[: len(content) * (number % 3 + 1) // 3])
        for place in generator.integers(0, len(damaged), 30 if reader == "pyav" else 0):
            damaged[place] = generator.integers(256)
        path = tmp_path / f"{number}.mp4"
        path.write_bytes(damaged)
        with suppress(MediaError), open_video(path, reader) as opened:
            assert len(opened.frames_at(range(len(opened.seconds)))) == len(opened.seconds)


def test_decord_reads_local_files_alone():
    with pytest.raises(MediaError, match=r"memory://a\.mp4: decord reads local files alone; read it with pyav"):
        open_video(UPath("memory://a.mp4"), "decord")
