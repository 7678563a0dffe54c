import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from streams.errors import MediaError
from streams.journal import Journal
from streams.loader import Loader, Source
from streams.passing_over import PassingOver
from streams.positions import Positions, order_of
from streams.settings import LoaderSettings


class Numbers:
    """A source whose items say which they are, what was drawn for them, and who read them."""

    def __init__(self, num_items: int, broken: int | None = None, blocks: list[int] | None = None) -> None:
        self.num_items, self.broken, self.blocks = num_items, broken, blocks
        self.num_reads = 0

    def __len__(self) -> int:
        return self.num_items

    def read(self, index: int, generator: np.random.Generator) -> torch.Tensor:
        self.num_reads += 1
        if index == self.broken:
            raise MediaError(f"item{index}.mp4: damaged")
        return torch.tensor([index, int(generator.integers(2**40)), os.getpid(), torch.get_num_threads()])

    def read_together(self, indices: list[int], generators: list[np.random.Generator]) -> list[torch.Tensor]:
        num_reads = self.num_reads
        items = [self.read(index, generator) for index, generator in zip(indices, generators, strict=True)]
        self.num_reads = num_reads + 1
        return items

    def collate(self, items: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack(items)


class Failing(Numbers):
    """A source with a journal, of which every item from `first_bad` on fails."""

    def __init__(self, num_items: int, first_bad: int) -> None:
        super().__init__(num_items)
        self.first_bad, self.journal = first_bad, Journal()

    def path_of(self, index: int) -> str:
        return f"item{index}.mp4"

    def read(self, index: int, generator: np.random.Generator) -> torch.Tensor:
        if index >= self.first_bad:
            raise MediaError(f"item{index}.mp4: damaged")
        return super().read(index, generator)


def loader_of(
    num_items: int,
    batch_size: int,
    seed: int = 3,
    num_workers: int = 0,
    blocks: list[int] | None = None,
    num_turns: int = 2,
    **place: int,
) -> Loader:
    settings = LoaderSettings(
        batch_size=batch_size,
        num_workers=num_workers,
        prefetch_batches=2,
        timeout_seconds=60.0,
        num_turns=num_turns,
    )
    return Loader(Numbers(num_items, blocks=blocks), settings, seed, **place)


def batches_of(loader: Loader, num_batches: int) -> list[torch.Tensor]:
    return [batch[:, :2] for batch in islice(loader, num_batches)]


def test_the_numbers_are_a_source():
    assert isinstance(Numbers(3), Source)


BLOCKS = st.lists(st.integers(1, 5), min_size=1, max_size=12)


@given(BLOCKS, st.booleans(), st.integers(1, 3), st.integers(1, 4), st.integers(0, 99), st.integers(0, 2**31))
def test_the_ranks_shares_together_are_the_same_for_any_number_of_ranks(
    blocks: list[int], whole: bool, share: int, num_ranks: int, position: int, seed: int
):
    batch_size, given = share * num_ranks, {"blocks": blocks if whole else None, "position": position}
    alone = batches_of(loader_of(sum(blocks), batch_size, seed, **given), 3)
    ranks = [
        batches_of(loader_of(sum(blocks), batch_size, seed, rank=rank, num_ranks=num_ranks, **given), 3)
        for rank in range(num_ranks)
    ]
    for step, batch in enumerate(alone):
        assert torch.equal(batch, torch.cat([shares[step] for shares in ranks]))


@given(BLOCKS, st.integers(1, 3), st.sampled_from([1, 2, 3, 6]), st.integers(0, 40))
def test_workers_by_turns_read_what_one_process_reads_and_no_block_twice(
    blocks: list[int], batch_size: int, num_workers: int, first: int
):
    # As torch's loader deals batches out, without its processes.
    def positions() -> Positions:
        source = Numbers(sum(blocks), blocks=blocks)
        return Positions(source, order_of(source, 3, 6 * batch_size), 3)

    alone, workers = positions(), [positions() for _ in range(num_workers)]
    for step in range(12):
        share = list(range(first + step * batch_size, first + (step + 1) * batch_size))
        part, other = alone.__getitems__(share), workers[step % num_workers].__getitems__(share)
        assert torch.equal(part.batch[:, :2], other.batch[:, :2])
    assert sum(worker.source.num_reads for worker in workers) == alone.source.num_reads  # type: ignore[attr-defined]
    assert sorted(held for worker in workers for held in worker.held) == sorted(alone.held)


@given(BLOCKS, st.integers(1, 6), st.integers(0, 5))
def test_a_loader_goes_on_where_another_stopped(blocks: list[int], batch_size: int, consumed: int):
    num_items = sum(blocks)
    first = loader_of(num_items, batch_size, blocks=blocks)
    whole = batches_of(loader_of(num_items, batch_size, blocks=blocks), consumed + 3)
    batches_of(first, consumed)
    assert first.position == consumed * batch_size
    again = batches_of(loader_of(num_items, batch_size, position=first.position, blocks=blocks), 3)
    assert all(torch.equal(one, other) for one, other in zip(whole[consumed:], again, strict=True))


def test_an_epoch_holds_every_item_once():
    batches = batches_of(loader_of(12, 4), 3)
    assert sorted(torch.cat(batches)[:, 0].tolist()) == list(range(12))


@pytest.mark.parametrize("blocks", [None, [4, 3, 3]])
def test_workers_change_nothing_ignore_the_signals_of_the_step_and_use_one_thread(blocks: list[int] | None):
    loader = loader_of(10, 4, num_workers=2, position=8, blocks=blocks)
    expected = batches_of(loader_of(10, 4, position=8, blocks=blocks), 6)
    state = torch.get_rng_state()
    first = next(loader)
    assert torch.equal(torch.get_rng_state(), state)
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
    assert loader.journal.counts["read"] == 24
    assert set(loader.journal.seconds) == {"read", "collate", "hand_over"}
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


def test_a_batch_is_read_by_as_many_workers_as_divide_the_turns(capsys: pytest.CaptureFixture[str]):
    def num_workers(asked: int, blocks: list[int] | None) -> int:
        return loader_of(10, 4, num_workers=asked, blocks=blocks, num_turns=6).num_workers

    assert [num_workers(asked, [5, 5]) for asked in range(8)] == [0, 1, 2, 3, 3, 3, 6, 6]
    assert [num_workers(asked, None) for asked in range(8)] == list(range(8))
    loader = loader_of(10, 4, num_workers=2, blocks=[5, 5], num_turns=3)
    next(loader)
    loader.close()
    assert "1 of 2 workers are used: their number must divide num_turns 3" in capsys.readouterr().err


def test_workers_whose_memory_grows_are_replaced_and_no_batch_is_lost(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("streams.loader.MIN_BATCHES", 2)
    # Python with torch alone is larger than this.
    settings = LoaderSettings(2, num_workers=2, prefetch_batches=2, num_turns=2, worker_memory_mebibytes=16)
    loader = Loader(Numbers(10, blocks=[5, 5]), settings, seed=3)
    found, workers = [], set()
    for _ in range(13):
        batch = next(loader)
        found.append(batch[:, :2])
        workers.update(batch[:, 2].tolist())
    loader.close()
    expected = batches_of(loader_of(10, 2, blocks=[5, 5]), 13)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    # After 2 batches come the 4 that the workers had been asked for.
    assert len(workers) in {5, 6}
    assert loader.num_replaced_workers == 4
    assert len(re.findall(r"a worker has grown to \d+ MiB after 2 batches: .* replaced", capsys.readouterr().err)) == 2


def test_starting_workers_draws_nothing_from_torch():
    state = torch.get_rng_state()
    batches_of(loader_of(10, 4), 2)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_files_that_fail_are_named_once_and_counted(num_workers: int, capsys: pytest.CaptureFixture[str]):
    settings = LoaderSettings(batch_size=10, num_workers=num_workers, max_failed_share=0.3)
    source = PassingOver(Failing(20, first_bad=18))
    loader = Loader(source, settings, seed=0)
    read = torch.cat(batches_of(loader, 20))[:, 0]
    loader.close()
    printed = capsys.readouterr().err.splitlines()
    assert sorted(printed) == ["passed over: item18.mp4: damaged", "passed over: item19.mp4: damaged"]
    assert set(read.tolist()) == set(range(18))
    assert loader.journal.counts["read"] == 200
    assert 20 <= loader.journal.counts["failed"] <= 30


@pytest.mark.parametrize("num_workers", [0, 1])
def test_when_too_many_fail_the_run_stops_and_says_so(num_workers: int):
    settings = LoaderSettings(batch_size=10, num_workers=num_workers, max_failed_share=0.3)
    loader = Loader(PassingOver(Failing(20, first_bad=10)), settings, seed=0)
    message = r"\d+ of 1\d\d clips cannot be read, more than the share 0\.3 .*: repair .*; first reasons: item1"
    with pytest.raises(MediaError, match=message):
        batches_of(loader, 20)
    assert 40 <= loader.position < 100
    assert loader.batches is None


def test_what_failed_before_the_first_batch_is_told_once(capsys: pytest.CaptureFixture[str]):
    source = PassingOver(Failing(20, first_bad=19))
    source.read(19, np.random.default_rng(0))
    loader = Loader(source, LoaderSettings(batch_size=2, num_workers=1), seed=0)
    next(loader)
    loader.close()
    assert capsys.readouterr().err.splitlines() == ["passed over: item19.mp4: damaged"]


class Deadly(Numbers):
    """A source that ends its worker, or hangs in it, as decoders do on some files."""

    def __init__(self, num_items: int, hangs: bool) -> None:
        super().__init__(num_items)
        self.hangs = hangs

    def path_of(self, index: int) -> str:
        return f"item{index}.mp4"

    def read(self, index: int, generator: np.random.Generator) -> torch.Tensor:
        if self.hangs:
            time.sleep(600)
        os._exit(9)


@pytest.mark.parametrize("hangs", [False, True])
def test_a_worker_that_dies_or_hangs_is_an_error_that_names_what_was_read(hangs: bool):
    loader = Loader(Deadly(2, hangs), LoaderSettings(batch_size=2, num_workers=1, timeout_seconds=4.0), seed=0)
    message = r"(exited unexpectedly|timed out).*position 0, is of item0\.mp4, item1\.mp4: examine"
    with pytest.raises(MediaError, match=message):
        next(loader)
    assert loader.position == 0
    for child in active_children():
        child.join(10)
    assert not active_children()


class Slow(Numbers):
    """A source that takes its time from the fourth read on."""

    def read(self, index: int, generator: np.random.Generator) -> torch.Tensor:
        time.sleep(0.5 if self.num_reads >= 3 else 0.0)
        return super().read(index, generator)


@pytest.mark.parametrize("waiting", [False, True])
def test_a_worker_that_was_killed_is_replaced_and_no_batch_is_lost_or_read_twice(
    waiting: bool, capsys: pytest.CaptureFixture[str]
):
    settings = LoaderSettings(batch_size=1, num_workers=1, prefetch_batches=1, timeout_seconds=60.0)
    loader = Loader(Slow(10) if waiting else Numbers(10), settings, seed=3)
    found = list(islice(loader, 3))
    victim = int(found[-1][0, 2])
    kill = threading.Timer(0.2 if waiting else 0.0, os.kill, (victim, signal.SIGKILL))
    kill.start()
    if not waiting:  # here torch would raise, in the middle of whatever the training does
        for child in active_children():
            child.join(10)
        assert time.sleep(0.2) is None
    found += islice(loader, 3)
    assert loader.num_replaced_workers == 1
    assert int(found[-1][0, 2]) != victim
    assert loader.position == 6
    assert all(
        torch.equal(one[:, :2], other) for one, other in zip(found, batches_of(loader_of(10, 1), 6), strict=True)
    )
    loader.close()
    told = capsys.readouterr().err
    assert re.search(r"a worker that reads ahead has died \(DataLoader worker .*\): new ones go on at position 3", told)


@pytest.mark.parametrize(("parent", "printed"), [("os.getppid()", "at work\n"), ("2**30", "")])
def test_a_worker_whose_parent_has_ended_while_it_started_ends_too(parent: str, printed: str):
    call = f"prepare_worker({parent}, 0); print('at work', flush=True)"
    program = f"import os; from streams.loader import prepare_worker; {call}"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, printed, "")


def test_after_closing_the_next_batch_is_still_the_next():
    loader, expected = loader_of(10, 4), batches_of(loader_of(10, 4), 2)
    first = batches_of(loader, 1)
    loader.close()
    assert all(torch.equal(one, other) for one, other in zip(first + batches_of(loader, 1), expected, strict=True))


def test_loaders_that_start_in_two_threads_at_a_time_do_not_take_each_others_workers():
    loaders = [loader_of(10, 4, num_workers=1), loader_of(10, 4, num_workers=1)]
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda loader: batches_of(loader, 1)[0], loaders)
    assert torch.equal(first, second)
    assert [len(loader.workers) for loader in loaders] == [1, 1]
    assert not loaders[0].workers & loaders[1].workers
    loaders[0].close()
    assert [worker.is_alive() for worker in loaders[1].workers] == [True]
    loaders[1].close()


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
        (4, 4, {"num_turns": 0}, "num_turns 0 must be 1 or more"),
        (4, 4, {"rank": 2, "num_ranks": 2}, "rank 2 is not one of 2"),
        (4, 4, {"position": -1}, "must not be negative"),
        (4, 4, {"seed": -1}, "must not be negative"),
    ],
)
def test_wrong_arguments_are_refused(items: int, batch_size: int, place: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        loader_of(items, batch_size, **place)
