import numpy as np
import pytest
import torch

from streams.physics.simulation import simulate
from streams.physics.sound import ring
from streams.settings import PhysicsSettings
from worldmodel.evaluation.sound_measures import floor_of, log_spectral_distance, match_onsets, onsets_of

HZ = 16000


def noise(seconds: float, level: float, seed: int = 0) -> torch.Tensor:
    values = np.random.default_rng(seed).normal(0, level, round(seconds * HZ))
    return torch.from_numpy(values.astype(np.float32))


def test_spectral_distance_is_that_of_the_formula_window_by_window():
    sound, reference = noise(0.2, 0.1), noise(0.2, 0.1, seed=1)
    reference[1600:] = 0  # silence, at the floor
    window = np.hanning(513)[:-1]
    levels = []
    for each in (sound, reference):
        padded = np.pad(each.numpy().astype(np.float64), 256, "reflect")
        frames = [padded[start : start + 512] * window for start in range(0, len(padded) - 511, 128)]
        power = np.abs(np.fft.rfft(frames)) / (window.sum() / 2)
        levels.append(np.maximum(20 * np.log10(power + 1e-12), -60))
    expected = np.sqrt(np.mean((levels[0] - levels[1]) ** 2, axis=1)).mean()
    found = log_spectral_distance(sound[None], reference[None], HZ)
    assert float(found[0]) == pytest.approx(expected, rel=1e-3)


def test_twice_as_loud_is_six_decibels_away_and_itself_none():
    sound = noise(0.5, 0.1)[None]
    assert float(log_spectral_distance(sound, sound, HZ)[0]) == 0
    assert float(log_spectral_distance(2 * sound, sound, HZ)[0]) == pytest.approx(20 * np.log10(2), abs=0.05)


def test_what_nobody_hears_makes_no_difference():
    found = log_spectral_distance(noise(0.5, 1e-4)[None], noise(0.5, 1e-5)[None], HZ)
    assert float(found[0]) == 0


def test_the_impacts_of_the_physics_world_are_heard_when_they_happen():
    settings = PhysicsSettings(min_discs=1, max_discs=1, seconds=6.0)
    found, true = 0, 0
    for seed in range(4):
        generator = np.random.default_rng(seed)
        motion = simulate(settings, generator)
        sound = torch.from_numpy(ring(settings, motion, generator))
        impacts = np.sort(motion.impacts[:, 0])
        matched = match_onsets(onsets_of(sound, HZ, floor_of(sound, HZ)), impacts)
        assert np.abs(matched.errors).max() < 0.006
        assert matched.num_extra == 0
        found, true = found + len(matched.errors), true + len(impacts)
    assert found > 0.8 * true > 8  # soft ones, and those that follow at once, may pass unheard


def test_noise_has_no_onsets_and_a_late_sound_is_late():
    assert len(onsets_of(noise(2.0, 0.1), HZ)) <= 1
    sound = torch.zeros(HZ)
    sound[4000:5000] = noise(1.0, 0.2)[:1000]
    late = sound.roll(320)
    matched = match_onsets(onsets_of(late, HZ), onsets_of(sound, HZ))
    assert matched.errors.tolist() == pytest.approx([0.02])


def test_onsets_are_paired_once_with_the_closest():
    matched = match_onsets(np.array([0.10, 0.52, 0.53, 0.9]), np.array([0.12, 0.5, 2.0]))
    assert sorted(matched.errors) == pytest.approx([-0.02, 0.02])
    assert (matched.num_missed, matched.num_extra) == (1, 2)
    nothing = match_onsets(np.zeros(0), np.array([1.0]))
    assert (len(nothing.errors), nothing.num_missed, nothing.num_extra) == (0, 1, 0)


def test_the_floor_lies_below_the_loudest_and_not_below_hearing():
    loud = torch.sin(torch.arange(HZ) * 2 * torch.pi * 440 / HZ)
    assert floor_of(loud, HZ) == pytest.approx(-30, abs=0.2)
    assert floor_of(torch.zeros(HZ), HZ) == -60
