from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tests.slurm.cluster import Cluster, losses_of, running_cluster
from tests.slurm.world import SmallWorld, make_small_world
from tests.worldmodel.training.toy import finish, launch


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two nodes, for all tests that leave them as they were."""
    with running_cluster(tmp_path_factory.mktemp("slurm") / "cluster") as running:
        yield running


@pytest.fixture(scope="session")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, int], list[str]]:
    """Losses of the toy in one process (of so many) that nothing disturbed; each number of processes runs once."""
    done: dict[int, Path] = {}

    def losses(num_ranks: int, rank: int) -> list[str]:
        if num_ranks not in done:
            done[num_ranks] = tmp_path_factory.mktemp("unbroken") / "run"
            finish(launch("unbroken", done[num_ranks], num_ranks=num_ranks))
        return losses_of(done[num_ranks], rank)

    return losses


@pytest.fixture(scope="session")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> SmallWorld:
    """Videos, a codec and a cache; not to be changed."""
    torch.set_num_threads(2)
    return make_small_world(tmp_path_factory.mktemp("small_world"))
