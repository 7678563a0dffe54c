import os
import signal
import subprocess
import sys
from itertools import islice
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from streams.errors import MediaError
from streams.loader import Loader, Source
from streams.settings import LoaderSettings


class Numbers:
    """A source whose items say which they are, what was drawn for them, and who read them."""

    def __init__(self, num_items: int, broken: int | None = None) -> None:
        self.num_items, self.broken = num_items, broken

    def __len__(self) -> int:
        return self.num_items

    def read(self, index: int, generator: np.random.Generator) -> torch.Tensor:
        if index == self.broken:
            raise MediaError(f"item{index}.mp4: damaged")
        return torch.tensor([index, int(generator.integers(2**40)), os.getpid(), torch.get_num_threads()])

    def collate(self, items: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack(items)


def loader_of(num_items: int, batch_size: int, seed: int = 3, num_workers: int = 0, **place: int) -> Loader:
    settings = LoaderSettings(batch_size=batch_size, num_workers=num_workers, prefetch_batches=2, timeout_seconds=60.0)
    return Loader(Numbers(num_items), settings, seed, **place)


def batches_of(loader: Loader, num_batches: int) -> list[torch.Tensor]:
    return [batch[:, :2] for batch in islice(loader, num_batches)]


def test_the_numbers_are_a_source():
    assert isinstance(Numbers(3), Source)


@given(st.integers(1, 30), st.integers(1, 3), st.integers(1, 4), st.integers(0, 99), st.integers(0, 2**31))
def test_the_ranks_shares_together_are_the_same_for_any_number_of_ranks(
    num_items: int, share: int, num_ranks: int, position: int, seed: int
):
    batch_size = share * num_ranks
    alone = batches_of(loader_of(num_items, batch_size, seed, position=position), 3)
    ranks = [
        batches_of(loader_of(num_items, batch_size, seed, position=position, rank=rank, num_ranks=num_ranks), 3)
        for rank in range(num_ranks)
    ]
    for step, batch in enumerate(alone):
        assert torch.equal(batch, torch.cat([shares[step] for shares in ranks]))


@given(st.integers(1, 30), st.integers(1, 6), st.integers(0, 5))
def test_a_loader_goes_on_where_another_stopped(num_items: int, batch_size: int, consumed: int):
    first = loader_of(num_items, batch_size)
    whole = batches_of(loader_of(num_items, batch_size), consumed + 3)
    batches_of(first, consumed)
    assert first.position == consumed * batch_size
    again = batches_of(loader_of(num_items, batch_size, position=first.position), 3)
    assert all(torch.equal(one, other) for one, other in zip(whole[consumed:], again, strict=True))


def test_an_epoch_holds_every_item_once():
    batches = batches_of(loader_of(12, 4), 3)
    assert sorted(torch.cat(batches)[:, 0].tolist()) == list(range(12))


def test_workers_change_nothing_ignore_the_signals_of_the_step_and_use_one_thread():
    loader = loader_of(10, 4, num_workers=2, position=8)
    expected = batches_of(loader_of(10, 4, position=8), 6)
    first = next(loader)
    children = active_children()
    assert set(first[:, 2].tolist()) <= {child.pid for child in children}
    assert first[:, 3].unique().tolist() == [1]
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT):
        for child in children:
            os.kill(child.pid or 0, number)
    found = [first[:, :2], *batches_of(loader, 5)]
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert all(child.is_alive() for child in children)
    # Only what was handed out counts, not what the workers have ready.
    assert loader.position == 8 + 6 * 4
    assert loader.waited_seconds > 0
    loader.close()
    for child in children:
        child.join(10)
        assert not child.is_alive()


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_error_keeps_its_kind_and_message_and_the_batch_is_not_passed_over(num_workers: int):
    settings = LoaderSettings(batch_size=3, num_workers=num_workers, timeout_seconds=60.0)
    loader = Loader(Numbers(3, broken=1), settings, seed=0)
    for _ in range(2):
        with pytest.raises(MediaError, match=r"item1\.mp4: damaged"):
            next(loader)
    assert loader.position == 0
    assert loader.batches is None


def test_after_closing_the_next_batch_is_still_the_next():
    loader, expected = loader_of(10, 4), batches_of(loader_of(10, 4), 2)
    first = batches_of(loader, 1)
    loader.close()
    assert all(torch.equal(one, other) for one, other in zip(first + batches_of(loader, 1), expected, strict=True))


NEVER_CLOSED = """
import torch
from streams.loader import Loader
from streams.settings import LoaderSettings
from tests.streams.test_loader import Numbers

class Large(Numbers):
    def read(self, index, generator):
        return torch.zeros(1000, 1000)

if __name__ == "__main__":
    # Large items are still being sent when the workers end.
    loader = Loader(Large(50), LoaderSettings(batch_size=4, num_workers=2, prefetch_batches=4), seed=0)
    print(len(next(loader)))
    raise SystemExit(3)
"""


def test_a_loader_that_was_never_closed_does_not_hold_up_the_exit(tmp_path: Path):
    # Workers are deaf to SIGTERM, with which multiprocessing ends them before it waits for them.
    program = tmp_path / "program.py"
    program.write_text(NEVER_CLOSED)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    command = [sys.executable, str(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (3, "4\n", "")


@pytest.mark.parametrize(
    ("items", "batch_size", "place", "message"),
    [
        (0, 4, {}, "the source has no items"),
        (4, 3, {"num_ranks": 2}, "batch_size 3 must be a multiple of the 2 processes"),
        (4, 0, {}, "batch_size 0 must be"),
        (4, 4, {"rank": 2, "num_ranks": 2}, "rank 2 is not one of 2"),
        (4, 4, {"position": -1}, "must not be negative"),
        (4, 4, {"seed": -1}, "must not be negative"),
    ],
)
def test_wrong_arguments_are_refused(items: int, batch_size: int, place: dict[str, int], message: str):
    with pytest.raises(ValueError, match=message):
        loader_of(items, batch_size, **place)
