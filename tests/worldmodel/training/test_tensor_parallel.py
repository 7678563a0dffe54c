import json
import re
import sys
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.worldmodel.tiny import tiny_model
from tests.worldmodel.training.shared_matrices import CASES, EXCHANGES, halves, rests
from tests.worldmodel.training.toy import BATCH_SIZE, SETTINGS, Toy, finish, launch
from tests.worldmodel.training.world import World, steps_of_world, train_world_toy
from worldmodel.blocks import Block
from worldmodel.training.engine import Engine, deepspeed_settings
from worldmodel.training.tensor_parallel import LAYERS, joined, part_of, refuse_unfit, section_of

# The same sums in another order; `python -m tests.worldmodel.training.test_tensor_parallel` prints by how much they
# differ. In fp32 over 20 steps, of losses, norms of gradients, and the sum of weights, at the most: 2e-6, 8e-6, 5e-7.
FP32 = {"losses": 1e-5, "norms": 5e-5, "sum": 1e-5}
# In bf16 over 20 steps (the test makes 3): 8e-3, 4e-2, 4e-5.
BF16 = {"losses": 5e-3, "norms": 5e-2, "sum": 2e-2}


def found_by_two(folder: Path, case: str = "two") -> list[dict[str, Any]]:
    """What two processes find; one has begun the runs in `one`."""
    halves(folder / "one", 1)
    finish(launch(case, folder, num_ranks=2, module="tests.worldmodel.training.shared_matrices"))
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process has begun runs in `one`; two that share matrices begin others in `two`."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def two_processes(folder: Path) -> list[dict[str, Any]]:
    return found_by_two(folder)


@cache
def alone(name: str) -> dict[str, Any]:
    """What one process finds in a case; it has nothing to shard, so that one stage stands for all."""
    options = {option: value for option, value in CASES[name].items() if option not in ("zero_stage", "offload")}
    return steps_of_world(**options)


@pytest.mark.parametrize("name", CASES)
def test_two_processes_that_share_matrices_train_as_one(name: str, two_processes: list[dict[str, Any]]):
    expected, bound = alone(name), BF16 if name == "bf16" else FP32
    for found in two_processes:
        # Of norms too: Adam would not notice gradients that are all multiplied, nor weights that are counted twice.
        for kind in ("losses", "norms"):
            assert found[name][kind] == pytest.approx(expected[kind], rel=bound[kind])
    assert two_processes[0][name]["sum"] == pytest.approx(expected["sum"], rel=bound["sum"])


def test_the_next_engine_of_a_process_shares_nothing(two_processes: list[dict[str, Any]]):
    together, apart = (two_processes[0][name]["losses"][:2] for name in ("1", "apart"))
    assert together != pytest.approx(apart, rel=1e-3)  # of two processes with a clip each


@pytest.mark.parametrize("stage", ["1", "3"])
def test_every_matrix_of_the_blocks_is_cut_and_all_else_is_one(stage: str, two_processes: list[dict[str, Any]]):
    first, second = (found["inside"][stage] for found in two_processes)
    assert first["cut"]
    assert second["cut"]
    # To the bit, though the processes began with weights of their own.
    for name in ("first of what is whole", "sum of what is whole"):
        assert first[name] == second[name]


@pytest.mark.parametrize("stage", ["1", "3"])
def test_the_memory_that_a_dry_run_tells_is_what_deepspeed_holds(stage: str, two_processes: list[dict[str, Any]]):
    for found in two_processes:
        held, expected = found["inside"][stage]["held"], found["inside"][stage]["expected"]
        for kind in ("weights", "masters", "optimizer", "gradients, own share"):
            assert held[kind] == pytest.approx(expected[kind], rel=0.05), kind  # of small tensors much is padding


def test_operations_of_a_part_are_counted(two_processes: list[dict[str, Any]]):
    shares = [found["inside"][stage]["flops"] for found in two_processes for stage in ("1", "3")]
    assert len(set(shares)) == 1
    assert 0.5 < shares[0] < 0.9  # embeddings, readouts and heads are computed twice


def test_after_closing_the_objective_is_as_it_was(two_processes: list[dict[str, Any]]):
    for found in two_processes:
        for inside in found["inside"].values():
            assert inside["layers"]
            assert inside["kept"]
            assert inside["heads"] == [4, 4, 4]


def test_a_run_goes_on_whether_matrices_are_shared_or_not(folder: Path, two_processes: list[dict[str, Any]]):
    whole = train_world_toy(folder / "alone")
    later = rests(folder / "two", 1)
    for before, _ in EXCHANGES:
        assert later[str(before)] == pytest.approx(whole[3:], rel=FP32["losses"]), f"two to one from stage {before}"
        for found in two_processes:
            assert found["rests"][str(before)] == pytest.approx(whole[3:], rel=FP32["losses"]), (
                f"one to two from stage {before}"
            )


def test_the_patterns_name_each_weight_of_a_block_that_is_cut_or_sees_a_part():
    weights = dict(Block(32, 2).named_parameters(prefix="model.trunk.blocks.11"))
    fitting = {
        name: [layer["partition_type"] for layer in LAYERS if any(re.match(one, name) for one in layer["patterns"])]
        for name in weights
    }
    assert all(len(found) == (weights[name].ndim == 2) for name, found in fitting.items() if "attention." not in name)
    norms = {name for name, found in fitting.items() if found == ["skip"]}
    assert norms == {f"model.trunk.blocks.11.attention.{name}_norm.weight" for name in ("query", "key")}
    assert {name for name, found in fitting.items() if found == []} == {
        f"model.trunk.blocks.11.{name}_norm.weight" for name in ("attention", "feed")
    }


def test_deepspeed_is_told_nothing_where_nothing_is_cut():
    assert section_of(1) == {}
    assert section_of(4)["tensor_parallel"]["autotp_size"] == 4


def test_processes_that_share_matrices_are_one_reader_and_deepspeed_cuts_among_them():
    shared = replace(SETTINGS, tensor_parallel=2)
    made = deepspeed_settings(shared, batch_size=12, num_ranks=8)
    assert made["train_micro_batch_size_per_gpu"] == 3
    # DeepSpeed multiplies it by another number of readers in stage 3 than before.
    assert "train_batch_size" not in made
    assert made["tensor_parallel"]["autotp_size"] == 2
    assert json.loads(json.dumps(made)) == made
    with pytest.raises(ValueError, match="training.tensor_parallel=2 must divide the 3 processes"):
        deepspeed_settings(shared, batch_size=12, num_ranks=3)
    with pytest.raises(ValueError, match="optimizer=muon: Muon needs whole matrices"):
        deepspeed_settings(replace(shared, optimizer="muon"), batch_size=12, num_ranks=2)


def test_what_is_not_cut_stays_as_it_is():
    one, other = torch.ones(3), torch.zeros(3)
    assert joined(one, other) is other
    assert part_of(one, other) is other


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tensor_parallel": 0}, "tensor_parallel=0 is out of range: it must be 1 or more"),
        ({"tensor_parallel": 2, "optimizer": "muon"}, "optimizer=muon: Muon needs whole matrices; use adamw"),
        ({"tensor_parallel": 2, "sequence_parallel": 2}, "sequence_parallel=2: leave one of them at 1"),
    ],
)
def test_what_does_not_go_together_is_refused(settings: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        refuse_unfit(replace(SETTINGS, **settings))
    refuse_unfit(replace(SETTINGS, optimizer="muon", sequence_parallel=2))


def test_cutting_is_refused_where_there_are_no_transformers(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("worldmodel.training.engine.deepspeed_settings", lambda *given: {})
    with pytest.raises(ValueError, match="tensor_parallel=2 is for the world model's transformers: leave it at 1"):
        Engine(Toy(), replace(SETTINGS, tensor_parallel=2), BATCH_SIZE)


def test_heads_and_channels_that_do_not_divide_are_refused():
    world = World()
    world.check_cut(4)
    with pytest.raises(ValueError, match="tensor_parallel=3 does not divide model.trunk.num_heads=4: change one"):
        world.check_cut(3)
    world.model = tiny_model()
    with pytest.raises(ValueError, match=r"tensor_parallel=4 does not divide model.trunk.num_heads=2"):
        world.check_cut(4)


def largest_difference(found: list[float], expected: list[float]) -> float:
    """Relative."""
    return max(abs(one - other) / abs(other) for one, other in zip(found, expected, strict=True))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        first = found_by_two(Path(name), "long")[0]
    for case, found in first.items():
        options: dict[str, Any] = CASES[case] | {"zero_stage": 1, "offload": "none", "num_steps": len(found["losses"])}
        expected = steps_of_world(**options)
        differences = []
        for kind in FP32:
            pair = [[one[kind]] if kind == "sum" else one[kind] for one in (found, expected)]
            differences.append(f"{kind} {largest_difference(*pair):.0e}")
        sys.stdout.write(f"{case}: {len(found['losses'])} steps, {', '.join(differences)}\n")
