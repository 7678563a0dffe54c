"""Masked parallel decoding: all codes of a frame at once, and again, each time with more of them known.

After MaskGIT (Chang et al. 2022), as 1xgpt has it for video.
"""

import math
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tools.ablation.candidate import FrameByFrame, decoder_arguments, silent
from worldmodel.decoder import FrameDecoder, ScalePrediction, spread_of
from worldmodel.model import WorldModel, initialise
from worldmodel.objective import NextFrame
from worldmodel.rollouts.sampling import sample_codes
from worldmodel.settings import SamplingSettings

NUM_ROUNDS = 8
CHOICE_TEMPERATURE = 4.5  # of the noise by which codes are chosen in the first round; MaskGIT's


class MaskedDecoder(FrameDecoder):
    """Every place of every scale is a token that sees all others; what is hidden is predicted."""

    def __init__(self, model: WorldModel) -> None:
        """Take the place of a model's decoder."""
        super().__init__(**decoder_arguments(model))
        self.apply(initialise)
        self.kinds = nn.Parameter(torch.randn(2, model.settings.decoder.dim) * 0.02)  # known, hidden

    def predict(
        self,
        state: Float[Tensor, "item token dim"],
        previous: Int[Tensor, "item code"],
        codes: Int[Tensor, "item code"],
        hidden: Bool[Tensor, "item code"],
    ) -> list[ScalePrediction]:
        """All codes, given those of `codes` that are not hidden; what is said of the others means nothing."""
        old = self._old(0, state, previous)
        tokens = [self._tokens(index, codes, previous, hidden, old) for index in range(len(self.scales))]
        x = torch.cat(tokens, 1)
        for block, past in zip(self.blocks, self.start(state).layers, strict=True):
            x = block(x, self.turns, past, None)
        predictions = []
        for level, out in enumerate(x.split(self.sizes, 1)):
            before, true = (self.quantizers[0].lookup(row[:, self.slices[level]], level) for row in (previous, codes))
            logits, guess = self.read(level, out, before, previous)
            error = (guess - true / spread_of(self.vectors(level))).square().mean(-1)
            predictions.append(ScalePrediction(logits, error))
        return predictions

    def _tokens(
        self, index: int, codes: Tensor, previous: Tensor, hidden: Tensor, old: tuple[Tensor, Tensor]
    ) -> Float[Tensor, "item place dim"]:
        quantizer, columns, scale = self.quantizers[0], self.slices[index], self.scales[index]
        known = quantizer.lookup(codes[:, columns], index) * ~hidden[:, columns, None]
        shown = known.transpose(1, 2).unflatten(2, (scale.height, scale.width))
        maps = torch.cat((shown, *(quantizer.to_scale(each, index) for each in old)), 1)
        tokens = self.inputs[0](index, maps, quantizer.lookup(previous[:, columns], index))
        return tokens + self.kinds[hidden[:, columns].long()]


class Masked(FrameByFrame):
    """The trunk as it is, the decoder by rounds."""

    def __init__(self, model: WorldModel) -> None:
        """Replace the decoder of a model."""
        super().__init__(model)
        self.decoder = model.decoder = MaskedDecoder(model)

    def predict(self, codes: Int[Tensor, "batch frame code"], frames: Tensor | None = None) -> NextFrame:
        """In training the codes of a random part, which alone are counted; else all, by the rounds of a rollout.

        The rounds hide what comes in an order drawn at random, so what they cost together is a code length.
        """
        frames = torch.arange(codes.shape[1] - 1) if frames is None else frames
        states = self.model.states(codes, silent(codes))[:, frames].flatten(0, 1)
        previous, target = codes[:, frames].flatten(0, 1), codes[:, frames + 1].flatten(0, 1)
        places = torch.rand(previous.shape).argsort(1).argsort(1)
        shape = (len(codes), len(frames))
        if self.training:
            left = torch.cos(torch.rand(len(previous), 1) * math.pi / 2) * previous.shape[1]
            hidden = places < left.ceil()
            predictions = self.decoder.predict(states, previous, target, hidden)
            return NextFrame.of(predictions, previous, target, hidden.unflatten(0, shape))
        rounds = []
        for start, stop in rounds_of(previous.shape[1]):
            now = ((places >= start) & (places < stop)).unflatten(0, shape)
            predictions = self.decoder.predict(states, previous, target, places >= start)
            rounds.append((now, NextFrame.of(predictions, previous, target, torch.ones_like(now))))
        return joined(rounds)

    def imagine(
        self,
        state: Float[Tensor, "item token dim"],
        previous: Int[Tensor, "item code"],
        sampling: SamplingSettings,
        generator: torch.Generator,
    ) -> Int[Tensor, "item code"]:
        """Codes of the frame after `state`: every round draws all, and keeps those it is surest of."""
        codes, hidden = previous.clone(), torch.ones_like(previous, dtype=torch.bool)
        for start, stop in rounds_of(codes.shape[1]):
            predictions = self.decoder.predict(state, previous, codes, hidden)
            logits = [prediction.logits for prediction in predictions]
            numbers = torch.rand(codes.shape, generator=generator).split(self.decoder.sizes, 1)
            drawn = torch.cat([sample_codes(x, sampling, k, numbers[k]) for k, x in enumerate(logits)], 1)
            parts = zip(logits, drawn.split(self.decoder.sizes, 1), strict=True)
            sureness = torch.cat([x.log_softmax(-1).gather(2, part[..., None])[..., 0] for x, part in parts], 1)
            noise = -torch.rand(sureness.shape, generator=generator).log().neg().log()
            temperature = CHOICE_TEMPERATURE * (1 - stop / codes.shape[1])
            ranks = (sureness + temperature * noise).masked_fill(~hidden, -torch.inf).argsort(1, descending=True)
            chosen = torch.zeros_like(hidden).scatter(1, ranks[:, : stop - start], True)
            codes, hidden = torch.where(chosen, drawn, codes), hidden & ~chosen
        return codes


def rounds_of(num_codes: int) -> list[tuple[int, int]]:
    """Which of so many codes are told in each round, few at first (MaskGIT's cosine); rounds with none are left out."""
    known = [round(num_codes * (1 - math.cos(math.pi / 2 * each / NUM_ROUNDS))) for each in range(NUM_ROUNDS + 1)]
    return [(start, stop) for start, stop in pairwise(known) if stop > start]


def joined(rounds: list[tuple[Tensor, NextFrame]]) -> NextFrame:
    """Of every code what was said of it in its own round."""
    parts = {}
    for name in vars(rounds[0][1]):
        value = torch.zeros_like(getattr(rounds[0][1], name))
        for now, found in rounds:
            value = torch.where(now, getattr(found, name), value)
        parts[name] = value
    return NextFrame(**parts)
