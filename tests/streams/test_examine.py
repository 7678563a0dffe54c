import csv
import hashlib
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from upath import UPath

from streams.addresses import address_of
from streams.choosing import Trial
from streams.errors import MediaError
from streams.examine import examine, settle
from streams.manifest import Entry
from streams.pyav.facts import PictureFacts
from streams.pyav.index import index_frames
from streams.pyav.pictures import PyAVReader
from streams.settings import ScanSettings
from tests.streams.ffmpeg import NUM_FRAMES, X264, ffmpeg, make_video, reference
from tests.streams.web import serving

SETTINGS = ScanSettings()
REAL = Path(__file__).resolve().parents[2] / "../shared/videos"


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examine")
    tone = ("-f", "lavfi", "-i", "sine=sample_rate=16000:duration=2", "-itsoffset", "0.4")
    picture = ("-f", "lavfi", "-i", "testsrc=size=96x64:rate=25:duration=2")
    ffmpeg(*tone, *picture, *X264, "-g", "12", "-c:a", "aac", folder / "a.mp4")
    return folder / "a.mp4"


def problem(path: Path | UPath, settings: ScanSettings = SETTINGS) -> str:
    """The only problem of a file that must be refused."""
    entry = examine(path, settings)
    assert entry.reader == ""
    assert len(entry.problems) == 1
    return entry.problems[0]


def test_a_good_file_is_described(video: Path):
    entry = examine(video, SETTINGS)
    assert (entry.reader, entry.problems) == ("pyav", ())
    assert (entry.path, entry.size_bytes) == (str(video), video.stat().st_size)
    assert entry.content_hash == hashlib.sha256(video.read_bytes()).hexdigest()
    assert (entry.codec, entry.pixel_format, entry.width, entry.height) == ("h264", "yuv420p", 96, 64)
    assert (entry.num_frames, entry.nominal_rate, entry.variable_rate) == (50, 25.0, False)
    assert entry.true_rate == pytest.approx(25.0)
    assert entry.duration_seconds == pytest.approx(2.0)
    assert (entry.sound_codec, entry.sample_hz, entry.num_channels) == ("aac", 16000, 1)
    assert entry.sound_offset_seconds == pytest.approx(-0.4, abs=1e-3)
    assert entry.sound_drift_seconds == pytest.approx(0.0, abs=1e-3)
    assert entry.sound_seconds == pytest.approx(2.0, abs=0.1)
    assert entry.sound_peak_db == pytest.approx(20 * np.log10(1 / 8), abs=1.0)
    assert entry.edit_list  # the pictures begin late
    assert entry.index is not None
    np.testing.assert_array_equal(entry.index.ticks, index_frames(video).ticks)


def test_frames_shown_for_different_times_are_variable_rate(tmp_path: Path):
    path = make_video("variable_rate", tmp_path)
    entry = examine(path, SETTINGS)
    _, seconds = reference(path, 64, 96)
    assert entry.variable_rate
    assert entry.num_frames == len(seconds)
    assert entry.true_rate == pytest.approx((len(seconds) - 1) / (seconds[-1] - seconds[0]), rel=1e-3)


def test_milliseconds_are_no_variable_rate(tmp_path: Path):
    picture = ("-f", "lavfi", "-i", "testsrc=size=96x64:rate=30000/1001:duration=2")
    ffmpeg(*picture, *X264, tmp_path / "a.mkv")
    assert not examine(tmp_path / "a.mkv", SETTINGS).variable_rate


def test_a_file_cut_short_keeps_the_frames_that_are_there(tmp_path: Path):
    path = make_video("long_gop", tmp_path)
    ffmpeg("-i", path, "-c", "copy", "-movflags", "faststart", tmp_path / "b.mp4")
    content = (tmp_path / "b.mp4").read_bytes()
    (tmp_path / "b.mp4").write_bytes(content[: len(content) * 3 // 4])
    entry = examine(tmp_path / "b.mp4", SETTINGS)
    assert entry.reader == "pyav"
    assert 20 < entry.num_frames < NUM_FRAMES
    assert f"the header tells of {NUM_FRAMES} frames" in " ".join(entry.problems) or "damaged" in " ".join(
        entry.problems
    )


def test_damage_in_the_middle_keeps_what_is_before_it_or_refuses(video: Path, tmp_path: Path):
    whole = video.read_bytes()
    first, length = whole.index(b"mdat") + 4, whole.index(b"moov") - whole.index(b"mdat")
    for share, usable in ((0.77, True), (0.35, False)):
        content = bytearray(whole)
        start = first + int(length * share)
        content[start : start + 300] = np.random.default_rng(1).bytes(300)
        (tmp_path / "a.mp4").write_bytes(content)
        entry = examine(tmp_path / "a.mp4", SETTINGS)
        assert bool(entry.reader) == usable
        assert re.match(r"damaged \(.*\): (the first|only) \d+ of 50 frames", entry.problems[0])
        assert not usable or entry.index is not None
        assert entry.index is None or 25 <= len(entry.index.ticks) == entry.num_frames < 50


def test_sound_alone_is_no_video(tmp_path: Path):
    ffmpeg("-f", "lavfi", "-i", "sine=duration=1", tmp_path / "a.mp4")
    assert problem(tmp_path / "a.mp4") == "has no pictures; leave it out"


@pytest.mark.parametrize("content", [b"", b"This is no video.\n" * 100, b"\0\0\0\x18ftypisom" + bytes(300)])
def test_what_is_no_video_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "a.mp4").write_bytes(content)
    assert problem(tmp_path / "a.mp4").startswith("cannot be decoded (")


def test_a_folder_with_the_name_of_a_video_and_a_file_that_is_gone_are_refused(tmp_path: Path):
    (tmp_path / "a.mp4").mkdir()
    assert problem(tmp_path / "a.mp4") == "is a folder"
    assert problem(tmp_path / "gone.mp4").startswith("no such file or folder")


def test_a_file_that_may_not_be_read_is_refused(video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(self: Path, *arguments: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    assert problem(video) == "cannot be read (Permission denied); check the address, or try again"


def test_names_that_are_not_utf_8_are_examined(video: Path, tmp_path: Path):
    path = tmp_path / os.fsdecode(b"\xff\n.mp4")
    path.write_bytes(video.read_bytes())
    entry = examine(path, SETTINGS)
    assert entry.reader == "pyav"
    assert address_of(entry.path) == path


def test_frames_that_are_too_large_are_refused_by_the_header(tmp_path: Path):
    path = tmp_path / "a.ivf"
    ffmpeg("-f", "lavfi", "-i", "testsrc=size=96x64:rate=5:duration=1", "-c:v", "libvpx", path)
    assert problem(path, ScanSettings(max_pixels=96 * 63)) == "frames of 96x64 pixels, max_pixels allows 6048"
    # The size stands in the container, and behind the start code of the first frame.
    bomb = re.sub(rb"\x9d\x01\x2a\x60\x00\x40\x00", b"\x9d\x01\x2a\xff\x3f\xff\x3f", path.read_bytes())
    path.write_bytes(bomb[:12] + b"\xff\x3f\xff\x3f" + bomb[16:])
    assert "frames of 16383x16383 pixels" in problem(path)


def test_large_frames_that_hide_behind_a_small_header_are_refused(tmp_path: Path):
    path = tmp_path / "a.avi"
    ffmpeg("-f", "lavfi", "-i", "testsrc=size=64x48:rate=5:duration=1", "-c:v", "mjpeg", path)
    content = re.sub(
        b"\xff\xc0\x00\x11\x08....", b"\xff\xc0\x00\x11\x08\x40\x00\x40\x00", path.read_bytes(), flags=re.DOTALL
    )
    path.write_bytes(content)
    assert "only 0 of 5 frames decode" in problem(path)


def test_ten_thousand_frames_per_second_are_refused(tmp_path: Path):
    picture = ("-f", "lavfi", "-i", "testsrc=size=64x48:rate=10000:duration=0.02")
    ffmpeg(*picture, *X264, "-bf", "0", tmp_path / "a.mp4")
    assert problem(tmp_path / "a.mp4") == "10000 frames per second, max_frames_per_second allows 1000"


def test_a_file_that_is_too_large_is_refused_without_being_read(video: Path):
    entry = examine(video, ScanSettings(max_file_bytes=1000))
    assert entry.problems == (f"has {video.stat().st_size} bytes, max_file_bytes allows 1000",)
    assert entry.content_hash == ""


def test_a_file_on_a_server_is_examined_like_a_local_one(video: Path):
    local = examine(video, SETTINGS)
    with serving(video.parent) as server:
        entry = examine(address_of(f"{server}/a.mp4"), SETTINGS)
    assert (entry.content_hash, entry.size_bytes) == (local.content_hash, local.size_bytes)
    assert (entry.num_frames, entry.sound_offset_seconds) == (local.num_frames, local.sound_offset_seconds)


def test_a_file_on_a_server_is_never_given_to_a_library_that_reads_local_files_alone(
    video: Path, monkeypatch: pytest.MonkeyPatch
):
    asked: list[tuple[tuple[str, ...], bool]] = []

    def choose(path: Path, index: object, samples: object, readers: tuple[str, ...], fall_back: bool) -> Trial:
        asked.append((readers, fall_back))
        return Trial("pyav", "", 0.0)

    monkeypatch.setattr("streams.examine.choose_reader", choose)
    settings = replace(SETTINGS, readers=("pyav", "decord"))
    with serving(video.parent) as root:
        assert examine(address_of(f"{root}/a.mp4"), settings).reader == "pyav"
    examine(video, settings)
    assert asked == [(("pyav",), False), (("pyav", "decord"), True)]


def test_a_server_that_falls_silent_is_a_problem(tmp_path: Path):
    with serving(tmp_path, silent=True) as server:
        assert "cannot be read" in problem(address_of(f"{server}/a.mp4", timeout_seconds=0.3))


def test_packets_and_frames_that_disagree_are_settled_by_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = make_video("constant", tmp_path)
    true = index_frames(path)
    listed = replace(true, ticks=np.append(true.ticks, true.ticks[-1] + 512))
    monkeypatch.setattr("streams.examine.index_frames", lambda path, decode=False: true if decode else listed)
    entry = examine(path, SETTINGS)
    assert (entry.reader, entry.num_frames) == ("pyav", NUM_FRAMES)
    assert entry.problems == (f"{NUM_FRAMES + 1} frames are listed and {NUM_FRAMES} decode",)
    monkeypatch.setattr("streams.examine.index_frames", lambda path, decode=False: listed)
    assert problem(path) == f"{NUM_FRAMES} frames decode, and {NUM_FRAMES + 1} the next time; leave it out"


def test_times_that_run_backwards_are_refused_and_a_single_one_is_left_out(tmp_path: Path):
    path = make_video("constant", tmp_path)
    index = index_frames(path)
    pictures = PictureFacts(0, 25.0, 1.0, ticks=index.ticks.tolist())
    pictures.ticks[10:40:2], pictures.ticks[11:40:2] = pictures.ticks[11:40:2], pictures.ticks[10:40:2]
    with pytest.raises(MediaError, match="its times run backwards 15 times; write it anew with ffmpeg"):
        settle(path, index, pictures, SETTINGS)
    many = replace(index, ticks=np.arange(200))
    pictures.ticks = [*range(199), 197]
    settled, said = settle(path, many, pictures, SETTINGS)
    assert settled.ticks.tolist() == list(range(199))
    assert said == ["1 frames are not later than the ones before, and left out"]


def rows() -> list[dict[str, str]]:
    if not (REAL / "MANIFEST.csv").exists():
        return []
    with (REAL / "MANIFEST.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# What the manifest of the footage calls readable and a scan refuses: of times that run backwards nobody knows which are
# right.
REFUSED = {
    "odd/libwebm_block_ends_beyond_cluster.mkv": "has no keyframe",
    "odd/libwebm_fixed_lacing_bad_lace_size.mkv": "has no keyframe",
    "odd/libwebm_invalid_vp9_bitstream-bug_1416.webm": "pixels are larger than 8K",
    "odd/made_bit_flips.mp4": "only 1 of 125 frames decode",
}
# Frames that the footage's manifest counts and that are damaged, or not later than the one before.
FEWER = {
    "odd/filetype_fixture.mxf": 264,
    "filetype_asteroid.mpg": 417,
    "opencv_box.mp4": 454,
    "odd/made_size_change.ts": 98,
}


@pytest.mark.skipif(not rows(), reason="the folder of real footage is not beside the project")
@pytest.mark.parametrize("row", rows(), ids=lambda row: row["file"])
def test_real_footage_behaves_as_its_manifest_says(row: dict[str, str]):
    entry = examine(REAL / row["file"], SETTINGS)
    assert entry.content_hash == row["sha256"]
    if row["file"] in REFUSED:
        assert entry.reader == ""
        assert REFUSED[row["file"]] in entry.problems[0]
    elif int(row["frames"] or 0) == 0 or not row["pyav"].startswith(("video", "UnicodeDecodeError")):
        assert entry.reader == ""
        assert len(entry.problems) == 1
    else:
        check_usable(entry, row)


def check_usable(entry: Entry, row: dict[str, str]) -> None:
    assert entry.reader == "pyav"
    assert entry.num_frames == FEWER.get(row["file"], int(row["frames"]))
    assert entry.index is not None
    assert len(entry.index.ticks) == entry.num_frames
    if row["file"] not in FEWER and row["video_s"]:
        assert entry.duration_seconds == pytest.approx(float(row["video_s"]), abs=0.05)
    assert bool(entry.problems) >= any(
        tag in row["tags"]
        for tag in ("truncated sound", "truncated mkv", "truncated vp9", "bit-flips", "resolution-change")
    ) or row["file"].endswith(".mts")
    if row["audio_peak_db"]:
        assert entry.sound_peak_db == pytest.approx(max(-100, float(row["audio_peak_db"])), abs=0.2) or entry.is_silent
        assert entry.is_silent == ("silent-audio-track" in row["tags"])
        assert (entry.sample_hz, entry.num_channels) == (int(row["arate"]), int(row["channels"]))
        assert entry.sound_seconds == pytest.approx(float(row["audio_s"]), abs=0.03)


@pytest.mark.skipif(not rows(), reason="the folder of real footage is not beside the project")
@pytest.mark.parametrize(
    "name", ["made_truncated_half.mp4", "decord_corrupted.mp4", "made_size_change.ts", "filetype_fixture-raw.mts"]
)
def test_every_frame_that_a_scan_promises_is_read_from_damaged_footage(name: str):
    entry = examine(REAL / "odd" / name, SETTINGS)
    assert entry.index is not None
    with PyAVReader(REAL / "odd" / name, entry.index) as reader:
        for index in [*range(0, entry.num_frames, 5), entry.num_frames - 1, 0]:
            assert reader.frames_at([index]).shape[0] == 1
