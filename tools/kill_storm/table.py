"""What the kills did, in tables of text and of CSV."""

import csv
import statistics
from collections.abc import Iterable
from pathlib import Path

from tools.kill_storm.plan import SIGNALS, TARGETS
from tools.kill_storm.storm import Outcome

HEADER = ("kill", "moment", "target", "signal", "step", "saved", "went on", "repeated", "gone s", "seconds")


def row_of(outcome: Outcome) -> tuple[str, ...]:
    """One kill."""
    kill = outcome.kill
    target = kill.target if kill.target == "launcher" else f"{kill.target} {kill.rank}"
    went_on = "itself" if outcome.went_on else "restart"
    numbers = (f"{outcome.gone_seconds:.1f}", f"{outcome.seconds:.1f}")
    places = (str(outcome.step), str(outcome.saved), went_on, str(outcome.repeated))
    return (str(kill.number), kill.moment, target, kill.signal.removeprefix("SIG"), *places, *numbers)


def summary(outcomes: list[Outcome]) -> list[tuple[str, ...]]:
    """A row for each target and signal, and one for all: kills, restarts, steps repeated, seconds until it went on."""
    found = []
    for target in TARGETS:
        for signal in SIGNALS:
            hits = [each for each in outcomes if (each.kill.target, each.kill.signal) == (target, signal)]
            if hits:
                found.append((target, signal, *figures_of(hits)))
    return [*found, ("all", "", *figures_of(outcomes))]


SUMMARY_HEADER = ("target", "signal", "kills", "restarts", "repeated (most)", "went on after s (median)", "(most)")


def figures_of(outcomes: list[Outcome]) -> tuple[str, ...]:
    """Numbers of several kills."""
    seconds = [each.seconds for each in outcomes]
    restarts = sum(not each.went_on for each in outcomes)
    repeated = f"{sum(each.repeated for each in outcomes)} ({max(each.repeated for each in outcomes)})"
    return str(len(outcomes)), str(restarts), repeated, f"{statistics.median(seconds):.1f}", f"{max(seconds):.1f}"


def aligned(rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Lines whose columns stand below each other, as Markdown."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]


def write_csv(outcomes: list[Outcome], path: Path) -> None:
    """All kills, a line each."""
    partial = path.with_suffix(".partial")
    with partial.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([HEADER, *map(row_of, outcomes)])
    partial.replace(path)
