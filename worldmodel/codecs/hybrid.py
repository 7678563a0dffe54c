"""Hybrid picture codec: a multi-scale quantiser over DCT coefficients, whose linear decode a network refines."""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from streams.clip import to_uint8
from streams.settings import ClipSettings
from worldmodel.attention import full_precision
from worldmodel.codecs.dct_transform import (
    BLUE,
    CONSTANT_BITS,
    GREEN_OF_BLUE,
    GREEN_OF_RED,
    RED,
    BlockTransform,
    transform_matrix,
)
from worldmodel.codecs.jpeg_tables import zigzag
from worldmodel.codecs.picture import PictureVQ
from worldmodel.codecs.refiner import Refiner
from worldmodel.settings import HybridSettings

# Red, green and blue of luma and of the two chromas.
TO_RGB = np.array([(1, 0, RED), (1, -GREEN_OF_BLUE, -GREEN_OF_RED), (1, BLUE, 0)])


class PictureHybrid(PictureVQ):
    """Frames to codes and back: a latent is the coefficients of one block, low frequencies only, whitened.

    Both ways are linear and fixed. What is learned is the codebooks, their smoothing and the refiner, which sees the
    codes' latents and adds to the frames; encoding does not run it.

    Attributes:
        mean: of every coefficient over the frames that `fit` was given.
        scale: by which they are divided, their standard deviation to the power of the settings' whitening, times what
            makes the mean square of a latent 1.
    """

    family = "hybrid"
    settings: HybridSettings

    def build(self, settings: HybridSettings, clips: ClipSettings) -> None:
        """The fixed transform.

        Raises:
            ValueError: a size does not fit another.
        """
        dim = settings.luma_frequencies + 2 * settings.chroma_frequencies
        if dim != settings.quantizer.dim:
            raise ValueError(
                f"hybrid.quantizer.dim={settings.quantizer.dim} must be luma_frequencies + 2 * chroma_frequencies, "
                f"which is {dim}"
            )
        most = max(settings.luma_frequencies, settings.chroma_frequencies)
        if most > settings.block**2 or min(settings.luma_frequencies, settings.chroma_frequencies) < 1:
            raise ValueError(
                f"hybrid.luma_frequencies={settings.luma_frequencies} and chroma_frequencies="
                f"{settings.chroma_frequencies} must be 1 at least and {settings.block**2} at most, as a block has"
            )
        grid = settings.quantizer.grids[-1]
        if (clips.height, clips.width) != (grid[0] * settings.block, grid[1] * settings.block):
            raise ValueError(
                f"frames of {clips.height}x{clips.width} do not fit a finest grid of {grid[0]}x{grid[1]} blocks of "
                f"{settings.block}: change clips.height/width, hybrid.block or hybrid.quantizer.grids"
            )
        if settings.refiner_channels < 0:
            raise ValueError(f"hybrid.refiner_channels={settings.refiner_channels} must be 0 (no refiner) or more")
        self.transform = BlockTransform(settings.block, "full")
        self.refiner = Refiner(dim, settings.refiner_channels, settings.block) if settings.refiner_channels else None
        self.counts = (settings.luma_frequencies, settings.chroma_frequencies)
        self.register_buffer("waves", waves_of(settings.block, *self.counts), persistent=False)
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))
        self.waves: Tensor
        self.mean: Tensor
        self.scale: Tensor

    @torch.no_grad()
    def fit(self, frames: Float[Tensor, "item 3 height width"]) -> None:
        """Measure mean and scale of the coefficients of frames (range -1 to 1)."""
        coefficients = self._coefficients(frames)
        self.mean.copy_(coefficients.mean((0, 2, 3)))
        spread = coefficients.std((0, 2, 3))
        # What never differs stays as it is.
        scale = torch.where(spread > 0, spread, 1.0) ** self.settings.whitening
        self.scale.copy_(scale * (spread / scale).square().mean().sqrt().clamp(min=1e-6))

    def analyse(self, frames: Float[Tensor, "item 3 height width"]) -> Float[Tensor, "item dim row column"]:
        """Latents of frames."""
        with full_precision(frames.device):
            return (self._coefficients(frames) - self._column(self.mean)) / self._column(self.scale)

    def synthesise(self, latent: Float[Tensor, "item dim row column"]) -> Float[Tensor, "item 3 height width"]:
        """Frames of latents."""
        with full_precision(latent.device):
            coefficients = latent.float() * self._column(self.scale) + self._column(self.mean)
            grey_levels = F.conv_transpose2d(coefficients, self.waves, stride=self.waves.shape[-1]) + 128
            frames = grey_levels / 127.5 - 1
        return frames if self.refiner is None else frames + self.refiner(latent)

    def _coefficients(self, frames: Tensor) -> Tensor:
        luma, chroma = self.transform(to_uint8(frames))
        kept = (luma[:, :, : self.counts[0]].flatten(1, 2), chroma[:, :, : self.counts[1]].flatten(1, 2))
        return torch.cat(kept, 1).float() / self.waves.shape[-1]

    @staticmethod
    def _column(values: Tensor) -> Tensor:
        return values[:, None, None]


def waves_of(block: int, luma_frequencies: int, chroma_frequencies: int) -> Float[Tensor, "dim 3 row column"]:
    """What each coefficient adds to red, green and blue of its block.

    Luma's zigzag frequencies come first, then blue's and red's chroma; the cosine transform is orthonormal.
    """
    cosines = transform_matrix(block) / (2**CONSTANT_BITS * block**0.5)
    waves = np.einsum("ur,vc->uvrc", cosines, cosines).reshape(-1, block, block)[zigzag(block)]
    counts = (luma_frequencies, chroma_frequencies, chroma_frequencies)
    parts = [np.einsum("c,krs->kcrs", TO_RGB[:, plane], waves[:count]) for plane, count in enumerate(counts)]
    return torch.from_numpy(np.concatenate(parts)).float()
