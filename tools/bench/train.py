"""Measures training the world model against the same model with one masked attention call, and against the peak.

Ours runs twice, as it is and compiled (training.compile=true); "ours" is the faster of the two. All compute in fp32,
or all in bf16, where the masked call runs in fp32 once more.
"""

import copy
import dataclasses
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from tools.bench import machine, report
from tools.bench.race import Finding, Race, take_turns, with_fastest
from tools.bench.settings import TrainBenchSettings
from tools.bench.streams import line_of, print_tables, write
from tools.bench.trace import print_trace
from tools.bench.untrained import (
    batch_of,
    build_model,
    matmul_flops_per_second,
    random_codes,
    repeated,
    step_flops,
    with_attention,
)
from worldmodel.cache.latents import CodeBatch
from worldmodel.compiler import require_compiler
from worldmodel.errors import SettingsError
from worldmodel.model import WorldModel
from worldmodel.objective import WorldObjective
from worldmodel.settings import HeadSettings

NEAR = 1e-5  # how far the two attentions may be apart, of values near 1
NEAR_GRADIENTS = 1e-3  # how far gradients may be apart, of the largest entry of a tensor
EAGER, COMPILED = "ours as it is", "ours with training.compile=true"
DENSE, DENSE_FP32 = "dense mask", "dense mask in fp32"
NO_HEADS = HeadSettings(flow=0.0, speed=0.0, arrow_of_time=0.0, correspondence=0.0)


def run(settings: TrainBenchSettings) -> None:
    """Measures, prints tables, and writes all numbers to a file.

    Raises:
        UserError: there is no pyramid of so many codes.
    """
    if settings.quick:
        settings = dataclasses.replace(settings, codes=[85], patches=[2], rounds=2, steps=1)
    torch.set_num_threads(1)
    described = machine.describe()
    print("\n".join(f"{name}: {value}" for name, value in described.items()), flush=True)
    races: list[Race] = []
    findings: list[Finding] = []
    for num_codes in settings.codes:
        for patch in settings.patches:
            race, found = measure(
                num_codes, patch, dataclasses.replace(settings, trace="" if races else settings.trace)
            )
            races.append(race)
            findings += found
            print("\n".join(line_of(result) for result in (race, *found)), flush=True)
    described["load at the end"] = machine.load()
    verdicts = report.judge(races, findings)
    print_tables(races, findings, verdicts)
    output = write("train", settings, Path(settings.folder).expanduser(), described, races, findings, verdicts)
    print(f"all numbers: {output}")


def measure(num_codes: int, patch: int, settings: TrainBenchSettings) -> tuple[Race, list[Finding]]:
    """Whole training steps of all in turns; and how far ours is from the peak of this machine's matrix product."""
    model = build_model(num_codes, settings.dim, settings.depth, patch, settings.window_frames)
    models = {EAGER: model, DENSE: with_attention(model, "dense")}
    batch = batch_of(random_codes(settings.batch, settings.num_frames, num_codes))
    apart = require_same(model, models[DENSE], batch)
    flops = step_flops(WorldObjective(model, NO_HEADS).train(), batch)
    kind = torch.bfloat16 if settings.bf16 else torch.float32
    peaks = [matmul_flops_per_second(kind)]
    units = batch.picture.numel()
    steps = {name: training_step(other, batch, settings.bf16) for name, other in models.items()}
    if settings.bf16:
        steps[DENSE_FP32] = training_step(copy.deepcopy(models[DENSE]), batch, False)
    name = f"{num_codes} codes in {model.trunk.num_tokens} tokens"
    findings = [
        Finding("train: same outputs", name, EAGER, apart, "largest difference", "to the dense mask, one batch")
    ]
    if settings.compile and compiler_there(torch.device("cpu")):
        steps[COMPILED], found = compiled_step(model, batch, name, settings.bf16)
        findings += found
    for step in steps.values():
        step()  # to warm up
    runners = {name: lambda _, step=step: repeated(step, units, settings.steps) for name, step in steps.items()}
    costs, form = with_fastest(take_turns(runners, settings.rounds), (EAGER, COMPILED))
    if settings.trace:
        print_trace(steps[form], settings.trace, torch.device("cpu"), f"one step of {form}, {name}")
    task = "train in bf16" if settings.bf16 else "train"
    race = Race(f"{task}: {num_codes} codes", name, "codes", costs, {"ours": form})
    peaks.append(matmul_flops_per_second(kind))
    seconds, floor = float(np.median(race.costs["ours"])) * units, flops / max(peaks)
    note = f"{flops / 1e9:.1f} GFLOP a step, peak {max(peaks) / 1e9:.1f} GFLOP per CPU-second"
    return race, [
        *findings,
        Finding("train: MFU", name, "ours", 100 * floor / seconds, "%", note),
        Finding("train: floor", name, "ours", floor, "s", f"{seconds:.3f} CPU-seconds measured"),
    ]


def training_step(model: WorldModel, batch: CodeBatch, bf16: bool) -> Callable[[], None]:
    """Forward, backward and update; in bf16 as a training has it, with weights and their update in fp32."""
    objective = WorldObjective(model, NO_HEADS).train()
    weights = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-4, fused=True)

    return lambda: update(objective, optimizer, batch, bf16)


def update(objective: WorldObjective, optimizer: torch.optim.Optimizer, batch: CodeBatch, bf16: bool) -> None:
    """One training step; no gradient is left behind, even where memory runs out."""
    try:
        with torch.autocast(batch.picture.device.type, torch.bfloat16, enabled=bf16):
            loss = objective(batch)[0]
        loss.backward()
        optimizer.step()
    finally:
        optimizer.zero_grad()


def compiler_there(device: torch.device) -> bool:
    """Whether compiled code can be made here; says so where it cannot."""
    try:
        require_compiler(device)
    except SettingsError as error:
        print(f"not compiled: {error}", file=sys.stderr)
        return False
    return True


def compiled_step(
    model: WorldModel, batch: CodeBatch, name: str, bf16: bool
) -> tuple[Callable[[], None], list[Finding]]:
    """A training step of a compiled copy, whose gradients are the model's; how far they are apart, and what it took."""
    objectives = [WorldObjective(copy.deepcopy(model), NO_HEADS).train() for _ in range(2)]
    objectives[1].compile_blocks(True)
    begun = time.perf_counter()
    apart = require_same_gradients(objectives[0], objectives[1], batch)
    seconds = time.perf_counter() - begun
    return training_step(objectives[1].model, batch, bf16), [
        Finding("train: same gradients", name, COMPILED, apart, "of each tensor's largest", "to eager, one batch"),
        Finding("train: compile time", name, COMPILED, seconds, "s", "elapsed, with a step of both; less if cached"),
    ]


def require_same_gradients(eager: WorldObjective, compiled: WorldObjective, batch: CodeBatch) -> float:
    """Whoever learns something else is not in the race; returns the largest difference of gradients.

    It is measured in the largest entry of each tensor's gradient.
    """
    gradients = []
    for objective in (eager, compiled):
        torch.manual_seed(0)  # of the frames that are drawn
        objective(batch)[0].backward()
        gradients.append({name: one.grad for name, one in objective.named_parameters() if one.grad is not None})
        objective.zero_grad()
    apart = 0.0
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        difference = (gradient - gradients[1][name]).abs().max() / gradient.abs().max().clamp(min=1e-6)
        apart = max(apart, float(difference))
    assert apart <= NEAR_GRADIENTS, f"the gradients differ by {apart:g}"
    return apart


@torch.no_grad()
def require_same(ours: WorldModel, dense: WorldModel, batch: CodeBatch) -> float:
    """Whoever computes something else is not in the race; returns the largest difference of states and logits."""
    apart, codes = 0.0, batch.picture
    states = [model.states(codes, batch.has_sound) for model in (ours, dense)]
    outputs = [
        [state, *(scale.logits for scale in model.decoder(state[:, 0], codes[:, 0], codes[:, 1]))]
        for model, state in zip((ours, dense), states, strict=True)
    ]
    for one, other in zip(*outputs, strict=True):
        difference = (one - other).abs() / other.abs().clamp(min=1)
        apart = max(apart, float(difference.max()))
    assert apart <= NEAR, f"the outputs differ by {apart:g}"
    return apart
