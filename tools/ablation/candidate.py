"""What competes: a net for the next frame's codes. Training and measures ask nothing else of it."""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from worldmodel.cache.latents import CodeBatch
from worldmodel.model import WorldModel
from worldmodel.objective import NextFrame, WorldObjective
from worldmodel.rollouts.rollout import roll_out
from worldmodel.settings import HeadSettings, SamplingSettings

NO_HEADS = HeadSettings(flow=0.0, speed=0.0, arrow_of_time=0.0, correspondence=0.0)


class Candidate(nn.Module):
    """A trunk over frames and a decoder inside a frame, as they are in the world model or changed.

    Pictures only, and no heads: what is compared are the structures.

    Attributes:
        samplings: ways to draw its codes that it has.
    """

    samplings: tuple[str, ...] = ("drawn", "likeliest", "moved")

    def __init__(self, model: WorldModel) -> None:
        """Take a model that is not trained yet."""
        super().__init__()
        self.world = WorldObjective(model, NO_HEADS)

    @property
    def model(self) -> WorldModel:
        """What is changed."""
        return self.world.model

    def forward(self, batch: CodeBatch) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """Loss and metrics of one batch."""
        return self.loss_of(self.predict(batch.picture, self.drawn_frames(batch.picture)))

    def loss_of(self, found: NextFrame) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """Loss and metrics of a prediction."""
        each = found.nats + self.model.settings.guess_weight * found.error
        loss = (each * found.counted).sum() / found.counted.sum()
        return loss, {"next/nats": (found.nats.detach() * found.counted).sum() / found.counted.sum()}

    def drawn_frames(self, codes: Int[Tensor, "batch frame code"]) -> Int[Tensor, " drawn"] | None:
        """The frames to go on from in a step; None are all."""
        return self.world.drawn_frames(codes)

    def predict(self, codes: Int[Tensor, "batch frame code"], frames: Int[Tensor, " drawn"] | None = None) -> NextFrame:
        """The frames after `frames` (after each but the last if not given), each given the true ones before it."""
        states = self.model.states(codes, silent(codes))
        return self.world.next_frame(states, codes, codes, silent(codes), frames)

    def roll_out(
        self, prompt: Int[Tensor, "batch frame code"], sampling: SamplingSettings, generator: torch.Generator
    ) -> Iterator[Int[Tensor, "batch code"]]:
        """Endless frames after the prompt."""
        return roll_out(self.model, prompt, silent(prompt), sampling, generator)

    def hidden_matrices(self) -> list[nn.Parameter]:
        """Matrices of the transformers' blocks, for Muon."""
        return self.world.hidden_matrices()

    def wide_matrices(self) -> tuple[list[nn.Parameter], float]:
        """Matrices that sum over the trunk's channels, and what Adam's learning rate is multiplied by for them."""
        return self.world.wide_matrices()


class FrameByFrame(Candidate):
    """The trunk as it is, and a decoder that has its own way to imagine a frame."""

    # Its codes are not predicted a scale at a time, so none are moved together.
    samplings = ("drawn", "likeliest")

    def imagine(
        self,
        state: Float[Tensor, "item token dim"],
        previous: Int[Tensor, "item code"],
        sampling: SamplingSettings,
        generator: torch.Generator,
    ) -> Int[Tensor, "item code"]:
        """Codes of the frame after `state`; `previous` are those of the frame before it."""
        raise NotImplementedError

    @torch.no_grad()
    def roll_out(
        self, prompt: Int[Tensor, "batch frame code"], sampling: SamplingSettings, generator: torch.Generator
    ) -> Iterator[Int[Tensor, "batch code"]]:
        """Endless frames after the prompt."""
        cache, hears, codes = self.model.start(), silent(prompt), prompt[:, -1]
        state = self.model.read(prompt, hears, cache)
        while True:
            codes = self.imagine(state, codes, sampling, generator)
            yield codes
            state = self.model.step(codes, hears, cache)


def decoder_arguments(model: WorldModel) -> dict[str, Any]:
    """What a decoder is built with that takes the place of a model's.

    The codec has one code in a place; `tools.ablation.candidates.build` has looked.
    """
    decoder = model.decoder
    return {
        "settings": model.settings.decoder,
        "quantizers": list(decoder.quantizers),
        "state_grids": [each.state_grid for each in decoder.inputs],
        "state_places": model.trunk.places,
        "copy_bias": model.settings.copy_bias,
    }


def silent(codes: Int[Tensor, "batch frame code"]) -> Bool[Tensor, " batch"]:
    """No clip has sound."""
    return torch.zeros(len(codes), dtype=torch.bool, device=codes.device)
