from dataclasses import replace

import numpy as np
import pytest

from streams.physics.simulation import Disc, World, advance, collide, run, simulate
from streams.settings import PhysicsSettings

SETTINGS = PhysicsSettings()
FREE = World(height=1e6, width=1e6, gravity=0.0, drag_hz=0.0, restitution=1.0, pair_restitution=1.0, rest_speed=0.0)


def motion_of(seed: int, settings: PhysicsSettings = SETTINGS):
    return simulate(settings, np.random.default_rng(seed))


def test_a_fall_is_the_textbooks():
    world = replace(FREE, gravity=100.0)
    states, impacts = run(world, [Disc(0, 1.0, 50.0, 50.0, 3.0, 0.0)], 20, 20.0)
    seconds = np.arange(21) / 20
    np.testing.assert_allclose(states[:, 0, 0], 50 + 3 * seconds)
    np.testing.assert_allclose(states[:, 0, 1], 50 + 50 * seconds**2, atol=0.15)
    assert impacts == []


def test_a_fall_over_the_box_takes_as_long_as_set():
    settings = replace(SETTINGS, drag_hz=0.0)
    motion = motion_of(0, settings)
    gravity = motion.fall_speed / settings.fall_seconds
    assert 0.5 * gravity * settings.fall_seconds**2 == pytest.approx(settings.height)


@pytest.mark.parametrize("seed", range(12))
def test_discs_stay_in_the_box_and_apart(seed: int):
    motion = motion_of(seed)
    places, radii = motion.states[:, :, :2], motion.radii
    assert (places >= radii[None, :, None] - 1e-9).all()
    assert (places <= np.array([SETTINGS.width, SETTINGS.height]) - radii[None, :, None] + 1e-9).all()
    for first in range(len(radii)):
        for second in range(first):
            gaps = np.linalg.norm(places[:, first] - places[:, second], axis=-1) - radii[first] - radii[second]
            assert gaps.min() > -0.7


def test_impacts_conserve_momentum_and_elastic_ones_energy():
    one, other = Disc(0, 2.0, 0.0, 0.0, 5.0, 1.0), Disc(1, 3.0, 4.9, 0.5, -2.0, 0.0)
    masses = np.array([4.0, 9.0])

    def velocities() -> np.ndarray:
        return np.array([[one.vx, one.vy], [other.vx, other.vy]])

    before = velocities()
    impacts: list[tuple[int, float]] = []
    collide(FREE, one, other, impacts)
    after = velocities()
    np.testing.assert_allclose(masses @ after, masses @ before)
    np.testing.assert_allclose(masses @ (after**2).sum(1), masses @ (before**2).sum(1))
    assert [number for number, _ in impacts] == [0, 1]
    assert not np.allclose(before, after)


def test_a_wall_gives_back_the_share_that_restitution_says():
    world = World(20.0, 20.0, 0.0, 0.0, 0.8, 1.0, 1.0)
    disc = Disc(0, 2.0, 17.99, 10.0, 50.0, 0.0)
    assert advance(world, [disc], 0.01) == [(0, 50.0)]
    assert (disc.x, disc.vx) == (18.0, -40.0)


def test_energy_is_lost_over_time():
    lost = 0
    for seed in range(10):
        motion = motion_of(seed)
        gravity = motion.fall_speed / SETTINGS.fall_seconds
        masses = motion.radii**2
        height = SETTINGS.height - motion.states[:, :, 1]
        energy = (masses * ((motion.states[:, :, 2:] ** 2).sum(-1) / 2 + gravity * height)).sum(1)
        lost += energy[-1] < 0.9 * energy[0]
    assert lost == 10


def test_impacts_are_in_order_within_the_video_and_loud_enough_to_hear():
    motion = motion_of(2)
    seconds, discs, speeds = motion.impacts.T
    assert (np.diff(seconds) >= 0).all()
    assert seconds.max() < SETTINGS.seconds
    assert set(discs) <= set(range(len(motion.radii)))
    assert speeds.min() > 0.01 * motion.fall_speed


def test_a_seed_is_a_motion():
    np.testing.assert_array_equal(motion_of(5).states, motion_of(5).states)
    assert not np.array_equal(motion_of(5).states[0, 0], motion_of(6).states[0, 0])


def test_all_numbers_of_discs_come():
    assert {len(motion_of(seed).radii) for seed in range(20)} == {1, 2, 3}


def test_discs_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="do not fit into 64x64"):
        motion_of(0, replace(SETTINGS, min_radius=0.6, max_radius=0.7))
    with pytest.raises(ValueError, match="found no place for 30 discs"):
        motion_of(0, replace(SETTINGS, min_discs=30, max_discs=30))
