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

    def start(self, state: Tensor, before: list[Tensor] | None = None) -> DecoderCache:
        """Begin a frame; `before` are the previous frame's latents, if they are known."""
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

    def step(self, codes: Tensor, has_sound: Tensor, cache: ModelCache, decoded: DecoderCache | None = None) -> Tensor:
        """State after one more frame; `decoded` is what its decoder kept, if it was imagined."""
        ...

    def read(self, codes: Tensor, has_sound: Tensor, cache: ModelCache) -> Tensor:
        """State after several more frames, (batch, frame, code)."""
        ...


@torch.no_grad()
def imagine_frame(
    decoder: ScaleDecoder,
    state: Float[Tensor, "batch token dim"],
    previous: Int[Tensor, "batch code"],
    sampling: SamplingSettings,
    generator: torch.Generator | None = None,
    alone: Float[Tensor, "batch token dim"] | None = None,
    cache: DecoderCache | None = None,
) -> Int[Tensor, "batch code"]:
    """Codes of the frame after `state`, scale by scale; of a preview all but the coarsest as in the previous frame.

    With guidance the logits are pulled away from those of `alone`, the state of a model that saw the last frame alone
    (classifier-free guidance: Ho and Salimans 2022), so that the frame has more of what the past says. A `cache` is
    what `decoder.start` gave.
    """
    codes, cache = previous.clone(), cache or decoder.start(state)
    apart = None if alone is None else decoder.start(alone, cache.before)
    threshold = torch.rand(len(codes), 1, generator=generator, device=codes.device)
    for level, columns in enumerate(decoder.slices[: sampling.preview_scales or None]):
        logits = decoder.step(state, previous, codes, cache)
        if alone is not None and apart is not None:
            without = decoder.step(alone, previous, codes, apart)
            logits = without + sampling.guidance * (logits - without)
        codes[:, columns] = choose_codes(decoder, level, logits, previous[:, columns], sampling, threshold, generator)
    return codes


def choose_codes(
    decoder: ScaleDecoder,
    level: int,
    logits: Float[Tensor, "item code vocabulary"],
    previous: Int[Tensor, "item code"],
    sampling: SamplingSettings,
    threshold: Float[Tensor, "item 1"],
    generator: torch.Generator | None = None,
) -> Int[Tensor, "item code"]:
    """Codes of one scale, moved together where the settings say so; `threshold` is shared by a frame's scales."""
    if 0 <= decoder.finest_level - level < sampling.moved_scales:
        return move_codes(logits, sampling, level, decoder.vectors(level), previous, threshold)
    return sample_codes(logits, sampling, level, generator)


@torch.no_grad()
def roll_out(
    model: FrameModel,
    prompt: Int[Tensor, "batch frame code"],
    has_sound: Bool[Tensor, " batch"],
    sampling: SamplingSettings,
    generator: torch.Generator | None = None,
    cached: bool = True,
    num_rollouts: int = 1,
) -> Iterator[Int[Tensor, "rollout code"]]:
    """Endless frames after the prompt, at constant cost per frame; stop asking when there are enough.

    `cached=False` recomputes the states of all frames for every new one: the slow reference for tests and benchmarks.
    Of every prompt there are `num_rollouts`, next to each other, and the prompt is read once for all of them.
    """
    if not cached:
        prompt = prompt.repeat_interleave(num_rollouts, 0)
    frames = list(prompt.unbind(1))
    cache = model.start()
    state = None
    if cached:
        state = model.read(prompt, has_sound, cache).repeat_interleave(num_rollouts, 0)
        cache.branch(num_rollouts)
        frames = [frames[-1].repeat_interleave(num_rollouts, 0)]
    has_sound = has_sound.repeat_interleave(num_rollouts)
    while True:
        if not cached:
            state = model.states(torch.stack(frames, 1), has_sound)[:, -1]
        assert state is not None, "a prompt has at least one frame"
        alone = None if sampling.guidance == 1 else model.states(frames[-1][:, None], has_sound)[:, 0]
        decoded = model.decoder.start(state, cache.latents)
        codes = imagine_frame(model.decoder, state, frames[-1], sampling, generator, alone, decoded)
        yield codes
        if cached:
            state, frames = model.step(codes, has_sound, cache, decoded), [codes]
        else:
            frames.append(codes)
