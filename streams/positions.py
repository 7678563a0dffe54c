"""What a worker does: positions of the endless order become batches."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from streams.journal import Journal
from streams.order import Order
from streams.source import BatchSource, Source


@runtime_checkable
class AnyOrder(Protocol):
    """What the loader asks an order."""

    @property
    def in_lanes(self) -> bool:
        """Whether there are blocks."""
        ...

    def item_at(self, position: int) -> int:
        """Item at a position."""
        ...

    def companions(self, position: int) -> Sequence[int]:
        """Later positions of the same lane, of which the items are best read together with this one's."""
        ...


def order_of(source: Source, seed: int, num_lanes: int) -> AnyOrder:
    """The source's own order if it has one, or else a permutation of its blocks in every epoch."""
    make = getattr(source, "order", None)
    if make is not None:
        return make(seed, num_lanes)
    return Order(len(source), seed, num_lanes, getattr(source, "blocks", None))


class Part(NamedTuple):
    """A batch, and what its worker has to say."""

    batch: Any
    journal: Journal
    memory_bytes: int


class Positions(Dataset):
    """A source by position in the endless order.

    Attributes:
        held: items that were read together with an earlier one and are not due yet, by position.
    """

    def __init__(self, source: Source, order: AnyOrder, seed: int) -> None:
        """Reads from `source`, with randomness from `seed`."""
        self.source, self.order, self.seed = source, order, seed
        self.journal: Journal = getattr(source, "journal", None) or Journal()
        self.held: dict[int, Any] = {}
        self.batches = source if isinstance(source, BatchSource) else None

    def __getitems__(self, positions: list[int]) -> Part:
        """A batch; of any source and order, the same in every process."""
        if self.batches is not None:
            with self.journal.timed("read"):
                indices = [self.order.item_at(position) for position in positions]
                batch = self.batches.read_batch(indices, self.generators_of(positions))
        else:
            with self.journal.timed("read"):
                items = [self.read(position) for position in positions]
            with self.journal.timed("collate"):
                batch = self.source.collate(items)
        self.journal.count("read", len(positions))
        if get_worker_info() is None:
            return Part(batch, self.journal.take(), 0)  # only workers are replaced when they grow
        with self.journal.timed("hand_over"):
            share(batch)
        return Part(batch, self.journal.take(), own_memory_bytes())

    def generators_of(self, positions: list[int]) -> Iterator[np.random.Generator]:
        """The randomness of each position, whoever reads it: one generator, which is set anew for the next.

        Making one for each would take as long as reading the codes of a clip.
        """
        bits = np.random.Philox(key=[self.seed, 0])
        generator, state = np.random.Generator(bits), bits.state
        key = state["state"]["key"]
        for position in positions:
            key[1] = position
            bits.state = state
            yield generator

    def read(self, position: int) -> Any:
        """The item at a position."""
        if position in self.held:
            return self.held.pop(position)
        positions = [position, *self.order.companions(position)]
        indices = [self.order.item_at(each) for each in positions]
        generators = [np.random.Generator(np.random.Philox(key=[self.seed, each])) for each in positions]
        if len(positions) == 1:
            return self.source.read(indices[0], generators[0])
        self.held.update(zip(positions, self.source.read_together(indices, generators), strict=True))  # type: ignore[attr-defined]
        return self.held.pop(position)


def share(batch: Any) -> None:
    """Moves the tensors of a batch into memory that the training process sees too."""
    for value in [batch] if isinstance(batch, Tensor) else getattr(batch, "__dict__", {}).values():
        if isinstance(value, Tensor):
            value.share_memory_()


def own_memory_bytes() -> int:
    """Memory of this process alone, without what it shares and what it has mapped of files; 0 where not known."""
    try:
        resident, shared = Path("/proc/self/statm").read_text(encoding="ascii").split()[1:3]
    except FileNotFoundError:
        return 0
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")
