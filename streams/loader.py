"""Items to batches, prefetched by worker processes; the whole state is one integer."""

import atexit
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from streams.errors import MediaError
from streams.journal import Journal
from streams.positions import Part, Positions, order_of
from streams.settings import LoaderSettings
from streams.source import Source

# Schedulers send these to every process of a step; only the training process is to answer.
SIGNALS = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)

# Items tried before the share of those that failed means anything.
MIN_TRIED = 100
# Batches before workers are replaced again: where they need so much from the start, most time still goes into reading.
MIN_BATCHES = 100
# Loaders whose workers run: deaf to SIGTERM, these must be ended before Python, at its exit, waits for them.
STARTED: "weakref.WeakSet[Loader]" = weakref.WeakSet()


class DeadWorkerError(MediaError):
    """A worker process ended before its work was done."""


class Shares:
    """Positions of one rank's share of every batch, until it is told to end."""

    def __init__(self, start: int, batch_size: int, rank: int, num_ranks: int) -> None:
        """Starts at position `start` of the global order."""
        share = batch_size // num_ranks
        self.first, self.batch_size, self.share = start + rank * share, batch_size, share
        self.ended = False

    def __iter__(self) -> Iterator[list[int]]:
        """Yields one list of positions per step."""
        while not self.ended:
            yield list(range(self.first, self.first + self.share))
            self.first += self.batch_size


class Loader:
    """An endless iterator of batches.

    The global batch of a step is positions [position, position + batch_size), of which every rank reads a contiguous
    share. `position` counts the samples that the iterator's user has got, not those prefetched: a loader made with it
    goes on exactly there, with any number of ranks and workers. The workers take turns, a whole batch each. Where the
    source has blocks, batch_size and num_turns are part of the order; keep them when going on within an epoch.

    Attributes:
        position: samples consumed over all ranks; the whole state.
        waited_seconds: time that the user has waited for batches.
        journal: what this rank has read so far, in which time, and what failed.
        num_replaced_workers: workers that were replaced, since their memory had grown or one of them had died.
    """

    def __init__(
        self,
        source: Source,
        settings: LoaderSettings,
        seed: int,
        position: int = 0,
        rank: int = 0,
        num_ranks: int = 1,
    ) -> None:
        """Prepares the order; workers start with the first batch.

        Raises:
            ValueError: the source is empty, the batch does not divide among the ranks, or seed or position is negative.
        """
        if len(source) == 0:
            raise ValueError("the source has no items")
        if settings.batch_size < 1 or settings.batch_size % num_ranks:
            raise ValueError(f"batch_size {settings.batch_size} must be a multiple of the {num_ranks} processes")
        if settings.num_turns < 1:
            raise ValueError(f"num_turns {settings.num_turns} must be 1 or more")
        if not 0 <= rank < num_ranks:
            raise ValueError(f"rank {rank} is not one of {num_ranks}")
        if seed < 0 or position < 0:
            raise ValueError(f"seed {seed} and position {position} must not be negative")
        self.source, self.settings, self.seed = source, settings, seed
        self.position, self.waited_seconds = position, 0.0
        self.rank, self.num_ranks = rank, num_ranks
        self.order = order_of(source, seed, settings.batch_size * settings.num_turns)
        self.journal, self.num_replaced_workers = Journal(), 0
        self.died_at = -1  # position at which a worker died last
        self.batches: Iterator[Part] | None = None
        self.workers: set[BaseProcess] = set()

    @property
    def num_workers(self) -> int:
        """Workers at work: where there are blocks, as many as divide num_turns, so that each lane stays with one."""
        asked = self.settings.num_workers
        if not self.order.in_lanes:
            return asked
        return max((number for number in range(1, asked + 1) if self.settings.num_turns % number == 0), default=0)

    def __iter__(self) -> "Loader":
        """The loader is its own iterator; a second `iter` goes on where the first one was."""
        return self

    def __next__(self) -> Any:
        """The next batch (this rank's share).

        Raises:
            MediaError: more than max_failed_share of what was read could not be.
        """
        started = time.perf_counter()
        with ExitStack() as after_an_error:
            # A batch that fails is not passed over: the next call starts again at the same position.
            after_an_error.callback(self.close)
            part = self.next_part()
            self.note(part.journal)
            after_an_error.pop_all()
        self.num_since_start += 1
        if part.memory_bytes > self.settings.worker_memory_mebibytes * 2**20:
            self.replace_workers(part.memory_bytes)
        self.position += self.settings.batch_size
        self.waited_seconds += time.perf_counter() - started
        return part.batch

    def next_part(self) -> Part:
        """The next batch of the workers, or of new ones where the old ones have come to their end."""
        try:
            with self.dead_workers_named():
                return self.ask()
        except DeadWorkerError as death:
            # The state is one integer, so new workers go on there. One that dies of what it reads will do so again.
            if self.position == self.died_at:
                raise
            self.died_at = self.position
            self.close()
            self.num_replaced_workers += self.num_workers
            say(f"a worker that reads ahead has died ({death.__cause__}): new ones go on at position {self.position}")
        with self.dead_workers_named():
            return self.ask()

    def ask(self) -> Part:
        """Waits for the next batch."""
        if self.batches is None:
            self.batches = self.start()
        with deaths_heard():
            if not all(worker.is_alive() for worker in self.workers):
                raise RuntimeError("DataLoader worker exited between two batches")
            part = next(self.batches, None)
            if part is None:
                self.close()
                self.batches = self.start()
                part = next(self.batches)
        return part

    @contextmanager
    def dead_workers_named(self) -> Iterator[None]:
        """Says what was being read when a worker died or fell silent, as it does where a decoder crashes or hangs.

        Raises:
            DeadWorkerError: one has died.
            MediaError: one was silent.
        """
        try:
            yield
        except (RuntimeError, OSError, EOFError) as error:
            # One that dies while it hands over a tensor resets the connection.
            cut_off = isinstance(error, OSError | EOFError) and any(map(has_died, self.workers))
            if not (cut_off or str(error).startswith("DataLoader ")):
                raise
            kind = MediaError if "timed out" in str(error) else DeadWorkerError
            path_of = getattr(self.source, "path_of", str)
            positions = next(iter(Shares(self.position, self.settings.batch_size, self.rank, self.num_ranks)))
            items = sorted({path_of(self.order.item_at(position)) for position in positions})
            raise kind(
                f"a worker that reads ahead has died or was silent for {self.settings.timeout_seconds:g} s ({error}); "
                f"the next batch, position {self.position}, is of {', '.join(items)}: examine the videos with "
                "`python -m tools.videos scan` and train on its manifest, or raise timeout_seconds"
            ) from error

    def start(self) -> Iterator[Part]:
        """Starts the workers at the current position."""
        workers: dict[str, Any] = {}
        if self.num_workers > 0:
            workers = {
                "num_workers": self.num_workers,
                "prefetch_factor": self.settings.prefetch_batches,
                "timeout": self.settings.timeout_seconds,
                "worker_init_fn": partial(prepare_worker, os.getpid()),
                # A decoder that was used before a fork can hang in the child.
                "multiprocessing_context": "spawn",
            }
        if self.num_workers < self.settings.num_workers:
            say(
                f"{self.num_workers} of {self.settings.num_workers} workers are used: their number must divide "
                f"num_turns {self.settings.num_turns}; change one of them"
            )
        positions = Positions(self.source, self.order, self.seed)
        # What was read before, in this process, is not for the workers to tell.
        self.note(positions.journal.take())
        self.shares = Shares(self.position, self.settings.batch_size, self.rank, self.num_ranks)
        self.num_since_start = 0
        loader = DataLoader(
            positions,
            batch_sampler=self.shares,
            collate_fn=itself,
            pin_memory=torch.cuda.is_available(),
            # Its own: a draw from torch's, at every start of workers, would change what the training draws.
            generator=torch.Generator(),
            **workers,
        )
        STARTED.add(self)
        with held_signals():
            batches = iter(loader)
        hear_deaths_only_while_waiting()
        # Not the children that are new: another thread may start its loader at the same time.
        self.workers = set(getattr(batches, "_workers", []))
        return batches

    def note(self, journal: Journal) -> None:
        """Adds to the journal, and names every file that failed for the first time.

        Raises:
            MediaError: too many have failed.
        """
        for path in journal.failures.keys() - self.journal.failures.keys():
            say(f"passed over: {path}: {journal.failures[path]}")
        self.journal.add(journal)
        failed = self.journal.counts["failed"]
        tried = failed + self.journal.counts["read"]
        if tried >= MIN_TRIED and failed > self.settings.max_failed_share * tried:
            reasons = "; ".join(f"{path}: {reason}" for path, reason in list(self.journal.failures.items())[:3])
            raise MediaError(
                f"{failed} of {tried} clips cannot be read, more than the share {self.settings.max_failed_share} that "
                f"max_failed_share allows: repair the files, leave them out, or allow more; first reasons: {reasons}"
            )

    def replace_workers(self, memory_bytes: int) -> None:
        """Lets the workers finish the batches that they were asked for; new ones go on from there."""
        if self.num_workers == 0 or self.shares.ended or self.num_since_start < MIN_BATCHES:
            return
        self.shares.ended = True
        self.num_replaced_workers += self.num_workers
        say(
            f"a worker has grown to {memory_bytes >> 20} MiB after {self.num_since_start} batches: the workers are "
            f"replaced (worker_memory_mebibytes {self.settings.worker_memory_mebibytes})"
        )

    def close(self) -> None:
        """Ends the workers; the next batch would start new ones at the current position."""
        # Left to the garbage collector, which may close the queues first, the workers would never hear of it.
        shut_down = getattr(self.batches, "_shutdown_workers", None)
        if shut_down is not None:
            shut_down()
        for worker in self.workers:
            if worker.is_alive():
                # Stuck in a decoder, and deaf to SIGTERM.
                worker.kill()
        self.batches, self.workers = None, set()


def has_died(worker: BaseProcess) -> bool:
    """Whether a worker has ended; its connections close a moment before that can be seen."""
    worker.join(0.5)
    return not worker.is_alive()


def itself(part: Any) -> Any:
    """Nothing is left to collate."""
    return part


def say(text: str) -> None:
    """One line on the terminal, above the bar of progress."""
    tqdm.write(text, file=sys.stderr)


def prepare_worker(parent: int, worker: int) -> None:
    """One thread per worker, deaf to the signals of the step; it ends where its parent has ended while it started.

    Torch's own watch asks from now on whether the parent is the same as now, which would be the reaper of orphans.
    """
    if os.getppid() != parent:
        os._exit(0)
    torch.set_num_threads(1)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    # A worker that ends while its thread still sends a tensor may abort in Python's finalization, and torch reports an
    # error of the loader. Nothing is left to finalize: pass it over, as multiprocessing does after a fork.
    atexit.register(os._exit, 0)


@contextmanager
def held_signals() -> Iterator[None]:
    """Holds signals back while workers are born: these inherit the mask, so none dies before it can ignore them."""
    # Multiprocessing's helper process comes first: its start would let the signals through again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


WAITING = [False]  # whether a batch is waited for now


@contextmanager
def deaths_heard() -> Iterator[None]:
    """While a batch is waited for, the death of a worker is an error at once."""
    WAITING[0] = True
    try:
        yield
    finally:
        WAITING[0] = False


def hear_deaths_only_while_waiting() -> None:
    """Holds torch's handler of SIGCHLD back at all other times.

    It raises wherever the main thread stands: in the middle of an update, or of a checkpoint, of which it would seem to
    be the failure. Who asks for the next batch finds a dead worker all the same.
    """
    handler = signal.getsignal(signal.SIGCHLD)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        return
    if getattr(handler, "held_back", False):
        return

    def held_back(number: int, frame: FrameType | None) -> None:
        if WAITING[0]:
            handler(number, frame)

    held_back.held_back = True  # pyright: ignore[reportFunctionMemberAccess]
    signal.signal(signal.SIGCHLD, held_back)


@atexit.register
def close_all() -> None:
    """Ends the workers of all loaders; registered after torch's and multiprocessing's own, so it runs before them."""
    for loader in list(STARTED):
        loader.close()
