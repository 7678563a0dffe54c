"""A decoder that predicts the codes of a scale one after another: next-token prediction, in any order of places."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tools.ablation.candidate import FrameByFrame, decoder_arguments
from tools.ablation.orders import ORDERS
from tools.ablation.own_places import run_block
from worldmodel.attention import grid_positions
from worldmodel.decoder import Asked, FrameDecoder, ScalePrediction, spread_of
from worldmodel.model import WorldModel, initialise
from worldmodel.rollouts.sampling import sample_codes
from worldmodel.settings import SamplingSettings
from worldmodel.sight import Sight


class OrderedDecoder(FrameDecoder):
    """The scales come coarse to fine as ever; inside a scale every place also sees the code before it in the order.

    A place's token is the frame decoder's, plus the code that was decoded last and from where it was (Pannatier et al.
    2024, "sigma-GPTs", where places are told apart in the same way). An order is one for all items or one for each.
    """

    def __init__(self, model: WorldModel) -> None:
        """Take the place of a model's decoder."""
        super().__init__(**decoder_arguments(model))
        self.last = nn.Linear(self.quantizers[0].dim + 2, model.settings.decoder.dim)
        self.apply(initialise)
        self.grids = [grid_positions(scale.height, scale.width) for scale in self.scales]
        self.causal = Sight.of_scales([1] * sum(self.sizes), model.trunk.num_tokens)

    def look(self, previous: Int[Tensor, "item code"]) -> Tensor | None:
        """What the orders of a frame need to know of the frame before it; worked out once a frame."""
        del previous

    def places(
        self, level: int, tokens: Float[Tensor, "item place dim"], seen: Tensor | None
    ) -> Int[Tensor, "one_or_item place"]:
        """The order of one scale, from its tokens, which know the coarser scales, and what `look` gave."""
        raise NotImplementedError

    def forward(
        self,
        state: Float[Tensor, "item token dim"],
        previous: Int[Tensor, "item code"],
        codes: Int[Tensor, "item code"],
    ) -> list[ScalePrediction]:
        """Every code of the frame after `state`, each given the true codes before it."""
        return self.predict(self.ask(state, previous, codes), state, previous, codes)

    def orders(self, asked: Asked, previous: Int[Tensor, "item code"]) -> list[Int[Tensor, "one_or_item place"]]:
        """The order of every scale."""
        seen = self.look(previous)
        return [self.places(level, tokens, seen) for level, tokens in enumerate(asked.tokens)]

    def predict(self, asked: Asked, state: Tensor, previous: Tensor, codes: Tensor) -> list[ScalePrediction]:
        """See `forward`; `asked` is what `ask` gave."""
        orders = self.orders(asked, previous)
        tokens = [
            taken(token, order) + self.last(self._last(level, codes, order))
            for level, (token, order) in enumerate(zip(asked.tokens, orders, strict=True))
        ]
        columns = self.columns(orders)
        x = self._run(torch.cat(tokens, 1), columns, self.start(state).layers, self.causal)
        return self.answer(taken(x, columns.argsort(1)), asked, previous)

    def columns(self, orders: list[Int[Tensor, "one_or_item place"]]) -> Int[Tensor, "one_or_item code"]:
        """Columns of a frame's codes in the order in which they are decoded."""
        return torch.cat([part.start + order for part, order in zip(self.slices, orders, strict=True)], 1)

    @torch.no_grad()
    def imagine(
        self,
        state: Float[Tensor, "item token dim"],
        previous: Int[Tensor, "item code"],
        sampling: SamplingSettings,
        generator: torch.Generator,
    ) -> Int[Tensor, "item code"]:
        """Codes of the frame after `state`, each drawn before the next is predicted."""
        codes, cache, seen = previous.clone(), self.start(state), self.look(previous)
        for level, part in enumerate(self.slices):
            tokens, left_over = self.scale_inputs(state, previous, codes, cache)
            order, old = self.places(level, tokens, seen), previous[:, part]
            for number in range(self.sizes[level]):
                place = order[:, number : number + 1]
                last = self._last(level, codes, order[:, max(0, number - 1) : number + 1])[:, -1:]
                x = self._run(taken(tokens, place) + self.last(last), part.start + place, cache.layers, None)
                readout, vectors = self.readouts[level], self.vectors(level)
                logits, _ = readout(x, taken(left_over, place), vectors, old.take_along_dim(place, 1))
                drawn = sample_codes(logits, sampling, level, torch.rand(logits.shape[:2], generator=generator))
                codes.scatter_(1, (part.start + place).expand_as(drawn), drawn)
            cache.num_scales += 1
        return codes

    def _run(self, x: Tensor, columns: Tensor, layers: list[tuple[Tensor, Tensor]], sight: Sight | None) -> Tensor:
        """Tokens of these columns through the blocks; their keys and values are added to the layers."""
        turns = self.turns[columns]
        for depth, block in enumerate(self.blocks):
            x, layers[depth] = run_block(block, x, turns, layers[depth], sight)
        return x

    def _last(self, level: int, codes: Tensor, order: Tensor) -> Float[Tensor, "item place channel"]:
        """For places in their order, the code before it, and how far away that was in units of the frame's side.

        Before the first of them is none.
        """
        before = codes[:, self.slices[level]].take_along_dim(order[:, :-1], 1)
        values = self.quantizers[0].lookup(before, level) / spread_of(self.vectors(level))
        steps = self.grids[level][order].diff(dim=1).expand(len(codes), -1, -1)
        none = values.new_zeros(len(codes), 1, self.last.in_features)
        return torch.cat((none, torch.cat((values, steps), 2)), 1)


def taken(x: Float[Tensor, "item place channel"], order: Int[Tensor, "one_or_item some"]) -> Tensor:
    """Rows of every item in an order, (item, some, channel)."""
    return x.take_along_dim(order[..., None], 1)


class FixedOrder(OrderedDecoder):
    """In an order that knows nothing of the frame."""

    def __init__(self, model: WorldModel, order: str) -> None:
        """Take the place of a model's decoder, with one of `tools.ablation.orders.ORDERS`."""
        super().__init__(model)
        self.fixed = [ORDERS[order](scale.height, scale.width)[None] for scale in self.scales]

    def places(self, level: int, tokens: Tensor, seen: Tensor | None) -> Int[Tensor, "one_or_item place"]:
        """The same for all items."""
        del tokens, seen
        return self.fixed[level]


class CodeByCode(FrameByFrame):
    """The trunk as it is, the decoder code by code."""

    def __init__(self, model: WorldModel, decoder: OrderedDecoder) -> None:
        """Replace the decoder of a model."""
        super().__init__(model)
        self.decoder = model.decoder = decoder

    def imagine(
        self,
        state: Float[Tensor, "item token dim"],
        previous: Int[Tensor, "item code"],
        sampling: SamplingSettings,
        generator: torch.Generator,
    ) -> Int[Tensor, "item code"]:
        """Each code is drawn before the next is predicted."""
        return self.decoder.imagine(state, previous, sampling, generator)
