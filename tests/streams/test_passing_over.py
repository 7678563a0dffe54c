import numpy as np
import pytest

from streams.errors import MediaError
from streams.journal import Journal
from streams.passing_over import PassingOver


class Broken:
    """Stands in for files of which some cannot be read; a failure comes after draws, and more where read together."""

    def __init__(self, broken: set[int]) -> None:
        self.blocks = [2, 2]
        self.broken, self.journal, self.calls = broken, Journal(), 0

    def __len__(self) -> int:
        return 4

    def path_of(self, index: int) -> str:
        return f"{index}.mp4"

    def read(self, index: int, generator: np.random.Generator) -> tuple[int, int]:
        drawn = int(generator.integers(2**40))
        if index in self.broken:
            raise MediaError(f"{index}.mp4: damaged")
        return index, drawn

    def read_together(self, indices: list[int], generators: list[np.random.Generator]) -> list[tuple[int, int]]:
        self.calls += 1
        generators[-1].random(17)
        if self.broken.intersection(indices):
            raise MediaError("several files: damaged")
        return [(index, 0) for index in indices]

    def collate(self, items: list[tuple[int, int]]) -> list[tuple[int, int]]:
        return items


def draw(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[0, seed]))


def test_another_item_takes_the_place_of_one_that_cannot_be_read_and_failures_are_counted():
    source = PassingOver(Broken({1, 3}))
    items = [source.read(index, draw(index)) for index in (0, 1, 2, 3, 1)]
    assert [index for index, _ in items[::2]][:2] == [0, 2]
    assert {index for index, _ in items} <= {0, 2}
    journal = source.journal.take()
    assert journal.failures == {"1.mp4": "damaged", "3.mp4": "damaged"}
    assert journal.counts["failed"] >= 3


def test_an_item_that_can_be_read_is_what_it_is_without_passing_over():
    assert PassingOver(Broken({1})).read(2, draw(5)) == Broken(set()).read(2, draw(5))


def test_every_readable_item_may_take_the_place():
    source = PassingOver(Broken({1}))
    assert {source.read(1, draw(seed))[0] for seed in range(40)} == {0, 2, 3}


def test_what_is_read_is_the_same_alone_and_together():
    indices = [0, 1]
    alone = [PassingOver(Broken({1})).read(index, draw(index)) for index in indices]
    assert PassingOver(Broken({1})).read_together(indices, [draw(index) for index in indices]) == alone


def test_a_whole_block_is_read_by_one_call_and_blocks_length_and_collation_are_the_sources():
    broken = Broken({3})
    source = PassingOver(broken)
    assert source.read_together([0, 1], [draw(0), draw(1)]) == [(0, 0), (1, 0)]
    assert broken.calls == 1
    assert (len(source), source.blocks, source.collate([(1, 2)])) == (4, [2, 2], [(1, 2)])


def test_a_source_of_nothing_but_damage_is_an_error():
    source = PassingOver(Broken({0, 1, 2, 3}))
    with pytest.raises(MediaError, match=r"none of 100 clips drawn at random can be read: .* \d\.mp4: damaged"):
        source.read(2, draw(0))


def test_the_journal_can_be_that_of_others():
    source = PassingOver(Broken({1}))
    journal = source.journal = Journal()
    source.read(1, draw(0))
    assert journal.failures == {"1.mp4": "damaged"}
