"""The comparison with ffmpeg, on generated files and, where they are there, on real ones."""

from pathlib import Path

import imageio_ffmpeg
import pytest

from streams.errors import MediaError
from tests.streams.ffmpeg import make_video
from tools.compare import Comparison, compare, main

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
REAL = Path(__file__).resolve().parents[2] / "../shared/videos"
MAX_REAL_BYTES = 60_000
# Small real files that are refused, and why.
REFUSED = {
    "ac3_audio_only.mp4": "has no pictures",
    "decord_corrupted.mp4": "cannot be decoded",
    "filetype_fixture-corrupt.mkv": "cannot be decoded",
    "filetype_fixture-isom.mp4": "cannot be decoded",
    "libwebm_block_ends_beyond_cluster.mkv": "has no keyframe",
    "libwebm_fixed_lacing_bad_lace_size.mkv": "has no keyframe",
    "libwebm_invalid_vp9_bitstream-bug_1416.webm": "are larger than 8K",
    "made_audio_only.mp4": "has no pictures",
    "made_empty.mp4": "cannot be decoded",
    "made_fragmented_cut.mp4": "cannot be decoded",
    "made_html.webm": "cannot be decoded",
    "made_no_moov.mp4": "cannot be decoded",
    "phpffmpeg_text_named.mp4": "cannot be decoded",
    "readme.txt": "cannot be decoded",
    "streamio_broken.mp4": "cannot be decoded",
    "vorbis_12k_audio_only.webm": "has no pictures",
    "wpt_invalid-codec.webm": "unknown format",
}
# Few bytes, but many large frames.
SLOW = {"edit_list_positive_shift.mp4", "streamio awesome movie.mov"}
SMALL = sorted(path for path in REAL.rglob("*") if path.is_file() and path.stat().st_size <= MAX_REAL_BYTES)
# Larger ones: wrong keyframes and decoding damage, a mirrored picture, interlaced, a last frame with a wrong time,
# no times in the file.
CHOSEN = (
    "odd/mp4parser_phone_drive.3gp", "odd/rotate_and_reflect.mp4", "odd/made_interlaced.mpg", "opencv_box.mp4",
    "odd/avi_large_length.avi", "android_desk.3gp", "filetype_asteroid.mpg",
)  # fmt: skip
REAL_FILES = [path for path in SMALL if path.suffix not in {".csv", ".md"} and path.name not in SLOW] + [
    REAL / name for name in CHOSEN if (REAL / name).is_file()
]


@pytest.mark.parametrize("path", REAL_FILES, ids=lambda path: path.name)
def test_real_files_are_read_as_ffmpeg_shows_them(path: Path):
    if path.name in REFUSED:
        with pytest.raises(MediaError, match=REFUSED[path.name]):
            compare(path, "pyav", FFMPEG)
        return
    found = compare(path, "pyav", FFMPEG, every=16)
    assert found.right, found
    assert max(found.levels_off, found.random_off) < 0.5, found


def test_another_number_of_frames_or_times_or_pictures_is_wrong():
    assert Comparison(60, 60).right
    assert not Comparison(60, 59).right
    assert not Comparison(60, 60, seconds_off=0.02).right
    assert not Comparison(60, 60, levels_off=8.0).right
    assert not Comparison(60, 60, random_off=8.0).right


def test_wrong_frames_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    from streams.pyav.pictures import PyAVReader

    path = make_video("constant", tmp_path)
    assert main([str(path), "--ffmpeg", FFMPEG]) == 0
    read = PyAVReader.frames_at
    monkeypatch.setattr(PyAVReader, "frames_at", lambda self, indices: read(self, [max(0, at - 1) for at in indices]))
    assert main([str(path), "--ffmpeg", FFMPEG]) == 1
    right, wrong = capsys.readouterr().out.splitlines()
    assert right.startswith("right    a.mp4: 60 frames of 60, 0.0 ms, 0.")
    assert wrong.startswith("WRONG    a.mp4: 60 frames of 60, 0.0 ms, ")


def test_what_is_refused_is_said_and_the_rest_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    make_video("constant", tmp_path)
    (tmp_path / "b.mp4").write_text("no video")
    assert main([str(tmp_path), "--ffmpeg", FFMPEG, "--reader", "torchcodec"]) == 0
    assert [line[:7] for line in capsys.readouterr().out.splitlines()] == ["right  ", "refused"]


def test_a_file_of_which_ffmpeg_shows_nothing_is_refused(tmp_path: Path):
    with pytest.raises(MediaError, match=r"a\.mp4: ffmpeg shows no frame"):
        compare(make_video("constant", tmp_path), "pyav", "true")
