"""The processes meet, and it is told who did not come: nothing else of torch.distributed says that.

The meeting is a store of torch on rank 0, where everybody signs; who is missing or came twice is known before the
connection of all is tried, which would only wait.
"""

import os
import time
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from worldmodel.doctor.findings import Finding, judge
from worldmodel.training import cluster
from worldmodel.training.cluster import Ranks

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Meeting:
    """How it went.

    Attributes:
        finding: for the table.
        complete: whether everybody is connected with everybody.
    """

    finding: Finding
    complete: bool


def meet(ranks: Ranks, seconds: float) -> Meeting:
    """Connects all processes (gloo), waiting for so many seconds at the most."""
    import torch.distributed as dist
    from torch.distributed import HashStore, PrefixStore, TCPStore  # pyright: ignore[reportPrivateImportUsage]

    if dist.is_initialized():
        return Meeting(found([str(rank) for rank in range(ranks.num_ranks)], ranks.num_ranks), True)
    if ranks.num_ranks == 1:
        dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
        return Meeting(found(["0"], 1), True)
    # torchrun has opened such a store itself, and starts its processes again after a failure.
    of_torchrun = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    try:
        opened = TCPStore(
            ranks.address,
            ranks.port,
            None,
            is_master=ranks.rank == 0 and not of_torchrun,
            timeout=timedelta(seconds=seconds),
            wait_for_workers=False,
        )
        store = PrefixStore(f"doctor {os.environ.get('TORCHELASTIC_RESTART_COUNT', '')}", opened)
        finding = roll_call(store, ranks, seconds)
    except dist.DistError as error:
        return Meeting(unreachable(ranks, error), False)
    if finding.verdict == "FAIL":
        return Meeting(finding, False)
    try:
        dist.init_process_group(
            # Longer than any check may take, so that the watch over the checks says what was waited for.
            "gloo",
            store=store,
            rank=ranks.rank,
            world_size=ranks.num_ranks,
            timeout=timedelta(seconds=2 * seconds),
        )
    except RuntimeError as error:  # gloo's own errors have no class
        return Meeting(unconnected(ranks, error), False)
    return Meeting(finding, True)


def roll_call(store: "Store", ranks: Ranks, seconds: float) -> Finding:
    """Who has signed, after so many seconds, or as soon as there are as many as there should be."""
    number = store.add("signed", 1)
    store.set(f"signature {number}", f"{ranks.rank} {cluster.machine()}")
    stop = time.monotonic() + seconds
    while (signed := store.add("signed", 0)) < ranks.num_ranks and time.monotonic() < stop:
        time.sleep(POLL_SECONDS)
    signatures = [store.get(f"signature {number}").decode() for number in range(1, signed + 1)]
    finding = found(signatures, ranks.num_ranks)
    if finding.verdict == "FAIL" and ranks.rank == 0:
        time.sleep(1.0)  # the others read the signatures from this process
    return finding


def found(signatures: list[str], num_ranks: int) -> Finding:
    """What is to be said of those who signed with rank and machine."""
    counts = Counter(int(signature.split()[0]) for signature in signatures)
    missing = [str(rank) for rank in range(num_ranks) if rank not in counts]
    twice = [signature for signature in signatures if counts[int(signature.split()[0])] > 1]
    words = [f"{len(signatures)} of {num_ranks} came"]
    words += [f"missing: {', '.join(missing[:8])}{' ...' if len(missing) > 8 else ''}"] if missing else []
    words += [f"the same rank twice: {', '.join(twice[:8])}"] if twice else []
    return judge(
        "ranks",
        bool(missing or twice),
        "; ".join(words),
        "each rank once",
        "start all by one srun or torchrun; a machine that is missing cannot reach MASTER_ADDR, or did not start",
    )


def unreachable(ranks: Ranks, error: Exception) -> Finding:
    """Rank 0 cannot listen, or is not found."""
    reason = " ".join(str(error).split())[:120]
    return judge(
        "ranks",
        True,
        f"{ranks.address}:{ranks.port} cannot be used by process {ranks.rank} on {cluster.machine()} ({reason})",
        "all meet at rank 0",
        "set MASTER_ADDR to the machine of rank 0 and MASTER_PORT to a port that is free and not blocked",
    )


def unconnected(ranks: Ranks, error: Exception) -> Finding:
    """All have met, but do not reach each other."""
    reason = " ".join(str(error).split())[:120]
    return judge(
        "ranks",
        True,
        f"process {ranks.rank} on {cluster.machine()} cannot connect to the others ({reason})",
        "all reach each other",
        "name the network's interface: GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME (ip address shows them)",
    )
