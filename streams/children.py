"""Work in child processes with a limit of time and memory, so that one bad file costs no more than itself."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Generic, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")

# A child that has no address space left for its own growth cannot even say so.
MIN_MEMORY_BYTES = 64 << 20
# What starting Python and importing the libraries may take; only then a job's own time begins.
START_SECONDS = 60.0


@dataclass(frozen=True)
class Failure:
    """Why there is no result: the child hung, or ended."""

    reason: str


@dataclass(frozen=True)
class Started:
    """What a child sends when it is ready for its first job."""


class Child(Generic[Job, Result]):
    """A process that does one job at a time."""

    def __init__(self, work: Callable[[Job], Result], memory_limit_bytes: int) -> None:
        """Spawns it: a media library that was loaded before a fork can hang in the child."""
        context = get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, work, memory_limit_bytes), daemon=True)
        self.process.start()
        theirs.close()
        self.job: Job | None = None
        self.limit_seconds, self.deadline, self.started = 0.0, 0.0, False

    def begin(self, job: Job, limit_seconds: float) -> None:
        """Sends a job; its time begins when the process is ready."""
        self.job, self.limit_seconds = job, limit_seconds
        self.deadline = time.monotonic() + limit_seconds + (0.0 if self.started else START_SECONDS)
        with suppress(BrokenPipeError, ConnectionResetError):  # it has ended: `outcome` says how
            self.connection.send(job)

    def outcome(self) -> Result | Failure | None:
        """What came of the job; None while it may go on. After a failure the process is gone."""
        try:
            if self.connection.poll():
                received = self.connection.recv()
                if not isinstance(received, Started):
                    return received
                self.started, self.deadline = True, time.monotonic() + self.limit_seconds
        except (EOFError, ConnectionResetError):
            self.process.join()
            return Failure(ending_of(self.process.exitcode))
        if time.monotonic() < self.deadline:
            return None
        self.end()
        return Failure(f"the decoder hung: not done after {self.limit_seconds:.0f} s")

    def end(self) -> None:
        """Kills the process and frees what it holds."""
        self.process.kill()
        self.process.join()
        self.process.close()
        self.connection.close()


def run_in_children(
    work: Callable[[Job], Result],
    jobs: Sequence[Job],
    limit_seconds_of: Callable[[Job], float],
    num_workers: int,
    memory_limit_bytes: int,
) -> Iterator[tuple[Job, Result | Failure]]:
    """Does all jobs, each within its limits; yields them as they are done, in any order.

    Args:
        work: a function of a module, since it is sent to the children; what it raises ends its child.
        jobs: what to do.
        limit_seconds_of: time that one job may take.
        num_workers: children at a time.
        memory_limit_bytes: address space that one child may fill beyond what Python and its libraries reserve.
    """
    waiting = iter(jobs)
    children = [Child(work, memory_limit_bytes) for _ in range(min(num_workers, len(jobs)))]
    busy: list[Child[Job, Result]] = []
    idle = list(children)
    try:
        while True:
            while idle and (job := next(waiting, None)) is not None:
                idle[-1].begin(job, limit_seconds_of(job))
                busy.append(idle.pop())
            if not busy:
                return
            nearest = min(child.deadline for child in busy) - time.monotonic()
            wait([child.connection for child in busy], max(0.0, nearest))
            for child in list(busy):
                outcome = child.outcome()
                if outcome is None:
                    continue
                busy.remove(child)
                if isinstance(outcome, Failure):
                    children.remove(child)
                    children.append(Child(work, memory_limit_bytes))
                idle.append(child if child in children else children[-1])
                assert child.job is not None
                yield child.job, outcome
    finally:
        for child in children:
            child.end()


def serve(connection: Connection, work: Callable[[Any], Any], memory_limit_bytes: int) -> None:
    """The child's life: a job, its result, the next, until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    limit_memory(memory_limit_bytes)
    connection.send(Started())
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        connection.send(work(job))


def limit_memory(limit_bytes: int) -> None:
    """Lets the process take this much memory in all: what it has now, and address space for the rest."""
    import resource

    reserved, resident = memory_bytes()
    room = max(MIN_MEMORY_BYTES, limit_bytes - resident)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (reserved + room, hard))


def memory_bytes() -> tuple[int, int]:
    """Address space that this process has reserved, and memory that it fills."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()
    size = os.sysconf("SC_PAGE_SIZE")
    return int(pages[0]) * size, int(pages[1]) * size


def peak_memory_bytes() -> int:
    """The most memory that this process has filled."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def ending_of(status: int | None) -> str:
    """How a process ended, in words."""
    if status is not None and status < 0:
        return f"the decoder crashed ({signal.Signals(-status).name})"
    return f"the decoder ended with status {status}"
