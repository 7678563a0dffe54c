"""What a source counts and times while it reads; goes from a worker to the training process with every batch."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class Journal:
    """Plain data that survives pickling.

    Attributes:
        seconds: time spent by stage; a stage inside another counts for itself alone, so that they add up.
        counts: how often something happened; "failed" is counted by `fail`.
        failures: first reason by path.
    """

    def __init__(self) -> None:
        """Nothing has happened yet."""
        self.seconds: dict[str, float] = {}
        self.counts: Counter[str] = Counter()
        self.failures: dict[str, str] = {}
        self.inner_seconds = 0.0

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds the time spent inside to a stage, without that of stages inside it."""
        outer, self.inner_seconds, started = self.inner_seconds, 0.0, time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - started
            self.seconds[stage] = self.seconds.get(stage, 0.0) + elapsed - self.inner_seconds
            self.inner_seconds = outer + elapsed

    def count(self, name: str, number: int = 1) -> None:
        """Counts something."""
        self.counts[name] += number

    def fail(self, path: str, reason: str) -> None:
        """Counts a failure."""
        self.counts["failed"] += 1
        self.failures.setdefault(path, reason)

    def add(self, other: "Journal") -> None:
        """Adds what another journal holds."""
        for stage, seconds in other.seconds.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
        self.counts.update(other.counts)
        self.failures = other.failures | self.failures

    def take(self) -> "Journal":
        """A journal with all that this one holds, which is empty afterwards."""
        taken = Journal()
        taken.add(self)
        self.seconds, self.counts, self.failures = {}, Counter(), {}
        return taken
