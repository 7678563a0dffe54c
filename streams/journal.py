"""What a source counts and times while it reads; goes from a worker to the training process with every batch."""

import time
from collections import Counter


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

    def timed(self, stage: str) -> "Stage":
        """Adds the time spent inside to a stage, without that of stages inside it."""
        return Stage(self, stage)

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


class Stage:
    """A part of the work while it is timed; a class, since a generator costs twice as much, for every frame."""

    __slots__ = ("journal", "name", "outer", "started")

    def __init__(self, journal: Journal, name: str) -> None:
        """Has not begun."""
        self.journal, self.name = journal, name

    def __enter__(self) -> None:
        """Begins; stages begun from now on are inside."""
        self.outer, self.journal.inner_seconds = self.journal.inner_seconds, 0.0
        self.started = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        """Ends, by an error or without."""
        journal, elapsed = self.journal, time.perf_counter() - self.started
        journal.seconds[self.name] = journal.seconds.get(self.name, 0.0) + elapsed - journal.inner_seconds
        journal.inner_seconds = self.outer + elapsed
