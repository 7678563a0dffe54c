"""Two hosts that train together lose the network between them."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import losses_of, told, wait_for
from tests.slurm.two_hosts import TwoHosts, two_hosts
from tests.worldmodel.training.toy import finish

CHECKPOINT = 8  # the step of the last checkpoint before the link is cut for good, in step 9
HANG_SECONDS = 6
OTHERS = {"left": (1, "right", "10.213.77.2"), "right": (0, "left", "10.213.77.1")}


@pytest.fixture(scope="module")
def hosts() -> Iterator[TwoHosts]:
    with two_hosts() as made:
        yield made


def test_a_link_cut_for_a_moment_is_not_noticed_and_one_that_stays_cut_ends_the_job_which_says_so_and_goes_on(
    tmp_path: Path, hosts: TwoHosts, unbroken: Callable[[int, int], list[str]]
):
    run = tmp_path / "run"
    variables = {"WAIT_AT": "5 9", "CHECKPOINT_EVERY": "4", "HANG_SECONDS": str(HANG_SECONDS)}
    processes = hosts.train(run, "--config", "some.yaml", "--run", **variables)

    def cut_in(step: int) -> float:
        """Cuts the link in the middle of a step; when."""
        wait_for(lambda: all((run / f"waiting{rank}-{step}").exists() for rank in range(2)), run / "no log")
        hosts.cut()
        (run / f"go{step}").touch()
        return time.time()

    injected = cut_in(5)
    time.sleep(1.0)
    assert not (run / "waiting0-9").exists()
    hosts.mend()
    injected_again = cut_in(9)
    told("a link cut for 1 s", injected, (run / "waiting0-9").stat().st_mtime)
    for side, printed in zip(OTHERS, finish(processes, code=1), strict=True):
        rank, machine, address = OTHERS[side]
        assert re.search(rf"error: process \d+ hangs: step 9 has taken more than {HANG_SECONDS} s\n", printed), printed
        assert re.search(rf"process {rank} on {machine} \({address}\) cannot be reached \(.+\)\n", printed), printed
        remedy = "see to the machines named and to the network between them; started again with"
        assert f"{remedy} --resume {run}, it goes on" in printed
        assert "in all_reduce" in printed  # the stacks
    print(f"a link that stays cut: both processes had ended after {time.time() - injected_again:.1f} s")
    hosts.mend()
    finish(hosts.train(run, "--resume"))
    for rank in range(2):
        assert losses_of(run, rank) == unbroken(2, rank)[CHECKPOINT:]
    told("a link that stays cut", injected_again, (run / "resumed0").stat().st_mtime)
