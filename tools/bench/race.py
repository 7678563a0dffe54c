"""Measuring contenders against each other: in turns, in CPU-seconds, with medians and intervals."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float64

NUM_DRAWS = 2000


@dataclass(frozen=True)
class Part:
    """A part of a work that measures itself.

    Attributes:
        units: how many were done.
        seconds: CPU-seconds that they took.
        is_end: there are no more parts.
    """

    units: int
    seconds: float
    is_end: bool = False


# Does a part at every `next`, and tells how many units that were.
Work = Iterator[int | Part]


@dataclass(frozen=True)
class Race:
    """What one task cost its contenders on one file.

    Attributes:
        task: name of the task.
        footage: name of the file.
        unit: what is counted.
        costs: CPU-seconds (or seconds) per unit, by contender and round; contenders took turns within a round.
        forms: in which of its forms a contender ran.
        clock: of the costs: CPU-second, or second (elapsed) where a device is waited for.
    """

    task: str
    footage: str
    unit: str
    costs: dict[str, list[float]]
    forms: dict[str, str] = field(default_factory=dict)
    clock: Literal["CPU-second", "second"] = "CPU-second"

    def per_second(self, contender: str) -> float:
        """Units per second of its clock, the median round."""
        return 1.0 / float(np.median(self.costs[contender]))

    def ratios(self, peer: str) -> Float64[np.ndarray, " round"]:
        """How many times faster ours is than a peer, by round."""
        return np.array(self.costs[peer]) / np.array(self.costs["ours"])


@dataclass(frozen=True)
class Finding:
    """Something else than CPU-seconds that was measured.

    Attributes:
        task: name of the task.
        subject: file, or whatever was measured.
        contender: whose result it is.
        value: the number.
        unit: what it counts.
        note: what else is to be said.
    """

    task: str
    subject: str
    contender: str
    value: float
    unit: str
    note: str = ""


def cpu_seconds() -> float:
    """CPU time of this process with all its threads and of its children that have ended."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def take_turns(runners: Mapping[str, Callable[[int], Work]], num_rounds: int) -> dict[str, list[float]]:
    """CPU-seconds per unit of every runner and round.

    Within a round the runners take turns after every part of their work, so that what else the machine does at a moment
    meets all of them alike; who begins changes from round to round.

    Args:
        runners: by name; each gets the number of the round.
        num_rounds: how often each does its work.
    """
    names = list(runners)
    costs: dict[str, list[float]] = {name: [] for name in names}
    for number in range(num_rounds):
        first = number % len(names)
        works = {name: runners[name](number) for name in names[first:] + names[:first]}
        seconds, units = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0)
        while works:
            for name, work in list(works.items()):
                part = next_part(work)
                seconds[name] += part.seconds
                units[name] += part.units
                if part.is_end:
                    del works[name]
        for name in names:
            costs[name].append(seconds[name] / units[name])
    return costs


def next_part(work: Work) -> Part:
    """Does the next part of a work, and measures it where the work does not do so itself."""
    begun = cpu_seconds()
    done = next(work, None)
    seconds = cpu_seconds() - begun
    if isinstance(done, Part):
        return done
    return Part(done or 0, seconds, is_end=done is None)


def seconds_of(work: Work) -> float:
    """CPU-seconds of all parts of a work."""
    seconds = 0.0
    while True:
        part = next_part(work)
        seconds += part.seconds
        if part.is_end:
            return seconds


def fastest(forms: Mapping[str, Callable[[], Work]]) -> tuple[str, str]:
    """The form that took the least CPU time, each at its best of two runs; a single form is run once, to warm up.

    Returns:
        name of the form, and the same with how many times longer the others took.
    """
    best: dict[str, float] = {}
    for _ in range(2 if len(forms) > 1 else 1):
        for name, begin in forms.items():
            best[name] = min(seconds_of(begin()), best.get(name, float("inf")))
    first, *others = sorted(best, key=lambda name: best[name])
    longer = ", ".join(f"{name} {best[name] / best[first]:.2f} x" for name in others)
    return first, f"{first} ({longer})" if longer else first


@dataclass(frozen=True)
class Mean:
    """A geometric mean of ratios with the interval that holds 95 % of its bootstrap over rounds, and the worst file."""

    value: float
    low: float
    high: float
    worst: float
    worst_file: str


def mean_ratio(races: list[Race], peer: str) -> Mean | None:
    """Ours against a peer over several files: the geometric mean of each file's median round; None without any."""
    rounds = {f"{race.task} {race.footage}": race.ratios(peer) for race in races if peer in race.costs}
    if not rounds:
        return None
    medians = {name: float(np.median(ratios)) for name, ratios in rounds.items()}
    generator = np.random.default_rng(0)
    draws = [
        np.log(np.median(generator.choice(ratios, (NUM_DRAWS, len(ratios))), axis=1)) for ratios in rounds.values()
    ]
    low, high = np.exp(np.quantile(np.mean(draws, axis=0), [0.025, 0.975]))
    worst = min(medians, key=lambda name: medians[name])
    value = float(np.exp(np.mean(np.log(list(medians.values())))))
    return Mean(value, float(low), float(high), medians[worst], worst)


def with_fastest(costs: dict[str, list[float]], forms: Sequence[str]) -> tuple[dict[str, list[float]], str]:
    """The costs with "ours", the fastest of our forms by the median round; and which one that is."""
    best = min((name for name in forms if name in costs), key=lambda name: float(np.median(costs[name])))
    return {"ours": costs[best], **costs}, best
