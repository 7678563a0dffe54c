"""The other processes of a run: on which machines they are, and whether they are there when they do not answer.

Every process listens on a port of its own, on which nothing is ever said: that the kernel takes the connection says
that the process lives, that it refuses says that it has ended, and silence that the machine or the network is gone.
"""

import ipaddress
import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from worldmodel.errors import LostProcessError
from worldmodel.training import cluster

PROBE_SECONDS = 3.0
MAX_NAMED = 8
RUNS = "runs, and does not answer"


@dataclass(frozen=True)
class Peer:
    """Where another process of the run is."""

    rank: int
    machine: str
    address: str
    port: int

    def state(self) -> str:
        """What is known of it now, in words; takes `PROBE_SECONDS` at the most."""
        try:
            socket.create_connection((self.address, self.port), PROBE_SECONDS).close()
        except ConnectionRefusedError:
            return "has ended"
        except OSError as error:
            return f"cannot be reached ({error})"
        return RUNS


@dataclass
class Company:
    """Those whom `meet` found; `listener` is this process's own port."""

    peers: list[Peer] = field(default_factory=list)
    listener: socket.socket | None = None


company = Company()


def meet() -> None:
    """Learns where the others are; all processes of a run call it together, once they are connected."""
    ranks = cluster.find_ranks()
    if ranks.num_ranks == 1 or company.listener is not None:
        return
    family, address = own_address(ranks.address)
    company.listener = socket.create_server(("", 0), family=family, backlog=ranks.num_ranks)
    os.register_at_fork(after_in_child=company.listener.close)  # a worker that outlives its process is not the process
    found = cluster.texts(f"{cluster.machine()} {address} {company.listener.getsockname()[1]}")
    for rank, text in enumerate(found):
        if rank != ranks.rank:
            machine, address, port = text.split()
            company.peers.append(Peer(rank, machine, address, int(port)))


def own_address(meeting_point: str) -> tuple[socket.AddressFamily, str]:
    """Family and text of the address under which other machines see this one, judged by the way to the meeting point.

    On the machine of the meeting point itself, which may know itself by a loopback address, it is the meeting point.
    """
    family, kind, _, _, target = socket.getaddrinfo(meeting_point, 9, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as probe:
        probe.connect(target)  # asks for the way; of a datagram's socket nothing is sent
        address = probe.getsockname()[0]
    return family, meeting_point if ipaddress.ip_address(address).is_loopback else address


def states() -> list[str]:
    """What became of the others, those first that are gone; empty where this process is alone."""
    if not company.peers:
        return []
    with ThreadPoolExecutor(min(64, len(company.peers))) as pool:
        states = list(pool.map(Peer.state, company.peers))
    lines = [
        f"process {peer.rank} on {peer.machine} ({peer.address}) {state}"
        for peer, state in sorted(zip(company.peers, states, strict=True), key=lambda pair: pair[1] == RUNS)
    ]
    left = len(lines) - MAX_NAMED
    return lines if left <= 0 else [*lines[:MAX_NAMED], f"{left} more"]


def advice(run: str) -> str:
    """What to do about it where a run was training."""
    return f"see to the machines named and to the network between them; started again with --resume {run}, it goes on"


@contextmanager
def missed(remedy: str) -> Iterator[None]:
    """Inside, the loss of the connection to another process is an error that says which one and what to do.

    Raises:
        LostProcessError: a process has ended, or its machine cannot be reached.
    """
    try:
        yield
    except RuntimeError as error:
        import torch.distributed as dist

        if not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        reason = " ".join(str(error).split())[:200]
        here = f"process {cluster.find_ranks().rank} on {cluster.machine()}"
        raise LostProcessError(
            f"{here} waited for the others in vain ({reason}): {'; '.join(states()) or 'none is known'}; {remedy}"
        ) from error
