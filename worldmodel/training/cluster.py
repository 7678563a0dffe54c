"""Which process of how many this is, and what the processes agree on.

Ranks come from torchrun's variables, from those of `srun`, or there is one process. Only torch.distributed is used, and
only imported where it is needed.
"""

import os
import re
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, NoReturn

from worldmodel.errors import LostProcessError, SettingsError

if TYPE_CHECKING:
    import torch

# A process that waits longer than this for another one gives up; the slowest thing waited for is a checkpoint.
TIMEOUT = timedelta(minutes=15)
# Variables that hold each field of `Ranks`.
TORCHRUN = {
    "rank": "RANK",
    "num_ranks": "WORLD_SIZE",
    "local_rank": "LOCAL_RANK",
    "address": "MASTER_ADDR",
    "port": "MASTER_PORT",
}
SLURM = TORCHRUN | {"rank": "SLURM_PROCID", "num_ranks": "SLURM_STEP_NUM_TASKS", "local_rank": "SLURM_LOCALID"}


@dataclass(frozen=True)
class Ranks:
    """Place of this process among all of the run.

    Attributes:
        rank: number of this process, from 0.
        num_ranks: processes of the run.
        local_rank: number of this process on its machine.
        address: machine of rank 0.
        port: where rank 0 listens.
    """

    rank: int = 0
    num_ranks: int = 1
    local_rank: int = 0
    address: str = "127.0.0.1"
    port: int = 0


def find_ranks(environment: Mapping[str, str] | None = None) -> Ranks:
    """Ranks from RANK, WORLD_SIZE, ... (torchrun), else from SLURM_PROCID, SLURM_NTASKS, ... (srun), else one process.

    Args:
        environment: variables to read; the process's own if None.

    Raises:
        SettingsError: the variables are incomplete or contradict each other.
    """
    variables = os.environ if environment is None else environment
    if "RANK" in variables or "WORLD_SIZE" in variables:
        names, defaults = TORCHRUN, {}
    elif in_srun(variables):
        names = SLURM
        defaults = {
            "num_ranks": variables["SLURM_NTASKS"],
            # Where srun was called may be a machine outside the job; the step's first one never is.
            "address": first_of(variables.get("SLURM_STEP_NODELIST")) or variables.get("SLURM_LAUNCH_NODE_IPADDR"),
            # The same on every process of a job, and another one for the job beside it.
            "port": str(20000 + int(variables.get("SLURM_JOB_ID", "0")) % 20000),
        }
    else:
        return Ranks()
    values = {field: variables.get(name) or defaults.get(field) for field, name in names.items()}
    if values["num_ranks"] == "1":  # one process alone has nobody to meet
        values = {"local_rank": "0", "address": "127.0.0.1", "port": "0"} | {k: v for k, v in values.items() if v}
    missing = [names[field] for field, value in values.items() if value is None]
    if missing:
        raise SettingsError(f"{missing[0]} is not set: start one process per GPU with srun or torchrun")
    return checked({field: str(value) for field, value in values.items()})


def first_of(nodes: str | None) -> str | None:
    """The first machine of a list as Slurm writes it: gpu07 of gpu[07-09,12],cpu1."""
    return re.sub(r"\[(\d+)[^]]*]", r"\1", nodes).partition(",")[0] if nodes else None


def in_srun(variables: Mapping[str, str]) -> bool:
    """Whether srun started this process; the batch script itself has a SLURM_PROCID too, but no step."""
    if "SLURM_PROCID" not in variables or "SLURM_NTASKS" not in variables:
        return False
    return "SLURM_JOB_ID" not in variables or variables.get("SLURM_STEP_ID", "batch").isdigit()


def checked(ranks: Mapping[str, str]) -> Ranks:
    """Ranks from their texts.

    Raises:
        SettingsError: something is not a number, or the rank is not below the number of ranks.
    """
    numbers = {name: value for name, value in ranks.items() if name != "address"}
    wrong = [f"{name} {value!r}" for name, value in numbers.items() if not value.isdigit()]
    if wrong:
        raise SettingsError(f"{wrong[0]} is not a number: check the launcher's variables")
    found = Ranks(address=ranks["address"], **{name: int(value) for name, value in numbers.items()})
    if found.rank >= found.num_ranks:
        raise SettingsError(f"rank {found.rank} of {found.num_ranks} processes: ranks count from 0")
    return found


def start() -> Ranks:
    """Connects the processes (nccl where there is a GPU, else gloo); a second call only returns the ranks.

    Raises:
        LostProcessError: the ranks cannot meet.
        SettingsError: as `find_ranks`.
    """
    import torch
    import torch.distributed as dist

    ranks = find_ranks()
    if dist.is_initialized():
        return ranks
    gpu = torch.cuda.is_available()
    # With one GPU made visible per process every process has number 0.
    device = ranks.local_rank % torch.cuda.device_count() if gpu else ranks.local_rank
    if gpu:
        torch.cuda.set_device(device)
    os.environ["LOCAL_RANK"] = str(device)
    kind = "nccl" if gpu else "gloo"
    if ranks.num_ranks == 1:
        # One process needs no port and no name of its machine.
        store = dist.HashStore()  # pyright: ignore[reportPrivateImportUsage]
        dist.init_process_group(kind, store=store, rank=0, world_size=1, timeout=TIMEOUT)
        return ranks
    try:
        require_launcher(ranks)
        dist.init_process_group(
            kind,
            init_method=f"tcp://{ranks.address}:{ranks.port}",
            rank=ranks.rank,
            world_size=ranks.num_ranks,
            timeout=TIMEOUT,
            device_id=torch.device("cuda", device) if gpu else None,
        )
    except (dist.DistError, OSError) as error:
        reason = str(error).splitlines()[0]
        # No mistake in the settings: the next start may have another machine, or another port.
        raise LostProcessError(
            f"process {ranks.rank} on {machine()} cannot meet the others at {ranks.address}:{ranks.port} "
            f"({reason}): set MASTER_ADDR and MASTER_PORT to rank 0's machine and a free port"
        ) from error
    return ranks


def require_launcher(ranks: Ranks) -> None:
    """Asks whether torchrun, which listens where the processes meet before it starts them, is still there.

    The rendezvous would knock at its door until the time is over.

    Raises:
        OSError: it has ended.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        socket.create_connection((ranks.address, ranks.port), TIMEOUT.total_seconds()).close()


def leave(status: int) -> NoReturn:
    """Ends the program with this exit status.

    One of several processes ends without Python's farewell: threads of the connections to the others can abort it
    there, and the scheduler would read the abort instead of the status.
    """
    dist = sys.modules.get("torch.distributed")
    if dist is None or not dist.is_initialized() or dist.get_world_size() == 1:
        sys.exit(status)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def machine() -> str:
    """Name of this process's machine, as the scheduler knows it."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def data_ranks(num_sharing: int) -> tuple[int, int]:
    """Number of this process among those that read different data, and how many these are.

    Args:
        num_sharing: neighbouring processes that read the same.
    """
    ranks = find_ranks()
    return ranks.rank // num_sharing, ranks.num_ranks // num_sharing


def is_main() -> bool:
    """Whether this process is rank 0, which writes what is written once."""
    return find_ranks().rank == 0


def device() -> "torch.device":
    """Where this process computes: its GPU (the one that `start` chose), or the CPU."""
    import torch

    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def barrier() -> None:
    """Waits until every process is here."""
    import torch.distributed as dist

    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.barrier()


def sum_(values: "torch.Tensor") -> "torch.Tensor":
    """Sum over the processes, in place."""
    return reduced(values, "SUM")


def largest_(values: "torch.Tensor") -> "torch.Tensor":
    """Maximum over the processes, in place."""
    return reduced(values, "MAX")


def reduced(values: "torch.Tensor", operation: str) -> "torch.Tensor":
    """The values of all processes reduced into `values`; as they are where one process is alone."""
    import torch.distributed as dist

    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(values, getattr(dist.ReduceOp, operation))
    return values


def texts(text: str) -> list[str]:
    """The text of every process, on every process, by rank."""
    import torch
    import torch.distributed as dist

    if not dist.is_initialized() or dist.get_world_size() == 1:
        return [text]
    # As bytes in tensors: the object collectives of torch.distributed unpickle what they receive.
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    raw = text.encode()
    length = largest_(torch.tensor([len(raw)], device=device))
    padded = torch.tensor(list(raw.ljust(int(length), b"\0")), dtype=torch.uint8, device=device)
    found = [torch.empty_like(padded) for _ in range(dist.get_world_size())]
    dist.all_gather(found, padded)
    return [bytes(one.tolist()).rstrip(b"\0").decode() for one in found]
