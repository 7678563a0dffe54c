import pytest
import torch
from torch import Tensor

from worldmodel.slots import Layer, Slot, Slots

SLOTS = Slots(window_frames=4, num_rows=3)


def layer_of(first: int, num_frames: int) -> Layer:
    """Rows that tell which they are, counted from the first of frame 0 on; values are their negatives."""
    rows = torch.arange(3 * first, 3 * (first + num_frames)).float()
    key = rows[None, None, :, None].expand(2, 2, -1, 5).clone()
    return key, -key


def rows_of(layer: Layer) -> list[int]:
    key, value = layer
    assert torch.equal(key, -value)
    return key[0, 0, :, 0].int().tolist()


@pytest.mark.parametrize("num_frames", [1, 3, 4, 5, 11])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_what_was_filled_comes_back_in_order(num_frames: int, as_tensor: bool):
    count: int | Tensor = torch.tensor(num_frames) if as_tensor else num_frames
    filled = SLOTS.fill(layer_of(0, num_frames), count)
    num_last = min(num_frames, 4)
    found = SLOTS.in_order(filled, count, num_last)
    assert rows_of(found) == list(range(3 * (num_frames - num_last), 3 * num_frames))


def test_a_frame_takes_the_slot_of_the_one_a_window_before_it():
    layer = SLOTS.fill(layer_of(0, 6), 6)  # frames 2 to 5
    rows = SLOTS.rows(6, 1, torch.device("cpu"))
    seen = Slot(layer, rows, 12).take(layer_of(6, 1))
    assert rows_of(seen) == [*range(12, 18), *range(18, 21), *range(9, 12)]  # frames 4, 5, 6 and 3
    assert rows_of(SLOTS.in_order(layer, 7, 3)) == list(range(12, 21))


def test_slots_that_are_not_taken_yet_are_not_seen():
    layer = SLOTS.fill(layer_of(0, 1), 1)
    seen = Slot(layer, SLOTS.rows(1, 1, torch.device("cpu")), 6).take(layer_of(1, 1))
    assert rows_of(seen) == list(range(6))


def test_the_last_frames_are_as_many_as_there_are():
    assert rows_of(SLOTS.last(layer_of(0, 6), 2)) == list(range(12, 18))
    assert rows_of(SLOTS.last(layer_of(0, 2), 4)) == list(range(6))


def test_slots_without_rows_hold_nothing():
    none = Slots(4, 0)
    empty = tuple(x[:, :, :0] for x in layer_of(0, 1))
    filled = none.fill((empty[0], empty[1]), 9)
    assert [x.shape for x in filled] == [(2, 2, 0, 5), (2, 2, 0, 5)]
    assert none.rows(3, 2, torch.device("cpu")).numel() == 0
