import os
from pathlib import Path

import pytest

from streams.children import Failure, ending_of, memory_bytes, peak_memory_bytes, run_in_children
from tests.streams.doubles import act

MIB = 1 << 20


def run(jobs: list[str], num_workers: int = 1, seconds: float = 60.0, memory: int = 1024 * MIB) -> dict:
    return dict(run_in_children(act, jobs, lambda job: 2.0 if job.startswith("hang") else seconds, num_workers, memory))


def test_children_are_reused_and_end_with_the_work():
    done = run([f"job {number}" for number in range(6)], num_workers=2)
    assert {job: text.partition(" by ")[0] for job, text in done.items()} == {job: job for job in done}
    workers = {int(text.partition(" by ")[2]) for text in done.values()}
    assert 1 <= len(workers) <= 2
    assert os.getpid() not in workers
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]


def test_a_child_that_hangs_or_ends_costs_its_job_alone(capfd: pytest.CaptureFixture[str]):
    done = run(["hang", "crash", "first", "leave", "raise", "second"])
    assert done["hang"] == Failure("the decoder hung: not done after 2 s")
    assert done["crash"] == Failure("the decoder crashed (SIGSEGV)")
    assert done["leave"] == Failure("the decoder ended with status 3")
    assert done["raise"] == Failure("the decoder ended with status 1")
    assert "MediaError: nobody catches this" in capfd.readouterr().err
    assert done["first"].startswith("first by")
    assert done["second"].startswith("second by")


def test_two_that_hang_hang_side_by_side():
    done = run(["hang 1", "hang 2", "quick"], num_workers=2)
    assert [type(done[job]) for job in ("hang 1", "hang 2", "quick")] == [Failure, Failure, str]


def test_memory_beyond_the_limit_is_not_given():
    done = run(["fill100", "fill900", "fill101"], memory=512 * MIB)
    assert done == {"fill100": "100 MiB", "fill900": "out of memory", "fill101": "101 MiB"}


def test_no_jobs_need_no_children():
    assert run([]) == {}


def test_children_end_when_nobody_asks_any_more():
    outcomes = run_in_children(act, ["quick", "hang"], lambda job: 60.0, 2, 1024 * MIB)
    _, text = next(outcomes)
    outcomes.close()  # type: ignore[attr-defined]
    assert isinstance(text, str)
    assert not Path(f"/proc/{text.partition(' by ')[2]}").exists()


def test_memory_is_measured():
    reserved, resident = memory_bytes()
    block = bytearray(200 * MIB)
    block[::4096] = b"x" * len(block[::4096])
    more_reserved, more_resident = memory_bytes()
    assert more_reserved - reserved > 190 * MIB
    assert more_resident - resident > 190 * MIB


def test_an_ending_is_told_in_words():
    assert ending_of(-9) == "the decoder crashed (SIGKILL)"
    assert ending_of(None) == "the decoder ended with status None"


def test_the_peak_of_memory_stays_when_memory_is_freed():
    block = bytearray(200 * MIB)
    block[::4096] = b"x" * len(block[::4096])
    del block
    assert peak_memory_bytes() > 200 * MIB
