"""How long a step would take on many GPUs, by a model of three numbers: MFU, bandwidths, and what is hidden."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from tools.scaling.settings import Machine, Work
from tools.scaling.traffic import Model, of_sequence, of_stage, of_tensor
from worldmodel.attention import rotary_turns
from worldmodel.blocks import Block, hidden_of
from worldmodel.settings import TrainingSettings
from worldmodel.training.memory import FLOAT_BYTES, Activations, state_bytes

MODELS = (Model("300M", 1024, 24), Model("1.3B", 2048, 24), Model("7B", 4096, 32))
LARGEST = Model("30B", 7168, 48)
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


def step_of(
    model: Model,
    stage: int,
    num_ranks: int,
    work: Work,
    machine: Machine,
    sequence_parallel: int = 1,
    tensor_parallel: int = 1,
) -> Step:
    """One step; `work.clips` is per GPU, also where several share clips or matrices."""
    tokens = work.tokens * work.accumulate
    passes = PASSES_OF_STEP + work.recompute
    compute = 2 * passes * model.num_elements * tokens / (1e12 * machine.peak_teraflops * machine.mfu)
    part, num_readers = model.num_elements // tensor_parallel, num_ranks // tensor_parallel
    sent = of_stage(stage, part, num_readers, work.accumulate, stride=tensor_parallel)
    sent += of_tensor(model, tensor_parallel, tokens * tensor_parallel, work.recompute, VALUE_BYTES)
    sent += of_sequence(model, sequence_parallel, round(tokens * sequence_parallel), work.recompute, VALUE_BYTES)
    links = [one.by_links for one in sent]
    nvlink, network = (sum(each) for each in zip(*links, strict=True))
    sending = nvlink / (1e9 * machine.nvlink_gigabytes) + network / (1e9 * machine.network_gigabytes)
    seconds = compute + sending - min(machine.overlap * sending, compute)
    memory = memory_of(model, stage, num_ranks, work, tensor_parallel)
    return Step(compute, sending, seconds, nvlink, network, memory)


def memory_of(model: Model, stage: int, num_ranks: int, work: Work, tensor_parallel: int = 1) -> float:
    """State and activations of a GPU, and the weights in bf16, which autocast keeps for the backward pass.

    With recomputing, the activations are those of one block, and what enters every block. GPUs that share matrices all
    hold what enters a block, of all clips of their group.
    """
    settings = TrainingSettings(zero_stage=stage, tensor_parallel=tensor_parallel)  # type: ignore[arg-type]
    weights = model.num_elements
    state = sum(one.device for one in state_bytes(weights, weights, settings, num_ranks).values())
    values = work.tokens * tensor_parallel * model.dim
    block_bytes = work.block_bytes - work.cut_bytes * (1 - 1 / tensor_parallel)
    kept = model.depth if not work.recompute else 1
    entering = FLOAT_BYTES * values * model.depth if work.recompute else 0
    return state + VALUE_BYTES * weights / tensor_parallel + kept * values * block_bytes + entering


def measured_block_bytes(dim: int = 256, num_tokens: int = 128, tensor_parallel: int = 1) -> float:
    """Bytes that a block keeps for its backward pass, per token and channel, in bf16.

    `Work.block_bytes` was so found, and `Work.cut_bytes` is twice what two processes save that share matrices. Twice,
    with more tokens, since copies of the weights are kept too.
    """
    block, found = part_of_block(dim, tensor_parallel), []
    for count in (num_tokens, 2 * num_tokens):
        activations = Activations()
        turns = rotary_turns(torch.zeros(count), torch.rand(count, 2), 128)
        x = torch.randn(1, count, dim, requires_grad=True)
        with activations.counted(), torch.autocast("cpu", torch.bfloat16):
            kept = block(x, turns, None, None)
        found.append(activations.num_bytes)
        del kept
    return (found[1] - found[0]) / (num_tokens * dim)


def part_of_block(dim: int, tensor_parallel: int) -> Block:
    """The layers that one of so many processes has of a block, without their sums."""
    block = Block(dim, dim // 128)
    part, hidden = dim // tensor_parallel, hidden_of(dim) // tensor_parallel
    block.attention.num_heads //= tensor_parallel
    block.attention.query = nn.Linear(dim, part, bias=False)
    block.attention.key_value = nn.Linear(dim, 2 * part, bias=False)
    block.attention.out = nn.Linear(part, dim, bias=False)
    block.feed.gate_value, block.feed.out = nn.Linear(dim, 2 * hidden, bias=False), nn.Linear(hidden, dim, bias=False)
    return block


def best(steps: dict[int, Step], machine: Machine) -> int | None:
    """The ZeRO stage of the fastest step that fits a GPU; the lowest of equals; None where none fits."""
    fitting = {stage: step for stage, step in steps.items() if step.device_bytes <= 1e9 * machine.device_gigabytes}
    return min(fitting, key=lambda stage: (round(fitting[stage].seconds, 9), stage), default=None)


def steps_of(
    model: Model,
    stages: Sequence[int],
    num_ranks: int,
    work: Work,
    machine: Machine,
    sequence_parallel: int = 1,
    tensor_parallel: int = 1,
) -> dict[int, Step]:
    """The steps of several stages."""
    shared = (sequence_parallel, tensor_parallel)
    return {stage: step_of(model, stage, num_ranks, work, machine, *shared) for stage in stages}
