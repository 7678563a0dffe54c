"""One of two processes that count what they send: `python -m tools.scaling.worker FOLDER`, started by `measured`."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from tools.bench.untrained import batch_of, build_model, random_codes
from tools.scaling.counting import Collectives, acknowledged_bytes
from worldmodel.objective import WorldObjective
from worldmodel.settings import HeadSettings, TrainingSettings
from worldmodel.training import cluster
from worldmodel.training import engine as engine_module
from worldmodel.training.engine import Engine

NO_HEADS = HeadSettings(flow=0.0, speed=0.0, arrow_of_time=0.0, correspondence=0.0)
DIM, DEPTH, NUM_CODES, NUM_FRAMES, BATCH = 256, 4, 21, 8, 4
DECODER_DEPTH = 2  # of `build_model`
NUM_WARM_UP = 2  # ZeRO-3 learns the order of the layers in the first step
CASES: dict[str, dict[str, Any]] = {
    "stage 0": {"zero_stage": 0},
    "stage 1": {"zero_stage": 1},
    "stage 2": {"zero_stage": 2},
    "stage 2, 2 micro-batches": {"zero_stage": 2, "accumulate": 2},
    "stage 3": {"zero_stage": 3},
    "stage 3, weights not kept": {"zero_stage": 3},
    "stage 1, a clip shared by 2": {"zero_stage": 1, "sequence_parallel": 2},
    "the same, recomputing": {"zero_stage": 1, "sequence_parallel": 2, "recompute_activations": True},
    "stage 1, matrices shared by 2": {"zero_stage": 1, "tensor_parallel": 2},
    "the same matrices, recomputing": {"zero_stage": 1, "tensor_parallel": 2, "recompute_activations": True},
}
# Weights that are about to be used again are kept as well, as far as ZeRO-3 looks ahead.
NOT_KEPT = {
    "stage3_max_reuse_distance": 0,
    "stage3_prefetch_bucket_size": 0,
    "stage3_param_persistence_threshold": 0,
}


def count(name: str) -> dict[str, Any]:
    """What this process sends in one step of a case."""
    settings = TrainingSettings(**CASES[name])
    model = build_model(NUM_CODES, DIM, DEPTH)
    objective = WorldObjective(model, NO_HEADS).train()
    num_elements = sum(weight.numel() for weight in objective.parameters() if weight.requires_grad)
    engine = Engine(objective, settings, BATCH)
    _, num_readers = cluster.data_ranks(settings.num_sharing)
    size = BATCH // num_readers // settings.accumulate
    batch = batch_of(random_codes(size, NUM_FRAMES, NUM_CODES))
    for _ in range(NUM_WARM_UP):
        step(engine, batch)
    cluster.barrier()
    time.sleep(0.2)  # until the last acknowledgements are there
    before = acknowledged_bytes()
    with Collectives() as counted:
        step(engine, batch)
    cluster.barrier()
    time.sleep(0.2)
    sent = acknowledged_bytes() - before
    engine.close()
    return {
        "num_elements": num_elements,
        "num_tokens": size * NUM_FRAMES * model.trunk.num_tokens,
        "num_items": size * model.settings.decoded_frames,
        "state_tokens": model.trunk.num_tokens,
        "bytes": counted.bytes,
        "calls": counted.calls,
        "sent": sent,
    }


def step(engine: Engine, batch: Any) -> None:
    """One update."""
    for _ in range(engine.num_micro):
        engine.backward(engine.forward(batch)[0])
    engine.update(1e-4)


def main(folder: Path) -> None:
    """Counts all cases, and writes what was found."""
    torch.set_num_threads(1)
    ranks = cluster.start()
    dictionary, found = engine_module.deepspeed_settings, {}
    for name in CASES:

        def changed(*given: Any, name: str = name) -> dict[str, Any]:
            made = dictionary(*given)
            if "not kept" in name:
                made["zero_optimization"] |= NOT_KEPT
            return made

        engine_module.deepspeed_settings = changed
        found[name] = count(name)
    (folder / f"rank{ranks.rank}.json").write_text(json.dumps(found), encoding="utf-8")
    cluster.leave(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
