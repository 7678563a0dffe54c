"""Tables: what was measured, and whether it is what it must be; the marks are computed from the figures alone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tools.bench.race import Finding, Race, mean_ratio

FEW = 10  # units per second, below which digits behind the point are shown


@dataclass(frozen=True)
class Requirement:
    """One row of the table.

    Attributes:
        name: what is measured.
        tasks: names of tasks (or how they begin) that belong to it.
        must: least (or largest) value.
        aim: value that is hoped for.
        peer: whom ours is compared with; empty where a value of ours is judged by itself.
        gop: only files of this distance of keyframes; 0 takes all.
        unit: of the value.
        lower: smaller is better.
    """

    name: str
    tasks: str
    must: float
    aim: float
    peer: str = ""
    gop: int = 0
    unit: str = "x"
    lower: bool = False


REQUIREMENTS = (
    Requirement("files in order / TorchCodec exact", "in_order", 1.35, 1.6, "torchcodec"),
    Requirement("random 16-frame clips / TorchCodec exact, kept open", "random", 1.3, 1.6, "torchcodec"),
    Requirement("random 16-frame clips / Decord", "random", 1.4, 2.0, "decord"),
    Requirement("training stream / TorchCodec's random clips, GOP 12", "training", 1.5, 2.0, "torchcodec", gop=12),
    Requirement("training stream / TorchCodec's random clips, GOP 250", "training", 2.4, 3.5, "torchcodec", gop=250),
    Requirement("clips with their sound / TorchCodec", "with_sound", 1.3, 1.6, "torchcodec"),
    Requirement("quality, to full size and antialiased resize", "quality", 50, 57, unit="dB"),
    Requirement("wrong frames, all containers and orders", "wrong_frames", 0, 0, unit="frames", lower=True),
    Requirement("sound against picture", "sync", 5, 1, unit="ms", lower=True),
    Requirement("2 workers / 1 worker, clips per second", "workers", 1.8, 1.9),
    Requirement("random clips of a cache / numpy memmap", "latents: single", 0.8, 0.95, "memmap"),
    Requirement("random clips of a cache / zarr's own indexing", "latents: single", 100, 100, "zarr"),
    Requirement("random clips of a cache / MosaicML's MDS", "latents: single", 5, 5, "mds"),
    Requirement("random windows of a cache's clips / numpy memmap", "latents: windows", 0.8, 0.95, "memmap"),
    Requirement("codes alone of random clips / numpy memmap", "latents: codes", 0.8, 0.95, "memmap"),
    Requirement("codes alone of random clips / MosaicML's MDS", "latents: codes", 5, 5, "mds"),
    Requirement("random batches of a cache / numpy memmap", "latents: batches", 0.5, 0.8, "memmap"),
    Requirement("shuffled epoch of a cache, by our loader / numpy memmap", "latents: epoch", 0.5, 0.9, "memmap"),
    Requirement("bytes read for clips that are not in memory / theirs", "latents: cold", 2.0, 1.4, lower=True),
    Requirement(
        "training at 341 codes, the faster of eager and compiled / dense mask",
        "train: 341 codes",
        1.35,
        1.6,
        "dense mask",
    ),
    Requirement("the same in bf16 / dense mask in bf16", "train in bf16: 341 codes", 1.35, 1.6, "dense mask"),
    Requirement("the same in bf16 / dense mask in fp32", "train in bf16: 341 codes", 1.35, 1.6, "dense mask in fp32"),
    Requirement("rollout at 85 codes, eager or compiled / uncached", "rollout: 85 codes", 8, 10, "uncached"),
    Requirement("rollout at 341 codes, eager or compiled / uncached", "rollout: 341 codes", 15, 20, "uncached"),
    Requirement("rollout, eager or compiled / cached decode code by code", "rollout: ", 5, 7, "raster"),
    Requirement("cost of frame 1000 / frame 10", "rollout: flat cost", 1.1, 1.0, lower=True),
    Requirement("peak memory up to frame 1000 / up to frame 10", "rollout: flat memory", 1.1, 1.02, lower=True),
    Requirement("memory after 200,000 clips / after 20,000", "memory", 1.1, 1.0, lower=True),
)


@dataclass(frozen=True)
class Verdict:
    """A row of the table with its value; one that is not judged was measured where the requirement does not hold."""

    requirement: Requirement
    value: float
    interval: tuple[float, float]
    worst: float
    worst_of: str
    num_files: int
    judged: bool = True

    @property
    def mark(self) -> str:
        """Whether the value is what it must be, or even what was aimed at."""
        if not self.judged:
            return "not judged"
        if self.reaches(self.requirement.aim):
            return "aim"
        return "pass" if self.reaches(self.requirement.must) else "MISS"

    def reaches(self, bound: float) -> bool:
        """Whether the value is as good as the bound."""
        return self.value <= bound if self.requirement.lower else self.value >= bound


def judge(
    races: Sequence[Race], findings: Sequence[Finding], requirements: Sequence[Requirement] = REQUIREMENTS
) -> list[Verdict]:
    """A verdict for every requirement of which something was measured."""
    found = [judge_ratio(row, races) if row.peer else judge_value(row, findings) for row in requirements]
    return [verdict for verdict in found if verdict is not None]


def judge_ratio(requirement: Requirement, races: Sequence[Race]) -> Verdict | None:
    """Judges by the geometric mean over files."""
    ending = f"GOP {requirement.gop}" if requirement.gop else ""
    chosen = [race for race in races if race.task.startswith(requirement.tasks) and race.footage.endswith(ending)]
    mean = mean_ratio(chosen, requirement.peer)
    if mean is None:
        return None
    num_files = len({race.footage for race in chosen})
    return Verdict(requirement, mean.value, (mean.low, mean.high), mean.worst, mean.worst_file, num_files)


def judge_value(requirement: Requirement, findings: Sequence[Finding]) -> Verdict | None:
    """Judges by the worst of our values (wrong frames by their sum)."""
    chosen = [found for found in findings if found.task == requirement.tasks and found.contender == "ours"]
    if not chosen:
        return None
    sign = 1 if requirement.lower else -1
    worst = max(chosen, key=lambda found: math.inf if math.isnan(found.value) else sign * found.value)
    value = sum(found.value for found in chosen) if requirement.unit == "frames" else worst.value
    values = [found.value for found in chosen]
    return Verdict(requirement, value, (min(values), max(values)), worst.value, worst.subject, len(chosen))


def verdict_table(verdicts: Sequence[Verdict]) -> str:
    """The table of what it must show."""
    rows = [("", "measured", "interval", "must", "aim", "", "worst")]
    for verdict in verdicts:
        row, unit = verdict.requirement, verdict.requirement.unit
        low, high = verdict.interval
        bounds = f"{row.must:g} {unit}", f"{row.aim:g} {unit}"
        worst = f"{verdict.worst:.2f} {verdict.worst_of}"
        rows.append((row.name, f"{verdict.value:.2f} {unit}", f"{low:.2f} to {high:.2f}", *bounds, verdict.mark, worst))
    return align(rows)


def race_table(races: Sequence[Race]) -> str:
    """Units per second of every contender and file, and ratios with their least and largest round."""
    clocks = " or ".join(sorted({race.clock for race in races}))
    rows = [("task", "file", "contender", f"per {clocks}", "spread", "ours is faster by", "form")]
    for race in races:
        for name, costs in race.costs.items():
            spread = (max(costs) - min(costs)) / float(np.median(costs))
            ratios = race.ratios(name)
            ratio = "" if name == "ours" else f"{np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f})"
            rate = race.per_second(name)
            shown = f"{rate:.0f} {race.unit}" if rate >= FEW else f"{rate:.2f} {race.unit}"
            rows.append((race.task, race.footage, name, shown, f"{spread:.0%}", ratio, race.forms.get(name, "")))
    return align(rows)


def finding_table(findings: Sequence[Finding]) -> str:
    """Everything else that was measured."""
    rows = [("task", "subject", "contender", "value", "")]
    rows += [
        (found.task, found.subject, found.contender, f"{found.value:.2f} {found.unit}", found.note)
        for found in findings
    ]
    return align(rows)


def align(rows: Sequence[Sequence[str]]) -> str:
    """Columns of text, the first row underlined."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])
