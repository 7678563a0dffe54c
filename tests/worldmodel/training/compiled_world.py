"""What compiled blocks find beside eager ones; started by tests/worldmodel/training/test_compiling.py.

In a process of its own, for the checks of shapes that the tests switch on cannot be compiled.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch

from tests.worldmodel.training.toy import AfterThree
from tests.worldmodel.training.world import World, steps_of_world, train_world_toy
from worldmodel.compiler import require_compiler
from worldmodel.errors import SettingsError
from worldmodel.training.checkpoint import choose, load_weights

# Micro-batches first: code that is made for as many clips as there are heads fits no other number.
CASES: dict[str, dict[str, Any]] = {
    "recomputed in micro-batches": {"num_steps": 2, "recompute_activations": True, "accumulate": 2, "zero_stage": 2},
    "plain": {"num_steps": 4},
    "without ZeRO": {"num_steps": 2, "zero_stage": 0},
    "muon, recomputed": {"num_steps": 2, "optimizer": "muon", "recompute_activations": True},
}


def without_a_compiler() -> str:
    """What is said where there is none."""
    from torch._inductor import config

    with config.patch({"cpp.cxx": ("/nowhere/g++",)}):
        try:
            require_compiler(torch.device("cpu"))
        except SettingsError as error:
            return str(error)
    return ""


def resumed(folder: Path) -> dict[str, list[float]]:
    """Losses of a compiled run in one piece, and of its second half, resumed compiled and not."""
    found = {"whole": train_world_toy(folder / "whole", compile=True)}
    for name, on in (("compiled", True), ("eager", False)):
        train_world_toy(folder / name, compile=True, stop=AfterThree())
        found[name] = train_world_toy(folder / name, compile=on, resume=True)[-3:]
    return found


def main(folder: Path) -> None:
    """Everything, as JSON."""
    from torch._dynamo.utils import counters

    found: dict[str, Any] = {"error": without_a_compiler()}
    for name, case in CASES.items():
        found[name] = [steps_of_world(compile=on, **case) for on in (False, True)]
    found["resumed"] = resumed(folder)
    last = choose(folder / "whole")
    assert last is not None
    found["names"] = [sorted(load_weights(last)[0]), sorted(World().state_dict())]
    found |= {"graphs": counters["stats"]["unique_graphs"], "breaks": sum(counters["graph_break"].values())}
    (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
