from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.journal import Journal
from streams.loader import Loader
from streams.mixture import Mixture, Portion, floor_sum, mixed
from streams.settings import LoaderSettings


class Named:
    """Items that say where they come from."""

    def __init__(self, name: str, num_items: int, blocks: list[int] | None = None) -> None:
        self.name, self.num_items, self.blocks = name, num_items, blocks
        self.journal, self.num_reads = Journal(), 0

    def __len__(self) -> int:
        return self.num_items

    def path_of(self, index: int) -> str:
        return f"{self.name}.{index}"

    def read(self, index: int, generator: np.random.Generator) -> tuple[str, int]:
        self.num_reads += 1
        return self.name, index

    def read_together(self, indices: list[int], generators: list[np.random.Generator]) -> list[tuple[str, int]]:
        self.num_reads += 1
        return [(self.name, index) for index in indices]

    def collate(self, items: list[Any]) -> list[Any]:
        return items


WEIGHTS = st.lists(st.floats(0.01, 1.0), min_size=1, max_size=4)
SOURCES = st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=8), min_size=1, max_size=3)


def mixture_of(blocks: list[list[int]], weights: list[float]) -> Mixture:
    return Mixture([Named(str(number), sum(each), each) for number, each in enumerate(blocks)], weights)


@given(st.integers(0, 50), st.integers(1, 50), st.integers(0, 99), st.integers(0, 199))
def test_the_sum_of_floors_is_that_of_a_loop(num: int, divisor: int, step: int, start: int):
    assert floor_sum(num, divisor, step, start) == sum((start + index * step) // divisor for index in range(num))


@settings(max_examples=20)
@given(WEIGHTS, st.integers(1, 100), st.integers(0, 2**31), st.integers(0, 10**7))
def test_every_stretch_of_the_order_has_the_asked_shares(weights: list[float], num_lanes: int, seed: int, start: int):
    order = mixture_of([[1, 2]] * len(weights), weights).order(seed, num_lanes)
    numbers = np.array([order.find(position)[0] for position in range(start, start + 200)])
    for number, weight in enumerate(weights):
        share = weight / sum(weights)
        for length in (40, 200):
            assert abs(np.count_nonzero(numbers[:length] == number) - share * length) <= 10


@settings(max_examples=20)
@given(SOURCES, st.integers(1, 8), st.integers(0, 2**31), st.data())
def test_every_source_goes_through_its_own_positions_once(
    blocks: list[list[int]], num_lanes: int, seed: int, data: st.DataObject
):
    weights = data.draw(st.lists(st.floats(0.1, 1.0), min_size=len(blocks), max_size=len(blocks)))
    order = mixture_of(blocks, weights).order(seed, num_lanes)
    found = [order.find(position) for position in range(30 * num_lanes)]
    assert len(set(found)) == len(found)
    for number in range(len(blocks)):
        own = [position for source, position in found if source == number]
        lanes = Counter(position % num_lanes for position in own)
        assert max(own) // num_lanes + 1 == max(lanes.values())
        assert max(lanes.values()) - min(lanes[lane] for lane in range(num_lanes)) <= 6


@given(SOURCES, st.integers(1, 12), st.integers(0, 2**31), st.integers(0, 10**6))
def test_companions_are_those_of_the_sources_own_order(
    blocks: list[list[int]], num_lanes: int, seed: int, position: int
):
    order = mixture_of(blocks, [0.2 + number for number in range(len(blocks))]).order(seed, num_lanes)
    number, own = order.find(position)
    companions = order.companions(position)
    assert [order.find(other) for other in companions] == [
        (number, other) for other in order.orders[number].companions(own)
    ]
    assert all(later > earlier for earlier, later in zip([position, *companions], companions, strict=False))
    assert {other % num_lanes for other in companions} <= {position % num_lanes}


def test_every_epoch_of_every_source_holds_each_item_once():
    sources = [Named("a", 40, [4] * 10), Named("b", 30)]
    loader = Loader(Mixture(sources, [2, 1]), LoaderSettings(batch_size=4, num_workers=0, num_turns=3), seed=1)
    counts = Counter(item for _ in range(90) for item in next(loader))
    assert set(counts) == {("a", index) for index in range(40)} | {("b", index) for index in range(30)}
    # 360 items: 240 of one source, which are 6 epochs, and 120 of the other, which are 4.
    assert {
        name: (min(each), max(each)) for name in "ab" if (each := [counts[key] for key in counts if key[0] == name])
    } == {"a": (5, 7), "b": (3, 5)}
    assert sources[0].num_reads < 0.6 * 240
    assert 110 < sources[1].num_reads < 130


def test_sources_share_one_journal():
    sources = [Named("a", 2), Named("b", 2)]
    mixture = Mixture(sources, [1, 1])
    assert all(source.journal is mixture.journal for source in sources)


def test_a_mixture_may_be_a_source_of_another():
    inner = Mixture([Named("a", 6, [3, 3]), Named("b", 6)], [1, 1])
    loader = Loader(Mixture([inner, Named("c", 5)], [3, 1]), LoaderSettings(batch_size=4, num_workers=0), seed=0)
    counts = Counter(name for _ in range(40) for name, _ in next(loader))
    assert counts["c"] == pytest.approx(40, abs=8)
    assert counts["a"] == pytest.approx(60, abs=12)


@pytest.mark.parametrize(
    ("lengths", "weights", "message"),
    [
        ([], [], "0 sources and 0 weights: give as many, and one at least"),
        ([2], [1.0, 2.0], "1 sources and 2 weights"),
        ([2, 0], [1.0, 2.0], "source 1 has 0 items and weight 2.0: need an item"),
        ([2, 2], [0.0, 2.0], "source 0 has 2 items and weight 0.0"),
        ([2, 2], [1.0, float("nan")], "source 1 has 2 items and weight nan"),
    ],
)
def test_mixtures_that_cannot_be_are_refused(lengths: list[int], weights: list[float], message: str):
    with pytest.raises(ValueError, match=message):
        Mixture([Named("a", length) for length in lengths], weights)


def test_a_single_source_needs_no_mixture_and_several_name_the_files_of_their_items():
    one, other = Named("a", 3), Named("b", 2)
    assert mixed([one], [0.5]) is one
    both = mixed([one, other], [0.5, 1.0])
    assert isinstance(both, Mixture)
    assert [both.path_of(index) for index in (0, 2, 3, 4)] == ["a.0", "a.2", "b.0", "b.1"]


def test_portions_of_a_source_are_its_items_and_blocks_from_place_to_place():
    source = Named("a", 9, [2, 3, 4])
    first, second = Portion(source, 0, 5), Portion(source, 5, 9)
    assert (len(first), len(second)) == (5, 4)
    assert first.blocks is not None
    assert second.blocks is not None
    assert (first.blocks.tolist(), second.blocks.tolist()) == ([2, 3], [4])
    generator = np.random.default_rng(0)
    assert second.read(1, generator) == ("a", 6)
    assert second.read_together([0, 3], [generator] * 2) == [("a", 5), ("a", 8)]
    assert second.path_of(2) == "a.7"
    journal = Mixture([first, second], [1.0, 1.0]).journal
    assert source.journal is first.journal is journal
    loader = Loader(Mixture([first, second], [3.0, 1.0]), LoaderSettings(batch_size=4, num_workers=0), seed=0)
    read = [item for _ in range(10) for _, item in next(loader)]
    assert sum(item < 5 for item in read) == pytest.approx(30, abs=2)
    assert Portion(Named("b", 4), 1, 3).blocks is None
