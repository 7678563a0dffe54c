"""What every test shares. Nothing of the project is imported here: the shape checks start after this file is read."""

import os
import signal
from collections.abc import Iterator
from typing import Any

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # every test runs on the CPU, also where there is a GPU
os.environ.setdefault("OMP_NUM_THREADS", "2")
# Threads that spin while others need the cores make small steps tens of times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import hypothesis
import pytest
import torch

# No test asserts a time, and hypothesis's own deadline would be one.
hypothesis.settings.register_profile("worldmodel", deadline=None)
hypothesis.settings.load_profile("worldmodel")


# They take longest, so they come first: else, at the end, one process of the suite waits for the other.
SLOW_FILES = (
    "tests/tools/kill_storm/test_short_storm.py",
    "tests/test_readme.py",
    "tests/test_learning.py",
    "tests/worldmodel/training/test_ulysses.py",
    "tests/worldmodel/training/test_engine.py",
    "tests/worldmodel/training/test_compiling.py",
    "tests/worldmodel/training/test_tensor_parallel.py",
    "tests/slurm/test_preemption.py",
    "tests/slurm/test_lost_nodes.py",
    "tests/slurm/test_cut_link.py",
    "tests/tools/scaling/test_measured.py",
    "tests/worldmodel/rollouts/test_repeated.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slow files first, all else in its order."""
    items.sort(key=lambda item: not str(item.path).endswith(SLOW_FILES))


@pytest.fixture(autouse=True)
def fixed_threads_and_seed() -> None:
    """Two threads and one seed, so that a test is the same alone, in the suite and on any machine."""
    torch.set_num_threads(2)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A trained run with all that it was made from; made once, and not to be changed."""
    torch.set_num_threads(2)  # as in every test, so that weights can be compared bit for bit
    from tests.worldmodel.whole_run import make_whole_run

    return make_whole_run(tmp_path_factory.mktemp("whole_run"))


@pytest.fixture
def kept_signals() -> Iterator[None]:
    """Handlers that a command installs go when its test ends."""
    names = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    before = {name: signal.getsignal(name) for name in names}
    yield
    for name, handler in before.items():
        signal.signal(name, handler)
