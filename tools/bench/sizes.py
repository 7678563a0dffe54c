"""Whether the sizes of the world model can share one learning rate: a coordinate check and a sweep.

Both are done with the rule of `WorldObjective.wide_matrices` and without it (Yang et al. 2022, "Tensor Programs V").
"""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from tools.bench import machine
from tools.bench.settings import SizesSettings
from tools.bench.untrained import VOCABULARY, batch_of, grids_of
from worldmodel.cache.latents import CodeBatch
from worldmodel.codecs.quantizer import MultiScaleQuantizer
from worldmodel.evaluation.plots import plot_rates
from worldmodel.model import WorldModel
from worldmodel.objective import WorldObjective
from worldmodel.settings import HeadSettings, ModelSettings, QuantizerSettings, TrainingSettings, TransformerSettings
from worldmodel.settings.model import DIM_PER_BLOCK
from worldmodel.training.engine import Engine

NO_HEADS = HeadSettings(flow=0.0, speed=0.0, arrow_of_time=0.0, correspondence=0.0)
CHECK_RATE = 4e-3
ADAM_RATE_BESIDE_MUON = 3e-3


class OneRate(WorldObjective):
    """The objective without the rule: every matrix has the same learning rate, whatever the width."""

    def wide_matrices(self) -> tuple[list[nn.Parameter], float]:
        """None is treated differently."""
        return [], 1.0


RULES: dict[str, type[WorldObjective]] = {"by width": WorldObjective, "the same for all": OneRate}


def run(settings: SizesSettings) -> None:
    """Trains all sizes, prints both tables, and writes a plot and all numbers."""
    if settings.quick:
        few = {"depths": [1, 2], "learning_rates": [1e-3, 4e-3], "steps": 4, "check_steps": 1, "seeds": [0]}
        settings = dataclasses.replace(settings, codes=5, num_frames=3, batch=2, **few)
    torch.set_num_threads(1)
    described = machine.describe()
    print("\n".join(f"{name}: {value}" for name, value in described.items()), flush=True)
    moved = {rule: coordinates(objective, settings) for rule, objective in RULES.items()}
    print("\n".join(coordinate_table(moved, settings)), flush=True)
    swept = sweep(settings)
    print("\n".join(rate_table(swept, settings)))
    folder = Path(settings.folder).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    output = Path(settings.output or folder / f"sizes_{described['date'].replace(':', '')}.json")
    numbers = {"settings": dataclasses.asdict(settings), "machine": described, "coordinates": moved, "rates": swept}
    output.write_text(json.dumps(numbers, indent=1), encoding="utf-8")
    panels = {rule: {size: list(points.items()) for size, points in sizes.items()} for rule, sizes in swept.items()}
    plot_rates(panels, "bits per frame, last quarter", output.with_suffix(".png"))
    print(f"all numbers: {output}; plot: {output.with_suffix('.png')}")


def coordinates(objective_class: type[WorldObjective], settings: SizesSettings) -> dict[str, list[float]]:
    """Root mean square by which the output of each layer has moved after a few steps, for each width."""
    found: dict[str, list[float]] = {}
    for depth in settings.depths:
        size = TransformerSettings(dim=DIM_PER_BLOCK * depth, depth=2, num_heads=depth)
        moved: dict[str, list[float]] = {}
        for seed in settings.seeds:
            objective = build(objective_class, ModelSettings(trunk=size, decoder=size), settings, seed)
            probe = batch_of(moving_codes(settings, seed, -1))
            before = layer_outputs(objective, probe)
            train(objective, settings, CHECK_RATE, settings.check_steps, seed)
            after = layer_outputs(objective, probe)
            for name, value in before.items():
                moved.setdefault(name, []).append(float((after[name] - value).square().mean().sqrt()))
        for name, values in moved.items():
            found.setdefault(name, []).append(float(np.mean(values)))
    return found


def sweep(settings: SizesSettings) -> dict[str, dict[str, dict[float, float]]]:
    """Mean bits per frame over the last quarter of every training, by rule, size and learning rate."""
    num = len(RULES) * len(settings.depths) * len(settings.learning_rates) * len(settings.seeds)
    found: dict[str, dict[str, dict[float, float]]] = {}
    with tqdm(total=num, desc="trainings", disable=None) as bar:
        for rule, objective_class in RULES.items():
            for depth in settings.depths:
                points = found.setdefault(rule, {}).setdefault(f"depth {depth}", {})
                for rate in settings.learning_rates:
                    bits = []
                    for seed in settings.seeds:
                        objective = build(objective_class, ModelSettings(depth=depth), settings, seed)
                        found_bits = train(objective, settings, rate, settings.steps, seed)
                        bits.append(float(np.mean(found_bits[-max(1, settings.steps // 4) :])))
                        bar.update()
                    points[rate] = float(np.mean(bits))
    return found


def build(
    objective_class: type[WorldObjective], model: ModelSettings, settings: SizesSettings, seed: int
) -> WorldObjective:
    """An untrained model over random codebooks."""
    torch.manual_seed(seed)
    quantizer = MultiScaleQuantizer(QuantizerSettings(grids=grids_of(settings.codes), vocabulary=VOCABULARY))
    return objective_class(WorldModel(model, quantizer, None), NO_HEADS).train()


def train(objective: WorldObjective, settings: SizesSettings, rate: float, steps: int, seed: int) -> list[float]:
    """Bits per frame of every step, by the engine of all trainings at a constant rate."""
    muon = settings.optimizer == "muon"
    adam = ADAM_RATE_BESIDE_MUON if muon else rate
    training = TrainingSettings(
        optimizer=settings.optimizer, learning_rate=adam, muon_learning_rate=rate, zero_stage=0, weight_decay=0.0
    )
    engine = Engine(objective, training, settings.batch)
    bits = []
    for step in range(steps):
        loss, metrics = engine.forward(batch_of(moving_codes(settings, seed, step)))
        engine.backward(loss)
        engine.update(adam)
        bits.append(float(metrics["next/bits_per_frame"]))
    engine.close()
    return bits


def moving_codes(settings: SizesSettings, seed: int, step: int) -> Tensor:
    """Codes of clips in which every scale's grid goes round by whole places, (batch, frame, code)."""
    generator = torch.Generator().manual_seed(1_000_003 * seed + step + 1)
    clips = []
    for _ in range(settings.batch):
        down, right = torch.randint(-1, 2, (2,), generator=generator).tolist()
        grids = [torch.randint(VOCABULARY, grid, generator=generator) for grid in grids_of(settings.codes)]
        frames = [
            torch.cat([grid.roll((time * down, time * right), (0, 1)).flatten() for grid in grids])
            for time in range(settings.num_frames)
        ]
        clips.append(torch.stack(frames))
    return torch.stack(clips)


@torch.no_grad()
def layer_outputs(objective: WorldObjective, batch: CodeBatch) -> dict[str, Tensor]:
    """What every layer gives for a batch, by name."""
    model, found = objective.model, {}
    layers: dict[str, nn.Module] = {"embedding": model.embeddings[0]}
    layers |= {f"trunk {number}": block for number, block in enumerate(model.trunk.blocks)}
    layers |= {"state": model.trunk.norm}
    layers |= {f"decoder {number}": block for number, block in enumerate(model.decoder.blocks)}
    layers |= {"logits": model.decoder.readouts[-1]}

    def keep(name: str) -> Any:
        return lambda _module, _inputs, output: found.__setitem__(
            name, (output[0] if isinstance(output, tuple) else output).detach().clone()
        )

    handles = [layer.register_forward_hook(keep(name)) for name, layer in layers.items()]
    objective.eval()(batch)
    objective.train()
    for handle in handles:
        handle.remove()
    return found


def slope(widths: list[int], values: list[float]) -> float:
    """Exponent of the width by which the values grow."""
    return float(np.polyfit(np.log(widths), np.log(np.maximum(values, 1e-12)), 1)[0]) if len(widths) > 1 else math.nan


def coordinate_table(moved: dict[str, dict[str, list[float]]], settings: SizesSettings) -> list[str]:
    """How far layers moved, a row for each layer and rule; a slope near 0 is what is hoped for."""
    widths = [DIM_PER_BLOCK * depth for depth in settings.depths]
    lines = ["", f"moved after {settings.check_steps} steps of {settings.optimizer} (root mean square), by width:"]
    lines.append(f"{'rate':<18}{'layer':<12}{''.join(f'{width:>9}' for width in widths)}{'exponent':>10}")
    for rule, layers in moved.items():
        for layer, values in layers.items():
            cells = "".join(f"{value:>9.4f}" for value in values)
            lines.append(f"{rule:<18}{layer:<12}{cells}{slope(widths, values):>10.2f}")
    return lines


def rate_table(swept: dict[str, dict[str, dict[float, float]]], settings: SizesSettings) -> list[str]:
    """Bits of every training; the best rate of each size has a star."""
    lines = [
        "",
        f"bits per frame in the last quarter of {settings.steps} steps of {settings.optimizer}, by learning rate:",
    ]
    lines.append(f"{'rate':<18}{'size':<12}{''.join(f'{rate:>10g}' for rate in settings.learning_rates)}")
    for rule, sizes in swept.items():
        for size, points in sizes.items():
            best = min(points, key=lambda rate: points[rate])
            cells = "".join(f"{value:>9.1f}{'*' if rate == best else ' '}" for rate, value in points.items())
            lines.append(f"{rule:<18}{size:<12}{cells}")
    return lines
