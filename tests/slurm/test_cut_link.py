"""Two hosts that train together lose the network between them."""

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import losses_of, told, wait_for
from tests.slurm.two_hosts import TwoHosts, two_hosts
from tests.worldmodel.training.toy import finish

CHECKPOINT = 4  # the step of the only checkpoint before the link is cut, in step 5
OTHERS = {"left": (1, "right", "10.213.77.2"), "right": (0, "left", "10.213.77.1")}


@pytest.fixture(scope="module")
def hosts() -> Iterator[TwoHosts]:
    with two_hosts() as made:
        yield made


def start(hosts: TwoHosts, run: Path, hang_seconds: int) -> list[subprocess.Popen[str]]:
    """A training that waits in its fifth step."""
    variables = {"CHECKPOINT_EVERY": str(CHECKPOINT), "HANG_SECONDS": str(hang_seconds)}
    processes = hosts.train(run, "--config", "some.yaml", "--run", **variables)
    wait_for(lambda: all((run / f"waiting{rank}").exists() for rank in range(2)), run / "no log")
    return processes


def test_a_link_that_is_cut_for_a_moment_is_not_noticed(
    tmp_path: Path, hosts: TwoHosts, unbroken: Callable[[int, int], list[str]]
):
    run = tmp_path / "run"
    processes = start(hosts, run, hang_seconds=60)
    hosts.cut()
    injected = time.time()
    (run / "go").touch()
    time.sleep(1.5)
    assert not (run / "losses0").exists()
    hosts.mend()
    finish(processes)
    assert [losses_of(run, rank) for rank in range(2)] == [unbroken(2, rank) for rank in range(2)]
    told("a link cut for 1.5 s", injected, (run / "losses0").stat().st_mtime)


def test_a_link_that_stays_cut_ends_the_job_which_says_so_and_goes_on_from_its_checkpoint(
    tmp_path: Path, hosts: TwoHosts, unbroken: Callable[[int, int], list[str]]
):
    run = tmp_path / "run"
    processes = start(hosts, run, hang_seconds=3)
    hosts.cut()
    injected = time.time()
    (run / "go").touch()
    for side, printed in zip(OTHERS, finish(processes, code=1), strict=True):
        rank, machine, address = OTHERS[side]
        assert re.search(r"error: process \d+ hangs: step 5 has taken more than 3 s\n", printed), printed
        assert re.search(rf"process {rank} on {machine} \({address}\) cannot be reached \(.+\)\n", printed), printed
        remedy = (
            f"see to the machines named and to the network between them; started again with --resume {run}, it goes on"
        )
        assert remedy in printed
        assert "in all_reduce" in printed  # the stacks
    print(f"a link that stays cut: both processes had ended after {time.time() - injected:.1f} s")
    hosts.mend()
    finish(hosts.train(run, "--resume"))
    for rank in range(2):
        assert losses_of(run, rank) == unbroken(2, rank)[CHECKPOINT:]
    told("a link that stays cut", injected, (run / "resumed0").stat().st_mtime)
