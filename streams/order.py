"""The order of the data: a pure function of (seed, epoch, position), never of processes or workers."""

from functools import lru_cache

import numpy as np
from jaxtyping import Int64


def item_at(seed: int, num_items: int, position: int) -> int:
    """Item at a position of the endless order; every epoch is a permutation of all items.

    Raises:
        ValueError: there are no items, or the position is negative.
    """
    if num_items < 1 or position < 0:
        raise ValueError(f"position {position} of {num_items} items: need one item at least, and positions from 0")
    epoch, place = divmod(position, num_items)
    return int(permutation_of(seed, num_items, epoch)[place])


@lru_cache(maxsize=4)
def permutation_of(seed: int, num_items: int, epoch: int) -> Int64[np.ndarray, " item"]:
    """The order of one epoch."""
    # SeedSequence, since a plain key of (seed, epoch) would also be that of a sample's own generator.
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch]))).permutation(num_items)
