from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.order import Order, permutation

SEEDS = st.integers(0, 2**32)
BLOCKS = st.lists(st.integers(1, 9), min_size=1, max_size=20)
LANES = st.integers(1, 30)


def items_of(order: Order, start: int, num: int) -> list[int]:
    return [order.item_at(position) for position in range(start, start + num)]


@given(SEEDS, BLOCKS, LANES, st.booleans(), st.integers(0, 3))
def test_every_epoch_is_a_permutation(seed: int, blocks: list[int], num_lanes: int, whole: bool, epoch: int):
    num_items = sum(blocks)
    order = Order(num_items, seed, num_lanes, blocks if whole else None)
    assert sorted(items_of(order, epoch * num_items, num_items)) == list(range(num_items))


@given(SEEDS, BLOCKS, LANES, st.lists(st.integers(0, 500), min_size=1, max_size=8))
def test_an_item_depends_on_nothing_but_its_position(
    seed: int, blocks: list[int], num_lanes: int, positions: list[int]
):
    one, other = (Order(sum(blocks), seed, num_lanes, blocks) for _ in range(2))
    once = {position: one.item_at(position) for position in positions}
    assert all(other.item_at(position) == item for position, item in reversed(once.items()))


@given(SEEDS, BLOCKS, LANES, st.integers(0, 500))
def test_companions_are_the_next_items_of_the_block_in_the_same_lane(
    seed: int, blocks: list[int], num_lanes: int, position: int
):
    order = Order(sum(blocks), seed, num_lanes, blocks)
    companions = list(order.companions(position))
    assert companions == [position + num_lanes * number for number in range(1, len(companions) + 1)]
    items = [order.item_at(other) for other in [position, *companions]]
    assert items == list(range(items[0], items[0] + len(items)))
    of_item = np.repeat(np.arange(len(blocks)), blocks)
    assert len({of_item[item] for item in items}) == 1
    assert {other // sum(blocks) for other in companions} <= {position // sum(blocks)}


@given(SEEDS, st.integers(1, 8), st.integers(1, 200))
def test_blocks_are_read_whole_but_where_a_lane_begins_or_ends(seed: int, length: int, num_blocks: int):
    num_lanes, num_items = 4, length * num_blocks
    order = Order(num_items, seed, num_lanes, [length] * num_blocks)
    num_reads, due = Counter(), set()
    for position in range(num_items):
        if position not in due:
            num_reads[order.item_at(position) // length] += 1
            due.update(order.companions(position))
    # A lane cuts a block at its end, and one where its row is turned.
    assert sum(num_reads.values()) <= num_blocks + 2 * num_lanes


def test_lanes_begin_their_blocks_at_different_times():
    order = Order(6400, 0, 64, [10] * 640)
    left = Counter(len(order.companions(position)) for position in range(64))
    assert set(left) == set(range(10))
    assert max(left.values()) < 20


def test_items_without_blocks_have_no_companions():
    order = Order(50, 3, 4)
    assert not order.in_lanes
    assert [list(order.companions(position)) for position in range(60)] == [[]] * 60


def test_epochs_and_seeds_differ():
    for blocks in (None, [2] * 10):
        orders = {tuple(items_of(Order(20, seed, 2, blocks), 20 * epoch, 20)) for seed in (0, 1) for epoch in (0, 1)}
        assert len(orders) == 4


def test_an_order_of_the_past_stays_what_it_was():
    # Runs that are resumed under other versions of the libraries rely on it.
    assert items_of(Order(10, 7), 0, 10) == items_of(Order(10, 7, 3), 0, 10) == PLAIN
    assert items_of(Order(10, 7, 3, [4, 1, 3, 2]), 0, 10) == IN_BLOCKS


PLAIN = [8, 4, 3, 6, 2, 1, 0, 5, 9, 7]
IN_BLOCKS = [6, 7, 1, 8, 4, 2, 9, 0, 3, 5]


@pytest.mark.parametrize("num", [1, 2, 3, 4, 5, 64, 65, 1000])
def test_a_permutation_holds_every_number(num: int):
    found = permutation(np.random.Philox(1), num)
    assert sorted(found.tolist()) == list(range(num))


def test_permutations_are_equally_frequent():
    draw = np.random.Philox(0)
    counts = Counter(tuple(permutation(draw, 4).tolist()) for _ in range(4800))
    assert len(counts) == 24
    # Each is expected 200 times; the sum of squares has 23 degrees of freedom, and 60 is passed once in 30,000 runs.
    assert sum((count - 200) ** 2 / 200 for count in counts.values()) < 60


@pytest.mark.parametrize(
    ("num_items", "num_lanes", "blocks", "message"),
    [
        (0, 1, None, "0 items in 1 lanes: need one at least of both"),
        (3, 0, None, "3 items in 0 lanes: need one at least of both"),
        (3, 1, [2], "blocks of 2 items and more, 2 in all, do not make up the 3 items"),
        (3, 1, [0, 3], "blocks of 0 items and more"),
        (3, 1, [], "do not make up the 3 items"),
    ],
)
def test_orders_that_cannot_be_are_refused(num_items: int, num_lanes: int, blocks: list[int] | None, message: str):
    with pytest.raises(ValueError, match=message):
        Order(num_items, 0, num_lanes, blocks)


def test_negative_positions_are_refused():
    with pytest.raises(ValueError, match="position -1 is negative: positions count from 0"):
        Order(3, 0).item_at(-1)
