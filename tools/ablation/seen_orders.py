"""Code by code in orders that depend on what is seen: the most salient place first, or the surest."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tools.ablation.candidate import silent
from tools.ablation.code_by_code import CodeByCode, OrderedDecoder
from tools.ablation.orders import salient_first
from worldmodel.cache.latents import CodeBatch
from worldmodel.decoder import ScalePrediction
from worldmodel.model import WorldModel
from worldmodel.objective import NextFrame

# Adam takes the same steps whatever a loss is multiplied by. So small, the head's gradient counts for nothing in the
# norm by which the gradients of all may be clipped.
SURPRISE_WEIGHT = 0.01


class SalientFirst(OrderedDecoder):
    """The places come first whose latents in the previous frame are furthest from the mean of their scale."""

    def look(self, previous: Int[Tensor, "item code"]) -> Float[Tensor, "item channel row column"]:
        """The latent of the previous frame."""
        return self.quantizers[0].embed(previous)

    def places(self, level: int, tokens: Tensor, seen: Tensor | None) -> Int[Tensor, "item place"]:
        """The order of one scale, `seen` being the previous frame's latent."""
        del tokens
        assert seen is not None, "look has given it"
        return salient_first(self.quantizers[0].to_scale(seen, level).flatten(2).transpose(1, 2))


@dataclass(frozen=True)
class ExpectedPrediction(ScalePrediction):
    """What the decoder says about one scale, and how sure it was before it began.

    Attributes:
        surprise: nats that every code was expected to cost, (item, code).
    """

    surprise: Tensor


class SurestFirst(OrderedDecoder):
    """The places come first whose codes are expected to surprise least.

    MaskGIT (Chang et al. 2022) takes the surest first too, by what the net says of all places at once; code by code
    that would be known too late, so a head predicts it.
    """

    def __init__(self, model: WorldModel) -> None:
        """Take the place of a model's decoder."""
        super().__init__(model)
        self.surprise = nn.Linear(model.settings.decoder.dim, len(self.scales))
        # It begins row by row: from random weights it learned more slowly.
        nn.init.zeros_(self.surprise.weight)
        nn.init.zeros_(self.surprise.bias)

    def expected(self, level: int, tokens: Float[Tensor, "item place dim"]) -> Float[Tensor, "item place"]:
        """Nats that the codes of a scale will cost, judged by its tokens, which learn nothing of it."""
        return self.surprise(tokens.detach())[..., level]

    def places(self, level: int, tokens: Tensor, seen: Tensor | None) -> Int[Tensor, "item place"]:
        """The order of one scale; where places tie, row by row."""
        del seen
        return self.expected(level, tokens).argsort(dim=1, stable=True)

    def forward(
        self,
        state: Float[Tensor, "item token dim"],
        previous: Int[Tensor, "item code"],
        codes: Int[Tensor, "item code"],
    ) -> list[ExpectedPrediction]:
        """Every code of the frame after `state`, each given the true codes before it, and its expected surprise."""
        asked = self.ask(state, previous, codes)
        found = enumerate(self.predict(asked, state, previous, codes))
        return [ExpectedPrediction(x.logits, x.error, self.expected(k, asked.tokens[k])) for k, x in found]


class LearnedOrder(CodeByCode):
    """Code by code, the surest first; the head that says which learns from how surprising the codes were."""

    def __init__(self, model: WorldModel) -> None:
        """Replace the decoder of a model."""
        super().__init__(model, SurestFirst(model))

    def forward(self, batch: CodeBatch) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """Loss and metrics of one batch, with the loss of the head, which nothing else learns from."""
        found, missed = self.judge(batch.picture, self.drawn_frames(batch.picture))
        loss, metrics = self.loss_of(found)
        return loss + SURPRISE_WEIGHT * missed, metrics | {"next/surprise_error": missed.detach()}

    def judge(
        self, codes: Int[Tensor, "batch frame code"], frames: Int[Tensor, " drawn"] | None = None
    ) -> tuple[NextFrame, Float[Tensor, ""]]:
        """What `predict` gives, and the mean squared error of the expected surprise, in nats²."""
        frames = torch.arange(codes.shape[1] - 1) if frames is None else frames
        states = self.model.states(codes, silent(codes))[:, frames].flatten(0, 1)
        previous, target = codes[:, frames].flatten(0, 1), codes[:, frames + 1].flatten(0, 1)
        predictions = self.decoder(states, previous, target)
        found = NextFrame.of(predictions, previous, target, torch.ones_like(codes[:, frames], dtype=torch.bool))
        expected = torch.cat([each.surprise for each in predictions], 1)
        return found, (expected - found.nats.detach().flatten(0, 1)).square().mean()
