import math

import pytest

from worldmodel.training.spikes import Spikes


def known(factor: float, count: int) -> Spikes:
    spikes = Spikes(factor)
    for number in range(count):
        spikes.note(1.0 + number % 3, 10.0, made=True)  # the median of the losses is 2
    return spikes


def test_a_spike_is_above_so_many_medians():
    spikes = known(3.0, 30)
    assert spikes.largest_norm(6.0) == pytest.approx(30.0)
    assert spikes.largest_norm(6.1) == -1.0


def test_nothing_is_a_spike_before_enough_is_known_or_without_a_factor():
    assert known(3.0, 15).largest_norm(1e9) == math.inf
    assert known(3.0, 16).largest_norm(1e9) == -1.0
    assert known(0.0, 30).largest_norm(1e9) == math.inf


def test_a_median_that_is_not_positive_bounds_nothing():
    assert Spikes(2.0, [(-1.0, 5.0)] * 20).largest_norm(100.0) == 10.0


def test_a_spike_is_counted_and_does_not_move_the_median():
    spikes = known(3.0, 30)
    spikes.note(1e9, 1e9, made=False)
    assert spikes.num_skipped == 1
    assert spikes.largest_norm(6.0) == pytest.approx(30.0)


def test_a_level_that_lasts_is_no_spike_after_half_of_those_remembered():
    spikes = known(3.0, 64)
    for _ in range(32):
        assert spikes.largest_norm(100.0) == -1.0
        spikes.note(100.0, 10.0, made=False)
    assert spikes.num_skipped == 32
    assert spikes.largest_norm(100.0) == pytest.approx(30.0)


def test_what_is_remembered_goes_on():
    spikes = known(3.0, 100)
    again = Spikes(3.0, [list(pair) for pair in spikes.recent], 4)
    assert again.recent == spikes.recent
    assert (len(again.recent), again.num_skipped) == (64, 4)
