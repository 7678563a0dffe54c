"""A throwaway cluster of two nodes on this machine, and what tests do with it."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.worldmodel.training.toy import ROOT

SBATCH = ROOT / "slurm"
TESTBED = Path(__file__).parent / "testbed.sh"
TOY = f"{sys.executable} -W error -m tests.slurm.toy_command"
PATIENCE_SECONDS = 300
needs_slurm = pytest.mark.skipif(
    not all(shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") for name in ("slurmctld", "slurmd", "munged")),
    reason="needs slurm-wlm and munge",
)


class Cluster:
    """A client of the cluster in `folder`, whose nodes are n1 and n2."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.folder = folder
        self.environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin",
            "SLURM_CONF": str(folder / "slurm.conf"),
            # Names of nodes mean nothing outside Slurm, and two nodes share two cores.
            "MASTER_ADDR": "127.0.0.1",
            "OMP_NUM_THREADS": "1",
            "FIRST_JOB": str(first_job() + (1000 if "QUICK" in variables else 0)),
            **variables,
        }

    def testbed(self, action: str, *arguments: str) -> None:
        command = ["bash", TESTBED, action, self.folder, *arguments]
        subprocess.run(command, env=self.environment, check=True, timeout=60)

    def call(self, *command: str, check: bool = True) -> str:
        """What a command of Slurm prints."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS
        )
        assert done.returncode == 0 or not check, done.stderr
        return done.stdout.strip()

    def submit(self, script: str, log: Path, *arguments: str, options: tuple[str, ...] = (), **variables: str) -> str:
        """Submits one of the shipped scripts; the number of its job."""
        command = ["sbatch", "--parsable", f"--output={log}", *options, str(SBATCH / script), *arguments]
        environment = self.environment | variables
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def node(self, name: str) -> str:
        """State of a node, as `idle` or `down*`."""
        return self.call("sinfo", "--noheader", "--Node", f"--nodes={name}", "--format=%t")

    def waits_for_nodes(self, job: str) -> bool:
        """Whether a job has left its nodes and is in the queue again."""
        return self.call("squeue", "--noheader", f"--jobs={job}", "--format=%T") == "PENDING"

    def wait_for_end(self, job: str, log: Path) -> str:
        """Its exit status and the signal that ended it, as `0:0`, of a job or of one job of an array."""
        wait_for(lambda: not self.call("squeue", "--noheader", f"--jobs={job}", check=False), log)
        told = dict(entry.split("=", 1) for entry in self.call("scontrol", "show", "job", job).split() if "=" in entry)
        return told["ExitCode"]

    def kill_node(self, name: str) -> None:
        """As if the power failed: the daemon and all that runs on the node."""
        self.testbed("kill", name)
        tasks = [pid for pid in processes() if f"SLURMD_NODENAME={name}" in environment_of(pid) and self.owns(pid)]
        for pid in {parent_of(task) for task in tasks} - {1} | set(tasks):
            with suppress(ProcessLookupError):  # it may have ended meanwhile
                os.kill(pid, signal.SIGKILL)

    def owns(self, pid: int) -> bool:
        return f"SLURM_CONF={self.folder / 'slurm.conf'}" in environment_of(pid)


def first_job() -> int:
    """A number that no other cluster uses: two jobs of one number would meet at one port of this machine."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    return 1 + 5000 * (os.getppid() % 4) + 2000 * (int(worker) % 2)


def processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def environment_of(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 1


@contextmanager
def running_cluster(folder: Path, **variables: str) -> Iterator[Cluster]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(min(listener.getsockname()[1], 60000))
    cluster = Cluster(folder, **variables)
    try:
        cluster.testbed("up", "2", port)
        yield cluster
    finally:
        cluster.testbed("down")


def wait_for(condition: Callable[[], bool], log: Path) -> None:
    stop = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < stop, read(log)
        time.sleep(0.1)


def read(log: Path) -> str:
    return log.read_text() if log.exists() else "the job has not started"


def losses_of(folder: Path, rank: int) -> list[str]:
    """Losses of the toy that one process wrote down at its end."""
    return (folder / f"losses{rank}").read_text().splitlines()


def told(fault: str, injected: float, went_on: float) -> None:
    """For docs/reliability.md: how long a training stood still; no test asserts it."""
    print(f"{fault}: training went on after {went_on - injected:.1f} s")
