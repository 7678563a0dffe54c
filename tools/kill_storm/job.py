"""One start of a training by torchrun, and its processes, found by a variable that all of them inherit."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tools.kill_storm.noting import NOTES, START

MARK = "KILL_STORM_MARK"
LAUNCHER = [sys.executable, "-m", "torch.distributed.run", "--standalone"]


@dataclass(frozen=True)
class Process:
    """A living process of a job.

    Attributes:
        pid: its id.
        parent: its parent's.
        rank: which process of the training it is, or works for; -1 for the launcher.
        command: its arguments, joined.
    """

    pid: int
    parent: int
    rank: int
    command: str


class Job:
    """A job under torchrun, started when it is made.

    Attributes:
        started: when, by `time.time`.
    """

    def __init__(self, number: int, arguments: list[str], num_ranks: int, out: Path) -> None:
        """Starts `worldmodel` with these arguments; it prints into OUT/log.txt, and notes into OUT/notes.jsonl."""
        self.mark = f"{os.getpid()}.{number}"
        temporary = out / "tmp"  # what torchrun and multiprocessing leave there where they are killed
        temporary.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {
            MARK: self.mark,
            NOTES: str(out / "notes.jsonl"),
            START: str(number),
            "TMPDIR": str(temporary),
            "OMP_NUM_THREADS": "1",
        }
        command = [*LAUNCHER, f"--nproc-per-node={num_ranks}", "-m", "--", "tools.kill_storm.noting", *arguments]
        self.started = time.time()
        with (out / "log.txt").open("ab") as log:
            self.launcher = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def processes(self) -> list[Process]:
        """Those that are alive, whoever their parent is by now."""
        return [each for each in map(self.look_at, Path("/proc").glob("[0-9]*")) if each is not None]

    def look_at(self, folder: Path) -> Process | None:
        """A process by its folder in /proc; None where it has gone, or is of no concern."""
        try:
            variables = (folder / "environ").read_bytes().split(b"\0")
            if f"{MARK}={self.mark}".encode() not in variables:
                return None
            # The name of the program, in brackets, may hold anything.
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
        except OSError:
            return None
        ranks = [int(line.partition(b"=")[2]) for line in variables if line.startswith(b"RANK=")]
        return None if state == "Z" else Process(int(folder.name), int(parent), ranks[0] if ranks else -1, command)

    def find(self, target: str, rank: int) -> int | None:
        """The id of the launcher, of a rank or of a worker that reads ahead for it; None while there is none."""
        if target == "launcher":
            return self.launcher.pid if self.launcher.poll() is None else None
        for process in self.processes():
            is_worker = "spawn_main" in process.command
            is_rank = process.parent == self.launcher.pid and "tools.kill_storm.noting" in process.command
            if process.rank == rank and (is_worker if target == "worker" else is_rank and not is_worker):
                return process.pid
        return None

    def kill(self, target: str, rank: int, name: str) -> bool:
        """Sends a signal; False where there is nobody to get it."""
        pid = self.find(target, rank)
        try:
            if pid is not None:
                os.kill(pid, signal.Signals[name])
        except ProcessLookupError:
            return False
        return pid is not None

    @property
    def ended(self) -> bool:
        """Whether no process of it is left."""
        return self.launcher.poll() is not None and not self.processes()

    @property
    def status(self) -> int | None:
        """The launcher's exit status."""
        return self.launcher.poll()

    def end(self) -> None:
        """Kills what is left."""
        while not self.ended:
            for process in self.processes():
                try:
                    os.kill(process.pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.05)
