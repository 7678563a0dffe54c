import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tools.kill_storm import job
from tools.kill_storm.job import Job

# A launcher whose two ranks are called as those of torchrun, each with a worker as multiprocessing calls it; those of
# rank 0 go on when their parents have gone.
LAUNCHER = """
import os, subprocess, sys, time
wait = "import time; time.sleep(60)"
rank = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', '{wait}', 'spawn_' + 'main']); {wait}"
for number in range(2):
    subprocess.Popen([sys.executable, "-c", rank, "tools.kill_storm.noting"], env=os.environ | {"RANK": str(number)})
time.sleep(60)
"""


def wait_for(condition: Callable[[], object]) -> None:
    stop = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < stop
        time.sleep(0.02)


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Job]:
    monkeypatch.setattr(job, "LAUNCHER", [sys.executable, "-c", LAUNCHER])
    found = Job(3, ["train"], 2, tmp_path)
    try:
        wait_for(lambda: len(found.processes()) == 5)
        yield found
    finally:
        found.end()


def test_everybody_is_found_and_killed_and_what_is_left_is_seen(started: Job):
    pids = {(target, rank): started.find(target, rank) for target in ("rank", "worker") for rank in range(2)}
    pids["launcher", 0] = started.find("launcher", 0)
    assert pids["launcher", 0] == started.launcher.pid
    assert len(set(pids.values())) == 5
    assert None not in pids.values()
    assert not started.ended
    assert started.kill("worker", 1, "SIGKILL")
    wait_for(lambda: started.find("worker", 1) is None)
    assert started.kill("launcher", 0, "SIGTERM")
    wait_for(lambda: started.status is not None)
    assert not started.kill("launcher", 0, "SIGTERM")
    assert not started.kill("worker", 1, "SIGKILL")
    assert len(started.processes()) == 3  # orphans are the job's still
    assert not started.ended
    started.end()
    assert started.ended


def test_another_jobs_processes_are_none_of_it(started: Job, tmp_path: Path):
    other = Job(4, ["train"], 2, tmp_path / "other")
    try:
        wait_for(lambda: len(other.processes()) == 5)
        assert len(started.processes()) == 5
        assert not {each.pid for each in started.processes()} & {each.pid for each in other.processes()}
    finally:
        other.end()
    assert len(started.processes()) == 5
