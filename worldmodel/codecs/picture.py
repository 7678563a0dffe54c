"""Picture codec: a small convolutional autoencoder of single frames around a multi-scale quantiser."""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from streams.settings import ClipSettings
from worldmodel.codecs.dct import PictureDCT
from worldmodel.codecs.in_order import encode_views
from worldmodel.codecs.quantizer import MultiScaleQuantizer, Quantized
from worldmodel.layout import Pyramid
from worldmodel.settings import (
    DctSettings,
    HybridSettings,
    PictureCodecSettings,
    QuantizerSettings,
    Tokens1dSettings,
)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside the identity; the second starts at zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, channels)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        if self.second.bias is not None:
            nn.init.zeros_(self.second.bias)

    def forward(self, x: Float[Tensor, "item channel row column"]) -> Float[Tensor, "item channel row column"]:
        """Same shape out."""
        return x + self.second(F.silu(self.first(F.silu(self.norm(x)))))


class PictureVQ(nn.Module):
    """Frames to codes and back.

    The encoder folds 4x4 pixels into channels and halves the grid until the latent's grid is reached; the decoder
    mirrors it. The frame's height and width must be the grid's times 4 times a power of two.
    """

    kind = "picture"
    family = "vq"
    fingerprint: str | None = None  # set when a trained codec is loaded; no cache is made without

    settings: PictureCodecSettings | HybridSettings | Tokens1dSettings

    def __init__(self, settings: PictureCodecSettings | HybridSettings | Tokens1dSettings, clips: ClipSettings) -> None:
        super().__init__()
        self.settings, self.clips = settings, clips
        self.quantizer = self.make_quantizer(settings.quantizer)
        self.build(settings, clips)

    def make_quantizer(self, settings: QuantizerSettings) -> MultiScaleQuantizer:
        """Of the latents."""
        return MultiScaleQuantizer(settings)

    def build(self, settings: Any, clips: ClipSettings) -> None:
        """The networks.

        Raises:
            ValueError: a size does not fit another.
        """
        channels, dim = settings.channels, settings.quantizer.dim
        num_halvings = _num_halvings((clips.height, clips.width), self.quantizer.pyramid.grid)
        widths = [channels * 2**level for level in range(num_halvings + 1)]
        down: list[nn.Module] = [nn.PixelUnshuffle(4), nn.Conv2d(48, channels, 3, padding=1), ResidualBlock(channels)]
        up: list[nn.Module] = []
        for fine, coarse in itertools.pairwise(widths):
            down += [nn.Conv2d(fine, coarse, 4, stride=2, padding=1), ResidualBlock(coarse)]
            up = [ResidualBlock(coarse), nn.Conv2d(coarse, 4 * fine, 1), nn.PixelShuffle(2), *up]
        self.encoder = nn.Sequential(*down, nn.GroupNorm(8, widths[-1]), nn.SiLU(), nn.Conv2d(widths[-1], dim, 1))
        self.decoder = nn.Sequential(
            nn.Conv2d(dim, widths[-1], 3, padding=1),
            *up,
            ResidualBlock(channels),
            nn.Conv2d(channels, 48, 3, padding=1),
            nn.PixelShuffle(4),
        )
        self.jpeg: PictureDCT | None = None
        if settings.jpeg_quality:
            self.jpeg = PictureDCT(DctSettings(qualities=(settings.jpeg_quality,), sticky_margin=0.0), clips)

    def analyse(self, frames: Float[Tensor, "item 3 height width"]) -> Float[Tensor, "item dim row column"]:
        """Latents of frames (range -1 to 1)."""
        return self.encoder(frames if self.jpeg is None else self.jpeg.decode(self.jpeg.encode(frames[None]))[0])

    def synthesise(self, latent: Float[Tensor, "item dim row column"]) -> Float[Tensor, "item 3 height width"]:
        """Frames of latents."""
        return self.decoder(latent)

    @property
    def pyramid(self) -> Pyramid:
        """Layout of the codes of one frame."""
        return self.quantizer.pyramid

    def forward(
        self, frames: Float[Tensor, "item 3 height width"]
    ) -> tuple[Float[Tensor, "item 3 height width"], Quantized]:
        """Reconstruction of single frames (range -1 to 1) through the quantiser."""
        quantized = self.quantizer(self.analyse(frames))
        return self.synthesise(quantized.latent), quantized

    @torch.no_grad()
    def encode(
        self, frames: Float[Tensor, "batch frame 3 height width"], previous: Int[Tensor, "batch code"] | None = None
    ) -> Int[Tensor, "batch frame code"]:
        """Codes of clips in the order of their frames; `previous` are the codes of the frame before the clip."""
        return self.quantizer.encode(self.latent(frames), previous)

    @torch.no_grad()
    def encode_views(
        self,
        frames: Float[Tensor, "batch frame 3 height width"],
        lengths: Sequence[Sequence[int]] | None = None,
    ) -> tuple[Int[Tensor, "batch frame code"], Int[Tensor, "batch frame code"], Int[Tensor, "batch half code"]]:
        """Codes of clips as they are, reversed, and of every second frame, each encoded in its own order.

        Args:
            frames: of clips, from -1 to 1.
            lengths: of every view, how many of its first frames are wanted of each clip; all if None.
        """
        return encode_views(self.quantizer.encode_beginnings, self.latent(frames), lengths)

    @torch.no_grad()
    def latent(
        self, frames: Float[Tensor, "batch frame 3 height width"]
    ) -> Float[Tensor, "batch frame dim row column"]:
        """Latents before quantisation."""
        return self.analyse(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])

    @torch.no_grad()
    def decode(
        self, codes: Int[Tensor, "batch frame code"], num_scales: int | None = None
    ) -> Float[Tensor, "batch frame 3 height width"]:
        """Frames of codes, from the first `num_scales` scales (all by default)."""
        latent = self.quantizer.embed(codes.flatten(0, 1), num_scales)
        return self.synthesise(latent).clamp(-1, 1).unflatten(0, codes.shape[:2])


def _num_halvings(size: tuple[int, int], grid: tuple[int, int]) -> int:
    ratio = size[0] // (4 * grid[0])
    if (
        ratio < 1
        or ratio & (ratio - 1)
        or any(side != 4 * ratio * cells for side, cells in zip(size, grid, strict=True))
    ):
        raise ValueError(
            f"frames of {size[0]}x{size[1]} do not fit a finest grid of {grid[0]}x{grid[1]}: "
            "each side must be the grid's times 4, 8, 16, ...; change clips.height/width or quantizer.grids"
        )
    return ratio.bit_length() - 1
