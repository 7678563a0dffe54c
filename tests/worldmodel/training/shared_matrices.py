"""What two processes that share matrices find; started by tests/worldmodel/training/test_tensor_parallel.py."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tests.worldmodel.training.test_memory import held_by
from tests.worldmodel.training.toy import AfterThree, means
from tests.worldmodel.training.world import SIZE, STEPS, WORLD, World, steps_of_world, train_world_toy, world_loader
from worldmodel.training import cluster, flops, randomness
from worldmodel.training.engine import Engine
from worldmodel.training.memory import state_bytes

OWN = replace(WORLD, context_noise=0.2, drop_past=0.6, own_context=0.5, own_context_from=0.0)
CASES: dict[str, dict[str, Any]] = {
    "0": {"zero_stage": 0, "num_steps": 3},
    "1": {"zero_stage": 1, "num_steps": 20},
    "2": {"zero_stage": 2, "num_steps": 3, "offload": "optimizer"},
    "3": {"zero_stage": 3, "num_steps": 3, "offload": "parameters"},
    "bf16": {"precision": "bf16", "num_steps": 3},
    "recomputed": {"recompute_activations": True, "accumulate": 2, "num_steps": 2},
    "own": {"model": OWN, "num_steps": 1},
}
EXCHANGES = ((1, 3), (3, 0))  # ZeRO stage of the first three steps, and of the last three


def halves(folder: Path, tensor_parallel: int) -> None:
    """Runs that stop after three steps."""
    for stage, _ in EXCHANGES:
        options: dict[str, Any] = {"tensor_parallel": tensor_parallel, "stop": AfterThree()}
        train_world_toy(folder / str(stage), zero_stage=stage, **options)


def rests(folder: Path, tensor_parallel: int) -> dict[str, list[float]]:
    """Losses of the last three steps of `halves`."""
    found = {}
    for before, after in EXCHANGES:
        options: dict[str, Any] = {"tensor_parallel": tensor_parallel, "resume": True}
        found[str(before)] = means(train_world_toy(folder / str(before), zero_stage=after, **options), 3)
    return found


def inside(stage: int) -> dict[str, Any]:
    """What this process holds and computes while matrices are shared, and what is left of it after."""
    torch.manual_seed(cluster.find_ranks().rank)  # weights of its own, which it must not keep
    world = World()
    trained, hidden = (sum(one.numel() for one in each) for each in (world.parameters(), world.hidden_matrices()))
    trained -= sum(one.numel() for one in world.parameters() if not one.requires_grad)
    names = {id(one): name for name, one in world.named_parameters()}
    hidden_names = sorted(names[id(one)] for one in world.hidden_matrices())
    with flops.counted(world) as whole, torch.no_grad():
        world(next(world_loader(2)))
    settings = replace(STEPS, zero_stage=stage, tensor_parallel=2)
    engine = Engine(world, settings, SIZE)
    randomness.seed(0, 0)
    with flops.counted(engine.objective) as counted:
        engine.backward(engine.forward(next(world_loader(2)))[0])
    engine.update(1e-3)
    engine.backward(engine.forward(next(world_loader(2)))[0])
    cut = sorted(name for name, one in world.named_parameters() if hasattr(one, "gather_params"))
    same = [one for one in world.parameters() if not hasattr(one, "gather_params") and one.requires_grad]
    expected = {kind: one.device for kind, one in state_bytes(trained, hidden, settings, 2).items()}
    with engine.whole():
        digest = torch.cat([one.detach().flatten() for one in same]).double()
    found = {
        "cut": cut == hidden_names,
        "first of what is whole": digest[:50].tolist(),
        "sum of what is whole": digest.sum().item(),
        "flops": counted.forward / whole.forward,
        "held": held_by(engine, stage),
        "expected": expected,
    }
    weights = engine.weights()
    engine.close()
    blocks = list(world.blocks)
    found["layers"] = all(isinstance(block.attention.query, nn.Linear) for block in blocks)
    found["heads"] = [block.attention.num_heads for block in blocks]
    found["kept"] = all(torch.equal(value, world.state_dict()[name]) for name, value in weights.items())
    return found


def state_put_back(folder: Path) -> bool:
    """Whether the optimizer's state, cut by matrices and by ZeRO 3, is as it was after it was saved and set."""
    engine = Engine(World(), replace(STEPS, zero_stage=3, tensor_parallel=2), SIZE)
    for batch, _ in zip(world_loader(2), range(2), strict=False):
        engine.backward(engine.forward(batch)[0])
        engine.update(1e-3)
    mine, path = engine.optimizer_state(), folder / "state_{}.safetensors"
    save_file(mine, str(path).format(cluster.find_ranks().rank))
    cluster.barrier()
    files = [load_file(str(path).format(rank)) for rank in range(cluster.find_ranks().num_ranks)]
    engine.begin_optimizer(2, (item for file in files for item in file.items()))
    again = engine.optimizer_state()
    engine.close()
    moved = any(value.abs().max() > 0 for value in mine.values())
    return moved and mine.keys() == again.keys() and all(torch.equal(again[name], mine[name]) for name in mine)


def two(folder: Path) -> None:
    """Everything on two processes that share matrices."""
    found: dict[str, Any] = {name: steps_of_world(tensor_parallel=2, **case) for name, case in CASES.items()}
    found["apart"] = steps_of_world(num_steps=2)  # the next engine of the process knows nothing of groups
    found["inside"] = {str(stage): inside(stage) for stage in (1, 3)}
    found["rests"] = rests(folder / "one", 2)
    halves(folder / "two", 2)
    (folder / f"rank{cluster.find_ranks().rank}.json").write_text(json.dumps(found))
    cluster.leave(0)


def long(folder: Path) -> None:
    """The cases alone, 20 steps of each but where codes are drawn, which a rounding can change."""
    found = {}
    for name, case in CASES.items():
        longer: dict[str, Any] = case if name == "own" else case | {"num_steps": 20}
        found[name] = steps_of_world(tensor_parallel=2, **longer)
    (folder / f"rank{cluster.find_ranks().rank}.json").write_text(json.dumps(found))
    cluster.leave(0)


if __name__ == "__main__":
    torch.set_num_threads(1)
    globals()[sys.argv[1]](Path(sys.argv[2]))
