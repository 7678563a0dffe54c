"""Frames of sound with times of every kind, against the places that they were given times for."""

import numpy as np
import pytest

from streams.pyav.placing import Clock, place, render

HZ, SIZE = 48000, 1024


def frames(num: int = 200, size: int = SIZE) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(num) * float(size), np.full(num, size)


def clock(tick: float = 1.0, first: float = 0.0, drift: float = 0.0) -> Clock:
    return Clock(HZ, tick, first, SIZE, drift)


def test_exact_times_are_the_places():
    times, lengths = frames()
    (run,) = place(times + 777, lengths, clock())
    assert run.rigid
    assert (run.start, run.stop, run.places.tolist()) == (0, 200 * SIZE, [777.0])


@pytest.mark.parametrize("rounding", [np.rint, np.floor, np.ceil])
@pytest.mark.parametrize("first", [0, 13, 100])
def test_rounded_times_are_undone_wherever_decoding_begins(rounding: np.ufunc, first: int):
    times, lengths = frames()
    rounded = rounding((times + 5000) / 48) * 48
    (run,) = place(rounded[first : first + 30], lengths[:30], clock(48.0, rounded[0]))
    assert run.places.tolist() == [rounded[0] + first * SIZE]


def test_rounded_times_of_uneven_frames_are_off_by_less_than_half_a_tick():
    lengths = np.random.default_rng(0).choice([128, 576, 1024], 300)
    times = np.concatenate([[0], np.cumsum(lengths)])[:-1]
    rounded = np.rint(times / 48) * 48
    for first in (10, 150, 250):
        (run,) = place(rounded[first : first + 40], lengths[first : first + 40], clock(48.0))
        assert abs(run.places[0] - times[first]) < 12


def test_uneven_frames_from_the_start_on_are_counted():
    lengths = np.random.default_rng(0).choice([128, 576, 1024], 300)
    times = np.concatenate([[0], np.cumsum(lengths)])[:-1]
    (run,) = place(np.floor(times / 48)[60:90] * 48, lengths[60:90], clock(48.0), num_before=int(times[60]))
    assert run.places.tolist() == [float(times[60])]


def test_a_gap_parts_two_runs():
    times, lengths = frames(40)
    times[20:] += 0.1 * HZ
    runs = place(times, lengths, clock())
    assert [(run.start, run.stop, run.places[0]) for run in runs] == [
        (0, 20 * SIZE, 0.0),
        (20 * SIZE, 40 * SIZE, 20 * SIZE + 4800.0),
    ]


def test_single_times_that_are_far_off_do_not_matter():
    times, lengths = frames()
    times[[40, 41, 90]] += 480
    (run,) = place(times[20:120], lengths[20:120], clock())
    assert run.places.tolist() == [20.0 * SIZE]


def test_times_that_lag_by_turns_give_way_to_the_count():
    times, lengths = frames()
    jittering = np.floor(times / 480) * 480  # known to 10 ms
    for first in (0, 70):
        (run,) = place(jittering[first : first + 100], lengths[:100], clock())
        assert run.places.tolist() == [times[first]]


@pytest.mark.parametrize("tick", [1.0, 48.0])
@pytest.mark.parametrize("drift", [1e-2, 1e-3, -1e-3])
def test_drift_is_followed_within_a_tick(drift: float, tick: float):
    times, lengths = frames(600)
    true = times * (1 + drift)
    (run,) = place(np.rint(true / tick) * tick, lengths, clock(tick))
    found = np.interp(np.arange(0, 600 * SIZE, 5000), run.samples, run.places)
    np.testing.assert_allclose(found, np.arange(0, 600 * SIZE, 5000) * (1 + drift), atol=tick + 2)


def test_drift_is_followed_alike_wherever_decoding_begins():
    times, lengths = frames(600)
    true = times * 1.001
    (whole,) = place(true, lengths, clock())
    (part,) = place(true[100:300], lengths[100:300], clock())
    inside = np.arange(160 * SIZE, 240 * SIZE, 777)
    expected = np.interp(inside, whole.samples, whole.places)
    np.testing.assert_allclose(np.interp(inside - 100 * SIZE, part.samples, part.places), expected, atol=0.5)


def test_a_known_drift_is_one_straight_line():
    times, lengths = frames(100)
    (run,) = place(times * 1.001, lengths, clock(drift=0.001))
    np.testing.assert_allclose(run.places, [0.0, HZ * 1.001], atol=0.01)


def test_rigid_runs_are_copied_and_later_ones_win():
    sound = np.arange(40 * SIZE, dtype=np.float32)[None]
    times, lengths = frames(40)
    times[20:] -= 2000
    rendered = render(sound, place(times, lengths, clock()), -10, 40 * SIZE)
    assert (rendered[0, :10] == 0).all()
    assert (rendered[0, 10 : 10 + 20 * SIZE - 2000] == sound[0, : 20 * SIZE - 2000]).all()
    assert (rendered[0, 10 + 20 * SIZE - 2000 : -2000] == sound[0, 20 * SIZE :]).all()
    assert (rendered[0, -2000:] == 0).all()


def test_stretched_runs_pass_between_their_samples():
    times, lengths = frames(200)
    sound = np.sin(2 * np.pi * 1000 / HZ * np.arange(200 * SIZE)).astype(np.float32)[None]
    rendered = render(sound, place(times * 1.002, lengths, clock()), 0, int(200 * SIZE * 1.002) + 500)
    places = np.arange(20000, 150000)
    np.testing.assert_allclose(rendered[0, places], np.sin(2 * np.pi * 1000 / HZ * places / 1.002), atol=1e-2)
    assert (rendered[0, int(200 * SIZE * 1.002) + 2 :] == 0).all()


def test_what_is_elsewhere_is_silent():
    times, lengths = frames(10)
    for drift in (1.0, 1.002):
        runs = place(times * drift, lengths, clock())
        assert not render(np.ones((2, 10 * SIZE), np.float32), runs, 50 * SIZE, 60 * SIZE).any()
        assert not render(np.ones((2, 10 * SIZE), np.float32), runs, -60 * SIZE, -50 * SIZE).any()
