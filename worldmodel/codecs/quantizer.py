"""Multi-scale residual vector quantisation, with codes that are sticky in time.

Each scale quantises what the coarser ones left over: the residual is area-downsampled to the scale's grid, replaced by
the nearest codebook entries, upsampled, smoothed by a small convolution and subtracted (VAR: Tian et al. 2024,
"Visual Autoregressive Modeling"). Codebooks follow the latents by moving averages (van den Oord et al. 2017, appendix
A.1); entries that nobody uses are restarted from the batch (Dhariwal et al. 2020, "Jukebox").
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from worldmodel.attention import full_precision
from worldmodel.layout import Pyramid, Scale
from worldmodel.modules import Modules
from worldmodel.settings import QuantizerSettings


@dataclass(frozen=True)
class Quantized:
    """What one pass of the quantiser gives.

    Attributes:
        latent: sum of all scales, (item, dim, height, width).
        codes: (item, code).
        loss: commitment of the latents to their codes, averaged over scales.
    """

    latent: Tensor
    codes: Tensor
    loss: Tensor


class Codebook(nn.Module):
    """The table of vectors of one scale, kept as moving averages of the latents it stands for."""

    def __init__(self, vocabulary: int, dim: int, decay: float, restart_below: float) -> None:
        super().__init__()
        self.decay, self.restart_below = decay, restart_below
        self.register_buffer("vectors", torch.randn(vocabulary, dim) * 0.1)
        self.register_buffer("counts", torch.zeros(vocabulary))
        self.register_buffer("sums", torch.zeros(vocabulary, dim))
        self.vectors: Tensor
        self.counts: Tensor
        self.sums: Tensor

    def distances(self, latents: Float[Tensor, "entry dim"]) -> Float[Tensor, "entry code"]:
        """Squared distance of every latent to every entry, in fp32."""
        latents = latents.float()
        with full_precision(latents.device):
            cross = latents @ self.vectors.T
        return latents.square().sum(1, keepdim=True) - 2 * cross + self.vectors.square().sum(1)

    @torch.no_grad()
    def update(self, latents: Float[Tensor, "entry dim"], codes: Int[Tensor, " entry"]) -> None:
        """One step of the moving averages, over all ranks, and the restart of unused entries."""
        counts = torch.zeros_like(self.counts).index_add_(0, codes, torch.ones_like(codes, dtype=torch.float32))
        sums = torch.zeros_like(self.sums).index_add_(0, codes, latents.float())
        pool = latents.float()[torch.randint(len(latents), (len(self.vectors),), device=latents.device)]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(counts)
            torch.distributed.all_reduce(sums)
            torch.distributed.broadcast(pool, 0)
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        # Whoever this very batch points at stays, however rarely it is used.
        unused = ((self.counts < self.restart_below) & (counts == 0))[:, None]
        self.sums.copy_(torch.where(unused, pool * self.restart_below * 2, self.sums))
        self.counts.copy_(torch.where(unused[:, 0], torch.full_like(self.counts, self.restart_below * 2), self.counts))
        self.vectors.copy_(self.sums / self.counts[:, None])


class MultiScaleQuantizer(nn.Module):
    """Latents to a pyramid of codes and back, scale by scale."""

    def __init__(self, settings: QuantizerSettings) -> None:
        super().__init__()
        self.dim, self.sticky_margin = settings.dim, settings.sticky_margin
        self.pyramid = Pyramid(tuple(Scale(h, w, settings.vocabulary) for h, w in settings.grids))
        self.codebooks = Modules[Codebook](
            Codebook(settings.vocabulary, settings.dim, settings.decay, settings.restart_below) for _ in settings.grids
        )
        self.smooth = Modules[nn.Conv2d](nn.Conv2d(settings.dim, settings.dim, 3, padding=1) for _ in settings.grids)
        for smooth in self.smooth:
            nn.init.zeros_(smooth.weight)
            if smooth.bias is not None:
                nn.init.zeros_(smooth.bias)

    def forward(self, latent: Float[Tensor, "item dim height width"]) -> Quantized:
        """Quantise, with the straight-through gradient; in training mode the codebooks follow the latents."""
        latent = latent.float()
        total, codes, losses = torch.zeros_like(latent), [], []
        for index in range(len(self.codebooks)):
            residual = self._to_scale((latent - total).detach(), index)
            nearest = self._flat_distances(residual, index).argmin(1)
            if self.training:
                self.codebooks[index].update(residual.movedim(1, -1).flatten(0, 2), nearest)
            codes.append(nearest.view(len(latent), -1))
            total = total + self._upsample(codes[-1], index)
            losses.append(F.mse_loss(latent, total.detach()) + 0.25 * F.mse_loss(total, latent.detach()))
        through = latent + (total - latent).detach()
        # The value is `total`; its own gradient trains the smoothing convolutions.
        return Quantized(through + total - total.detach(), torch.cat(codes, 1), torch.stack(losses).mean())

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
        latent = latent.float()
        frames = []
        for frame in latent.unbind(1):
            previous = self.encode_frame(frame, previous if sticky else None)
            frames.append(previous)
        return torch.stack(frames, 1)

    @torch.no_grad()
    def encode_frame(
        self, latent: Float[Tensor, "batch dim height width"], previous: Int[Tensor, "batch code"] | None
    ) -> Int[Tensor, "batch code"]:
        """Codes of one frame of several clips; `previous` are those of the frame before, to which codes stick."""
        total, codes = torch.zeros_like(latent), []
        margin = self.sticky_margin * latent.square().sum(1).mean(dim=(1, 2))
        for index, part in enumerate(self.pyramid.slices):
            distances = self._flat_distances(self._to_scale(latent - total, index), index)
            nearest = distances.argmin(1)
            if previous is not None and self.sticky_margin > 0:
                old = previous[:, part].flatten()
                worse = (distances.gather(1, old[:, None]) - distances.gather(1, nearest[:, None]))[:, 0]
                keep = worse <= margin.repeat_interleave(self.pyramid.scales[index].num_codes)
                nearest = torch.where(keep, old, nearest)
            codes.append(nearest.view(len(latent), -1))
            total = total + self._upsample(codes[-1], index)
        return torch.cat(codes, 1)

    def embed(
        self, codes: Int[Tensor, "item code"], num_scales: int | None = None
    ) -> Float[Tensor, "item dim height width"]:
        """Latent of codes: the sum of the first `num_scales` scales (all of them by default)."""
        height, width = self.pyramid.grid
        total = torch.zeros(len(codes), self.dim, height, width, device=codes.device)
        for index, part in enumerate(self.pyramid.slices[:num_scales]):
            total = total + self._upsample(codes[:, part], index)
        return total

    def partials(self, codes: Int[Tensor, "item code"]) -> list[Float[Tensor, "item dim row column"]]:
        """What is decoded before every scale, area-downsampled to that scale's grid (zeros for the first)."""
        height, width = self.pyramid.grid
        total = torch.zeros(len(codes), self.dim, height, width, device=codes.device)
        out = []
        for index, part in enumerate(self.pyramid.slices):
            out.append(self._to_scale(total, index))
            if index + 1 < len(self.pyramid.scales):
                total = total + self._upsample(codes[:, part], index)
        return out

    def partial(self, codes: Int[Tensor, "item code"], scale: int) -> Float[Tensor, "item dim row column"]:
        """The input of one scale, from the codes of the coarser ones (later columns are not read)."""
        return self._to_scale(self.embed(codes, scale), scale)

    def lookup(self, codes: Int[Tensor, "item code"], scale: int) -> Float[Tensor, "item code dim"]:
        """Codebook vectors of one scale's codes."""
        return F.embedding(codes, self.codebooks[scale].vectors)

    def _to_scale(self, latent: Tensor, index: int) -> Tensor:
        scale = self.pyramid.scales[index]
        size = (scale.height, scale.width)
        return latent if latent.shape[-2:] == size else F.interpolate(latent, size, mode="area")

    def _flat_distances(self, latent: Tensor, index: int) -> Tensor:
        return self.codebooks[index].distances(latent.movedim(1, -1).flatten(0, 2))

    def _upsample(self, codes: Tensor, index: int) -> Tensor:
        scale = self.pyramid.scales[index]
        latent = self.lookup(codes, index).movedim(-1, 1).unflatten(-1, (scale.height, scale.width))
        if (scale.height, scale.width) != self.pyramid.grid:
            latent = F.interpolate(latent, self.pyramid.grid, mode="bicubic")
        with full_precision(latent.device):
            return latent + 0.5 * self.smooth[index](latent)


def still_change_share(
    codes: Int[Tensor, "batch frame code"], still: Bool[Tensor, "batch step code"]
) -> Float[Tensor, ""]:
    """Share of codes that change from one frame to the next where the picture stands still."""
    changed = codes[:, 1:] != codes[:, :-1]
    return (changed & still).sum() / still.sum().clamp(min=1)
