"""Calls the doctor in two processes, with one fault after another, most of them in process 1 alone.

    python -m tests.worldmodel.doctor.faulty FOLDER FAULT [FAULT ...]

The findings of each go to FOLDER/FAULT.json; what the doctor returned is printed.
"""

import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import metadata
from pathlib import Path
from typing import Any
from unittest.mock import patch

from streams.settings import LoaderSettings
from worldmodel.doctor import exchange, facts, shared_folder
from worldmodel.doctor.examination import examine
from worldmodel.settings import DoctorSettings
from worldmodel.training import cluster

version, replace_by = metadata.version, shared_folder.replace_by
SMI = """#!/bin/sh
echo 'GPU-1, NVIDIA H100, 81559, 40000, 3, Active, Not Active'
"""


@contextmanager
def few_open_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextmanager
def sick_gpu(folder: Path) -> Iterator[None]:
    (folder / "bin").mkdir()
    (folder / "bin" / "nvidia-smi").write_text(SMI)
    (folder / "bin" / "nvidia-smi").chmod(0o755)
    changed = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    with patch.dict(os.environ, changed | {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}, clear=True):
        yield


def in_place(target: Path, letter: bytes) -> None:
    """As a file system would replace a file whose rename is not atomic: half of it is there for a while."""
    target.write_bytes(letter * (shared_folder.PIECE_BYTES // 2))
    time.sleep(0.001)
    replace_by(target, letter)


def faults(folder: Path) -> dict[str, Callable[[], AbstractContextManager[Any]]]:
    """In process 1."""
    return {
        "version": lambda: patch.object(metadata, "version", lambda name: "9.9" if name == "zarr" else version(name)),
        "source": lambda: patch.object(facts, "source_digest", lambda: "0badc0de"),
        "clock": lambda: patch.object(exchange, "now", lambda: time.time() + 100),
        "lock": lambda: patch.object(shared_folder, "taken", lambda file: True),
        "open files": few_open_files,
        "GPU": lambda: sick_gpu(folder),
        "decoder": lambda: patch.object(facts, "decodable", lambda: ["vp9"]),
        "machine": lambda: patch.dict(os.environ, {"SLURM_NTASKS_PER_NODE": "4"}),
        "hang": lambda: patch.object(exchange, "now", lambda: time.sleep(1000)),
        "death": lambda: patch.object(exchange, "now", lambda: os._exit(9)),
    }


EVERYWHERE: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "rename": lambda: patch.object(shared_folder, "replace_by", in_place),
    "sums": lambda: patch.object(exchange, "_right", lambda values, num_ranks: False),
}
SETTINGS: dict[str, dict[str, Any]] = {
    "shm": {"loader": LoaderSettings(num_workers=10**9)},
    "disk": {"disk_gibibytes": 1e9},
    "rate": {"gigabytes_per_second": 1e9},
    "hang": {"timeout_seconds": 6.0},
}


def main(folder: Path, names: list[str]) -> None:
    rank = cluster.find_ranks().rank
    with patch.dict(os.environ, {"SLURMD_NODENAME": f"n{rank + 1}"}), patch.object(shared_folder, "SEEN_SECONDS", 0.5):
        for name in names:
            apart = f"{name}-of-{rank}" if name == "folder" else name
            settings = DoctorSettings(
                str(folder / "places" / apart), str(folder / f"{name}.json"), **SETTINGS.get(name, {})
            )
            fault = EVERYWHERE.get(name) or (faults(folder).get(name) if rank == 1 else None) or nullcontext
            with fault():
                print(f"{name}: {examine(settings)}", flush=True)


if __name__ == "__main__":
    from worldmodel.errors import LostProcessError

    status = 0
    try:
        main(Path(sys.argv[1]), sys.argv[2:])
    except LostProcessError as error:
        print(f"error: {error}")
        status = 1
    cluster.leave(status)
