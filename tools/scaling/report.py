"""The tables of docs/scaling.md, in Markdown."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tools.scaling.efficiency import LARGEST, MODELS, Step, best, memory_of, step_of, steps_of
from tools.scaling.settings import Machine, Work
from tools.scaling.traffic import Model

if TYPE_CHECKING:
    from tools.scaling.measured import Beside

STAGES, COUNTS = (0, 1, 2, 3), (8, 64, 256, 1024)
SHARED, LONG_FRAMES = (1, 2, 4, 8), 256
DRAWN = (0, 1, 3)  # stage 2 sends what stage 1 does
HIDDEN = 0.8  # the share of the sending that an engine that overlaps might hide


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table of Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def assumptions(machine: Machine, work: Work) -> list[str]:
    """What the tables assume, in words."""
    return [
        f"A GPU of {machine.peak_teraflops:g} TFLOP/s at MFU {machine.mfu:g} with {machine.device_gigabytes:g} GB; "
        f"NVLink {machine.nvlink_gigabytes:g} GB/s, network {machine.network_gigabytes:g} or "
        f"{machine.slow_network_gigabytes:g} GB/s, each per GPU and direction; {machine.overlap:.0%} of the sending is "
        f"hidden. A step: {work.clips:g} clips per GPU and micro-batch, {work.accumulate} micro-batches, "
        f"{work.frames} frames of {work.frame_tokens} tokens; blocks are "
        f"{'run again' if work.recompute else 'kept'} for the backward pass. "
        f"A block keeps {work.block_bytes:.3g} bytes per token and channel (measured, bf16)."
    ]


def stage_tables(machine: Machine, work: Work) -> Iterator[str]:
    """Bytes, memory and efficiency of every model, number of GPUs and stage."""
    head = ["GPUs", "stage", "NVLink GB", "network GB", "memory GB", "step s", "efficiency"]
    head += [f"{HIDDEN:.0%} hidden", "slow network", f"slow, {HIDDEN:.0%} hidden"]
    for model in MODELS:
        yield ""
        yield f"**{model.name}** ({model.num_elements / 1e9:.3g} billion weights, {model.depth} blocks of {model.dim})"
        yield ""
        rows = []
        for count in COUNTS:
            for stage in STAGES:
                steps = [step_of(model, stage, count, work, one) for one in variants(machine)]
                rows.append([str(count), str(stage), *cells(steps[0], machine)])
                rows[-1] += [f"{step.efficiency:.0%}" for step in steps]
        yield from table(head, rows)


def variants(machine: Machine) -> list[Machine]:
    """The machine, one that hides more of the sending, and both with the slow network."""
    slow = replace(machine, network_gigabytes=machine.slow_network_gigabytes)
    return [machine, replace(machine, overlap=HIDDEN), slow, replace(slow, overlap=HIDDEN)]


def cells(step: Step, machine: Machine) -> list[str]:
    """Bytes, memory and seconds; memory that a GPU does not have is marked."""
    memory = step.device_bytes / 1e9
    fits = "" if memory <= machine.device_gigabytes else " (too much)"
    sent = [f"{each / 1e9:.3g}" for each in (step.nvlink_bytes, step.network_bytes)]
    return [*sent, f"{memory:.3g}{fits}", f"{step.seconds:.3g}"]


def sequence_table(machine: Machine, work: Work, count: int = 64) -> list[str]:
    """What sharing one long clip costs, and the longest clip that fits, of 64 GPUs in the best stage."""
    head = ["model", "GPUs that share", "stage", "NVLink GB", "network GB", "memory GB", "step s", "efficiency"]
    rows = []
    for model in MODELS:
        for size in SHARED:
            shared = replace(work, frames=LONG_FRAMES, clips=1 / size)
            steps = steps_of(model, STAGES, count, shared, machine, size)
            stage = best(steps, machine)
            chosen = max(STAGES) if stage is None else stage
            longest = longest_clip(model, chosen, count, work, machine, size)
            row = [model.name, str(size), str(chosen), *cells(steps[chosen], machine)]
            rows.append([*row, f"{steps[chosen].efficiency:.0%}", f"{longest}"])
    return table([*head, "longest clip that fits, frames"], rows)


def tensor_table(machine: Machine, work: Work, count: int = 64) -> list[str]:
    """What sharing matrices costs and saves, of 64 GPUs in the best stage, or in stage 3 where none fits."""
    head = ["model", "GPUs that share", "stage", "NVLink GB", "network GB", "memory GB", "step s", "efficiency"]
    rows = []
    for model in (*MODELS, LARGEST):
        for size in SHARED:
            steps = steps_of(model, STAGES, count, replace(work, clips=1 / size), machine, tensor_parallel=size)
            stage = best(steps, machine)
            chosen = max(STAGES) if stage is None else stage
            rows.append([model.name, str(size), str(chosen), *cells(steps[chosen], machine)])
            rows[-1].append(f"{steps[chosen].efficiency:.0%}")
    return table(head, rows)


def longest_clip(model: Model, stage: int, count: int, work: Work, machine: Machine, size: int) -> int:
    """Frames of one clip, shared by `size` GPUs, that fit them."""
    frames = 0
    for step in (4096, 1024, 256, 64, 16, 8):
        while True:
            tried = replace(work, frames=frames + step, clips=1 / size)
            needed = memory_of(model, stage, count, tried)
            if needed > 1e9 * machine.device_gigabytes or frames > 10**6:
                break
            frames += step
    return frames


def choices(machine: Machine, work: Work) -> list[str]:
    """The stage of the fastest step that fits, by model, number of GPUs and network."""
    names = ("network", f"network, {HIDDEN:.0%} hidden", "slow network", f"slow network, {HIDDEN:.0%} hidden")
    rows = []
    for model in MODELS:
        for name, one in zip(names, variants(machine), strict=True):
            row = [model.name, name]
            for count in COUNTS:
                steps = steps_of(model, STAGES, count, work, one)
                stage = best(steps, one)
                row.append("none fits" if stage is None else f"{stage} ({steps[stage].efficiency:.0%})")
            rows.append(row)
    return table(["model", "", *(f"{count} GPUs" for count in COUNTS)], rows)


def measured_table(found: "Sequence[Beside]") -> list[str]:
    """Arithmetic and counts side by side."""
    rows = []
    for one in found:
        for kind, expected in one.expected.items():
            counted = one.counted[kind]
            if expected > 0:
                rows.append([one.name, kind.replace("_", "-"), mega(expected), mega(counted), ratio(counted, expected)])
        rows.append([one.name, "sent by a process", mega(one.expected_sent), mega(one.sent)])
        rows[-1].append(ratio(one.sent, one.expected_sent))
    return table(["two processes", "", "by arithmetic, MB", "counted, MB", "counted / arithmetic"], rows)


def mega(num_bytes: float) -> str:
    """Megabytes."""
    return f"{num_bytes / 1e6:.3f}"


def ratio(one: float, other: float) -> str:
    """One over the other."""
    return f"{one / other:.4f}"


def efficiencies(machine: Machine, work: Work, counts: Sequence[int]) -> dict[str, dict[str, list[float]]]:
    """Curves for a picture: of every model, the efficiency of the stages over the number of GPUs, of both networks."""
    fast, _, slow, _ = variants(machine)
    return {
        model.name: {
            f"stage {stage}, {name}": [step_of(model, stage, count, work, one).efficiency for count in counts]
            for name, one in (("network", fast), ("slow network", slow))
            for stage in DRAWN
        }
        for model in MODELS
    }
