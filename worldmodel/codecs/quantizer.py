"""Multi-scale residual quantisation, with codes that are sticky in time.

Each scale quantises what the coarser ones left over: the residual is area-downsampled to the scale's grid, replaced by
the nearest codebook entries, upsampled, smoothed by a small convolution and subtracted (VAR: Tian et al. 2024,
"Visual Autoregressive Modeling").
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from worldmodel.attention import full_precision
from worldmodel.codecs.codebooks import Codebook, make_codebook
from worldmodel.codecs.scales import ScaleLatents
from worldmodel.layout import Pyramid, Scale
from worldmodel.modules import Modules
from worldmodel.settings import QuantizerSettings


@dataclass(frozen=True)
class Quantized:
    """What one pass of the quantiser gives.

    Attributes:
        latent: sum of all scales, (item, dim, height, width).
        codes: (item, code).
        loss: commitment of the latents to their codes.
    """

    latent: Tensor
    codes: Tensor
    loss: Tensor


class MultiScaleQuantizer(ScaleLatents):
    """Latents to a pyramid of codes and back, scale by scale."""

    def __init__(self, settings: QuantizerSettings) -> None:
        super().__init__()
        self.dim, self.sticky_margin, self.bit_price = settings.dim, settings.sticky_margin, settings.bit_price
        self.grids, self.pyramid = settings.grids, self.lay_out(settings)
        self.codebooks = Modules[Codebook](make_codebook(settings) for _ in settings.grids)
        self.smooth = Modules[nn.Conv2d](nn.Conv2d(settings.dim, settings.dim, 3, padding=1) for _ in settings.grids)
        for smooth in self.smooth:
            nn.init.zeros_(smooth.weight)
            if smooth.bias is not None:
                nn.init.zeros_(smooth.bias)

    def lay_out(self, settings: QuantizerSettings) -> Pyramid:
        """The scales that the settings' grids describe."""
        return Pyramid(tuple(Scale(h, w, settings.vocabulary) for h, w in settings.grids))

    def forward(
        self, latent: Float[Tensor, "item dim height width"], num_frames: int = 1, price_share: float = 1.0
    ) -> Quantized:
        """Quantise, with the straight-through gradient; in training mode the codebooks follow the latents.

        Args:
            latent: of clips, each clip's frames in their order.
            num_frames: of every clip; its codes are sticky, as `encode` will have them, and the codebooks learn so.
            price_share: of the price of bits that `encode` will have. Where it is dear from the start, entries that
                nobody uses yet are never tried, and few come into use.
        """
        num_clips = len(latent) // num_frames
        latent = swapped(latent.float(), num_frames)  # in the order of time
        total, codes, totals = torch.zeros_like(latent), [], []
        bit_costs = price_share * self._bit_costs(latent.detach())
        for index in range(len(self.codebooks)):
            residual = self._residual((latent - total).detach(), index)
            margin = self.margin(latent.detach(), index)
            codes.append(self._choose(residual, index, margin, bit_costs, [num_clips] * num_frames, None))
            if self.training:
                self.codebooks[index].update(residual.flatten(0, 1), codes[-1].flatten())
            total = total + self._upsample(codes[-1], index)
            totals.append(total)
        through = latent + (total - latent).detach()
        # The value is `total`; its own gradient trains the smoothing convolutions.
        value = through + total - total.detach()
        codes = swapped(torch.cat(codes, 1), num_clips)
        return Quantized(swapped(value, num_clips), codes, self.commitment(latent, totals))

    def commitment(
        self, latent: Float[Tensor, "item dim height width"], totals: list[Float[Tensor, "item dim height width"]]
    ) -> Float[Tensor, ""]:
        """Distance of latents and codes, averaged over what stands after every scale."""
        losses = [F.mse_loss(latent, total.detach()) + 0.25 * F.mse_loss(total, latent.detach()) for total in totals]
        return torch.stack(losses).mean()

    @torch.no_grad()
    def encode(
        self,
        latent: Float[Tensor, "batch frame dim height width"],
        previous: Int[Tensor, "batch code"] | None = None,
        sticky: bool = True,
    ) -> Int[Tensor, "batch frame code"]:
        """Codes of clips, in the order of their frames: a code stays unless the picture pays for the change.

        Scale by scale, the previous frame's code is kept wherever its distance is at most `sticky_margin` mean squared
        latents worse than the nearest one's, so that noise does not flicker through the residual pyramid.
        """
        num_clips, num_frames = latent.shape[:2]
        steps = [num_clips] * num_frames if sticky else [num_clips * num_frames]
        codes = self._encode(swapped(latent.flatten(0, 1), num_frames), steps, previous if sticky else None)
        return swapped(codes, num_clips).unflatten(0, (num_clips, num_frames))

    @torch.no_grad()
    def encode_beginnings(
        self, latent: Float[Tensor, "batch frame dim height width"], lengths: Sequence[int]
    ) -> Int[Tensor, "batch frame code"]:
        """The codes that `encode` gives, of the first frames of every clip alone; the others are zero and cost nothing.

        Args:
            latent: of clips.
            lengths: how many frames of each clip are encoded.
        """
        longest_first = sorted(range(len(lengths)), key=lambda clip: -lengths[clip])
        running = [sum(length > frame for length in lengths) for frame in range(max(lengths))]
        codes = torch.zeros(*latent.shape[:2], self.pyramid.num_codes, dtype=torch.int64, device=latent.device)
        if running:
            latent = latent[longest_first]
            packed = torch.cat([latent[:count, frame] for frame, count in enumerate(running)])
            for frame, part in enumerate(self._encode(packed, running, None).split(running)):
                codes[: len(part), frame] = part
        return codes[np.argsort(longest_first)]

    def _encode(
        self, latent: Float[Tensor, "item dim height width"], steps: list[int], previous: Tensor | None
    ) -> Int[Tensor, "item code"]:
        """Codes of frames that lie in the order of time: first `steps[0]` clips' first frames, then the second ones.

        A code depends on the coarser ones of its frame and on the same one before it. So a whole scale is looked up at
        a time, and only the decision to keep goes from frame to frame.
        """
        latent = latent.float()
        total, codes = torch.zeros_like(latent), []
        bit_costs = self._bit_costs(latent)
        for index, part in enumerate(self.pyramid.slices):
            before = None if previous is None else previous[:, part]
            residual, margin = self._residual(latent - total, index), self.margin(latent, index)
            codes.append(self._choose(residual, index, margin, bit_costs, steps, before))
            if index + 1 < len(self.pyramid.scales):
                total = total + self._upsample(codes[-1], index)
        return torch.cat(codes, 1)

    def _choose(
        self, residual: Tensor, index: int, margin: Tensor, bit_costs: Tensor, steps: list[int], previous: Tensor | None
    ) -> Tensor:
        """Codes of one scale for what is left over (item, place, dim), each the one before it while that is cheap."""
        num_places, price = residual.shape[1], None
        if self.bit_price > 0:
            # A code of a coarse scale stands for more of the picture.
            share = num_places / (self.pyramid.grid[0] * self.pyramid.grid[1])
            price = (share * bit_costs).repeat_interleave(num_places)
        nearest = self.codebooks[index].nearest(residual.flatten(0, 1), price).view(residual.shape[:2])
        if self.sticky_margin == 0 or (len(steps) == 1 and previous is None):
            return nearest
        dearest = self._price(residual, nearest, index) + margin[:, None]
        out = []
        for latents, codes, limit in zip(*(each.split(steps) for each in (residual, nearest, dearest)), strict=True):
            if previous is not None:
                old = previous[: len(codes)]
                codes = torch.where(self._price(latents, old, index) <= limit, old, codes)  # noqa: PLW2901
            out.append(codes)
            previous = codes
        return torch.cat(out)

    def margin(self, latent: Float[Tensor, "item dim height width"], index: int) -> Float[Tensor, " item"]:
        """How much worse than the nearest a kept code of one scale may be in each frame, in squared latents."""
        return self.sticky_margin * latent.square().sum(1).mean(dim=(1, 2))

    def _bit_costs(self, latent: Tensor) -> Tensor:
        """What a bit of a code of the finest scale costs in each frame: the price, in its latents' variance."""
        return self.bit_price * latent.var((2, 3), correction=0).sum(1)

    def _residual(self, latent: Tensor, index: int) -> Tensor:
        """What is left over for one scale, (item, place, dim)."""
        return self.to_scale(latent, index).flatten(2).transpose(1, 2)

    def _price(self, latents: Tensor, codes: Tensor, index: int) -> Tensor:
        """Squared distance of latents (item, place, dim) to the entries that stand for them."""
        return (latents - self.lookup(codes, index)).square().sum(-1)

    def lookup(self, codes: Int[Tensor, "item code"], scale: int) -> Float[Tensor, "item code dim"]:
        """Codebook vectors of one scale's codes."""
        return F.embedding(codes, self.codebooks[scale].vectors)

    def vectors(self, scale: int) -> Float[Tensor, "1 vocabulary dim"]:
        """Codebook of the one plane of a scale."""
        return self.codebooks[scale].vectors[None]

    def add_scale(
        self, latent: Float[Tensor, "item dim height width"], codes: Int[Tensor, "item place"], scale: int
    ) -> Float[Tensor, "item dim height width"]:
        """The latent with one more scale; `codes` are those of the scale alone."""
        return latent + self._upsample(codes, scale)

    def _upsample(self, codes: Tensor, index: int) -> Tensor:
        scale = self.pyramid.scales[index]
        latent = self.lookup(codes, index).movedim(-1, 1).unflatten(-1, (scale.height, scale.width))
        if (scale.height, scale.width) != self.pyramid.grid:
            latent = F.interpolate(latent, self.pyramid.grid, mode="bicubic")
        with full_precision(latent.device):
            return latent + 0.5 * self.smooth[index](latent)


def swapped(items: Float[Tensor, "item *rest"] | Int[Tensor, "item *rest"], inner: int) -> Tensor:
    """Items that lie in groups of `inner`: the first of every group, then the second of every group, and so on."""
    return items.unflatten(0, (-1, inner)).transpose(0, 1).flatten(0, 1)


def still_change_share(
    codes: Int[Tensor, "batch frame code"], still: Bool[Tensor, "batch step code"]
) -> Float[Tensor, ""]:
    """Share of codes that change from one frame to the next where the picture stands still."""
    changed = codes[:, 1:] != codes[:, :-1]
    return (changed & still).sum() / still.sum().clamp(min=1)
