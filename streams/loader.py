"""Items to batches, prefetched by worker processes; the whole state is one integer."""

import atexit
import os
import signal
import time
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing import active_children, resource_tracker
from multiprocessing.process import BaseProcess
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from streams.order import item_at
from streams.settings import LoaderSettings

# Schedulers send these to every process of a step; only the training process is to answer.
SIGNALS = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)

# Loaders whose workers run: deaf to SIGTERM, these must be ended before Python, at its exit, waits for them.
STARTED: "weakref.WeakSet[Loader]" = weakref.WeakSet()


@runtime_checkable
class Source(Protocol):
    """Where items come from; must survive pickling, since workers are spawned."""

    def __len__(self) -> int:
        """Number of items."""
        ...

    def read(self, index: int, generator: np.random.Generator) -> Any:
        """Reads one item; every random choice is drawn from the generator."""
        ...

    def collate(self, items: list[Any], /) -> Any:
        """Stacks items; the batch has `.to(device)` and `.pin_memory()`."""
        ...


class Positions(Dataset):
    """A source by position in the endless order."""

    def __init__(self, source: Source, seed: int) -> None:
        """Reads from `source` in the order of `seed`."""
        self.source = source
        self.seed = seed

    def __getitem__(self, position: int) -> Any:
        """The item at a position, the same in every process."""
        generator = np.random.Generator(np.random.Philox(key=[self.seed, position]))
        return self.source.read(item_at(self.seed, len(self.source), position), generator)


class Shares:
    """Positions of one rank's share of every batch, without end."""

    def __init__(self, start: int, batch_size: int, rank: int, num_ranks: int) -> None:
        """Starts at position `start` of the global order."""
        self.start, self.batch_size = start, batch_size
        self.rank, self.num_ranks = rank, num_ranks

    def __iter__(self) -> Iterator[list[int]]:
        """Yields one list of positions per step."""
        share = self.batch_size // self.num_ranks
        first = self.start + self.rank * share
        while True:
            yield list(range(first, first + share))
            first += self.batch_size


class Loader:
    """An endless iterator of batches.

    The global batch of a step is positions [position, position + batch_size), of which every rank reads a contiguous
    share. `position` counts the samples that the iterator's user has got, not those prefetched: a loader made with it
    goes on exactly there, with any number of ranks and workers.

    Attributes:
        position: samples consumed over all ranks; the whole state.
        waited_seconds: time that the user has waited for batches.
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
        if not 0 <= rank < num_ranks:
            raise ValueError(f"rank {rank} is not one of {num_ranks}")
        if seed < 0 or position < 0:
            raise ValueError(f"seed {seed} and position {position} must not be negative")
        self.source, self.settings, self.seed = source, settings, seed
        self.position, self.waited_seconds = position, 0.0
        self.rank, self.num_ranks = rank, num_ranks
        self.batches: Iterator[Any] | None = None
        self.workers: set[BaseProcess] = set()

    def __iter__(self) -> "Loader":
        """The loader is its own iterator; a second `iter` goes on where the first one was."""
        return self

    def __next__(self) -> Any:
        """The next batch (this rank's share)."""
        started = time.perf_counter()
        if self.batches is None:
            self.batches = self.start()
        with ExitStack() as after_an_error:
            # A batch that fails is not passed over: the next call starts again at the same position.
            after_an_error.callback(self.close)
            batch = next(self.batches)
            after_an_error.pop_all()
        self.waited_seconds += time.perf_counter() - started
        self.position += self.settings.batch_size
        return batch

    def start(self) -> Iterator[Any]:
        """Starts the workers at the current position."""
        workers: dict[str, Any] = {}
        if self.settings.num_workers > 0:
            workers = {
                "num_workers": self.settings.num_workers,
                "prefetch_factor": self.settings.prefetch_batches,
                "timeout": self.settings.timeout_seconds,
                "worker_init_fn": prepare_worker,
                # A decoder that was used before a fork can hang in the child.
                "multiprocessing_context": "spawn",
            }
        loader = DataLoader(
            Positions(self.source, self.seed),
            batch_sampler=Shares(self.position, self.settings.batch_size, self.rank, self.num_ranks),
            collate_fn=self.source.collate,
            pin_memory=torch.cuda.is_available(),
            **workers,
        )
        STARTED.add(self)
        before = set(active_children())
        with held_signals():
            batches = iter(loader)
        self.workers = set(active_children()) - before
        return batches

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


def prepare_worker(worker: int) -> None:
    """One thread per worker, deaf to the signals of the step."""
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


@atexit.register
def close_all() -> None:
    """Ends the workers of all loaders; registered after torch's and multiprocessing's own, so it runs before them."""
    for loader in list(STARTED):
        loader.close()
