"""The GPUs that a process may use, as nvidia-smi sees them."""

import csv
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

FIELDS = (
    "uuid",
    "name",
    "memory.total",
    "memory.used",
    "ecc.errors.uncorrected.volatile.total",
    "clocks_throttle_reasons.hw_slowdown",
    "clocks_throttle_reasons.sw_thermal_slowdown",
)
SMI_SECONDS = 20.0


@dataclass(frozen=True)
class Gpu:
    """One GPU.

    Attributes:
        uuid: tells it from all others.
        name: its kind.
        memory_mebibytes: that it has.
        used_mebibytes: of them, in use before the training.
        num_ecc_errors: uncorrected errors of its memory since it was started; 0 where it counts none.
        throttled: whether heat or power slows it down right now.
    """

    uuid: str
    name: str
    memory_mebibytes: int
    used_mebibytes: int
    num_ecc_errors: int
    throttled: bool


def find_gpus(environment: Mapping[str, str] | None = None) -> tuple[list[Gpu], str]:
    """GPUs that CUDA_VISIBLE_DEVICES leaves (all if it is not set), and why they cannot be asked; empty if they can.

    Without nvidia-smi there are none.
    """
    variables = os.environ if environment is None else environment
    program = shutil.which("nvidia-smi", path=variables.get("PATH"))
    visible = variables.get("CUDA_VISIBLE_DEVICES")
    if program is None or visible == "":
        return [], ""
    command = [program, f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader,nounits"]
    command += [f"--id={visible}"] if visible is not None else []
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SMI_SECONDS)
    except subprocess.TimeoutExpired:
        return [], f"nvidia-smi did not answer within {SMI_SECONDS:g} s"
    rows = [[entry.strip() for entry in row] for row in csv.reader(done.stdout.splitlines())]
    if done.returncode != 0 or any(len(row) != len(FIELDS) for row in rows):
        return [], " ".join(f"nvidia-smi ended with {done.returncode}: {done.stderr or done.stdout}".split())[:200]
    return [gpu_of(row) for row in rows], ""


def gpu_of(row: list[str]) -> Gpu:
    """A GPU from a line of nvidia-smi; what it does not know (`[N/A]`) is 0."""
    uuid, name, *numbers = row[:5]
    total, used, errors = (int(number) if number.isdigit() else 0 for number in numbers)
    return Gpu(uuid, name, total, used, errors, "Active" in row[5:])
