"""Sound where its track is late, short, silent, missing, full of gaps, or runs away from its times."""

from pathlib import Path

import numpy as np
import pytest
import torch

from streams.errors import MediaError
from streams.pyav.pictures import PyAVReader
from streams.pyav.sound import SoundReader, read_sound
from streams.pyav.soundtrack import SoundTrack
from tests.streams.ffmpeg import ffmpeg, make_video, reference_sound
from tests.streams.pyav.clicks import CLICKS_SECONDS, HZ, clicks, onsets_seconds
from tests.streams.pyav.sounds import AAC, best_shift, encode

PCM = ("-c:a", "pcm_s16le")


def read(path: Path, start: float, stop: float, **settings: float) -> np.ndarray:
    with SoundReader(path, HZ, **settings) as reader:  # pyright: ignore[reportArgumentType]
        sound = reader.read(start, stop)
    assert sound is not None
    return sound.numpy()


def clicks_at(path: Path, filters: str, encoding: tuple[str, ...], hz: int = 48000) -> Path:
    """Clicks in a file whose sound goes through filters of ffmpeg's."""
    ffmpeg("-f", "f32le", "-ar", str(HZ), "-ac", "1", "-i", "-", "-f", "lavfi", "-i", "testsrc2=s=32x32:d=4:r=25",
           "-map", "0:a", "-map", "1:v", "-c:v", "mpeg4", "-ar", str(hz), "-af", filters, *encoding, path,
           sent=clicks().numpy().tobytes())  # fmt: skip
    return path


def test_clicks_are_where_they_were_written(ours: Path):
    sound = read_sound(ours, 0.0, 2.4, HZ)
    assert sound is not None
    np.testing.assert_allclose(onsets_seconds(sound.numpy(), HZ), CLICKS_SECONDS, atol=1e-3)


def test_beyond_the_end_and_before_the_start_there_is_silence(ours: Path):
    with SoundReader(ours, HZ) as reader:
        for start, silent in ((2.0, slice(HZ, None)), (60.0, slice(None)), (-3.0, slice(None))):
            sound = reader.read(start, start + 2.0)
            assert sound is not None
            assert len(sound) == 2 * HZ
            assert sound[silent].abs().max() == 0


def test_intervals_in_order_are_decoded_without_a_seek(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = encode(tmp_path / "a.mp4", AAC)
    with SoundReader(path, HZ) as reader:
        whole = reader.read(0.0, 8.0)
        assert reader.read(0.0, 0.1) is not None
        monkeypatch.setattr(SoundTrack, "from_ticks", None)
        monkeypatch.setattr(SoundTrack, "from_start", None)
        parts = [reader.read(start / 10, (start + 7) / 10) for start in range(0, 77, 7)]
    torch.testing.assert_close(torch.cat(parts), whole[: 77 * HZ // 10], atol=1e-6, rtol=0)  # pyright: ignore


def test_what_is_kept_does_not_grow_with_the_file(tmp_path: Path):
    path = encode(tmp_path / "a.mp4", AAC)
    kept = set()
    with SoundReader(path, HZ) as reader:
        for start in range(8):
            reader.read(float(start), start + 1.0)
            kept.add(reader.sound.shape[1] // 48000)
    assert max(kept) <= 1


def test_sound_that_starts_late_is_silent_before(tmp_path: Path):
    path = clicks_at(tmp_path / "a.mkv", "asetpts=PTS+0.7/TB", PCM)
    np.testing.assert_allclose(onsets_seconds(read(path, 0.0, 4.0), HZ), np.array(CLICKS_SECONDS) + 0.7, atol=1e-3)
    assert np.abs(read(path, 0.0, 0.69)).max() == 0


def test_sound_and_picture_share_the_clock_of_the_container(tmp_path: Path):
    path = make_video("late_picture", tmp_path)
    sound = read(path, 0.0, 0.5)
    with PyAVReader(path) as reader:
        assert reader.seconds[0] == pytest.approx(0.5, abs=1e-3)
    np.testing.assert_allclose(sound, reference_sound(path, HZ)[: len(sound)], atol=2e-3)


def retimed(folder: Path, name: str, encoding: tuple[str, ...], times: str) -> Path:
    """A click in every second of 20 s, in a file whose packets of sound have other times."""
    tone = "aevalsrc=0.5*sin(2*PI*1000*t)*lt(mod(t\\,1)\\,0.05):d=20:s=48000"
    plain = folder / f"plain{Path(name).suffix}"
    ffmpeg("-f", "lavfi", "-i", tone, "-f", "lavfi", "-i", "testsrc2=s=32x32:d=21:r=5", "-map", "0:a", "-map", "1:v",
           "-c:v", "mpeg4", *encoding, plain)  # fmt: skip
    ffmpeg("-i", plain, "-map", "0", "-c", "copy", "-bsf:a", f"setts=ts={times}", folder / name)
    return folder / name


def clicks_between(reader: SoundReader, start: float, stop: float) -> list[float]:
    sound = reader.read(start, stop)
    assert sound is not None
    return [start + time for time in onsets_seconds(sound.numpy(), HZ)]


@pytest.mark.parametrize(
    ("name", "encoding"), [("a.mkv", PCM), ("a.mkv", ("-c:a", "flac")), ("a.mkv", AAC), ("a.mp4", AAC), ("a.ts", AAC)]
)
def test_gaps_are_silent_and_what_follows_is_in_time(name: str, encoding: tuple[str, ...], tmp_path: Path):
    # MPEG-TS does not tell of the priming of AAC.
    priming = 1024 / 48000 if name == "a.ts" else 0.0
    path = retimed(tmp_path, name, encoding, r"TS+if(gt(TS*TB\,10.5)\,0.7/TB\,0)")
    expected = np.arange(20) + np.where(np.arange(20) > 10, 0.7, 0.0) + priming
    with SoundReader(path, HZ) as reader:
        found = clicks_between(reader, 0.5, 20.0)
        np.testing.assert_allclose(found, expected[1 : len(found) + 1], atol=2e-3)
        for click in (11, 3, 17):
            np.testing.assert_allclose(
                clicks_between(reader, expected[click] - 0.3, expected[click] + 0.3), [expected[click]], atol=2e-3
            )
        gap = reader.read(10.7, 11.1)
        assert gap is not None
        assert gap.abs().max() < 1e-3


@pytest.mark.parametrize("drift", [2e-3, -1e-3])
@pytest.mark.parametrize(("name", "encoding"), [("a.mkv", PCM), ("a.mkv", AAC), ("a.mp4", AAC)])
@pytest.mark.parametrize("known", [True, False])
def test_drift_is_followed_all_along(name: str, encoding: tuple[str, ...], drift: float, known: bool, tmp_path: Path):
    path = retimed(tmp_path, name, encoding, f"TS*{1 + drift}")
    with SoundReader(path, HZ, drift=drift if known else 0.0) as reader:
        for second in (3, 18, 9, 10, 11):
            expected = second * (1 + drift)
            found = clicks_between(reader, expected - 0.4, expected + 0.4)
            np.testing.assert_allclose(found, [expected], atol=1e-3, err_msg=f"{second} s")


def test_drifting_sound_has_no_clicks(tmp_path: Path):
    tone = "sine=frequency=440:duration=20:sample_rate=44100"
    ffmpeg("-f", "lavfi", "-i", tone, "-af", "asetpts=PTS*1.002", *PCM, tmp_path / "a.mkv")
    sound = read(tmp_path / "a.mkv", 1.0, 18.0)
    # The second difference of a sine is small and smooth; a click stands out of it.
    bent = np.abs(np.diff(sound, 2))
    assert bent.max() < 1.2 * np.abs(sound).max() * (2 * np.pi * 440 / HZ) ** 2


def test_times_that_jitter_do_not_move_the_sound(tmp_path: Path):
    plain = encode(tmp_path / "plain.mkv", (*PCM, "-ar", "44100"))
    ffmpeg("-i", plain, "-map", "0", "-c", "copy", "-bsf:a", r"setts=ts=TS+mod(N*7\,11)-5", tmp_path / "a.mkv")
    whole = reference_sound(plain, HZ)
    with SoundReader(tmp_path / "a.mkv", HZ) as reader:
        for start in (1.0, 5.3, 2.2):
            sound = reader.read(start, start + 0.8)
            assert sound is not None
            shift, _ = best_shift(sound.numpy(), whole, round(start * HZ), 160)
            assert abs(shift) <= 0.006 * HZ


def test_a_short_track_ends_in_silence(tmp_path: Path):
    path = clicks_at(tmp_path / "a.mp4", "atrim=0:1", AAC)
    sound = read(path, 0.0, 3.0)
    np.testing.assert_allclose(onsets_seconds(sound, HZ), CLICKS_SECONDS[:2], atol=1e-3)
    assert np.abs(sound[round(1.1 * HZ) :]).max() == 0


def test_a_silent_track_is_silent(tmp_path: Path):
    path = clicks_at(tmp_path / "a.mp4", "volume=0", AAC)
    assert np.abs(read(path, 0.5, 2.0)).max() == 0


def test_without_a_track_there_is_no_sound(tmp_path: Path):
    path = make_video("constant", tmp_path)
    with SoundReader(path, HZ, 2) as reader:
        assert not reader.has_sound
        assert reader.read(0.0, 1.0) is None


def test_stereo_has_an_axis_more(tmp_path: Path):
    path = encode(tmp_path / "a.mp4", AAC)
    with SoundReader(path, HZ, 2) as reader:
        sound = reader.read(1.0, 2.0)
    assert sound is not None
    assert sound.shape == (2, HZ)
    assert (sound[0] - sound[1]).abs().max() > 0.1


def test_an_empty_interval_is_a_wrong_argument(ours: Path):
    with pytest.raises(ValueError, match="stop must be after start"):
        read_sound(ours, 1.0, 1.0, HZ)


@pytest.mark.parametrize(("hz", "num_channels"), [(0, 1), (HZ, 3)])
def test_rates_and_channels_that_make_no_sense_are_wrong_arguments(hz: int, num_channels: int, ours: Path):
    with pytest.raises(ValueError, match="give a rate above 0, and 1 or 2"):
        SoundReader(ours, hz, num_channels)


def test_broken_sound_is_a_media_error(tmp_path: Path):
    (tmp_path / "a.mp4").write_text("no sound either")
    with pytest.raises(MediaError, match=r"a\.mp4: cannot be decoded"):
        read_sound(tmp_path / "a.mp4", 0.0, 1.0, HZ)


def test_after_damage_the_rest_can_still_be_read(tmp_path: Path):
    path = encode(tmp_path / "a.mp4", AAC)
    content = bytearray(path.read_bytes())
    begin = content.index(b"mdat") + 4
    damaged = slice(begin + (len(content) - begin) // 2, begin + (len(content) - begin) // 2 + 12000)
    content[damaged] = bytes([0x5A]) * 12000
    whole = read(path, 0.0, 8.0)
    path.write_bytes(content)
    with SoundReader(path, HZ) as reader:
        with pytest.raises(MediaError, match=r"a\.mp4: cannot be decoded"):
            reader.read(0.0, 8.0)
        sound = reader.read(0.5, 1.5)
    assert sound is not None
    np.testing.assert_allclose(sound.numpy(), whole[HZ // 2 :][: len(sound)], atol=1e-5)


def test_the_sound_of_a_file_that_is_gone_for_a_while_is_read_again(ours: Path, tmp_path: Path):
    path = tmp_path / "a.mp4"
    path.write_bytes(ours.read_bytes())
    with SoundReader(ours, HZ) as other, SoundReader(path, HZ) as reader:
        expected = other.read(1.5, 2.0)
        path.rename(tmp_path / "elsewhere.mp4")
        with pytest.raises(FileNotFoundError):
            reader.track.open()
        reader.forget()
        for start in (0.0, 1.5):
            with pytest.raises(MediaError):
                reader.read(start, start + 0.5)
        (tmp_path / "elsewhere.mp4").rename(path)
        found = reader.read(1.5, 2.0)
    assert found is not None
    assert expected is not None
    torch.testing.assert_close(found, expected)
