"""Codes of a pyramid as latents on its finest grid: what every scale adds, and what it is told of the coarser ones."""

import itertools

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from worldmodel.layout import Pyramid


class ScaleLatents(nn.Module):
    """What codecs of different kinds share; each says in `add_scale` what the codes of a scale stand for.

    Attributes:
        dim: channels of a latent.
        pyramid: layout of the codes.
    """

    dim: int
    pyramid: Pyramid

    def add_scale(
        self, latent: Float[Tensor, "item dim height width"], codes: Int[Tensor, "item code"], scale: int
    ) -> Float[Tensor, "item dim height width"]:
        """The latent with one more scale; `codes` are those of the scale alone."""
        raise NotImplementedError

    def nothing(self, num_items: int) -> Float[Tensor, "item dim height width"]:
        """The latent of no scale: zeros."""
        device = next(itertools.chain(self.parameters(), self.buffers())).device
        return torch.zeros(num_items, self.dim, *self.pyramid.grid, device=device)

    def embed(
        self, codes: Int[Tensor, "item code"], num_scales: int | None = None
    ) -> Float[Tensor, "item dim height width"]:
        """Latent of codes, of the first `num_scales` scales (all of them by default)."""
        latent = self.nothing(len(codes))
        for index, part in enumerate(self.pyramid.slices[:num_scales]):
            latent = self.add_scale(latent, codes[:, part], index)
        return latent

    def partials(self, codes: Int[Tensor, "item code"]) -> list[Float[Tensor, "item dim row column"]]:
        """What is decoded before every scale, at the size of that scale (zeros for the first)."""
        latent, out = self.nothing(len(codes)), []
        for index, part in enumerate(self.pyramid.slices):
            out.append(self.seen_by(latent, index))
            if index + 1 < len(self.pyramid.scales):
                latent = self.add_scale(latent, codes[:, part], index)
        return out

    def seen_by(
        self, total: Float[Tensor, "item dim height width"], index: int
    ) -> Float[Tensor, "item dim row column"]:
        """What a scale is told of the coarser ones."""
        return self.to_scale(total, index)

    def left_over(
        self,
        latent: Float[Tensor, "item dim height width"],
        seen: Float[Tensor, "item dim row column"],
        index: int,
    ) -> Float[Tensor, "item dim row column"]:
        """What of a latent one scale has to code, given what it was told of the coarser ones."""
        return self.to_scale(latent, index) - seen

    def to_scale(
        self, latent: Float[Tensor, "item channel height width"], index: int
    ) -> Float[Tensor, "item channel row column"]:
        """A latent, or anything else on its grid, at one scale: area-downsampled."""
        scale = self.pyramid.scales[index]
        size = (scale.height, scale.width)
        return latent if latent.shape[-2:] == size else F.interpolate(latent, size, mode="area")
