from pathlib import Path

import numpy as np
import pytest
import torch

from streams.errors import MediaError
from streams.pyav.pictures import PyAVReader
from streams.pyav.sound import read_sound
from tests.streams.ffmpeg import ffmpeg, make_video, reference_sound
from tests.streams.pyav.clicks import CLICKS_SECONDS, HZ, clicks, onsets_seconds


def test_clicks_are_where_they_were_written(ours: Path):
    sound = read_sound(ours, 0.0, 2.4, HZ)
    assert sound is not None
    np.testing.assert_allclose(onsets_seconds(sound.numpy(), HZ), CLICKS_SECONDS, atol=1e-3)


@pytest.mark.parametrize("start", [0.0, 0.05, 0.25, 0.65, 0.9, 1.2])
def test_an_interval_is_a_part_of_the_whole(ours: Path, start: float):
    whole, part = read_sound(ours, 0.0, 2.4, HZ), read_sound(ours, start, start + 1.1, HZ)
    assert whole is not None
    assert part is not None
    assert len(part) == round(1.1 * HZ)
    first = round(start * HZ)
    torch.testing.assert_close(part, whole[first : first + len(part)], atol=2e-3, rtol=0)


def test_beyond_the_end_there_is_silence(ours: Path):
    sound = read_sound(ours, 2.0, 4.0, HZ)
    assert sound is not None
    assert len(sound) == 2 * HZ
    assert sound[HZ:].abs().max() == 0


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", ("-c:a", "aac", "-b:a", "128k")),
        ("a.mkv", ("-c:a", "pcm_s16le")),
        ("a.webm", ("-c:a", "libopus", "-ar", "48000")),
        ("a.mkv", ("-c:a", "libvorbis", "-ac", "2", "-ar", "44100")),
        ("a.mpg", ("-c:a", "mp2", "-ar", "44100", "-b:a", "192k")),
    ],
)
def test_sound_of_other_codecs_and_rates_is_that_of_ffmpeg(name: str, options: tuple[str, ...], tmp_path: Path):
    ffmpeg("-f", "f32le", "-ar", str(HZ), "-ac", "1", "-i", "-", "-f", "lavfi", "-i", "color=size=32x32:duration=2.4",
           *options, "-map", "1:v", "-map", "0:a", tmp_path / name, sent=clicks().numpy().tobytes())  # fmt: skip
    expected = reference_sound(tmp_path / name, HZ)
    for start in (0.0, 0.6, 1.15):
        sound = read_sound(tmp_path / name, start, start + 0.9, HZ)
        assert sound is not None
        first = round(start * HZ)
        # Matroska rounds times to a millisecond, of which a seek sees only one: half of that may be off.
        parts = [expected[max(0, first + shift) :][: len(sound)] for shift in range(-8, 9)]
        assert min(np.abs(sound.numpy()[: len(part)] - part).mean() for part in parts) < 3e-3
        part = expected[first:][: len(sound)]
        np.testing.assert_allclose(
            onsets_seconds(sound.numpy(), HZ), onsets_seconds(part, HZ), atol=1e-3, err_msg=f"from {start}"
        )


def test_sound_and_picture_share_the_clock_of_the_container(tmp_path: Path):
    path = make_video("late_picture", tmp_path)
    sound = read_sound(path, 0.0, 0.5, HZ)
    with PyAVReader(path) as reader:
        assert reader.seconds[0] == pytest.approx(0.5, abs=1e-3)
    assert sound is not None
    np.testing.assert_allclose(sound.numpy(), reference_sound(path, HZ)[: len(sound)], atol=2e-3)


def test_sound_that_starts_late_is_silent_before(tmp_path: Path):
    plain = make_video("constant", tmp_path / "plain")
    ffmpeg("-i", plain, "-itsoffset", "0.7", "-f", "lavfi", "-i", "sine=frequency=500:duration=1", "-map", "0:v",
           "-map", "1:a", "-c:v", "copy", "-c:a", "pcm_s16le", tmp_path / "a.mkv")  # fmt: skip
    sound = read_sound(tmp_path / "a.mkv", 0.0, 1.2, HZ)
    assert sound is not None
    assert np.flatnonzero(sound.abs() > 0.01)[0] / HZ == pytest.approx(0.7, abs=2e-3)


def test_an_empty_interval_is_a_wrong_argument(ours: Path):
    with pytest.raises(ValueError, match="stop must be after start"):
        read_sound(ours, 1.0, 1.0, HZ)


def test_broken_sound_is_a_media_error(tmp_path: Path):
    (tmp_path / "a.mp4").write_text("no sound either")
    with pytest.raises(MediaError, match=r"a\.mp4: cannot be decoded"):
        read_sound(tmp_path / "a.mp4", 0.0, 1.0, HZ)
