from itertools import pairwise

import pytest
import torch

from tools.ablation.orders import ORDERS, quadtree, raster, salient_first, spiral


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("grid", [(1, 1), (2, 2), (3, 5), (8, 8), (4, 16)])
def test_every_place_comes_once(name: str, grid: tuple[int, int]):
    assert sorted(ORDERS[name](*grid).tolist()) == list(range(grid[0] * grid[1]))


@pytest.mark.parametrize("name", ORDERS)
def test_an_order_is_always_the_same(name: str):
    assert torch.equal(ORDERS[name](4, 4), ORDERS[name](4, 4))


def test_rows_come_one_after_another():
    assert raster(2, 3).tolist() == [0, 1, 2, 3, 4, 5]


def test_a_spiral_begins_in_the_middle_and_goes_around():
    order = spiral(4, 4).tolist()
    assert set(order[:4]) == {5, 6, 9, 10}
    steps = [abs(a // 4 - b // 4) + abs(a % 4 - b % 4) for a, b in pairwise(order[4:])]
    assert steps == [1] * 11


def test_a_quadtree_finishes_a_quarter_before_the_next():
    order = quadtree(4, 4).tolist()
    assert order[:4] == [0, 1, 4, 5]
    assert order[4:8] == [2, 3, 6, 7]


def test_the_most_salient_place_comes_first_and_ties_row_by_row():
    frames = torch.zeros(2, 6, 3)
    frames[:, :, 0] = 1.0  # the background
    frames[0, 4, 1], frames[0, 1, 2] = 3.0, -2.0
    frames[1, 2, 1], frames[1, 5, 1] = 2.0, 2.0
    assert salient_first(frames).tolist() == [[4, 1, 0, 2, 3, 5], [2, 5, 0, 1, 3, 4]]


def test_a_rounding_error_is_not_salient():
    plain = torch.ones(1, 64, 3) + 1e-6 * torch.randn(1, 64, 3, generator=torch.Generator().manual_seed(0))
    assert salient_first(plain)[0].tolist() == list(range(64))
    assert salient_first(torch.zeros(1, 4, 3))[0].tolist() == [0, 1, 2, 3]
