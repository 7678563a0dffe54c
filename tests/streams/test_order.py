import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.order import item_at

SEEDS = st.integers(0, 2**32)


@given(SEEDS, st.integers(1, 50), st.integers(0, 5))
def test_every_epoch_is_a_permutation(seed: int, num_items: int, epoch: int):
    items = [item_at(seed, num_items, epoch * num_items + place) for place in range(num_items)]
    assert sorted(items) == list(range(num_items))


@given(SEEDS, st.integers(1, 50), st.lists(st.integers(0, 500), min_size=1, max_size=8))
def test_an_item_depends_on_nothing_but_its_position(seed: int, num_items: int, positions: list[int]):
    once = {position: item_at(seed, num_items, position) for position in positions}
    assert all(item_at(seed, num_items, position) == item for position, item in reversed(once.items()))


def test_epochs_and_seeds_differ():
    orders = {
        tuple(item_at(seed, 20, 20 * epoch + place) for place in range(20)) for seed in (0, 1) for epoch in (0, 1)
    }
    assert len(orders) == 4


@pytest.mark.parametrize(("num_items", "position"), [(0, 0), (3, -1)])
def test_positions_that_do_not_exist_are_refused(num_items: int, position: int):
    with pytest.raises(ValueError, match="need one item at least"):
        item_at(0, num_items, position)
