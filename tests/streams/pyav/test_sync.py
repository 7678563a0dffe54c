"""Sound against picture: a flash and a click at one instant, and what is measured of files where they are apart."""

from pathlib import Path

import numpy as np
import pytest

from streams.errors import MediaError
from streams.pyav.pictures import PyAVReader
from streams.pyav.sound import SoundReader
from streams.pyav.sync import Sync, measure_sync
from tests.streams.ffmpeg import ffmpeg, make_video
from tests.streams.pyav.sounds import AAC, encode

HZ = 16000
# A frame is bright, and a tone begins, where a second does.
FLASH = r"geq=lum='if(lt(mod(N\,25)\,1)\,220\,30)':cb=128:cr=128"
CLICK = r"aevalsrc=0.6*cos(2*PI*3000*t)*lt(mod(t\,1)\,0.02):d=6:s=48000"
H264, MPEG4 = ("-c:v", "libx264", "-preset", "veryfast", "-g", "12", "-bf", "2"), ("-c:v", "mpeg4", "-g", "12")
VP8 = ("-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8")
OPUS, VORBIS, MP3 = ("-c:a", "libopus"), ("-c:a", "libvorbis", "-ar", "44100"), ("-c:a", "libmp3lame", "-ar", "44100")
# How far apart flash and click may be, in milliseconds: AVI counts the blocks of MP3, of 26 ms each.
WRITTEN: dict[str, tuple[tuple[str, ...], float]] = {
    "aac.mp4": ((*H264, *AAC), 1.0),
    "aac_44k.mp4": ((*H264, *AAC, "-ar", "44100"), 1.0),
    "fragmented.mp4": ((*H264, *AAC, "-movflags", "frag_keyframe+delay_moov"), 1.0),
    "opus.mkv": ((*H264, *OPUS), 1.0),
    "flac.mkv": ((*H264, "-c:a", "flac"), 1.0),
    "pcm.mov": ((*H264, "-c:a", "pcm_s16le"), 1.0),
    "aac.mkv": ((*H264, *AAC), 1.0),
    "mp3.mp4": ((*H264, *MP3), 1.0),
    "pcm.avi": ((*MPEG4, "-c:a", "pcm_s16le"), 1.0),
    "vorbis.webm": ((*VP8, *VORBIS), 1.0),
    "opus.webm": ((*VP8, *OPUS), 1.0),
    "mp2.mpg": (("-c:v", "mpeg2video", "-g", "12", "-c:a", "mp2"), 1.0),
    "ac3.ts": ((*H264, "-c:a", "ac3"), 1.0),
    "aac.ts": ((*H264, *AAC), 1.0),
    "mp3.avi": ((*MPEG4, *MP3), 15.5),
}


def flash_and_click(path: Path, encoding: tuple[str, ...], late_sound: float = 0.0) -> Path:
    late = ("-itsoffset", str(late_sound)) if late_sound > 0 else ()
    early = ("-itsoffset", str(-late_sound)) if late_sound < 0 else ()
    ffmpeg(*early, "-f", "lavfi", "-i", f"color=black:s=64x48:d=6:r=25,{FLASH}", *late, "-f", "lavfi", "-i", CLICK,
           "-map", "0:v", "-map", "1:a", *encoding, path)  # fmt: skip
    return path


def flashes_seconds(path: Path) -> np.ndarray:
    with PyAVReader(path) as reader:
        bright = reader.frames_at(range(len(reader.seconds))).float().mean((1, 2, 3)) > 125
        return reader.seconds[bright.numpy()]


def clicks_seconds(path: Path, near: np.ndarray) -> np.ndarray:
    """Beginnings of tones, each in an interval of its own around a time."""
    found = []
    with SoundReader(path, HZ) as reader:
        for time in near:
            sound = reader.read(time - 0.45, time + 0.45)
            assert sound is not None
            found.append(time - 0.45 + int(np.flatnonzero(sound.abs().numpy() > 0.25)[0]) / HZ)
    return np.array(found)


@pytest.mark.parametrize("name", WRITTEN)
def test_a_click_is_heard_when_its_flash_is_seen(name: str, tmp_path: Path):
    encoding, milliseconds = WRITTEN[name]
    path = flash_and_click(tmp_path / name, encoding)
    flashes = flashes_seconds(path)[1:-1]
    assert len(flashes) == 4
    np.testing.assert_allclose(clicks_seconds(path, flashes), flashes, atol=milliseconds / 1000)


@pytest.mark.parametrize("late_sound", [0.31, -0.28])
@pytest.mark.parametrize("name", ["aac.mp4", "opus.mkv", "pcm.mov", "aac.mkv", "vorbis.webm"])
def test_what_begins_late_stays_as_late(name: str, late_sound: float, tmp_path: Path):
    path = flash_and_click(tmp_path / name, WRITTEN[name][0], late_sound)
    flashes = flashes_seconds(path)[1:-1]
    expected = flashes + late_sound
    np.testing.assert_allclose(clicks_seconds(path, expected), expected, atol=1.1e-3)
    # Priming before a late start is sound to mp4.
    assert measured(path).offset_seconds == pytest.approx(late_sound, abs=0.022 if "mp4" in name else 4e-3)


def measured(path: Path) -> Sync:
    sync = measure_sync(path)
    assert sync is not None
    return sync


def test_a_plain_file_is_in_sync(tmp_path: Path):
    sync = measured(encode(tmp_path / "a.mp4", (*AAC, "-ar", "44100"), seconds=4.0))
    assert (sync.codec, sync.sample_hz, sync.num_channels, sync.priming_samples) == ("aac", 44100, 2, 1024)
    assert sync.offset_seconds == pytest.approx(0.0, abs=1e-4)
    assert sync.sound_seconds == pytest.approx(4.0, abs=0.03)
    assert sync.picture_seconds == pytest.approx(4.0, abs=1e-3)
    assert sync.short_seconds == pytest.approx(4.0 - sync.sound_seconds, abs=1e-3)
    assert sync.drift_seconds == pytest.approx(0.0, abs=1e-6)
    assert (sync.gap_seconds, sync.overlap_seconds, sync.silent) == (0.0, 0.0, False)


def test_the_loudest_sample_is_that_of_ffmpeg(tmp_path: Path):
    path = encode(tmp_path / "a.mkv", ("-c:a", "pcm_s16le"), seconds=2.0)
    _, log = ffmpeg("-i", path, "-map", "0:a", "-af", "volumedetect", "-f", "null", "-")
    loudest = float(log.split("max_volume: ")[1].split(" dB")[0])
    assert measured(path).peak_db == pytest.approx(loudest, abs=0.1)


@pytest.mark.parametrize("drift", [2e-3, -5e-4])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_drift_is_measured(name: str, drift: float, tmp_path: Path):
    plain = encode(tmp_path / f"plain{Path(name).suffix}", AAC)
    ffmpeg("-i", plain, "-map", "0", "-c", "copy", "-bsf:a", f"setts=ts=TS*{1 + drift}", tmp_path / name)
    sync = measured(tmp_path / name)
    assert sync.drift_seconds == pytest.approx(8.0 * drift, abs=3e-4)
    assert sync.drift == pytest.approx(drift, rel=0.1)
    assert sync.gap_seconds == 0.0


def test_gaps_are_measured_and_are_no_drift(tmp_path: Path):
    plain = encode(tmp_path / "plain.mkv", AAC)
    times = r"setts=ts=TS+if(gt(TS*TB\,2.5)\,0.7/TB\,0)+if(gt(TS*TB\,5)\,0.2/TB\,0)"
    ffmpeg("-i", plain, "-map", "0", "-c", "copy", "-bsf:a", times, tmp_path / "a.mkv")
    sync = measured(tmp_path / "a.mkv")
    assert sync.gap_seconds == pytest.approx(0.9, abs=3e-3)
    assert sync.overlap_seconds == 0.0
    assert sync.drift_seconds == pytest.approx(0.0, abs=1e-3)


def test_sound_that_is_there_twice_is_an_overlap(tmp_path: Path):
    path = encode(tmp_path / "a.ts", AAC, seconds=3.0)
    # Without pictures, whose times would run backwards.
    ffmpeg("-i", path, "-map", "0:a", "-c", "copy", tmp_path / "b.ts")
    (tmp_path / "b.ts").write_bytes((tmp_path / "b.ts").read_bytes() * 2)
    assert measured(tmp_path / "b.ts").overlap_seconds == pytest.approx(3.0, abs=0.05)


def test_short_and_silent_tracks_are_told(tmp_path: Path):
    sync = measured(encode(tmp_path / "a.mp4", AAC, ",atrim=0:3,volume=0"))
    assert sync.silent
    assert sync.peak_db == -float("inf")
    assert sync.short_seconds == pytest.approx(5.0, abs=0.05)


def test_sound_without_pictures_is_measured_too(tmp_path: Path):
    path = encode(tmp_path / "a.mp4", AAC, seconds=1.0)
    ffmpeg("-i", path, "-map", "0:a", "-c", "copy", tmp_path / "b.mp4")
    sync = measured(tmp_path / "b.mp4")
    assert (sync.offset_seconds, sync.picture_seconds, sync.short_seconds) == (None, None, None)


def test_a_file_without_sound_has_no_sync(tmp_path: Path):
    assert measure_sync(make_video("constant", tmp_path)) is None


def test_a_track_without_sound_in_it_is_a_media_error(tmp_path: Path):
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=64x48:d=1:r=25", "-f", "lavfi", "-i", "sine=d=1", "-map", "0:v", "-map",
           "1:a", "-c:v", "mpeg4", "-c:a", "pcm_s16le", "-af", "atrim=0:0", tmp_path / "a.mkv")  # fmt: skip
    with pytest.raises(MediaError, match="its sound track is empty; leave the sound out"):
        measure_sync(tmp_path / "a.mkv")


def test_broken_files_are_media_errors(tmp_path: Path):
    (tmp_path / "a.mp4").write_text("nothing")
    with pytest.raises(MediaError, match=r"a\.mp4: cannot be decoded"):
        measure_sync(tmp_path / "a.mp4")
