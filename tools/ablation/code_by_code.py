"""A decoder that predicts the codes of a scale one after another: next-token prediction, in any order of places."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tools.ablation.candidate import FrameByFrame, decoder_arguments
from tools.ablation.orders import ORDERS
from worldmodel.attention import grid_positions
from worldmodel.decoder import DecoderCache, FrameDecoder, ScalePrediction, spread_of
from worldmodel.model import WorldModel, initialise
from worldmodel.rollouts.sampling import sample_codes
from worldmodel.settings import SamplingSettings
from worldmodel.sight import Sight


class OrderedDecoder(FrameDecoder):
    """The scales come coarse to fine as ever; inside a scale every place also sees the code before it in the order.

    A place's token is the frame decoder's, plus the code that was decoded last and from where it was (Pannatier et al.
    2024, "sigma-GPTs", where places are told apart in the same way).
    """

    def __init__(self, model: WorldModel, order: str) -> None:
        """Take the place of a model's decoder."""
        super().__init__(**decoder_arguments(model))
        self.orders = [ORDERS[order](scale.height, scale.width) for scale in self.scales]
        self.last = nn.Linear(self.quantizers[0].dim + 2, model.settings.decoder.dim)
        self.apply(initialise)
        starts = [columns.start for columns in self.slices]
        self.order = torch.cat([start + places for start, places in zip(starts, self.orders, strict=True)])
        self.causal = Sight.of_scales([1] * len(self.order), model.trunk.num_tokens)

    def forward(
        self,
        state: Float[Tensor, "item token dim"],
        previous: Int[Tensor, "item code"],
        codes: Int[Tensor, "item code"],
    ) -> list[ScalePrediction]:
        """Every code of the frame after `state`, each given the true codes before it."""
        asked = self.ask(state, previous, codes)
        tokens = [
            token[:, self.orders[level]] + self.last(self._last(level, codes))
            for level, token in enumerate(asked.tokens)
        ]
        x = torch.cat(tokens, 1)
        for block, past in zip(self.blocks, self.start(state).layers, strict=True):
            x, _ = block(x, self.turns[self.order], past, self.causal)
        return self.answer(x[:, self.order.argsort()], asked, previous)

    def imagine(
        self,
        state: Float[Tensor, "item token dim"],
        previous: Int[Tensor, "item code"],
        sampling: SamplingSettings,
        generator: torch.Generator,
    ) -> Int[Tensor, "item code"]:
        """Codes of the frame after `state`, each drawn before the next is predicted."""
        codes, cache = previous.clone(), self.start(state)
        for level in range(len(self.scales)):
            tokens, left_over = self.scale_inputs(state, previous, codes, cache)
            for number in range(len(self.orders[level])):
                logits = self._step(level, number, tokens, left_over, previous, codes, cache)
                column = self.slices[level].start + int(self.orders[level][number])
                codes[:, column] = sample_codes(logits, sampling, level, generator)[:, 0]
            cache.num_scales += 1
        return codes

    def _step(
        self,
        level: int,
        number: int,
        tokens: Tensor,
        left_over: Tensor,
        previous: Tensor,
        codes: Tensor,
        cache: DecoderCache,
    ) -> Tensor:
        """Logits of one place, the one of this number in the order."""
        place = self.orders[level][number : number + 1]
        x = tokens[:, place] + self.last(self._last(level, codes)[:, number : number + 1])
        turns = self.turns.split(self.sizes)[level][place]
        for depth, block in enumerate(self.blocks):
            x, cache.layers[depth] = block(x, turns, cache.layers[depth], None)
        old = previous[:, self.slices[level]][:, place]
        return self.readouts[level](x, left_over[:, place], self.vectors(level), old)[0]

    def _last(self, level: int, codes: Tensor) -> Float[Tensor, "item place channel"]:
        """For every place in its order, the code before it, and how far away that was in units of the frame's side."""
        order, scale = self.orders[level], self.scales[level]
        vectors = self.vectors(level)
        values = self.quantizers[0].lookup(codes[:, self.slices[level]], level) / spread_of(vectors)
        places = grid_positions(scale.height, scale.width)[order]
        steps = (places[1:] - places[:-1]).expand(len(codes), -1, -1)
        known = torch.cat((values[:, order[:-1]], steps), 2)
        return torch.cat((values.new_zeros(len(codes), 1, self.last.in_features), known), 1)


class CodeByCode(FrameByFrame):
    """The trunk as it is, the decoder code by code."""

    def __init__(self, model: WorldModel, order: str) -> None:
        """Replace the decoder of a model by one that takes the places of a scale in this order."""
        super().__init__(model)
        self.decoder = model.decoder = OrderedDecoder(model, order)

    def imagine(
        self,
        state: Float[Tensor, "item token dim"],
        previous: Int[Tensor, "item code"],
        sampling: SamplingSettings,
        generator: torch.Generator,
    ) -> Int[Tensor, "item code"]:
        """Each code is drawn before the next is predicted."""
        return self.decoder.imagine(state, previous, sampling, generator)
