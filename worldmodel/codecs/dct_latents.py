"""The codes of a `PictureDCT` as latents, as the world model asks for them: a channel for each plane of each scale."""

import itertools

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from worldmodel.layout import Pyramid


class CoefficientLatents(nn.Module):
    """What stands at a place of the finest grid: the signed values of all codes there, those of coarser grids repeated.

    The unit of a channel is the root mean square of its scale's vocabulary, so that all are alike in size.

    Attributes:
        dim: channels, one for every plane of every scale.
        pyramid: layout of the codes.
    """

    def __init__(self, pyramid: Pyramid) -> None:
        super().__init__()
        self.pyramid = pyramid
        stops = list(itertools.accumulate(scale.planes for scale in pyramid.scales))
        self.channels = [slice(start, stop) for start, stop in zip([0, *stops], stops, strict=False)]
        self.dim = stops[-1]
        for index, scale in enumerate(pyramid.scales):
            values = torch.arange(scale.vocabulary) - (scale.vocabulary - 1) / 2
            unit = values.square().mean().sqrt().clamp(min=1)  # a scale may have nothing but zeros
            self.register_buffer(f"values_{index}", values / unit, persistent=False)

    def embed(
        self, codes: Int[Tensor, "item code"], num_scales: int | None = None
    ) -> Float[Tensor, "item dim height width"]:
        """Latent of codes, of the first `num_scales` scales (all by default); the channels of the others are zero."""
        latent = torch.zeros(len(codes), self.dim, *self.pyramid.grid, device=codes.device)
        slices = self.pyramid.slices[:num_scales]
        for index, (scale, part) in enumerate(zip(self.pyramid.scales, slices, strict=False)):
            values = self._values(codes[:, part], index).unflatten(2, (scale.height, scale.width))
            latent[:, self.channels[index]] = F.interpolate(values, self.pyramid.grid)
        return latent

    def partials(self, codes: Int[Tensor, "item code"]) -> list[Float[Tensor, "item dim row column"]]:
        """What is decoded before every scale, averaged to that scale's grid (zeros for the first)."""
        latent, out = self.embed(codes), []
        for index, known in enumerate(self.channels):
            before = torch.zeros_like(latent)
            before[:, : known.start] = latent[:, : known.start]
            out.append(self._to_scale(before, index))
        return out

    def partial(self, codes: Int[Tensor, "item code"], scale: int) -> Float[Tensor, "item dim row column"]:
        """The input of one scale, from the codes of the coarser ones (later columns are not read)."""
        return self._to_scale(self.embed(codes, scale), scale)

    def lookup(self, codes: Int[Tensor, "item code"], scale: int) -> Float[Tensor, "item place dim"]:
        """What one scale's codes stand for, in the channels of its planes."""
        values = self._values(codes, scale).transpose(1, 2)
        latent = torch.zeros(*values.shape[:2], self.dim, device=codes.device)
        latent[..., self.channels[scale]] = values
        return latent

    def vectors(self, scale: int) -> Float[Tensor, "plane vocabulary dim"]:
        """What every code of each plane stands for."""
        values, channels = self.get_buffer(f"values_{scale}"), self.channels[scale]
        planes = torch.arange(channels.stop - channels.start, device=values.device)
        vectors = torch.zeros(len(planes), len(values), self.dim, device=values.device)
        vectors[planes, :, channels.start + planes] = values
        return vectors

    def _values(self, codes: Int[Tensor, "item code"], index: int) -> Float[Tensor, "item plane place"]:
        return F.embedding(codes, self.get_buffer(f"values_{index}")[:, None])[..., 0].unflatten(
            1, (self.pyramid.scales[index].planes, -1)
        )

    def _to_scale(self, latent: Tensor, index: int) -> Tensor:
        scale = self.pyramid.scales[index]
        size = (scale.height, scale.width)
        return latent if latent.shape[-2:] == size else F.interpolate(latent, size, mode="area")
