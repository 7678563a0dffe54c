"""A node is gone in the middle of a training."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import TOY, Cluster, losses_of, needs_slurm, read, running_cluster, told, wait_for

CHECKPOINT = 4  # the step of the only checkpoint before the fault, which comes in step 5


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster that finds out quickly that a node is gone."""
    with running_cluster(tmp_path_factory.mktemp("fragile") / "cluster", QUICK="1") as running:
        yield running


def start(cluster: Cluster, run: Path, log: Path, num_nodes: int) -> str:
    """A toy training that waits in its fifth step."""
    variables = {"RUN": str(run), "CONFIG": "some.yaml", "WORLDMODEL": TOY, "CHECKPOINT_EVERY": str(CHECKPOINT)}
    job = cluster.submit("train.sbatch", log, options=(f"--nodes={num_nodes}",), **variables)
    wait_for(lambda: all((run / f"waiting{rank}-5").exists() for rank in range(num_nodes)), log)
    return job


@needs_slurm
def test_a_job_whose_node_dies_goes_on_when_the_node_is_back(
    tmp_path: Path, fragile: Cluster, unbroken: Callable[[int, int], list[str]]
):
    run, log = tmp_path / "run", tmp_path / "job.log"
    job = start(fragile, run, log, num_nodes=2)
    started = time.time()
    fragile.kill_node("n2")
    (run / "go5").touch()
    wait_for(lambda: fragile.node("n2") == "down*" and fragile.waits_for_nodes(job), log)
    whole = [unbroken(2, rank) for rank in range(2)]
    fragile.testbed("start", "n2")
    assert fragile.wait_for_end(job, log) == "0:0", read(log)
    assert f"train --resume {run}" in read(log)
    assert [losses_of(run, rank) for rank in range(2)] == [losses[CHECKPOINT:] for losses in whole]
    told("a node without power", started, (run / "resumed0").stat().st_mtime)


@needs_slurm
def test_the_next_start_waits_for_the_one_on_a_node_that_is_cut_off(
    tmp_path: Path, fragile: Cluster, unbroken: Callable[[int, int], list[str]]
):
    run, log = tmp_path / "run", tmp_path / "job.log"
    job = start(fragile, run, log, num_nodes=1)
    started = time.time()
    fragile.testbed("kill", "n1")  # the scheduler gives its job to n2; the process on n1 trains on, and holds the run
    wait_for(lambda: "waiting for it, 120 s at most" in read(log), log)
    assert re.search(rf"the run {run} is held by host .*, process \d+", read(log))
    assert not (run / "resumed0").exists()
    fragile.testbed("start", "n1")  # hears that the job is no longer its own, and ends what is left of it
    assert fragile.wait_for_end(job, log) == "0:0", read(log)
    assert losses_of(run, 0) == unbroken(1, 0)[CHECKPOINT:]
    told("a node cut off from the scheduler", started, (run / "resumed0").stat().st_mtime)
