"""What two processes that share clips find; started by tests/worldmodel/training/test_ulysses.py."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.worldmodel.training.toy import AfterThree, means
from tests.worldmodel.training.world import WORLD, steps_of_world, train_world_toy

NUM_TOKENS, NUM_FRAMES, WINDOW = 3, 6, 2
OWN = replace(WORLD, context_noise=0.2, drop_past=0.6, own_context=0.5, own_context_from=0.0)
CASES: dict[str, dict[str, Any]] = {str(stage): {"zero_stage": stage} for stage in (0, 1, 2, 3)}
CASES |= {
    "bf16": {"precision": "bf16", "num_steps": 10},
    "recomputed": {"recompute_activations": True, "accumulate": 2, "num_steps": 4},
}
CASES |= {"own": {"model": OWN, "num_steps": 2}, "offloaded": {"zero_stage": 2, "offload": "optimizer", "num_steps": 4}}
EXCHANGES = ((1, 2), (3, 1))  # ZeRO stage of the first three steps, and of the last three


def drawn() -> list[Tensor]:
    """Queries, keys, values and the gradient of what is attended, of all tokens, the same everywhere."""
    draw = torch.Generator().manual_seed(5)
    return [torch.randn(2, 4, NUM_FRAMES * NUM_TOKENS, 8, generator=draw) for _ in range(4)]


def attention_of_a_part(group: Any) -> dict[str, Any]:
    """This process's part of the attention, and of the gradients."""
    from worldmodel.sight import Sight

    sight = Sight.of_frames(NUM_FRAMES, NUM_TOKENS, WINDOW)
    *given, gradient = (each.chunk(group.size, 2)[group.rank] for each in drawn())
    leaves = [each.clone().requires_grad_() for each in given]
    out = group.attend(*leaves, sight, "sdpa")
    out.backward(gradient)
    return {"out": out.tolist(), "gradients": [leaf.grad.tolist() for leaf in leaves if leaf.grad is not None]}


def joined(group: Any) -> dict[str, Any]:
    """Parts that are gathered, and the gradient of a part where every process looks at all of them."""
    part = torch.full((1, 2, 1, 1), float(1 + group.rank), requires_grad=True)
    whole = group.gather(part)
    (whole.flatten() * torch.arange(4.0) * 10**group.rank).sum().backward()
    assert part.grad is not None
    return {"whole": whole.flatten().tolist(), "gradient": part.grad.flatten().tolist()}


def halves(folder: Path, sequence_parallel: int) -> None:
    """Runs that stop after three steps."""
    for stage, _ in EXCHANGES:
        options: dict[str, Any] = {"sequence_parallel": sequence_parallel, "stop": AfterThree()}
        train_world_toy(folder / str(stage), zero_stage=stage, **options)


def rests(folder: Path, sequence_parallel: int) -> dict[str, list[float]]:
    """Losses of the last three steps of `halves`."""
    found = {}
    for before, after in EXCHANGES:
        options: dict[str, Any] = {"sequence_parallel": sequence_parallel, "resume": True}
        found[str(before)] = means(train_world_toy(folder / str(before), zero_stage=after, **options), 3)
    return found


def two(folder: Path) -> None:
    """Everything on two processes that share their clips."""
    from deepspeed.sequence.layer import DistributedAttention

    from worldmodel.training import cluster
    from worldmodel.training.ulysses import Ulysses

    found: dict[str, Any] = {name: steps_of_world(sequence_parallel=2, **case) for name, case in CASES.items()}
    found["apart"] = steps_of_world(num_steps=4)  # two processes with a clip each
    found["rests"] = rests(folder / "one", 2)
    halves(folder / "two", 2)
    whole = train_world_toy(folder / "whole", sequence_parallel=2)
    first = train_world_toy(folder / "again", sequence_parallel=2, stop=AfterThree())
    found["same"] = first + train_world_toy(folder / "again", sequence_parallel=2, resume=True) == whole
    group = Ulysses(2, DistributedAttention)
    found["attention"], found["joined"] = attention_of_a_part(group), joined(group)
    (folder / f"rank{cluster.find_ranks().rank}.json").write_text(json.dumps(found))
    cluster.leave(0)


if __name__ == "__main__":
    torch.set_num_threads(1)
    globals()[sys.argv[1]](Path(sys.argv[2]))
