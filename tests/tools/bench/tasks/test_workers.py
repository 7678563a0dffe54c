import dataclasses

from tools.bench.footage import Footage
from tools.bench.settings import StreamsSettings
from tools.bench.tasks.workers import memory, workers


def test_two_workers_are_compared_with_one(footage: list[Footage], settings: StreamsSettings):
    [found] = workers(footage, dataclasses.replace(settings, rounds=1))
    assert found.task == "workers"
    assert found.value > 0
    assert "clips/s" in found.note


def test_memory_is_that_of_the_worker(footage: list[Footage], settings: StreamsSettings):
    [found] = memory(footage, settings, early=16, late=64)
    before, after = (float(part.split()[0]) for part in found.note.split("; ")[0].split(", then "))
    # A worker that has loaded torch and decoded.
    assert 50 < before < 5000
    assert found.value == __import__("pytest").approx(after / before, rel=0.05)
