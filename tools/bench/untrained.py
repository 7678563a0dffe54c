"""Untrained world models and random codes, for benchmarks without videos and codecs, and what steps of them cost."""

import copy
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from streams.errors import UserError
from worldmodel.attention import Attention, Backend
from worldmodel.cache.latents import CodeBatch
from worldmodel.codecs.quantizer import MultiScaleQuantizer
from worldmodel.config import parse
from worldmodel.model import WorldModel
from worldmodel.settings import ModelSettings, QuantizerSettings, TrainSettings, TransformerSettings
from worldmodel.training.flops import counted

VOCABULARY = 512
MATMUL_SIDE = 1024
CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "train"
TINY = "tiny"  # a size that is no configuration: one block, 64 channels


def grids_of(num_codes: int) -> tuple[tuple[int, int], ...]:
    """Squares of 1, 2, 4, ... codes a side that together have as many codes as a frame.

    Raises:
        UserError: there is no such pyramid.
    """
    sides = [1]
    while sum(side * side for side in sides) < num_codes:
        sides.append(2 * sides[-1])
    if sum(side * side for side in sides) != num_codes:
        raise UserError(f"codes={num_codes}: no pyramid of squares; give 5, 21, 85, 341 or 1365")
    return tuple((side, side) for side in sides)


def build_model(
    num_codes: int, dim: int, depth: int, patch: int = 2, window_frames: int = 8, attention: Backend = "sdpa"
) -> WorldModel:
    """A world model of pictures with the same random weights for the same sizes, whatever its attention."""
    torch.manual_seed(0)
    trunk = TransformerSettings(dim=dim, depth=depth, num_heads=dim // 32, attention=attention)
    settings = ModelSettings(
        trunk=trunk, decoder=replace(trunk, depth=2), patch=patch, window_frames=window_frames, decoded_frames=4
    )
    return build_world(settings, MultiScaleQuantizer(quantizer_settings(num_codes)))


def build_world(
    settings: ModelSettings, picture: MultiScaleQuantizer, sound: MultiScaleQuantizer | None = None
) -> WorldModel:
    """A world model in evaluation mode that does not merely copy."""
    model = WorldModel(settings, picture, sound).eval()
    for readout in model.decoder.readouts:
        # They begin as copies of the last frame, and what the blocks compute would not be seen.
        for linear in (readout.change, readout.correct, readout.gate):
            nn.init.normal_(linear.weight, std=linear.in_features**-0.5)
        nn.init.zeros_(readout.gate.bias)
    return model


def quantizer_settings(num_codes: int) -> QuantizerSettings:
    """Of pictures with so many codes.

    Raises:
        UserError: there is no such pyramid.
    """
    return QuantizerSettings(grids=grids_of(num_codes), vocabulary=VOCABULARY)


def settings_of(size: str) -> ModelSettings:
    """The model of a configuration of trainings, by its name.

    Raises:
        UserError: there is none of that name.
    """
    if size == TINY:
        return ModelSettings(depth=1)
    path = CONFIGS / f"{size}.yaml"
    if not path.is_file():
        names = ", ".join(sorted(each.stem for each in CONFIGS.glob("*.yaml")))
        raise UserError(f"sizes={size}: no such model; give {names}")
    required = ["--cache=nowhere", "--codecs=[nowhere]", "--run=nowhere"]
    return parse(TrainSettings, [*required, "--config", str(path)]).model


def with_attention(model: WorldModel, attention: Backend) -> WorldModel:
    """A copy with the same weights and another attention."""
    other = copy.deepcopy(model)
    for module in other.modules():
        if isinstance(module, Attention):
            module.backend = attention
    return other


def random_codes(batch: int, num_frames: int, num_codes: int) -> Tensor:
    """Codes, (batch, frame, code)."""
    return torch.randint(VOCABULARY, (batch, num_frames, num_codes), generator=torch.Generator().manual_seed(0))


def batch_of(codes: Tensor) -> CodeBatch:
    """A training batch without sound; no head looks at its views."""
    size, num_frames = codes.shape[:2]
    thumbnails = torch.zeros(size, num_frames, 3, 1, 1, dtype=torch.uint8)
    return CodeBatch(codes, codes, codes[:, ::2], codes[..., :0], torch.zeros(size, dtype=torch.bool), thumbnails)


def matmul_flops_per_second(kind: torch.dtype = torch.float32, num_products: int = 5) -> float:
    """This machine's peak in CPU-seconds: the fastest of some products of square matrices that fill its caches."""
    one, other = torch.randn(2, MATMUL_SIDE, MATMUL_SIDE, dtype=kind)
    seconds = []
    for _ in range(num_products + 1):
        begun = time.process_time()
        torch.mm(one, other)
        seconds.append(time.process_time() - begun)
    return 2 * MATMUL_SIDE**3 / min(seconds)


def step_flops(objective: nn.Module, batch: CodeBatch) -> int:
    """Floating-point operations that a training step needs."""
    with counted(objective) as flops:
        objective(batch)
    return flops.training


def repeated(step: object, num_units: int, num_parts: int) -> Iterator[int]:
    """A work of the race: calls `step` in so many parts, each of which does `num_units`."""
    assert callable(step)
    for _ in range(num_parts):
        step()
        yield num_units
