"""The codes of a `PictureDCT` as latents, as the world model asks for them: a channel for each plane of each scale."""

import itertools

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from worldmodel.codecs.scales import ScaleLatents
from worldmodel.layout import Pyramid


class CoefficientLatents(ScaleLatents):
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

    def add_scale(
        self, latent: Float[Tensor, "item dim height width"], codes: Int[Tensor, "item code"], scale: int
    ) -> Float[Tensor, "item dim height width"]:
        """The latent with one more scale; `codes` are those of the scale alone."""
        latent = latent.clone()
        latent[:, self.channels[scale]] = self._spread(codes, scale)
        return latent

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

    def _spread(self, codes: Int[Tensor, "item code"], index: int) -> Float[Tensor, "item plane height width"]:
        scale = self.pyramid.scales[index]
        return F.interpolate(self._values(codes, index).unflatten(2, (scale.height, scale.width)), self.pyramid.grid)
