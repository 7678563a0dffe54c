"""Quantisation of a row of latents whose prefixes are the scales: each scale holds the tokens that lengthen the row."""

import itertools

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.codecs.quantizer import MultiScaleQuantizer
from worldmodel.layout import Pyramid, Scale
from worldmodel.modules import Modules
from worldmodel.settings import QuantizerSettings


class PrefixQuantizer(MultiScaleQuantizer):
    """Rows of latents (item, dim, 1, token) to codes and back.

    Nothing is left over from scale to scale: a token has one code, out of the codebook of its scale. Codes stick in
    time by the rule of the other codecs.
    """

    def __init__(self, settings: QuantizerSettings) -> None:
        super().__init__(settings)
        self.smooth = Modules[nn.Conv2d]()  # a token has no neighbours

    def lay_out(self, settings: QuantizerSettings) -> Pyramid:
        """A scale for every prefix; the settings' grids are (1, tokens in all).

        Raises:
            ValueError: they are no rows, or do not grow.
        """
        sizes = [0, *(columns for _, columns in settings.grids)]
        if any(rows != 1 for rows, _ in settings.grids) or any(a >= b for a, b in itertools.pairwise(sizes)):
            raise ValueError(
                f"tokens_1d.quantizer.grids={[list(grid) for grid in settings.grids]} must be rows of more and more "
                "tokens, each with those of the one before: as [[1, 1], [1, 2], [1, 4]]"
            )
        scales = [Scale(1, b - a, settings.vocabulary, whole_frame=True) for a, b in itertools.pairwise(sizes)]
        return Pyramid(tuple(scales))

    def commitment(
        self, latent: Float[Tensor, "item dim height width"], totals: list[Float[Tensor, "item dim height width"]]
    ) -> Float[Tensor, ""]:
        """Distance of latents and codes; before its scale a token is not coded badly, but not at all."""
        return F.mse_loss(latent, totals[-1].detach())

    def margin(self, latent: Float[Tensor, "item dim height width"], index: int) -> Float[Tensor, " item"]:
        """In units of the codebook's variance, and not of the mean squared latent.

        The first tokens are much larger than the last ones, which a share of their mean would freeze.
        """
        variance = self.codebooks[index].vectors.var(0, correction=0).sum()
        return self.sticky_margin * variance.expand(len(latent))

    def to_scale(
        self, latent: Float[Tensor, "item channel height width"], index: int
    ) -> Float[Tensor, "item channel row column"]:
        """The tokens that are new in one scale."""
        return latent[..., self.pyramid.slices[index]]

    def seen_by(
        self, total: Float[Tensor, "item dim height width"], index: int
    ) -> Float[Tensor, "item dim row column"]:
        """The prefix so far, stretched to the length of the scale: where prefixes double, token for token."""
        part = self.pyramid.slices[index]
        size = (1, part.stop - part.start)
        if part.start == 0:
            return total.new_zeros(*total.shape[:2], *size)
        return F.interpolate(total[..., : part.start], size, mode="area")

    def left_over(
        self, latent: Float[Tensor, "item dim height width"], seen: Float[Tensor, "item dim row column"], index: int
    ) -> Float[Tensor, "item dim row column"]:
        """The new tokens themselves: coarser scales have said nothing of them."""
        return self.to_scale(latent, index)

    def _upsample(self, codes: Tensor, index: int) -> Tensor:
        """The tokens of one scale at their places in a row of zeros."""
        part = self.pyramid.slices[index]
        latent = self.lookup(codes, index).transpose(1, 2)[:, :, None]
        return F.pad(latent, (part.start, self.pyramid.num_codes - part.stop))
