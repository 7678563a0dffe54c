"""Where the time of one step goes: a Chrome trace of it (chrome://tracing, Perfetto), and its dearest operations."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from tools.bench.report import align

NUM_OPERATIONS = 10
NAME_CHARACTERS = 60  # of a kernel's name, which may fill a screen


def print_trace(step: Callable[[], object], file: str, device: torch.device, what: str) -> None:
    """Runs a step once more under torch's profiler, writes its trace and prints its dearest operations.

    Args:
        step: has run before, so that nothing is compiled or set up in it.
        file: where the trace goes; it appears when it is complete.
        device: where the step computes.
        what: the step, in words.
    """
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=activities) as profiler:
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    output = Path(file).expanduser()
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f".partial.{output.name}")
    profiler.export_chrome_trace(str(partial))
    partial.replace(output)
    print(f"{what}, under torch's profiler:\n{dearest(list(profiler.key_averages()), device)}\ntrace: {output}\n")


def dearest(events: list[Any], device: torch.device) -> str:
    """The operations (on a GPU its kernels) that took the most time by themselves, and their share of all."""
    if device.type == "cuda":
        # Operations of the CPU are told the time of the kernels that they start, and so are named stretches of the code
        # (the optimizer's step): only the kernels are counted.
        kernels = [event for event in events if event.device_type.name == "CUDA" and not event.is_user_annotation]
        own = [(event, event.self_device_time_total) for event in kernels]
    else:
        own = [(event, event.self_cpu_time_total) for event in events]
    total = sum(microseconds for _, microseconds in own)
    own.sort(key=lambda pair: -pair[1])
    rows = [("operation", "calls", "ms", "share")]
    for event, microseconds in own[:NUM_OPERATIONS]:
        name = event.key[:NAME_CHARACTERS]
        rows.append((name, str(event.count), f"{microseconds / 1e3:.2f}", f"{microseconds / total:.1%}"))
    return align(rows)
