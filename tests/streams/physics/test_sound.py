from dataclasses import replace

import numpy as np
import pytest

from streams.physics.simulation import Motion
from streams.physics.sound import pitch_hz, ring
from streams.settings import PhysicsSettings

SETTINGS = PhysicsSettings(seconds=2.0)


def motion_with(*impacts: tuple[float, int, float]) -> Motion:
    return Motion(np.zeros((41, 2, 4)), np.array([7.0, 11.0]), np.array(impacts).reshape(-1, 3), fall_speed=100.0)


def sound_of(*impacts: tuple[float, int, float], noise: float = 0.0) -> np.ndarray:
    return ring(replace(SETTINGS, noise=noise), motion_with(*impacts), np.random.default_rng(0))


def test_the_sound_is_as_long_as_the_pictures():
    assert sound_of().shape == (32000,)


@pytest.mark.parametrize("disc", [0, 1])
def test_a_disc_rings_at_its_own_pitch(disc: int):
    spectrum = np.abs(np.fft.rfft(sound_of((0.5, disc, 80.0))))
    expected = pitch_hz(np.array([7.0, 11.0]), 64)[disc]
    assert spectrum.argmax() / 2.0 == pytest.approx(expected, abs=5)


def test_small_discs_ring_higher():
    small, large = pitch_hz(np.array([7.0, 11.0]), 64)
    assert small > 1.5 * large
    np.testing.assert_allclose(pitch_hz(np.array([14.0, 22.0]), 128), [small, large])


def test_it_is_silent_before_the_impact_and_rings_at_once():
    sound = sound_of((0.50003, 0, 80.0))
    first = np.flatnonzero(np.abs(sound) > 0)[0]
    assert first / SETTINGS.sample_hz == pytest.approx(0.50003, abs=1e-4)
    assert np.abs(sound[first : first + 32]).max() > 0.1


def test_a_faster_impact_is_louder_in_proportion():
    soft, loud = np.abs(sound_of((0.5, 0, 20.0))).max(), np.abs(sound_of((0.5, 0, 80.0))).max()
    assert loud / soft == pytest.approx(4.0, rel=1e-4)


def test_the_noise_floor_is_the_same_with_and_without_impacts():
    quiet, busy = sound_of(noise=0.003), sound_of((1.9, 0, 50.0), noise=0.003)
    assert quiet.std() == pytest.approx(0.003, rel=0.05)
    np.testing.assert_array_equal(quiet[:30000], busy[:30000])


def test_sound_stays_within_its_range():
    sound = sound_of(*[(0.5, 1, 1000.0)] * 5)
    assert np.abs(sound).max() == 1.0
