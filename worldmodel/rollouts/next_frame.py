"""The codes of one imagined frame, scale by scale."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from worldmodel.decoder import DecoderCache
from worldmodel.layout import Scale
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


def draw_numbers(
    previous: Int[Tensor, "item code"], generator: torch.Generator | None = None
) -> Float[Tensor, "item number"]:
    """What chance decides in the next frame: numbers from 0 to 1, one that all places share, then one for every code.

    A frame that is given them draws nothing itself, so it can be recorded and compiled.
    """
    return torch.rand(len(previous), 1 + previous.shape[1], generator=generator, device=previous.device)


@torch.no_grad()
def imagine_frame(
    decoder: ScaleDecoder,
    state: Float[Tensor, "batch token dim"],
    previous: Int[Tensor, "batch code"],
    sampling: SamplingSettings,
    numbers: Float[Tensor, "batch number"] | None = None,
    alone: Float[Tensor, "batch token dim"] | None = None,
    cache: DecoderCache | None = None,
) -> Int[Tensor, "batch code"]:
    """Codes of the frame after `state`, scale by scale; of a preview all but the coarsest as in the previous frame.

    With guidance the logits are pulled away from those of `alone`, the state of a model that saw the last frame alone
    (classifier-free guidance: Ho and Salimans 2022), so that the frame has more of what the past says. A `cache` is
    what `decoder.start` gave; `numbers` are those of `draw_numbers`, which are drawn here if they are not given.
    """
    codes, cache = previous.clone(), cache or decoder.start(state)
    apart = None if alone is None else decoder.start(alone, cache.before)
    threshold, numbers = (draw_numbers(codes) if numbers is None else numbers).tensor_split([1], 1)
    for level, columns in enumerate(decoder.slices[: sampling.preview_scales or None]):
        logits = decoder.step(state, previous, codes, cache)
        if alone is not None and apart is not None:
            without = decoder.step(alone, previous, codes, apart)
            logits = without + sampling.guidance * (logits - without)
        codes[:, columns] = choose_codes(
            decoder, level, logits, previous[:, columns], sampling, threshold, numbers[:, columns]
        )
    return codes


def choose_codes(
    decoder: ScaleDecoder,
    level: int,
    logits: Float[Tensor, "item code vocabulary"],
    previous: Int[Tensor, "item code"],
    sampling: SamplingSettings,
    threshold: Float[Tensor, "item 1"],
    numbers: Float[Tensor, "item code"],
) -> Int[Tensor, "item code"]:
    """Codes of one scale, moved together where the settings say so; `threshold` is shared by a frame's scales."""
    if 0 <= decoder.finest_level - level < sampling.moved_scales:
        return move_codes(logits, sampling, level, decoder.vectors(level), previous, threshold)
    return sample_codes(logits, sampling, level, numbers)
