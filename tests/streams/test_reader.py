"""One suite for all readers, against the ffmpeg program."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal, get_args

import av
import numpy as np
import pytest
from upath import UPath

from streams.decord import DecordReader
from streams.errors import DamageError, MediaError
from streams.journal import Journal
from streams.pyav.pictures import PyAVReader
from streams.reader import ReaderName, VideoReader, open_video
from streams.torchcodec import TorchCodecReader
from tests.streams.ffmpeg import (
    COLOURS,
    DERIVED,
    HEIGHT,
    KINDS,
    NUM_FRAMES,
    WIDTH,
    make_video,
    number_of,
    numbered_frames,
    reference,
)

Reader = Literal["pyav", "decord", "torchcodec"]
# A library that cannot tell the right frames of a file must say so, and of no other file.
OTHER_CONTAINERS = (
    "transport", "mpeg2_transport", "hevc_transport", "starts_in_the_middle", "mpeg2_program", "interlaced_mpeg2",
    "h264_avi", "h264_avi_b_frames", "mpeg4_avi", "mpeg4_avi_b_frames", "variable_rate_avi", "mjpeg_avi",
)  # fmt: skip
OTHER_CODECS = ("hevc", "hevc_matroska", "ten_bit_hevc", "mpeg4", "mpeg4_mkv", "mjpeg_mov", "av1", "av1_mp4")
EVERYWHERE = ("mirrored", "mirrored_90", "negative_start", "without_times")
REFUSED_KINDS: dict[Reader, tuple[str, ...]] = {
    "pyav": ("without_times",),
    "decord": (*OTHER_CONTAINERS, *OTHER_CODECS, *EVERYWHERE, "edit_list", "edit_list_open_gop", "vp8_hidden_frames"),
    "torchcodec": (*OTHER_CONTAINERS, *EVERYWHERE, "vp8_hidden_frames"),
}
REFUSED = [(reader, kind) for reader, kinds in REFUSED_KINDS.items() for kind in kinds]
ALL_KINDS = (*KINDS, *DERIVED)
READABLE = [(reader, kind) for reader in get_args(Reader) for kind in ALL_KINDS if kind not in REFUSED_KINDS[reader]]
EACH_READER = [(reader, "constant") for reader in get_args(Reader)]
TURNED = {"rotated_90", "rotated_270", "mirrored_90"}
# Kinds whose bars stand upright and at their place.
NUMBERED = {kind for kind in ALL_KINDS if not kind.startswith(("rotated", "mirrored", "odd_size"))}

COLOURED = ("limited_bt601", "limited_bt709", "full_bt601", "full_bt709", "ten_bit", "hevc", "vp8")

Truth = tuple[np.ndarray, np.ndarray]
every_readable_file = pytest.mark.parametrize(("reader", "kind"), READABLE)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("readers")


@pytest.fixture
def video(kind: str, folder: Path) -> Path:
    made = sorted((folder / kind).glob("a.*"))
    return made[0] if made else make_video(kind, folder / kind)


@pytest.fixture(scope="session")
def truths() -> dict[str, Truth]:
    return {}


@pytest.fixture
def truth(kind: str, video: Path, truths: dict[str, Truth]) -> Truth:
    """Frames and seconds as the ffmpeg program shows them."""
    if kind not in truths:
        height, width = (63, 97) if kind.startswith("odd_size") else (HEIGHT, WIDTH)
        truths[kind] = reference(video, *((width, height) if kind in TURNED else (height, width)))
    return truths[kind]


@pytest.fixture
def opened(reader: Reader, video: Path) -> Iterator[VideoReader]:
    with open_video(video, reader) as found:
        yield found


def assert_same(frames: np.ndarray, expected: np.ndarray) -> None:
    # Colour conversions differ by a few grey levels; another frame differs by a bar, 12 grey levels in the mean.
    assert frames.shape == expected.shape
    away = np.abs(frames.astype(np.int16) - expected).mean(axis=(1, 2, 3))
    assert away.max() < 3.0, away


@every_readable_file
def test_all_frames_and_times_are_those_of_ffmpeg(kind: str, opened: VideoReader, truth: Truth):
    expected, seconds = truth
    np.testing.assert_allclose(opened.seconds, seconds, atol=1.1e-3)
    frames = opened.frames_at(range(len(opened.seconds))).numpy()
    assert_same(frames, expected)
    if kind in NUMBERED:
        assert [number_of(frame) for frame in frames] == [number_of(frame) for frame in expected]


@every_readable_file
def test_frames_at_random_are_those_of_ffmpeg(opened: VideoReader, truth: Truth):
    expected, _ = truth
    generator = np.random.default_rng(0)
    for _ in range(12):
        # Any order, repeats allowed, single frames and several.
        chosen = generator.integers(0, len(expected), generator.integers(1, 6)).tolist()
        assert_same(opened.frames_at(chosen).numpy(), expected[chosen])


@every_readable_file
def test_a_frame_asked_by_time_is_the_one_that_ffmpeg_shows_then(opened: VideoReader, truth: Truth):
    expected, seconds = truth
    # At 7 Hz from the first frame on, never at the border of two frames.
    instants = np.arange(seconds[0] + 0.0173, seconds[-1] + 0.03, 1 / 7)
    shown = [int(np.flatnonzero(seconds <= instant)[-1]) for instant in instants]
    asked = [int(np.searchsorted(opened.seconds, instant, side="right")) - 1 for instant in instants]
    assert_same(opened.frames_at(asked).numpy(), expected[shown])


@every_readable_file
def test_a_file_opened_with_its_index_gives_the_same_frames(reader: Reader, video: Path, truth: Truth):
    expected, _ = truth
    with open_video(video, reader) as first:
        index = first.index
    with open_video(video, reader, index) as again:
        assert again.index is index
        chosen = [len(expected) - 1, 0, len(expected) // 2]
        assert_same(again.frames_at(chosen).numpy(), expected[chosen])


@pytest.mark.parametrize(("reader", "kind"), [case for case in READABLE if case[0] != "pyav"])
def test_all_readers_scale_alike(opened: VideoReader, video: Path):
    with PyAVReader(video) as other:
        for size in ((24, 24), (32, 20)):
            assert_same(opened.frames_at([0, 31], size).numpy(), other.frames_at([0, 31], size).numpy())


@pytest.mark.parametrize(("reader", "kind"), REFUSED)
def test_a_reader_that_would_give_wrong_frames_refuses_the_file(reader: Reader, kind: str, video: Path):
    with pytest.raises(MediaError, match="read it with pyav|write it anew with ffmpeg"):
        open_video(video, reader)


@pytest.mark.parametrize("kind", COLOURED)
@pytest.mark.parametrize("reader", ["pyav", "torchcodec"])
def test_colours_are_those_that_were_encoded(opened: VideoReader):
    frames = opened.frames_at([0, 30]).numpy()[:, :, HEIGHT // 2 + 4 : -4].astype(float)
    patches = frames.reshape(2, 3, -1, len(COLOURS), WIDTH // len(COLOURS))[..., 6:-6].mean(axis=(2, 4))
    assert np.abs(patches - np.array(COLOURS).T).max() < 4.0, patches


@pytest.mark.parametrize("kind", COLOURED)
def test_colours_of_pyav_are_those_of_ffmpeg_at_its_most_careful(kind: str, video: Path):
    expected, _ = reference(video, HEIGHT, WIDTH, "-sws_flags", "bilinear+accurate_rnd+full_chroma_int")
    with PyAVReader(video) as opened:
        np.testing.assert_array_equal(opened.frames_at(range(NUM_FRAMES)).numpy(), expected)


@pytest.mark.parametrize("kind", ["non_square"])
@pytest.mark.parametrize("reader", get_args(Reader))
def test_wide_pixels_are_shown_wide(opened: VideoReader):
    assert opened.frames_at([5]).shape[-2:] == (HEIGHT, WIDTH)
    # Pixels of 4:3 make the 64 x 96 frame 128 wide: the square shows the half of it, 48 columns in the middle.
    frame = opened.frames_at([5], (HEIGHT, HEIGHT)).numpy()[0].astype(float)
    half = numbered_frames(6)[5][:, 24:72].transpose(2, 0, 1).astype(float)
    columns = np.rint(np.linspace(0, 47, HEIGHT)).astype(int)
    assert np.abs(frame - half[..., columns]).mean() < 8.0


@pytest.mark.parametrize(("reader", "kind"), EACH_READER)
def test_a_frame_carries_its_own_number(opened: VideoReader):
    frames = opened.frames_at([NUM_FRAMES - 1, 0, 17]).numpy()
    assert [number_of(frame) for frame in frames] == [NUM_FRAMES - 1, 0, 17]


@pytest.mark.parametrize(("reader", "kind"), EACH_READER)
@pytest.mark.parametrize("index", [-1, NUM_FRAMES])
def test_a_frame_that_is_not_there_is_an_error(opened: VideoReader, index: int):
    with pytest.raises(IndexError, match=f"of {NUM_FRAMES}"):
        opened.frames_at([0, index])


@pytest.mark.parametrize("reader", get_args(ReaderName))
@pytest.mark.parametrize("content", [b"", b"This is no video.\n" * 100, b"#EXTM3U\n#EXTINF:1,\n/etc/hostname\n"])
def test_a_file_that_is_no_video_is_refused_with_its_path(reader: ReaderName, content: bytes, tmp_path: Path):
    path = tmp_path / "text.mp4"
    path.write_bytes(content)
    with pytest.raises(MediaError, match=r"text\.mp4: cannot be decoded"):
        open_video(path, reader)


@pytest.mark.parametrize("reader", get_args(ReaderName))
def test_a_missing_file_is_refused_with_its_path(reader: ReaderName, tmp_path: Path):
    with pytest.raises(MediaError, match=r"gone\.mp4: cannot be decoded \(No such file"):
        open_video(tmp_path / "gone.mp4", reader)


@pytest.mark.parametrize(("reader", "kind"), EACH_READER)
def test_damaged_files_give_frames_or_a_media_error(reader: Reader, video: Path, tmp_path: Path):
    content = video.read_bytes()
    generator = np.random.default_rng(1)
    for number in range(20):
        damaged = bytearray(content[: len(content) * (number % 3 + 1) // 3])
        for place in generator.integers(0, len(damaged), 30):
            damaged[place] = generator.integers(256)
        path = tmp_path / f"{number}.mp4"
        path.write_bytes(damaged)
        with suppress(MediaError), open_video(path, reader) as opened:
            assert len(opened.frames_at(range(len(opened.seconds)))) == len(opened.seconds)


def test_decord_reads_local_files_alone():
    with pytest.raises(MediaError, match=r"memory://a\.mp4: decord reads local files alone; read it with pyav"):
        open_video(UPath("memory://a.mp4"), "decord")


@pytest.mark.parametrize("kind", ["constant"])
def test_automatically_pyav_reads_what_it_can(video: Path):
    journal = Journal()
    with open_video(video, journal=journal) as opened:
        assert opened.name == "pyav"
    assert not journal.counts


@pytest.mark.parametrize("kind", ["constant"])
@pytest.mark.parametrize("other", ["torchcodec", "decord"])
def test_where_pyav_refuses_a_whole_file_another_reads_it_and_that_is_counted(
    other: str, video: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(self: object, path: Path, *_: object) -> None:
        raise MediaError(f"{path}: not today; write it anew with ffmpeg")

    monkeypatch.setattr(PyAVReader, "__init__", refuse)
    if other == "decord":
        monkeypatch.setattr(TorchCodecReader, "__init__", refuse)
    journal = Journal()
    for _ in range(2):
        with open_video(video, journal=journal) as opened:
            assert opened.name == other
            assert number_of(opened.frames_at([17])[0].numpy()) == 17
    assert dict(journal.counts) == {"fallbacks": 2}


@pytest.mark.parametrize("kind", ["constant"])
def test_no_other_library_is_given_a_file_that_pyav_finds_damaged(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    content = bytearray(video.read_bytes())
    with av.open(str(video)) as container:
        _, second, third, *_ = [packet.pos for packet in container.demux(video=0)]
    assert second is not None
    assert third is not None
    content[second:third] = bytes(third - second)
    (tmp_path / "a.mp4").write_bytes(content)
    for reader in (TorchCodecReader, DecordReader):
        monkeypatch.setattr(reader, "__init__", lambda *_: pytest.fail("given a damaged file"))
    with pytest.raises(DamageError, match=r"a\.mp4: cannot be decoded"):
        open_video(tmp_path / "a.mp4")
