"""How long a step would take on many GPUs, by a model of three numbers: MFU, bandwidths, and what is hidden."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tools.scaling.settings import Machine, Work
from tools.scaling.traffic import Model, of_sequence, of_stage
from worldmodel.attention import Block, rotary_angles
from worldmodel.settings import TrainingSettings
from worldmodel.training.memory import FLOAT_BYTES, Activations, state_bytes

MODELS = (Model("300M", 1024, 24), Model("1.3B", 2048, 24), Model("7B", 4096, 32))
PASSES_OF_STEP = 3  # a backward pass costs two forward passes
VALUE_BYTES = 2  # of a number in bf16


@dataclass(frozen=True)
class Step:
    """A step of one model on so many GPUs with one setting.

    Attributes:
        compute_seconds: of the arithmetic.
        send_seconds: of all that is sent, if nothing is hidden.
        seconds: of the step.
        nvlink_bytes: sent by a GPU within its node.
        network_bytes: sent by a GPU between nodes.
        device_bytes: memory of a GPU.
    """

    compute_seconds: float
    send_seconds: float
    seconds: float
    nvlink_bytes: float
    network_bytes: float
    device_bytes: float

    @property
    def efficiency(self) -> float:
        """Speed beside that of GPUs which need not send."""
        return self.compute_seconds / self.seconds


def step_of(model: Model, stage: int, num_ranks: int, work: Work, machine: Machine, sequence_parallel: int = 1) -> Step:
    """One step; `work.clips` is per GPU, also where several share a clip."""
    tokens = work.tokens * work.accumulate
    passes = PASSES_OF_STEP + work.recompute
    compute = 2 * passes * model.num_elements * tokens / (1e12 * machine.peak_teraflops * machine.mfu)
    sent = of_stage(stage, model.num_elements, num_ranks, work.accumulate)
    sent += of_sequence(model, sequence_parallel, round(tokens * sequence_parallel), work.recompute, VALUE_BYTES)
    links = [one.by_links for one in sent]
    nvlink, network = (sum(each) for each in zip(*links, strict=True))
    sending = nvlink / (1e9 * machine.nvlink_gigabytes) + network / (1e9 * machine.network_gigabytes)
    seconds = compute + sending - min(machine.overlap * sending, compute)
    return Step(compute, sending, seconds, nvlink, network, memory_of(model, stage, num_ranks, work))


def memory_of(model: Model, stage: int, num_ranks: int, work: Work) -> float:
    """State and activations of a GPU, and the weights in bf16, which autocast keeps for the backward pass.

    With recomputing, the activations are those of one block, and what enters every block.
    """
    settings = TrainingSettings(zero_stage=stage)  # type: ignore[arg-type]
    state = sum(one.device for one in state_bytes(model.num_elements, 0, settings, num_ranks).values())
    values = work.tokens * model.dim
    kept = model.depth if not work.recompute else 1
    entering = FLOAT_BYTES * values * model.depth if work.recompute else 0
    return state + VALUE_BYTES * model.num_elements + kept * values * work.block_bytes + entering


def measured_block_bytes(dim: int = 256, num_tokens: int = 128) -> float:
    """Bytes that a block keeps for its backward pass, per token and channel, in bf16; `Work.block_bytes` was so found.

    Twice, with more tokens, since copies of the weights are kept too.
    """
    block, found = Block(dim, dim // 128), []
    for count in (num_tokens, 2 * num_tokens):
        activations = Activations()
        angles = rotary_angles(torch.zeros(count), torch.rand(count, 2), 128)
        x = torch.randn(1, count, dim, requires_grad=True)
        with activations.counted(), torch.autocast("cpu", torch.bfloat16):
            kept = block(x, angles, None, None)
        found.append(activations.num_bytes)
        del kept
    return (found[1] - found[0]) / (num_tokens * dim)


def best(steps: dict[int, Step], machine: Machine) -> int | None:
    """The ZeRO stage of the fastest step that fits a GPU; the lowest of equals; None where none fits."""
    fitting = {stage: step for stage, step in steps.items() if step.device_bytes <= 1e9 * machine.device_gigabytes}
    return min(fitting, key=lambda stage: (round(fitting[stage].seconds, 9), stage), default=None)


def steps_of(
    model: Model, stages: Sequence[int], num_ranks: int, work: Work, machine: Machine, sequence_parallel: int = 1
) -> dict[int, Step]:
    """The steps of several stages."""
    return {stage: step_of(model, stage, num_ranks, work, machine, sequence_parallel) for stage in stages}
