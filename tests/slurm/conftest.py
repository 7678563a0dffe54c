import os
from collections.abc import Callable, Iterator

import pytest
import torch

from tests.slurm.cluster import Cluster, losses_of, running_cluster
from tests.slurm.world import SmallWorld, make_small_world
from tests.worldmodel.training.toy import finish, launch
from worldmodel.cache.locks import locked


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two nodes, for all tests that leave them as they were."""
    with running_cluster(tmp_path_factory.mktemp("slurm") / "cluster") as running:
        yield running


@pytest.fixture(scope="session")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, int], list[str]]:
    """Losses of the toy in one process (of so many) that nothing disturbed; each number of processes runs once."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # which the processes that test share

    def losses(num_ranks: int, rank: int) -> list[str]:
        run = folder / f"unbroken{num_ranks}"
        with locked(folder / f"{run.name}.lock", "the unbroken run", wait=True):
            if not run.exists():
                finish(launch("unbroken", run, num_ranks=num_ranks))
        return losses_of(run, rank)

    return losses


@pytest.fixture(scope="session")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> SmallWorld:
    """Videos, a codec and a cache; not to be changed."""
    torch.set_num_threads(2)
    return make_small_world(tmp_path_factory.mktemp("small_world"))
