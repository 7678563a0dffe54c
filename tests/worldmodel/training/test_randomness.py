import random
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from worldmodel.training import randomness


def draws() -> list[float]:
    legacy = np.random
    return [random.random(), random.gauss(0, 1), legacy.rand(), legacy.randn(), torch.rand(()).item()]


def test_restored_states_draw_the_same_again(tmp_path: Path):
    randomness.seed(3)
    draws()  # an odd number of normal draws: Python and numpy keep a second one back
    save_file(randomness.states(), tmp_path / "states")
    first = draws()
    draws()
    randomness.restore(load_file(tmp_path / "states"))
    assert draws() == first


def test_a_seed_fixes_all_draws():
    randomness.seed(3)
    first = draws()
    randomness.seed(3)
    assert draws() == first


def test_ranks_seeds_and_steps_draw_differently():
    found = set()
    for seed, rank, step in ((0, 0, 0), (0, 1, 0), (1, 0, 0), (1, 1, 0), (0, 1, 7)):
        randomness.seed(seed, rank, step)
        found.update(draws())
    assert len(found) == 25


def test_draws_inside_kept_leave_no_trace():
    randomness.seed(5)
    expected = draws()
    randomness.seed(5)
    with randomness.kept():
        draws()
    assert draws() == expected
