"""What the loader asks of a source of items."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class Source(Protocol):
    """Where items come from; must survive pickling, since workers are spawned.

    A source may also have `journal` (`streams.journal.Journal`), into which it counts and times what it does; what
    `BlockSource` adds; or `order`, as `streams.mixture.Mixture` has it.
    """

    def __len__(self) -> int:
        """Number of items."""
        ...

    def read(self, index: int, generator: np.random.Generator) -> Any:
        """Reads one item; every random choice is drawn from the generator."""
        ...

    def collate(self, items: list[Any], /) -> Any:
        """Stacks items; the batch is a tensor, or has `.to(device)` and `.pin_memory()`."""
        ...


@runtime_checkable
class BlockSource(Source, Protocol):
    """A source with items that are cheap to read together."""

    @property
    def blocks(self) -> Sequence[int] | np.ndarray | None:
        """Lengths of the runs of such items, in order; None if there are none."""
        ...

    def read_together(self, indices: list[int], generators: list[np.random.Generator], /) -> list[Any]:
        """Reads increasing items of one block; each is what `read` would give."""
        ...


@runtime_checkable
class BatchSource(Source, Protocol):
    """A source that makes a whole batch at less cost than its items one by one."""

    def read_batch(self, indices: list[int], generators: Iterable[np.random.Generator], /) -> Any:
        """What `collate` would make of what `read` would give; a generator is good until the next one is taken."""
        ...
