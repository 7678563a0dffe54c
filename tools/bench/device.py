"""Measures training and rollouts of models of several sizes on one device, a GPU as a rule, against its own peaks.

Time is elapsed, between two moments at which the device has nothing to do. What must be shown is asked of one H200.
"""

import dataclasses
from pathlib import Path

import torch

from tools.bench import machine, report
from tools.bench.device_rollout import RASTER, measure_rollouts
from tools.bench.device_train import measure_training
from tools.bench.elapsed import passed
from tools.bench.race import Finding, Race
from tools.bench.report import Requirement, Verdict
from tools.bench.roofline import Peaks, better, measure_peaks
from tools.bench.settings import DeviceBenchSettings
from tools.bench.streams import line_of, print_tables, write
from tools.bench.train import DENSE
from tools.bench.untrained import TINY, settings_of
from worldmodel.devices import find_device

# What it must show, and what is aimed at, by size; of other sizes nothing is asked.
BOUNDS: dict[str, dict[str, tuple[float, float]]] = {
    "MFU": {"medium": (35, 45), "large": (45, 55), "huge": (55, 65)},
    "dense": {"medium": (2, 3), "large": (2, 3), "huge": (2, 3)},
    "latents": {"medium": (250, 400), "large": (150, 250), "huge": (70, 120)},
    "pixels and sound": {"medium": (150, 250), "large": (100, 180), "huge": (60, 100)},
    "many": {"medium": (1500, 2400), "large": (450, 700), "huge": (150, 240)},
    "raster": {"medium": (20, 40), "large": (20, 40), "huge": (20, 40)},
    "share of the floor": {"huge": (50, 70)},
}
NAMES = {
    "MFU": "training: model FLOPs of the device's fastest matrix product",
    "dense": "training / eager with a dense mask",
    "latents": "rollout, latents",
    "pixels and sound": "rollout, pixels and sound",
    "many": "rollouts side by side, latents, frames of all",
    "raster": "rollout, latents / cached decode code by code",
    "share of the floor": "rollout, latents: weights and cache at the speed of a copy",
}
RACES = {"dense": ("device train", DENSE), "raster": ("device rollout", RASTER)}
UNITS = {"MFU": "%", "share of the floor": "%"}
JUDGED_CODES, JUDGED_FRAMES, JUDGED_ROLLOUTS = 341, 16, 32


def run(settings: DeviceBenchSettings) -> None:
    """Measures, prints tables, and writes all numbers to a file.

    Raises:
        UserError: there is no such device or size, or no pyramid of so many codes.
    """
    device = find_device(settings.device)
    settings = resolved(settings, device)
    for size in settings.sizes:
        settings_of(size)  # before anything is measured
    described = {**machine.describe(), "device": name_of(device)}
    print("\n".join(f"{name}: {value}" for name, value in described.items()), flush=True)
    kind = torch.bfloat16 if settings.precision == "bf16" else torch.float32
    peaks = better(measure_peaks(device, kind), measure_peaks(device, kind))
    described["peaks"] = peaks_in_words(peaks, settings.precision)
    print(f"peaks: {described['peaks']}", flush=True)
    races: list[Race] = []
    findings: list[Finding] = []
    for number, size in enumerate(settings.sizes):
        traced = settings if number == 0 else dataclasses.replace(settings, trace="")
        for result in measure(size, traced, device, peaks):
            print(line_of(result), flush=True)
            if isinstance(result, Race):
                races.append(result)
            else:
                findings.append(result)
    described["load at the end"] = machine.load()
    reason = why_not_judged(settings, device)
    verdicts = judge(races, findings, settings.sizes, judged=not reason)
    print_tables(races, findings, verdicts)
    if reason:
        print(f"\nnot judged: {reason}")
        described["not judged"] = reason
    output = write("device", settings, Path(settings.folder).expanduser(), described, races, findings, verdicts)
    print(f"all numbers: {output}")


def resolved(settings: DeviceBenchSettings, device: torch.device) -> DeviceBenchSettings:
    """The same with what is meant by auto and by quick."""
    gpu = device.type == "cuda"
    if settings.precision == "auto":
        settings = dataclasses.replace(settings, precision="bf16" if gpu else "fp32")
    if settings.attention == "auto":
        settings = dataclasses.replace(settings, attention="flex" if gpu else "sdpa")
    if settings.quick:
        few = {"num_codes": 21, "num_frames": 4, "batch": 2, "rollout_batch": 2, "horizon": 4, "steps": 1, "rounds": 1}
        settings = dataclasses.replace(settings, sizes=[TINY], **few)
    return settings


def measure(size: str, settings: DeviceBenchSettings, device: torch.device, peaks: Peaks) -> list[Race | Finding]:
    """All that fits the device's memory of training and rollouts of one size."""
    found: list[Race | Finding] = []
    for what, measured in (("train", measure_training), ("rollout", measure_rollouts)):
        run_all = lambda measured=measured: found.extend(measured(size, settings, device, peaks))  # noqa: E731
        passed(run_all, device, f"{what}, {size}")
    return found


def judge(races: list[Race], findings: list[Finding], sizes: list[str], judged: bool) -> list[Verdict]:
    """A verdict for every requirement and size of which something was measured."""
    rows = [requirement(row, size) for row, bounds in BOUNDS.items() for size in sizes if size in bounds]
    verdicts = report.judge(races, findings, rows)
    return verdicts if judged else [dataclasses.replace(verdict, judged=False) for verdict in verdicts]


def requirement(row: str, size: str) -> Requirement:
    """One row of the table for one size."""
    must, aim = BOUNDS[row][size]
    name = f"{NAMES[row]}, {size}"
    if row in RACES:
        task, peer = RACES[row]
        return Requirement(name, f"{task}, {size}", must, aim, peer)
    return Requirement(name, f"device: {row}, {size}", must, aim, unit=UNITS.get(row, "frames/s"))


def why_not_judged(settings: DeviceBenchSettings, device: torch.device) -> str:
    """Why the figures are no answer to what must be shown; empty where they are."""
    if device.type != "cuda":
        return f"what must be shown is asked of a GPU, and this ran on {device.type}"
    asked = (JUDGED_CODES, JUDGED_FRAMES, JUDGED_ROLLOUTS)
    if (settings.num_codes, settings.num_frames, settings.rollout_batch) != asked:
        return "what must be shown is asked of {} codes, {} frames and {} rollouts side by side".format(*asked)
    return ""


def name_of(device: torch.device) -> str:
    """The device in words."""
    if device.type != "cuda":
        return f"{device.type}, {torch.get_num_threads()} threads"
    about = torch.cuda.get_device_properties(device)
    return f"{about.name}, {about.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"


def peaks_in_words(peaks: Peaks, precision: str) -> str:
    """What the device did at best."""
    flops, copied = peaks.flops_per_second / 1e12, peaks.bytes_per_second / 1e12
    return f"{flops:.4g} TFLOP/s in {precision}, {copied:.4g} TB/s read and written by a copy"
