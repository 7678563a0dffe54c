"""Elapsed time and memory of steps on a device, which may still be at work when a call returns, or have no room."""

import gc
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from tools.bench.race import Part, Work, take_turns

Step = Callable[[], object]


@dataclass(frozen=True)
class Contender:
    """Something that is done over and over.

    Attributes:
        step: does it once.
        units: that a step does.
    """

    step: Step
    units: int


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(step: Step, device: torch.device) -> float:
    """Elapsed seconds of one step, from an idle device to an idle one."""
    wait(device)
    begun = time.perf_counter()
    step()
    wait(device)
    return time.perf_counter() - begun


def race_on(
    device: torch.device, contenders: Mapping[str, Contender], num_rounds: int, num_steps: int
) -> dict[str, list[float]]:
    """Elapsed seconds per unit of every contender and round; they take turns after every step."""

    def work(contender: Contender) -> Work:
        for number in range(num_steps):
            seconds = seconds_of(contender.step, device)
            yield Part(contender.units, seconds, is_end=number + 1 == num_steps)

    runners = {name: lambda _, contender=contender: work(contender) for name, contender in contenders.items()}
    return take_turns(runners, num_rounds)


def that_fit(
    device: torch.device, contenders: Mapping[str, Contender], subject: str
) -> tuple[dict[str, Contender], dict[str, int]]:
    """Runs every contender twice, to warm up; those that do not fit the memory are named on stderr and left out.

    Returns:
        contenders that fit, and the peak memory in bytes of the second step of each, with what the others keep.
    """
    fitting, peaks = {}, {}
    for name, contender in contenders.items():
        if passed(contender.step, device, f"{subject}: {name}"):
            fitting[name] = contender
            peaks[name] = peak_memory(contender.step, device)
    return fitting, peaks


def passed(run: Step, device: torch.device, what: str) -> bool:
    """Runs something; False where the device has no room for it, which is told on stderr and then freed."""
    try:
        run()
        wait(device)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        print(f"{what} does not fit the memory of {device}: passed over", file=sys.stderr, flush=True)
    else:
        return True
    # Only here: until now the error held the tensors of all calls that it passed through.
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return False


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there was no room; torch has a class for that on GPUs alone."""
    told = str(error).lower()
    return (
        isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError))
        or "out of memory" in told
        or "can't allocate memory" in told
    )


def peak_memory(step: Step, device: torch.device) -> int:
    """Most bytes that are held while a step runs: of the GPU's memory, or of this process's."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        forget_peak()
    step()
    wait(device)
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_bytes()


def forget_peak() -> None:
    """Lets the peak of this process's resident memory begin anew."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_bytes() -> int:
    """Peak of this process's resident memory since then."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
