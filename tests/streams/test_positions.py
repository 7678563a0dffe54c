import os
import pickle
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data._utils.pin_memory import pin_memory

from streams.journal import Journal
from streams.positions import AnyOrder, Part, Positions, order_of, own_memory_bytes, share


class Blocks:
    """Items in blocks that say which they are and what was drawn for them; calls are recorded."""

    def __init__(self, blocks: list[int] | None) -> None:
        self.blocks, self.journal = blocks, Journal()
        self.num_items = sum(blocks or [12])
        self.calls: list[list[int]] = []

    def __len__(self) -> int:
        return self.num_items

    def read(self, index: int, generator: np.random.Generator) -> torch.Tensor:
        self.calls.append([index])
        return torch.tensor([index, int(generator.integers(2**40))])

    def read_together(self, indices: list[int], generators: list[np.random.Generator]) -> list[torch.Tensor]:
        items = [self.read(index, generator) for index, generator in zip(indices, generators, strict=True)]
        self.calls[-len(indices) :] = [indices]
        return items

    def collate(self, items: list[torch.Tensor]) -> torch.Tensor:
        with self.journal.timed("stack"):
            return torch.stack(items)


def positions_of(source: Blocks, num_lanes: int = 1, seed: int = 5) -> Positions:
    return Positions(source, order_of(source, seed, num_lanes), seed)


class Batches(Blocks):
    """The same, which reads batches at once."""

    def read_batch(self, indices: list[int], generators: Iterable[np.random.Generator]) -> torch.Tensor:
        return torch.stack([Blocks.read(self, *item) for item in zip(indices, generators, strict=True)])


def test_a_source_of_batches_gives_what_its_items_one_by_one_would():
    for seed in (0, 5, 2**40):
        one, other = positions_of(Blocks(None), seed=seed), positions_of(Batches(None), seed=seed)
        for wanted in ([0, 1, 2], [40, 3]):
            part = other.__getitems__(wanted)
            assert torch.equal(one.__getitems__(wanted).batch, part.batch)
            assert part.journal.counts["read"] == len(wanted)


def test_a_block_is_read_by_one_call_of_read_together():
    source = Blocks([3, 4, 5])
    positions = positions_of(source, num_lanes=1)
    epoch = torch.cat([positions.__getitems__([position]).batch for position in range(12)])
    assert sorted(epoch[:, 0].tolist()) == list(range(12))
    # The one lane begins inside a block, of which the rest comes at its end: 4 calls, or 3 if just at a block's begin.
    assert sorted(index for call in source.calls for index in call) == list(range(12))
    assert sum(call in ([0, 1, 2], [3, 4, 5, 6], [7, 8, 9, 10, 11]) for call in source.calls) >= 2
    assert len(source.calls) <= 4
    assert positions.held == {}


@given(st.lists(st.integers(1, 6), min_size=1, max_size=9), st.integers(1, 5), st.integers(0, 60), st.integers(1, 40))
def test_what_is_read_together_is_what_is_read_alone(blocks: list[int], num_lanes: int, start: int, num: int):
    source = Blocks(blocks)
    positions = positions_of(source, num_lanes)
    found = positions.__getitems__(list(range(start, start + num))).batch
    for position, item in zip(range(start, start + num), found, strict=True):
        generator = np.random.Generator(np.random.Philox(key=[5, position]))
        assert torch.equal(item, source.read(positions.order.item_at(position), generator))
    assert len(positions.held) <= num_lanes * max(blocks)
    assert min(positions.held, default=start + num) >= start + num


def test_a_part_says_what_was_read_and_how_long_each_stage_took():
    part = positions_of(Blocks([3, 9])).__getitems__([0, 1, 2])
    assert part.journal.counts == {"read": 3}
    assert set(part.journal.seconds) == {"read", "collate", "stack"}
    assert part.memory_bytes == 0  # no worker, so nobody would be replaced for it


def test_a_source_may_have_an_order_of_its_own_and_no_journal():
    class Backwards:
        in_lanes = False

        def item_at(self, position: int) -> int:
            return -position % 12

        def companions(self, position: int) -> list[int]:
            return []

    class Own:
        def __len__(self) -> int:
            return 12

        def read(self, index: int, generator: np.random.Generator) -> int:
            return index

        def collate(self, items: list[int]) -> list[int]:
            return items

        def order(self, seed: int, num_lanes: int) -> AnyOrder:
            return Backwards()

    source = Own()
    assert Positions(source, order_of(source, 0, 4), 0).__getitems__([0, 1, 2]).batch == [0, 11, 10]


def test_journal_and_source_stay_together_on_the_way_to_a_worker():
    positions = pickle.loads(pickle.dumps(positions_of(Blocks([2, 2]))))
    assert positions.journal is positions.source.journal


def test_tensors_are_shared_and_all_else_is_left_alone():
    class Pair:
        def __init__(self) -> None:
            self.tensor, self.name = torch.zeros(3), "a"

    pair, tensor = Pair(), torch.zeros(2)
    for batch in (pair, tensor, ["text"]):
        share(batch)
    assert pair.tensor.is_shared()
    assert tensor.is_shared()


def test_a_part_is_pinned_by_its_batch():
    class Pinnable:
        def pin_memory(self) -> str:
            return "pinned"

    journal = Journal()
    assert pin_memory(Part(Pinnable(), journal, 7)) == Part("pinned", journal, 7)


def test_memory_of_its_own_grows_with_what_is_kept_and_not_with_what_is_shared(monkeypatch: pytest.MonkeyPatch):
    before = own_memory_bytes()
    kept = np.ones(2**27, np.uint8)
    assert own_memory_bytes() - before == pytest.approx(len(kept), rel=0.2)
    before = own_memory_bytes()
    shared = torch.ones(2**27, dtype=torch.uint8).share_memory_()
    assert own_memory_bytes() - before < 0.2 * len(shared)
    assert isinstance(Part(shared, Journal(), before), tuple)
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: (_ for _ in ()).throw(FileNotFoundError(os.sep)))
    assert own_memory_bytes() == 0
