import numpy as np
import pytest
import torch

from streams.geometry import warp
from streams.physics.appearance import LUMA, Look, draw_look, render


def look_of(num_discs: int = 1, size: int = 32) -> Look:
    colours = np.ones((num_discs, 3), dtype=np.float32)
    return Look(np.zeros((3, size, size), dtype=np.float32), colours)


def test_a_disc_covers_its_area():
    frames, _ = render(look_of(), np.array([[[15.3, 16.8]], [[15.3, 16.8]]]), np.array([6.4]))
    assert frames[0, 0].sum() / 255 == pytest.approx(np.pi * 6.4**2, rel=0.01)


def test_a_disc_is_where_its_state_says():
    frames, _ = render(look_of(), np.array([[[15.3, 10.8]], [[15.3, 10.8]]]), np.array([6.4]))
    weights = frames[0, 0] / frames[0, 0].sum()
    rows, columns = np.mgrid[:32, :32] + 0.5
    assert (weights * columns).sum() == pytest.approx(15.3, abs=0.02)
    assert (weights * rows).sum() == pytest.approx(10.8, abs=0.02)


def test_a_move_by_less_than_a_pixel_shows():
    frames, _ = render(look_of(), np.array([[[15.0, 16.0]], [[15.2, 16.0]], [[15.2, 16.0]]]), np.array([6.4]))
    assert not np.array_equal(frames[0], frames[1])


def test_flow_is_the_displacement_inside_the_discs_and_zero_outside():
    places = np.array([[[8.0, 8.0], [22.0, 20.0]], [[10.5, 7.0], [22.0, 23.0]]])
    _, flow = render(look_of(2), places, np.array([4.0, 5.0]))
    assert flow.dtype == np.float16
    assert flow[0, :, 8, 8].tolist() == [2.5, -1.0]
    assert flow[0, :, 20, 22].tolist() == [0.0, 3.0]
    assert flow[0, :, 31, 0].tolist() == [0.0, 0.0]
    assert (flow[0] != 0).any(axis=0).sum() == pytest.approx(np.pi * (16 + 25), rel=0.1)


def test_warping_the_next_frame_along_the_flow_gives_the_frame_inside_the_discs():
    places = np.array([[[8.0, 9.0]], [[11.0, 7.0]], [[14.0, 5.0]]])
    frames, flow = render(look_of(), places, np.array([5.0]))
    following = torch.from_numpy(frames[1:2].astype(np.float32))
    warped = warp(following, torch.from_numpy(flow[:1].astype(np.float32)))[0].numpy()
    inside = (flow[0] != 0).any(axis=0)
    np.testing.assert_allclose(warped[:, inside], frames[0][:, inside], atol=1.0)


@pytest.mark.parametrize("seed", range(20))
def test_discs_stand_out_from_the_background(seed: int):
    look = draw_look(64, 64, 3, np.random.default_rng(seed))
    background = LUMA @ look.background.mean(axis=(1, 2))
    assert (np.abs(look.colours @ LUMA - background) > 0.2).all()
    assert look.background.min() >= 0
    assert look.background.max() <= 1


def test_all_kinds_of_background_come():
    spreads = [
        draw_look(64, 64, 1, np.random.default_rng(seed)).background.std(axis=(1, 2)).max() for seed in range(20)
    ]
    assert min(spreads) < 1e-6
    assert max(spreads) > 0.01
