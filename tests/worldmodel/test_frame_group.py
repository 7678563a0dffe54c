from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.worldmodel.tiny import MODEL, random_codes, tiny_model
from worldmodel.attention import attend
from worldmodel.frame_group import FrameGroup, part_of
from worldmodel.objective import WorldObjective
from worldmodel.settings import HeadSettings
from worldmodel.sight import Sight

NO_HEADS = HeadSettings(flow=0.0, speed=0.0, arrow_of_time=0.0, correspondence=0.0)


class Threads:
    """A group of threads, without gradients: each attends with its own queries to the keys and values of all."""

    def __init__(self, rank: int, size: int, meeting: Barrier, table: dict[int, Any]) -> None:
        self.rank, self.size, self.meeting, self.table = rank, size, meeting, table

    def exchange(self, mine: Any) -> list[Any]:
        self.table[self.rank] = mine
        self.meeting.wait(timeout=60)
        found = [self.table[rank] for rank in range(self.size)]
        self.meeting.wait(timeout=60)
        return found

    def attend(self, query: Tensor, key: Tensor, value: Tensor, sight: Sight | None, backend: Any) -> Tensor:
        keys, values = (torch.cat(parts, 2) for parts in zip(*self.exchange((key, value)), strict=True))
        queries = torch.cat(self.exchange(query), 2)
        return attend(queries, keys, values, sight, backend).chunk(self.size, 2)[self.rank]

    def gather(self, states: Tensor) -> Tensor:
        return torch.cat(self.exchange(states), 1)


def in_threads(size: int, work: Any) -> list[Any]:
    """What `work` gives for every member of a group."""
    meeting, table = Barrier(size), {}
    groups = [Threads(rank, size, meeting, table) for rank in range(size)]
    assert all(isinstance(group, FrameGroup) for group in groups)
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(work, groups))


@pytest.mark.parametrize("factorised", [False, True])
@pytest.mark.parametrize("size", [2, 3])
def test_states_of_parts_are_those_of_the_whole_clip(size: int, factorised: bool):
    model, codes = tiny_model(replace(MODEL, factorised=factorised), sound=True), random_codes(2, 6, 26)
    has_sound = torch.tensor([True, False])

    def states_of(group: FrameGroup) -> Tensor:
        with torch.no_grad():
            return model.states(codes, has_sound, group)

    with torch.no_grad():
        expected = model.states(codes, has_sound)
    for found in in_threads(size, states_of):
        assert torch.allclose(found, expected, atol=1e-5)


def test_frames_are_divided_evenly_in_their_order():
    parts = in_threads(3, lambda group: part_of(group, 6))
    assert parts == [slice(0, 2), slice(2, 4), slice(4, 6)]
    with pytest.raises(ValueError, match="8 frames do not divide among the 3 processes of training.sequence_parallel"):
        in_threads(3, lambda group: part_of(group, 8))


def test_heads_that_do_not_divide_are_refused():
    objective = WorldObjective(tiny_model(), NO_HEADS)
    with pytest.raises(ValueError, match="model.trunk.num_heads=2 do not divide among the 3 processes"):
        in_threads(3, objective.share_frames)
    in_threads(2, objective.share_frames)


def test_every_process_decodes_frames_of_its_own():
    objective = WorldObjective(tiny_model(replace(MODEL, decoded_frames=5)), NO_HEADS)
    codes = random_codes(2, 8, 21)
    drawn = torch.tensor([6, 0, 3, 2, 5])

    def divided(group: FrameGroup | None) -> tuple[list[int], float]:
        objective.group = group
        frames, share = objective._divide(drawn, codes)
        assert frames is not None
        return frames.tolist(), share

    assert divided(None) == ([6, 0, 3, 2, 5], 1.0)
    # The first counts as three fifths of the mean over two, the other as two.
    groups = in_threads(2, lambda group: group)
    assert [divided(group) for group in groups] == [([6, 3, 5], 1.2), ([0, 2], 0.8)]
    objective.group = in_threads(6, lambda group: group)[0]
    with pytest.raises(ValueError, match="5 frames are decoded, fewer than the 6 processes"):
        objective._divide(drawn, codes)
