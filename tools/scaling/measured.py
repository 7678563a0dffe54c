"""Bytes really sent by two processes, beside the arithmetic."""

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streams.errors import UserError
from tools.scaling.traffic import Model, Sent, of_sequence, of_stage, of_tensor
from tools.scaling.worker import CASES, DECODER_DEPTH, DEPTH, DIM, NUM_CODES
from worldmodel.training.memory import FLOAT_BYTES

NUM_RANKS, SECONDS_LIMIT = 2, 900
# gloo, between CPUs, reduces everywhere and throws away what it does not scatter.
GLOO_PASSES = {"all_reduce": 2, "all_gather": 1, "reduce_scatter": 2, "all_to_all": 1}


@dataclass(frozen=True)
class Beside:
    """One case, by arithmetic and as it was counted.

    Attributes:
        name: of the case.
        expected: bytes of whole tensors, by kind of collective.
        counted: the same of the collectives that were called, on the process that called the most.
        expected_sent: bytes that a process sends, as gloo does it.
        sent: bytes that the kernel saw acknowledged, of both processes in the mean.
    """

    name: str
    expected: dict[str, float]
    counted: dict[str, float]
    expected_sent: float
    sent: float


def measure() -> list[Beside]:
    """Starts the processes and compares what they found.

    Raises:
        UserError: they failed.
    """
    with tempfile.TemporaryDirectory(prefix="worldmodel.") as folder:
        run_workers(Path(folder))
        found = [json.loads((Path(folder) / f"rank{rank}.json").read_text()) for rank in range(NUM_RANKS)]
    return [compare(name, [each[name] for each in found]) for name in CASES]


def run_workers(folder: Path) -> None:
    """Runs both processes to their end.

    Raises:
        UserError: one failed.
    """
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    workers = []
    for rank in range(NUM_RANKS):
        place = {"RANK": str(rank), "WORLD_SIZE": str(NUM_RANKS), "LOCAL_RANK": str(rank)}
        place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        command = [sys.executable, "-m", "tools.scaling.worker", str(folder)]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        workers.append(subprocess.Popen(command, env=os.environ | place, **pipes))
    try:
        printed = [worker.communicate(timeout=SECONDS_LIMIT)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    for worker, text in zip(workers, printed, strict=True):
        if worker.returncode:
            raise UserError(f"a process that counts what it sends failed: {(text.splitlines() or ['no reason'])[-1]}")


def compare(name: str, found: list[dict[str, Any]]) -> Beside:
    """One case of all processes beside the arithmetic."""
    expected = expected_of(name, found[0])
    whole = Counter[str]()
    for one in expected:
        whole[one.kind] += one.num_bytes  # type: ignore[assignment]
    counted = {kind: float(max(each["bytes"].get(kind, 0) for each in found)) for kind in sorted(GLOO_PASSES)}
    sent = sum(GLOO_PASSES[one.kind] * one.num_bytes * (one.size - 1) / one.size for one in expected)
    mean = sum(each["sent"] for each in found) / len(found)
    return Beside(name, {kind: float(whole[kind]) for kind in counted}, counted, sent, mean)


def expected_of(name: str, found: dict[str, int]) -> list[Sent]:
    """What a case sends, by arithmetic.

    Args:
        name: of the case.
        found: `num_elements`, weights that are trained; of a process and step `num_tokens`, the trunk's, `num_items`,
            frames that are decoded, and `state_tokens` that the decoder is given of each.
    """
    case = CASES[name]
    recompute, num_tokens = case.get("recompute_activations", False), found["num_tokens"]
    trunk = Model("measured", DIM, DEPTH)
    if (size := case.get("tensor_parallel", 1)) > 1:
        decoder = Model("decoder", DIM, DECODER_DEPTH)
        part = found["num_elements"] - (trunk.num_elements + decoder.num_elements) * (size - 1) // size
        # All processes share matrices here: DeepSpeed reduces gradients in groups of one, which sends nothing.
        sent = [Sent("all_reduce", float(FLOAT_BYTES * part), 1), *of_tensor(trunk, size, num_tokens, recompute)]
        sent += of_tensor(decoder, size, found["num_items"] * NUM_CODES, recompute)
        # Its keys and values are also of the states, whose gradients are added up too.
        states = FLOAT_BYTES * DECODER_DEPTH * DIM * found["num_items"] * found["state_tokens"]
        return [*sent, Sent("all_reduce", float(states), size)]
    kept: dict[str, Any] = {"kept_elements": 0} if "not kept" in name else {}
    sent = of_stage(case["zero_stage"], found["num_elements"], NUM_RANKS, case.get("accumulate", 1), **kept)
    return sent + of_sequence(trunk, case.get("sequence_parallel", 1), num_tokens, recompute)
