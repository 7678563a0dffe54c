"""Measures training the world model against the same model with one masked attention call, and against the peak."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from tools.bench import machine, report
from tools.bench.race import Finding, Race, take_turns
from tools.bench.settings import TrainBenchSettings
from tools.bench.streams import line_of, print_tables, write
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
from worldmodel.model import WorldModel
from worldmodel.objective import WorldObjective
from worldmodel.settings import HeadSettings

NEAR = 1e-5  # how far the two attentions may be apart, of values near 1
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
            race, found = measure(num_codes, patch, settings)
            races.append(race)
            findings += found
            print("\n".join(line_of(result) for result in (race, *found)), flush=True)
    described["load at the end"] = machine.load()
    verdicts = report.judge(races, findings)
    print_tables(races, findings, verdicts)
    output = write("train", settings, Path(settings.folder).expanduser(), described, races, findings, verdicts)
    print(f"all numbers: {output}")


def measure(num_codes: int, patch: int, settings: TrainBenchSettings) -> tuple[Race, list[Finding]]:
    """Whole training steps of both in turns; and how far ours is from the peak of this machine's matrix product."""
    model = build_model(num_codes, settings.dim, settings.depth, patch, settings.window_frames)
    models = {"ours": model, "dense mask": with_attention(model, "dense")}
    batch = batch_of(random_codes(settings.batch, settings.num_frames, num_codes))
    apart = require_same(models["ours"], models["dense mask"], batch)
    flops = step_flops(WorldObjective(model, NO_HEADS).train(), batch)
    peaks = [matmul_flops_per_second()]
    units = batch.picture.numel()
    steps = {name: training_step(other, batch) for name, other in models.items()}
    for step in steps.values():
        step()  # to warm up
    runners = {name: lambda _, step=step: repeated(step, units, settings.steps) for name, step in steps.items()}
    name = f"{num_codes} codes in {model.trunk.num_tokens} tokens"
    race = Race(f"train: {num_codes} codes", name, "codes", take_turns(runners, settings.rounds))
    peaks.append(matmul_flops_per_second())
    seconds, floor = float(np.median(race.costs["ours"])) * units, flops / max(peaks)
    note = f"{flops / 1e9:.1f} GFLOP a step, peak {max(peaks) / 1e9:.1f} GFLOP per CPU-second"
    return race, [
        Finding("train: same outputs", name, "ours", apart, "largest difference", "to the dense mask, one batch"),
        Finding("train: MFU", name, "ours", 100 * floor / seconds, "%", note),
        Finding("train: floor", name, "ours", floor, "s", f"{seconds:.3f} CPU-seconds measured"),
    ]


def training_step(model: WorldModel, batch: CodeBatch) -> Callable[[], None]:
    """Forward, backward and update."""
    objective = WorldObjective(model, NO_HEADS).train()
    weights = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-4, fused=True)

    def step() -> None:
        objective(batch)[0].backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


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
