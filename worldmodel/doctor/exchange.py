"""What processes measure together: the difference of their clocks, and how fast they exchange numbers."""

import time
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from worldmodel.doctor.findings import Finding, judge
from worldmodel.training import cluster

if TYPE_CHECKING:
    from torch import Tensor, device
    from torch.distributed import ProcessGroup

NUM_PINGS = 8
CLOCK_SECONDS = (0.5, 10.0)  # a warning, and a failure
SIZES_BYTES = (2**20, 2**24, 2**27)
LONG_SECONDS = 0.5


def clocks(leaders: Sequence[int], names: Sequence[str]) -> Finding:
    """The largest difference of a machine's clock to that of rank 0; all processes call it together.

    The offset is the other's time less the middle of sending and hearing (Cristian 1989), from the fastest of a few.

    Args:
        leaders: the first rank of every machine; rank 0 is the first.
        names: of their machines.
    """
    import torch
    import torch.distributed as dist

    rank, offsets = cluster.find_ranks().rank, torch.zeros(len(leaders), dtype=torch.float64)
    for place, leader in enumerate(leaders):
        if leader != 0 and rank == 0:
            offsets[place] = _ask(leader)
        elif leader not in (0, rank):
            continue
        elif leader == rank != 0:
            message = torch.zeros(1, dtype=torch.float64)
            for _ in range(NUM_PINGS):
                dist.recv(message, 0)
                dist.send(torch.tensor([now()], dtype=torch.float64), 0)
    cluster.sum_(offsets)  # all but rank 0's are zeros
    most = int(offsets.abs().argmax())
    difference = abs(float(offsets[most]))
    warned, failed = CLOCK_SECONDS
    return judge(
        "clocks",
        difference > failed,
        f"{difference:.3f} s between {names[0]} and {names[most]}" if len(leaders) > 1 else "one machine",
        f"below {warned:g} s",
        "have the machine's time set by NTP (chronyc tracking says how it is)",
        warned=difference > warned,
    )


def _ask(other: int) -> float:
    import torch
    import torch.distributed as dist

    answer, found = torch.zeros(1, dtype=torch.float64), []
    for _ in range(NUM_PINGS):
        sent = now()
        dist.send(answer, other)
        dist.recv(answer, other)
        heard = now()
        found.append((heard - sent, float(answer) - (sent + heard) / 2))
    return min(found)[1]


def now() -> float:
    """The machine's clock, in seconds."""
    return time.time()


def bandwidth(least_gigabytes: float, seconds: float) -> Finding:
    """How fast a sum over all processes is; nccl where there are GPUs, else gloo. All processes call it together.

    The figure is that of nccl-tests: bytes times 2 (n - 1) / n, which each process sends, by the time. Larger pieces
    are tried while they do not take long.
    """
    import torch
    import torch.distributed as dist

    num_ranks = cluster.find_ranks().num_ranks
    kind = "nccl" if torch.cuda.is_available() else "gloo"
    if num_ranks == 1:
        return Finding("all-reduce", "pass", "one process", "nothing is exchanged")
    group = dist.new_group(backend=kind, timeout=timedelta(seconds=seconds))
    assert isinstance(group, dist.ProcessGroup), "every process is in it"
    rate, right = 0.0, True
    for size in SIZES_BYTES:
        took, correct = _sum_once(size, group, cluster.device(), num_ranks)
        rate, right = max(rate, size * 2 * (num_ranks - 1) / num_ranks / took), right and correct
        if took > LONG_SECONDS:
            break
    dist.destroy_process_group(group)
    gigabytes = rate / 1e9
    return judge(
        "all-reduce",
        not right,
        f"{gigabytes:.2f} GB/s ({kind})" if right else f"wrong sums ({kind})",
        f"{least_gigabytes:g} GB/s or more, right sums",
        "name the fastest network's interface: NCCL_SOCKET_IFNAME, NCCL_IB_HCA (NCCL_DEBUG=INFO says which is taken)",
        warned=gigabytes < least_gigabytes,
    )


def _sum_once(size: int, group: "ProcessGroup", device: "device", num_ranks: int) -> tuple[float, bool]:
    """Seconds of the slowest process, the same everywhere, and whether all sums are right."""
    import torch
    import torch.distributed as dist

    values = torch.ones(size // 4, device=device)
    dist.all_reduce(values[:1].clone(), group=group)
    _finish(values)
    started = time.perf_counter()
    dist.all_reduce(values, group=group)
    _finish(values)
    took = time.perf_counter() - started
    wrong = float(not _right(values, num_ranks))
    slowest, any_wrong = cluster.largest_(torch.tensor([took, wrong], dtype=torch.float64)).tolist()
    return slowest, any_wrong == 0


def _right(sums: "Tensor", num_ranks: int) -> bool:
    return bool((sums == num_ranks).all())


def _finish(values: "Tensor") -> None:
    import torch

    if values.is_cuda:
        torch.cuda.synchronize()
