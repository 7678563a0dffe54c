"""Runs the tasks of `streams` and writes what they show."""

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

import torch
from tqdm import tqdm

from streams.errors import UserError
from tools.bench import machine, report
from tools.bench.footage import Footage, bits_per_second, make_footage
from tools.bench.race import Finding, Race
from tools.bench.settings import (
    DeviceBenchSettings,
    LatentsSettings,
    RolloutBenchSettings,
    StreamsSettings,
    TrainBenchSettings,
)

Task = Callable[[Sequence[Footage], StreamsSettings], Iterator[Race | Finding]]
# Name of the task: module and function.
TASKS = {
    "in_order": ("pictures", "in_order"),
    "random": ("pictures", "random_clips"),
    "training": ("training", "training_stream"),
    "with_sound": ("sound", "clips_with_sound"),
    "quality": ("quality", "quality"),
    "wrong_frames": ("wrong", "wrong_frames"),
    "sync": ("sync", "sync"),
    "workers": ("workers", "workers"),
    "memory": ("workers", "memory"),
}


def run(settings: StreamsSettings) -> None:
    """Measures, prints tables, and writes all numbers to a file.

    Raises:
        UserError: there is no such task, or no footage can be made.
    """
    names = chosen_tasks(settings)
    if settings.quick:
        settings = dataclasses.replace(settings, heights=[256], gops=[12], seconds=4.0, rounds=2, round_seconds=0.2)
    torch.set_num_threads(1)
    folder = Path(settings.folder).expanduser()
    described = machine.describe()
    print("\n".join(f"{name}: {value}" for name, value in described.items()))
    footage = prepare(folder, settings)
    rates = ", ".join(f"{file.name} {bits_per_second(file, settings.seconds) / 1e3:.0f} kbit/s" for file in footage)
    described["footage"] = f"{settings.videos or 'synthetic'}, {settings.seconds:g} s each: {rates}"
    print(f"footage: {described['footage']}\n", flush=True)
    races: list[Race] = []
    findings: list[Finding] = []
    for name in tqdm(names, desc="tasks", disable=None):
        for result in load(name)(footage, settings):
            if isinstance(result, Race):
                races.append(result)
            else:
                findings.append(result)
            tqdm.write(line_of(result), file=sys.stderr)
    described["load at the end"] = machine.load()
    verdicts = report.judge(races, findings)
    print_tables(races, findings, verdicts)
    print(f"\nload at the end: {described['load at the end']}")
    output = write("streams", settings, folder, described, races, findings, verdicts)
    print(f"all numbers: {output}")


def chosen_tasks(settings: StreamsSettings) -> list[str]:
    """The tasks to run, in the order of the table."""
    unknown = sorted(set(settings.tasks) - set(TASKS))
    if unknown:
        raise UserError(f"tasks {', '.join(unknown)}: unknown; there are {', '.join(TASKS)}")
    wanted = set(settings.tasks) or set(TASKS) - {"memory"}
    return [name for name in TASKS if name in wanted or (name == "memory" and settings.long)]


def load(name: str) -> Task:
    """The function of a task."""
    module, function = TASKS[name]
    return getattr(import_module(f"tools.bench.tasks.{module}"), function)


def prepare(folder: Path, settings: StreamsSettings) -> list[Footage]:
    """Makes the footage, or finds it where it was made before."""
    videos: list[Path] = []
    if settings.videos:
        from streams.addresses import find_videos

        videos = [video for video in find_videos(settings.videos) if isinstance(video, Path)]
    making = make_footage(folder, settings.heights, settings.gops, settings.seconds, videos)
    total = len(settings.heights) * len(settings.gops)
    return list(tqdm(making, total=total, desc="footage", unit="file", disable=None))


def line_of(result: Race | Finding) -> str:
    """One line of progress."""
    if isinstance(result, Finding):
        return f"{result.task}  {result.subject}  {result.contender}  {result.value:.2f} {result.unit}  {result.note}"
    rates = "  ".join(f"{name} {result.per_second(name):.0f}" for name in result.costs)
    return f"{result.task}  {result.footage}  {result.unit} per {result.clock}: {rates}"


def print_tables(races: list[Race], findings: list[Finding], verdicts: list[report.Verdict]) -> None:
    """Prints details first, and the table that counts last."""
    if races:
        print(report.race_table(races), end="\n\n")
    if findings:
        print(report.finding_table(findings), end="\n\n")
    if verdicts:
        print(report.verdict_table(verdicts))


def write(
    command: str,
    settings: StreamsSettings | LatentsSettings | TrainBenchSettings | RolloutBenchSettings | DeviceBenchSettings,
    folder: Path,
    described: dict[str, str],
    races: list[Race],
    findings: list[Finding],
    verdicts: list[report.Verdict],
) -> Path:
    """Writes all numbers as JSON; the file appears when it is complete."""
    name = f"{command}_{datetime.now(UTC):%Y%m%d_%H%M%S}.json"
    output = Path(settings.output).expanduser() if settings.output else folder / name
    numbers = {
        "settings": dataclasses.asdict(settings),
        "machine": described,
        "table": [{**dataclasses.asdict(verdict), "mark": verdict.mark} for verdict in verdicts],
        "races": [dataclasses.asdict(race) for race in races],
        "findings": [dataclasses.asdict(found) for found in findings],
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f".partial.{output.name}")
    partial.write_text(json.dumps(numbers, indent=1), encoding="utf-8")
    partial.replace(output)
    return output
