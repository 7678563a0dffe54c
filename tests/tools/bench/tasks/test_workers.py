import dataclasses

import pytest

from tools.bench.footage import Footage
from tools.bench.settings import StreamsSettings
from tools.bench.tasks.workers import memory, workers


def test_two_workers_are_compared_with_one(footage: list[Footage], settings: StreamsSettings):
    found = list(workers(footage, dataclasses.replace(settings, rounds=1), num_batches=4))
    assert {one.contender for one in found} == {"ours", "two loaders apart"}
    assert all(one.task == "workers" and one.value > 0 and "clips/s" in one.note for one in found)


def test_memory_is_that_of_the_worker(footage: list[Footage], settings: StreamsSettings):
    [found] = memory(footage, settings, early=16, late=64)
    before, after = (float(part.split()[0]) for part in found.note.split("; ")[0].split(", then "))
    # A worker that has loaded torch and decoded.
    assert 50 < before < 5000
    assert found.value == pytest.approx(after / before, rel=0.05)
