"""Several sources as one, each with its share of the order."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from streams.journal import Journal
from streams.positions import AnyOrder, order_of
from streams.source import Source

# Every source owns an arc of a circle of this many points, and a position reads the source on whose arc its point lies.
# From lane to lane the point moves by the golden section, from turn to turn by the root of two: any stretch of either
# visits the arcs more evenly than draws would.
CIRCLE = 2**32
LANE_STEP, TURN_STEP = 2654435769, 1779033703


class Mixture:
    """A weighted mixture (a `streams.source.Source`), of which each source goes through epochs of its own.

    Attributes:
        firsts: number of each source's first item.
        arcs: where the arc of each source ends on the circle.
    """

    def __init__(self, sources: Sequence[Source], weights: Sequence[float | int]) -> None:
        """Mixes sources whose items can be collated by the first one.

        Args:
            sources: one at least, none empty; for going on after damage, each in a `PassingOver` of its own.
            weights: share of each among the items read, in any unit.

        Raises:
            ValueError: not as many weights as sources, or a weight or a source is nothing.
        """
        if not sources or len(sources) != len(weights):
            raise ValueError(f"{len(sources)} sources and {len(weights)} weights: give as many, and one at least")
        for number, (source, weight) in enumerate(zip(sources, weights, strict=True)):
            if len(source) == 0 or not 0 < weight < math.inf:
                raise ValueError(
                    f"source {number} has {len(source)} items and weight {weight}: need an item and a finite weight "
                    "above 0; leave the source out"
                )
        self.sources = list(sources)
        *self.firsts, self.num_items = accumulate((len(source) for source in sources), initial=0)
        total = sum(weights)
        self.arcs = [round(CIRCLE * part / total) for part in accumulate(weights, initial=0.0)]
        self.journal = Journal()
        for source in sources:
            if hasattr(source, "journal"):
                source.journal = self.journal  # type: ignore[attr-defined]

    def order(self, seed: int, num_lanes: int) -> "MixedOrder":
        """The endless order of the mixture."""
        return MixedOrder(self, seed, num_lanes)

    def __len__(self) -> int:
        """Items of all sources."""
        return self.num_items

    def read(self, index: int, generator: np.random.Generator) -> Any:
        """Reads an item of one source."""
        number = self.source_of(index)
        return self.sources[number].read(index - self.firsts[number], generator)

    def read_together(self, indices: list[int], generators: list[np.random.Generator]) -> list[Any]:
        """Reads items of one block of one source."""
        number = self.source_of(indices[0])
        inside = [index - self.firsts[number] for index in indices]
        return self.sources[number].read_together(inside, generators)  # type: ignore[attr-defined] (where it has blocks)

    def path_of(self, index: int) -> str:
        """The file of an item."""
        number = self.source_of(index)
        return self.sources[number].path_of(index - self.firsts[number])  # type: ignore[attr-defined] (of files)

    def source_of(self, index: int) -> int:
        """Number of the source that holds an item."""
        return bisect_right(self.firsts, index) - 1

    def collate(self, items: list[Any]) -> Any:
        """Stacks items of all sources."""
        return self.sources[0].collate(items)


class Portion:
    """Items of a source that follow each other, whole blocks of them, as a source (a `streams.source.Source`)."""

    def __init__(self, source: Source, first: int, stop: int) -> None:
        """Items `first` to `stop` - 1; both where a block of the source begins, or at its end."""
        self.source, self.first, self.stop = source, first, stop
        blocks = getattr(source, "blocks", None)
        self.blocks = None
        if blocks is not None:
            edges = np.concatenate([[0], np.cumsum(blocks)])
            self.blocks = np.asarray(blocks)[edges.searchsorted(first) : edges.searchsorted(stop)]

    @property
    def journal(self) -> Journal:
        """That of the source."""
        return self.source.journal  # type: ignore[attr-defined] (of files)

    @journal.setter
    def journal(self, journal: Journal) -> None:
        self.source.journal = journal  # type: ignore[attr-defined]

    def __len__(self) -> int:
        """Number of items."""
        return self.stop - self.first

    def path_of(self, index: int) -> str:
        """The file of an item."""
        return self.source.path_of(self.first + index)  # type: ignore[attr-defined]

    def read(self, index: int, generator: np.random.Generator) -> Any:
        """Reads an item."""
        return self.source.read(self.first + index, generator)

    def read_together(self, indices: list[int], generators: list[np.random.Generator]) -> list[Any]:
        """Reads items of one block."""
        return self.source.read_together([self.first + index for index in indices], generators)  # type: ignore[attr-defined]

    def collate(self, items: list[Any]) -> Any:
        """Stacks items."""
        return self.source.collate(items)


def mixed(sources: Sequence[Source], weights: Sequence[float | int]) -> Source:
    """The mixture of several sources, or the only one; see `Mixture`."""
    return Mixture(sources, weights) if len(sources) > 1 else sources[0]


class MixedOrder:
    """Which source a position reads, and which of its items: a pure function, found in a time that hardly grows.

    Every lane goes through the sources by itself, so that their blocks stay in it: the n-th item that lane l takes of a
    source stands at position n * num_lanes + l of the source's own order. Lanes are not all equally far, so an epoch of
    a source may begin in one before it ends in another.

    Attributes:
        in_lanes: whether a source has blocks.
    """

    def __init__(self, mixture: Mixture, seed: int, num_lanes: int) -> None:
        """Gives every source a seed of its own."""
        self.orders: list[AnyOrder] = [
            order_of(source, seed + number, num_lanes) for number, source in enumerate(mixture.sources)
        ]
        self.firsts, self.arcs, self.num_lanes = mixture.firsts, mixture.arcs, num_lanes
        self.in_lanes = any(order.in_lanes for order in self.orders)
        self.start = int(np.random.SeedSequence(seed).generate_state(1)[0])

    def item_at(self, position: int) -> int:
        """Item of the mixture at a position."""
        number, own = self.find(position)
        return self.firsts[number] + self.orders[number].item_at(own)

    def companions(self, position: int) -> list[int]:
        """Later positions of the same lane whose items belong to the same block."""
        number, own = self.find(position)
        turn, lane = divmod(position, self.num_lanes)
        found = []
        for other in self.orders[number].companions(own):
            turn = self.turn_of(number, lane, other // self.num_lanes, turn + 1)
            found.append(turn * self.num_lanes + lane)
        return found

    def find(self, position: int) -> tuple[int, int]:
        """The source at a position, and the position in its own order."""
        turn, lane = divmod(position, self.num_lanes)
        point = (self.first_point(lane) + turn * TURN_STEP) % CIRCLE
        number = bisect_right(self.arcs, point) - 1
        return number, self.num_taken(number, lane, turn) * self.num_lanes + lane

    def first_point(self, lane: int) -> int:
        """Where on the circle a lane begins."""
        return (self.start + lane * LANE_STEP) % CIRCLE

    def num_taken(self, number: int, lane: int, turn: int) -> int:
        """Items of a source that a lane has taken before a turn."""
        point = self.first_point(lane)

        def below(end: int) -> int:
            # x mod m is below e where floor(x / m) and floor((x - e) / m) differ, by one.
            return turn - floor_sum(turn, CIRCLE, TURN_STEP, point + CIRCLE - end)

        return below(self.arcs[number + 1]) - below(self.arcs[number])

    def turn_of(self, number: int, lane: int, num_before: int, first: int) -> int:
        """The turn, from `first` on, at which a lane takes of a source the item that has `num_before` before it."""
        length = 1
        while self.num_taken(number, lane, first + length) <= num_before:
            length *= 2
        return (
            bisect_left(
                range(first, first + length), num_before + 1, key=lambda turn: self.num_taken(number, lane, turn + 1)
            )
            + first
        )


def floor_sum(num: int, divisor: int, step: int, start: int) -> int:
    """Sum of (start + i * step) // divisor over i in range(num), as Euclid's algorithm finds it."""
    total = 0
    while num:
        total += num * (num - 1) // 2 * (step // divisor) + num * (start // divisor)
        step, start = step % divisor, start % divisor
        num, start = divmod(start + num * step, divisor)
        divisor, step = step, divisor
    return total
