import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.worldmodel.training.shared_clips import (
    CASES,
    EXCHANGES,
    NUM_FRAMES,
    NUM_TOKENS,
    WINDOW,
    drawn,
    halves,
    rests,
)
from tests.worldmodel.training.toy import finish, launch
from tests.worldmodel.training.world import steps_of_world, train_world_toy
from worldmodel.sight import Sight

# The same sums in another order; `python -m tests.worldmodel.training.test_ulysses` prints by how much they differ. In
# fp32 over 20 steps, of losses, norms of gradients, and the sum of weights, at the most: 4e-7, 7e-7, 2e-8.
FP32 = {"losses": 1e-5, "norms": 1e-5, "sum": 1e-5}
# In bf16 over 10 steps: 4e-4, 4e-3, 2e-3.
BF16 = {"losses": 5e-3, "norms": 5e-2, "sum": 2e-2}


def found_by_two(folder: Path) -> list[dict[str, Any]]:
    """What two processes find; one has begun the runs in `one`."""
    halves(folder / "one", 1)
    finish(launch("two", folder, num_ranks=2, module="tests.worldmodel.training.shared_clips"))
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process has begun runs in `one`; two that share clips begin others in `two`."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def two_processes(folder: Path) -> list[dict[str, Any]]:
    return found_by_two(folder)


@cache
def alone(name: str) -> dict[str, Any]:
    """What one process finds in a case; it has nothing to shard, so that one stage stands for all."""
    options = {option: value for option, value in CASES[name].items() if option not in ("zero_stage", "offload")}
    return steps_of_world(**options) if options or name == "1" else alone("1")


@pytest.mark.parametrize("name", CASES)
def test_two_processes_that_share_clips_train_as_one(name: str, two_processes: list[dict[str, Any]]):
    expected, bound = alone(name), BF16 if name == "bf16" else FP32
    for found in two_processes:
        # Of norms too: Adam would not notice gradients that are all multiplied.
        for kind in ("losses", "norms"):
            assert found[name][kind] == pytest.approx(expected[kind], rel=bound[kind])
    assert two_processes[0][name]["sum"] == pytest.approx(expected["sum"], rel=bound["sum"])
    assert expected["losses"][-1] < expected["losses"][0]


def test_processes_that_do_not_share_read_different_clips(two_processes: list[dict[str, Any]]):
    together, apart = (two_processes[0][name]["losses"] for name in ("1", "apart"))
    assert together[:4] != pytest.approx(apart, rel=1e-3)


def test_attention_and_its_gradients_are_those_of_all_tokens(two_processes: list[dict[str, Any]]):
    *given, gradient = drawn()
    leaves = [each.clone().requires_grad_() for each in given]
    mask = Sight.of_frames(NUM_FRAMES, NUM_TOKENS, WINDOW).mask()
    expected = F.scaled_dot_product_attention(*leaves, attn_mask=mask)
    expected.backward(gradient)
    parts = [found["attention"] for found in two_processes]
    assert torch.allclose(torch.cat([torch.tensor(part["out"]) for part in parts], 2), expected, atol=1e-6)
    for number, leaf in enumerate(leaves):
        found = torch.cat([torch.tensor(part["gradients"][number]) for part in parts], 2)
        assert leaf.grad is not None
        assert torch.allclose(found, leaf.grad, atol=1e-6)


def test_gathered_parts_get_the_gradients_of_all_processes(two_processes: list[dict[str, Any]]):
    first, second = (found["joined"] for found in two_processes)
    assert first["whole"] == second["whole"] == [1, 1, 2, 2]
    assert (first["gradient"], second["gradient"]) == ([0, 11], [22, 33])


def test_a_run_goes_on_whether_clips_are_shared_or_not(folder: Path, two_processes: list[dict[str, Any]]):
    whole = train_world_toy(folder / "alone")
    later = rests(folder / "two", 1)
    for before, _ in EXCHANGES:
        assert later[str(before)] == pytest.approx(whole[3:], rel=FP32["losses"]), f"two to one from stage {before}"
        for found in two_processes:
            assert found["rests"][str(before)] == pytest.approx(whole[3:], rel=FP32["losses"]), (
                f"one to two from stage {before}"
            )


def test_a_run_that_shares_clips_is_resumed_to_the_bit(two_processes: list[dict[str, Any]]):
    assert [found["same"] for found in two_processes] == [True, True]


def largest_difference(found: list[float], expected: list[float]) -> float:
    """Relative."""
    return max(abs(one - other) / abs(other) for one, other in zip(found, expected, strict=True))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        (first, _), whole = found_by_two(Path(name)), {case: alone(case) for case in CASES}
    for case, expected in whole.items():
        found = {kind: [first[case]["sum"]] if kind == "sum" else first[case][kind] for kind in FP32}
        sums = expected | {"sum": [expected["sum"]]}
        differences = [f"{kind} {largest_difference(found[kind], sums[kind]):.0e}" for kind in FP32]
        print(f"{case}: {len(expected['losses'])} steps, {', '.join(differences)}")
