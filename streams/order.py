"""The order of the data: a pure function of (seed, epoch, position), never of processes or workers.

Items come in blocks: neighbours that are cheap to read together, such as clips that follow each other in one video. An
epoch lays its blocks end to end in a random order and cuts this row into as many equal stretches as there are lanes.
Position p of the epoch belongs to lane p % num_lanes, so that a lane's next item comes num_lanes positions later: all
blocks that are open at a time are mixed with each other, and each stays with the one process that reads its lane.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

# The epoch that ends and the one that begins.
KEPT_EPOCHS = 2


@dataclass(frozen=True)
class Epoch:
    """The row of one epoch's blocks.

    Attributes:
        blocks: their numbers in the order of the row.
        ends: the place in the row after each block; none where every item stands alone.
        turns: where on its stretch each lane begins, or else blocks of one length would begin in all lanes at once.
    """

    blocks: Int[np.ndarray, " block"]
    ends: Int[np.ndarray, " end"]
    turns: list[int]


class Order:
    """The endless order of a source's items; every epoch holds each of them once.

    Attributes:
        in_lanes: whether there are blocks; else every item stands alone and lanes mean nothing.
    """

    def __init__(
        self, num_items: int, seed: int, num_lanes: int = 1, blocks: Sequence[int] | np.ndarray | None = None
    ) -> None:
        """Nothing is drawn yet.

        Args:
            num_items: items of the source.
            seed: of all epochs.
            num_lanes: positions from one item of a block to its next.
            blocks: items in each block, in the order of the source; None for one in each.

        Raises:
            ValueError: there are no items or lanes, or the blocks do not hold all items.
        """
        if num_items < 1 or num_lanes < 1:
            raise ValueError(f"{num_items} items in {num_lanes} lanes: need one at least of both")
        lengths = np.asarray([] if blocks is None else blocks, np.int64)
        smallest = lengths.min(initial=num_items)
        if blocks is not None and (smallest < 1 or lengths.sum() != num_items):
            raise ValueError(
                f"blocks of {smallest} items and more, {lengths.sum()} in all, do not make up the {num_items} items: "
                "each item belongs to one block, and each block has one at least"
            )
        self.num_items, self.seed, self.num_lanes = num_items, seed, num_lanes
        self.in_lanes = 0 < len(lengths) < num_items
        self.lengths, self.stops = lengths, lengths.cumsum()
        self.epochs: dict[int, Epoch] = {}

    def item_at(self, position: int) -> int:
        """Item at a position.

        Raises:
            ValueError: the position is negative.
        """
        return self.find(position)[0]

    def companions(self, position: int) -> range:
        """The next positions of the same lane, as far as their items follow this one in its block."""
        num_more = self.find(position)[1]
        return range(position + self.num_lanes, position + self.num_lanes * (num_more + 1), self.num_lanes)

    def find(self, position: int) -> tuple[int, int]:
        """Item at a position, and how many more of its block come in its lane from there on."""
        if position < 0:
            raise ValueError(f"position {position} is negative: positions count from 0")
        number, place = divmod(position, self.num_items)
        epoch = self.epoch(number)
        if not self.in_lanes:
            return int(epoch.blocks[place]), 0
        step, lane = divmod(place, self.num_lanes)
        length, num_longer = divmod(self.num_items, self.num_lanes)
        start = lane * length + min(lane, num_longer)
        length += lane < num_longer
        step_in_row = (step + epoch.turns[lane]) % length
        in_row = start + step_in_row
        block = int(epoch.ends.searchsorted(in_row, side="right"))
        left = int(epoch.ends[block]) - in_row
        return int(self.stops[epoch.blocks[block]]) - left, min(left, length - step_in_row, length - step) - 1

    def epoch(self, number: int) -> Epoch:
        """The row of an epoch."""
        if number not in self.epochs:
            while len(self.epochs) >= KEPT_EPOCHS:
                del self.epochs[next(iter(self.epochs))]
            # SeedSequence, since a plain key of (seed, epoch) would also be that of a sample's own generator.
            random = np.random.Philox(np.random.SeedSequence([self.seed, number]))
            if self.in_lanes:
                blocks = permutation(random, len(self.lengths))
                longest = -(-self.num_items // self.num_lanes)
                turns = [int(draw) % longest for draw in random.random_raw(self.num_lanes)]
                self.epochs[number] = Epoch(blocks, self.lengths[blocks].cumsum(), turns)
            else:
                blocks = permutation(random, self.num_items)
                self.epochs[number] = Epoch(blocks, blocks[:0], [])
        return self.epochs[number]


def permutation(random: np.random.Philox, num: int) -> Int[np.ndarray, " num"]:
    """Numbers below `num` in random order.

    Raw draws are sorted, which takes a third of the time of numpy's own shuffle of 10 million. Also, what that shuffle
    draws may change with numpy's version, and with it the order of a run that is resumed; raw draws never change.
    """
    bits = np.uint64(max(num - 1, 1).bit_length())
    keys = random.random_raw(num)
    keys >>= bits
    keys <<= bits
    keys |= np.arange(num, dtype=np.uint64)
    keys.sort()
    keys &= (np.uint64(1) << bits) - np.uint64(1)
    return keys.astype(np.int32 if num < 2**31 else np.int64)
