"""What every test shares. Nothing of the project is imported here: the shape checks start after this file is read."""

import os

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # every test runs on the CPU, also where there is a GPU
os.environ.setdefault("OMP_NUM_THREADS", "2")
# Threads that spin while others need the cores make small steps tens of times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
import torch


@pytest.fixture(autouse=True)
def fixed_threads_and_seed() -> None:
    """Two threads and one seed, so that a test is the same alone, in the suite and on any machine."""
    torch.set_num_threads(2)
    torch.manual_seed(0)
