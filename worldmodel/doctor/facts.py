"""What a process knows of itself and its machine, as it is told to the others."""

import dataclasses
import hashlib
import json
import os
import platform
import resource
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from streams.pyav.decoders import decodable
from worldmodel.doctor.gpus import Gpu, find_gpus
from worldmodel.training import cluster, peers

PACKAGES = ("torch", "deepspeed", "av", "zarr")
SHARED_MEMORY, INFINIBAND = Path("/dev/shm"), Path("/sys/class/infiniband")
UNLIMITED = -1


@dataclass(frozen=True)
class Facts:
    """Of one process and its machine.

    Attributes:
        rank: of the process.
        local_rank: its number on its machine.
        machine: its name.
        address: under which the other machines see it.
        expected_local: processes that the launcher says are on this machine; 0 where it says nothing.
        versions: of Python, packages and this project (with a digest of its source), by name.
        open_files: that the process may have.
        locked_bytes: of memory that it may lock; -1 for any number.
        has_infiniband: whether the machine has such a network.
        shm_bytes: size of /dev/shm.
        shm_free_bytes: of it, not in use.
        gpus: that nvidia-smi shows to it.
        gpu_trouble: why nvidia-smi cannot be asked.
        num_torch_gpus: that torch can use.
        decoders: kinds of pictures and sound that can be read.
    """

    rank: int
    local_rank: int
    machine: str
    address: str
    expected_local: int
    versions: dict[str, str]
    open_files: int
    locked_bytes: int
    has_infiniband: bool
    shm_bytes: int
    shm_free_bytes: int
    gpus: list[Gpu]
    gpu_trouble: str
    num_torch_gpus: int
    decoders: list[str]

    def to_text(self) -> str:
        """As JSON."""
        return json.dumps(dataclasses.asdict(self))

    @staticmethod
    def from_text(text: str) -> "Facts":
        """From `to_text`."""
        plain = json.loads(text)
        return Facts(**plain | {"gpus": [Gpu(**gpu) for gpu in plain["gpus"]]})


def collect() -> Facts:
    """Of this process."""
    import torch

    ranks, (gpus, gpu_trouble) = cluster.find_ranks(), find_gpus()
    shm = shutil.disk_usage(SHARED_MEMORY) if SHARED_MEMORY.is_dir() else None
    locked = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    return Facts(
        rank=ranks.rank,
        local_rank=ranks.local_rank,
        machine=cluster.machine(),
        address=peers.own_address(ranks.address)[1],
        expected_local=expected_local(os.environ),
        versions=versions(),
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        locked_bytes=UNLIMITED if locked == resource.RLIM_INFINITY else locked,
        has_infiniband=INFINIBAND.is_dir() and any(INFINIBAND.iterdir()),
        shm_bytes=shm.total if shm else 0,
        shm_free_bytes=shm.free if shm else 0,
        gpus=gpus,
        gpu_trouble=gpu_trouble,
        num_torch_gpus=torch.cuda.device_count(),
        decoders=decodable(),
    )


def expected_local(variables: Mapping[str, str]) -> int:
    """Processes on this machine by what torchrun or srun say; 0 where they say nothing, or different numbers."""
    told = variables.get("LOCAL_WORLD_SIZE") or variables.get("SLURM_NTASKS_PER_NODE", "")
    return int(told) if told.isdigit() else 0


def versions() -> dict[str, str]:
    """What must be the same on every machine."""
    found = {"python": platform.python_version()}
    found |= {name: version_of(name) for name in PACKAGES}
    return found | {"worldmodel": f"{version_of('worldmodel')} ({source_digest()})"}


def version_of(package: str) -> str:
    """As it was installed here."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def source_digest() -> str:
    """Eight digits of the hash of this project's code, so that two checkouts of one version are told apart."""
    root, digest = Path(__file__).resolve().parents[2], hashlib.sha256()
    for path in sorted([*(root / "streams").rglob("*.py"), *(root / "worldmodel").rglob("*.py")]):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:8]
