import random
from pathlib import Path

import numpy as np
import torch

from worldmodel.training import randomness


def draws() -> list[float]:
    legacy = np.random
    return [random.random(), random.gauss(0, 1), legacy.rand(), legacy.randn(), torch.rand(()).item()]


def test_restored_states_draw_the_same_again(tmp_path: Path):
    randomness.seed(3)
    draws()  # an odd number of normal draws: Python and numpy keep a second one back
    torch.save(randomness.states(), tmp_path / "states.pt")
    first = draws()
    draws()
    randomness.restore(torch.load(tmp_path / "states.pt", weights_only=True))
    assert draws() == first


def test_a_seed_fixes_all_draws():
    randomness.seed(3)
    first = draws()
    randomness.seed(3)
    assert draws() == first


def test_ranks_and_seeds_draw_differently():
    found = set()
    for seed, rank in ((0, 0), (0, 1), (1, 0), (1, 1)):
        randomness.seed(seed, rank)
        found.update(draws())
    assert len(found) == 20


def test_draws_inside_kept_leave_no_trace():
    randomness.seed(5)
    expected = draws()
    randomness.seed(5)
    with randomness.kept():
        draws()
    assert draws() == expected
