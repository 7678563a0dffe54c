import itertools
from fractions import Fraction

import av
import numpy as np
import pytest

from streams.pyav.live_sound import LiveSound, Sound


def frame_of(samples: np.ndarray, hz: int, layout: str = "mono") -> av.AudioFrame:
    rows = samples[None] if layout == "mono" else np.stack((samples, samples))
    frame = av.AudioFrame.from_ndarray(rows, format="fltp", layout=layout)
    frame.sample_rate = hz
    return frame


def tone(seconds: np.ndarray) -> np.ndarray:
    return np.sin(2 * np.pi * 300 * seconds).astype(np.float32)


def joined(parts: list[Sound]) -> tuple[int, np.ndarray]:
    """Start and samples, which follow each other without a gap."""
    for one, following in itertools.pairwise(parts):
        assert following.start == one.start + len(one.samples)
    return parts[0].start, np.concatenate([part.samples for part in parts])


@pytest.mark.parametrize("hz", [8000, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize("place", [0, 1, 12345])
def test_every_sample_has_the_value_of_its_time(hz: int, place: int):
    live, parts = LiveSound(16000), []
    for start in range(place, place + hz, 1024):
        samples = tone(np.arange(start, start + 1024) / hz)
        parts += live.add(frame_of(samples, hz), Fraction(start, hz))
    start, samples = joined([*parts, *live.end()])
    assert abs(start - place * 16000 / hz) <= 1
    inside = slice(200, 15000)
    np.testing.assert_allclose(samples[inside], tone((start + np.arange(len(samples))) / 16000)[inside], atol=0.01)


def test_rounded_times_leave_no_holes():
    live, parts = LiveSound(16000), []
    for start in range(0, 48000, 1024):
        rounded = Fraction(round(start / 48), 1000)
        parts += live.add(frame_of(tone(np.arange(start, start + 1024) / 48000), 48000), rounded)
    _, samples = joined([*parts, *live.end()])
    np.testing.assert_allclose(samples[200:15000], tone(np.arange(200, 15000) / 16000), atol=0.02)


def test_after_a_jump_it_goes_on_at_the_new_time():
    live, parts = LiveSound(16000), []
    for start in (*range(0, 8192, 1024), *range(40960, 49152, 1024)):
        parts += live.add(frame_of(tone(np.arange(start, start + 1024) / 48000), 48000), Fraction(start, 48000))
    parts += live.end()
    before = [part for part in parts if part.start < 10000]
    after = [part for part in parts if part.start >= 10000]
    _, samples = joined(before)
    assert len(samples) == pytest.approx(8192 / 3, abs=2)
    start, samples = joined(after)
    assert start == pytest.approx(40960 / 3, abs=1)
    np.testing.assert_allclose(samples[100:-100], tone((start + np.arange(len(samples))) / 16000)[100:-100], atol=0.01)


def test_a_source_may_change_its_rate_and_layout():
    live = LiveSound(16000)
    first = live.add(frame_of(np.ones(4800, np.float32), 48000), Fraction(0))
    # FFmpeg keeps the power of two channels: both weigh 0.71.
    first += live.add(frame_of(np.full(1600, 0.5**0.5, np.float32), 16000, "stereo"), Fraction(1, 10))
    start, samples = joined([*first, *live.end()])
    assert start == 0
    assert len(samples) == pytest.approx(3200, abs=2)
    np.testing.assert_allclose(samples[1700:], 1.0, atol=1e-3)


def test_the_end_before_any_sound_is_empty():
    assert LiveSound(16000).end() == []
