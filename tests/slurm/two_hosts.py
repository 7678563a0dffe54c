"""Two hosts on this machine: network namespaces that a cable (a pair of virtual interfaces) joins."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.worldmodel.training.toy import ROOT

INTERFACE = "cable"
ADDRESSES = ("10.213.77.1", "10.213.77.2")
PORT = "29511"


def ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr} (needs root)"


class TwoHosts:
    """Hosts `left` and `right`; rank 0 is on the left."""

    def __init__(self) -> None:
        self.names = [f"{side}{os.getpid()}" for side in ("left", "right")]

    def join(self) -> None:
        """Two namespaces, and the cable between them."""
        for name in self.names:
            ip("netns", "add", name)
        left, right = self.names
        ip("link", "add", INTERFACE, "netns", left, "type", "veth", "peer", "name", INTERFACE, "netns", right)
        for name, address in zip(self.names, ADDRESSES, strict=True):
            ip("-n", name, "address", "add", f"{address}/24", "dev", INTERFACE)
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", INTERFACE, "up")

    def cut(self) -> None:
        """Nothing passes any more; nobody is told."""
        ip("-n", self.names[1], "link", "set", INTERFACE, "down")

    def mend(self) -> None:
        """The cable is in again."""
        ip("-n", self.names[1], "link", "set", INTERFACE, "up")

    def remove(self) -> None:
        """Deletes the namespaces, and the cable with them."""
        for name in self.names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)

    def train(self, run: Path, *arguments: str, **variables: str) -> list[subprocess.Popen[str]]:
        """Starts the toy training, one process on each host."""
        ranks = {"WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": ADDRESSES[0], "MASTER_PORT": PORT}
        threads = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "GLOO_SOCKET_IFNAME": INTERFACE}
        command = [sys.executable, "-W", "error", "-m", "tests.slurm.toy_command", "train", *arguments, str(run)]
        started = []
        for rank, (name, side) in enumerate(zip(self.names, ("left", "right"), strict=True)):
            own = {"RANK": str(rank), "SLURMD_NODENAME": side}
            started.append(
                subprocess.Popen(
                    ["ip", "netns", "exec", name, *command],
                    env=os.environ | ranks | threads | own | variables,
                    cwd=ROOT,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
        return started


@contextmanager
def two_hosts() -> Iterator[TwoHosts]:
    assert shutil.which("ip"), "needs iproute2"
    hosts = TwoHosts()
    try:
        hosts.join()
        yield hosts
    finally:
        hosts.remove()
