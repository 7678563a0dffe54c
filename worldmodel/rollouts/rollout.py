"""Rollouts: frames imagined one after another, in codes, never through pixels."""

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from worldmodel.decoder import DecoderCache
from worldmodel.layout import Scale
from worldmodel.model import ModelCache
from worldmodel.rollouts.sampling import move_codes, sample_codes
from worldmodel.settings import SamplingSettings


@runtime_checkable
class ScaleDecoder(Protocol):
    """What a rollout asks of a frame decoder."""

    scales: list[Scale]

    @property
    def slices(self) -> list[slice]:
        """Columns of every scale in a frame's codes."""
        ...

    @property
    def finest_level(self) -> int:
        """Number of the picture's finest scale."""
        ...

    def vectors(self, level: int) -> Tensor:
        """Codebooks of one scale, (plane, vocabulary, latent)."""
        ...

    def start(self, state: Tensor) -> DecoderCache:
        """Begin a frame."""
        ...

    def step(self, state: Tensor, previous: Tensor, codes: Tensor, cache: DecoderCache) -> Tensor:
        """Logits of the next scale."""
        ...


@runtime_checkable
class FrameModel(Protocol):
    """What a rollout asks of a world model."""

    @property
    def decoder(self) -> ScaleDecoder:
        """The frame decoder."""
        ...

    def states(self, codes: Tensor, has_sound: Tensor) -> Tensor:
        """States of all frames, (batch, frame, token, dim)."""
        ...

    def start(self) -> ModelCache:
        """Begin a rollout."""
        ...

    def step(self, codes: Tensor, has_sound: Tensor, cache: ModelCache) -> Tensor:
        """State after one more frame."""
        ...


@torch.no_grad()
def imagine_frame(
    decoder: ScaleDecoder,
    state: Float[Tensor, "batch token dim"],
    previous: Int[Tensor, "batch code"],
    sampling: SamplingSettings,
    generator: torch.Generator | None = None,
) -> Int[Tensor, "batch code"]:
    """Codes of the frame after `state`, scale by scale."""
    codes, cache = torch.zeros_like(previous), decoder.start(state)
    threshold = torch.rand(len(codes), 1, generator=generator, device=codes.device)
    for level, columns in enumerate(decoder.slices):
        logits = decoder.step(state, previous, codes, cache)
        if 0 <= decoder.finest_level - level < sampling.moved_scales:
            chosen = move_codes(logits, sampling, level, decoder.vectors(level), previous[:, columns], threshold)
        else:
            chosen = sample_codes(logits, sampling, level, generator)
        codes[:, columns] = chosen
    return codes


@torch.no_grad()
def roll_out(
    model: FrameModel,
    prompt: Int[Tensor, "batch frame code"],
    has_sound: Bool[Tensor, " batch"],
    sampling: SamplingSettings,
    generator: torch.Generator | None = None,
    cached: bool = True,
) -> Iterator[Int[Tensor, "batch code"]]:
    """Endless frames after the prompt, at constant cost per frame; stop asking when there are enough.

    `cached=False` recomputes the states of all frames for every new one: the slow reference for tests and benchmarks.
    """
    frames = list(prompt.unbind(1))
    cache = model.start()
    state = None
    if cached:
        for codes in frames:
            state = model.step(codes, has_sound, cache)
        frames = frames[-1:]
    while True:
        if not cached:
            state = model.states(torch.stack(frames, 1), has_sound)[:, -1]
        assert state is not None, "a prompt has at least one frame"
        codes = imagine_frame(model.decoder, state, frames[-1], sampling, generator)
        yield codes
        if cached:
            state, frames = model.step(codes, has_sound, cache), [codes]
        else:
            frames.append(codes)
