"""Which signal hits whom in which moment: a pure function of the seed."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

Moment = Literal["start", "step", "save", "end"]
SIGNALS = ("SIGKILL", "SIGTERM", "SIGUSR1")
TARGETS = ("worker", "rank", "launcher")
# Of every twenty kills: a start takes long and does the same again and again, a save is short and changes the disk.
MOMENTS: tuple[Moment, ...] = ("step", "save", "start", "step", "save", "end", "step", "save", "start", "step") * 2
MAX_OFFSET = 5


@dataclass(frozen=True)
class Kill:
    """One kill.

    Attributes:
        number: from 1.
        moment: start (between the launch and the first step), step, save (while a checkpoint is written) or end (after
            the last step).
        signal: its name.
        target: what it hits.
        rank: which process's worker, or which process.
        offset: steps beyond the furthest one so far at which a step is hit; what a restart repeats is hit too, by -1.
        share: how far into the moment it comes, from 0 to 1 of its usual length.
    """

    number: int
    moment: Moment
    signal: str
    target: str
    rank: int
    offset: int
    share: float


def plan_of(num_kills: int, num_ranks: int, seed: int) -> list[Kill]:
    """All kills in order; those at the end come last, since a run ends once.

    Every nine kills hit each target by each signal, so far as it exists: at the end the workers are gone.
    """
    random = np.random.default_rng(seed)
    moments: list[Moment] = [MOMENTS[index % len(MOMENTS)] for index in range(num_kills)]
    ends = [moment for moment in moments if moment == "end"]
    others = [moment for moment in moments if moment != "end"]
    others = [others[index] for index in random.permutation(len(others))]
    pairs = endless_pairs(random)
    found = []
    for number, moment in enumerate(others + ends, 1):
        target, signal = next(pairs)
        if moment == "end" and target == "worker":
            target = "rank"
        offset = int(random.choice([-1, *range(1, MAX_OFFSET + 1)]))
        found.append(
            Kill(number, moment, signal, target, int(random.integers(num_ranks)), offset, float(random.random()))
        )
    return found


def endless_pairs(random: np.random.Generator) -> Iterator[tuple[str, str]]:
    """Target and signal: all nine pairs in a random order, then in another."""
    pairs = [(target, signal) for target in TARGETS for signal in SIGNALS]
    while True:
        yield from (pairs[index] for index in random.permutation(len(pairs)))


def steps_needed(plan: list[Kill], checkpoint_every: int) -> int:
    """Steps of a run that is still going when the last kill before its end comes."""
    steps = 2 * checkpoint_every
    for kill in plan:
        # A signal that saves, and a save that is waited for, let the run go on by themselves.
        steps += {"start": 1, "step": max(kill.offset, 1) + 2, "save": checkpoint_every + 1, "end": 0}[kill.moment]
    return steps
