"""The world model's whole objective over codes that are drawn, for processes that share clips."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from streams.loader import Loader
from streams.settings import LoaderSettings
from tests.worldmodel.tiny import MODEL, VOCABULARY, tiny_model
from tests.worldmodel.training.toy import SETTINGS, means
from worldmodel.cache.latents import CodeBatch
from worldmodel.objective import WorldObjective
from worldmodel.settings import HeadSettings, ModelSettings, TransformerSettings

NUM_FRAMES, NUM_CODES, NUM_SOUND, SIZE = 8, 21, 5, 4
TRANSFORMER = TransformerSettings(dim=64, depth=2, num_heads=4)
WORLD = replace(MODEL, trunk=TRANSFORMER, decoder=replace(TRANSFORMER, depth=1), window_frames=3, decoded_frames=5)
STEPS = replace(SETTINGS, steps=20, learning_rate=1e-3, clip_norm=1.0)


class Clips:
    """A source of 12 clips of random codes, the first of which have sound."""

    def __len__(self) -> int:
        return 12

    def read(self, index: int, generator: np.random.Generator) -> CodeBatch:
        draw = torch.Generator().manual_seed(index)
        codes = lambda *shape: torch.randint(VOCABULARY, (1, *shape), generator=draw)  # noqa: E731
        return CodeBatch(
            picture=codes(NUM_FRAMES, NUM_CODES),
            reversed=codes(NUM_FRAMES, NUM_CODES),
            fast=codes(NUM_FRAMES // 2, NUM_CODES),
            sound=codes(NUM_FRAMES, NUM_SOUND),
            has_sound=torch.tensor([index < 9]),
            thumbnails=torch.randint(256, (1, NUM_FRAMES, 3, 16, 16), generator=draw).to(torch.uint8),
        )

    def collate(self, items: list[CodeBatch]) -> CodeBatch:
        return CodeBatch.join(items)


class World(WorldObjective):
    """Remembers its losses."""

    def __init__(self, settings: ModelSettings = WORLD, heads: HeadSettings | None = None) -> None:
        super().__init__(tiny_model(settings, sound=True), heads or HeadSettings())
        self.losses: list[float] = []
        self.at_call: Callable[[int], object] = lambda number: None
        self.train()

    def forward(self, batch: CodeBatch) -> Any:
        loss, metrics = super().forward(batch)
        self.losses.append(loss.detach().item())
        self.at_call(len(self.losses))
        return loss, metrics


def world_loader(num_sharing: int, accumulate: int = 1, position: int = 0) -> Loader:
    from worldmodel.data import micro_batches
    from worldmodel.training import cluster

    settings = micro_batches(LoaderSettings(batch_size=SIZE, num_workers=0), accumulate)
    return Loader(Clips(), settings, 0, position, *cluster.data_ranks(num_sharing))


def steps_of_world(num_steps: int = 20, model: ModelSettings = WORLD, **settings: Any) -> dict[str, Any]:
    """Losses and norms of gradients of some steps, of all processes; the sum of the weights, on process 0."""
    from worldmodel.training import cluster, randomness
    from worldmodel.training.engine import Engine

    training = replace(STEPS, **settings)
    torch.manual_seed(0)
    world, norms = World(model), []
    engine = Engine(world, training, SIZE)
    randomness.seed(0, cluster.data_ranks(training.num_sharing)[0])
    loader = world_loader(training.num_sharing, training.accumulate)
    for _ in range(num_steps):
        for _ in range(training.accumulate):
            engine.backward(engine.forward(next(loader))[0])
        norms.append(engine.update(training.learning_rate)[0])
    weights = engine.weights()
    engine.close()
    losses = means(world.losses, num_steps)
    return {"losses": losses, "norms": norms, "sum": sum(value.double().sum().item() for value in weights.values())}


def train_world_toy(run: Path, **options: Any) -> list[float]:
    """Losses of this process in a run of six steps, with checkpoints."""
    from worldmodel.training.checkpoint import Description
    from worldmodel.training.loop import train

    own = {name: options.pop(name) for name in list(options) if hasattr(STEPS, name)}
    training = replace(STEPS, steps=6, **own)
    torch.manual_seed(0)
    world = World()
    loader = lambda position: world_loader(training.num_sharing, training.accumulate, position)  # noqa: E731
    train(world, loader, training, SIZE, run, Description(), **options)
    return world.losses
