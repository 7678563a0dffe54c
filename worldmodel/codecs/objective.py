"""What a tokenizer's run minimises: reconstruction through the quantiser, for pictures and for sound."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from streams.clip import Batch, to_float
from worldmodel.codecs.adversary import PatchDiscriminator, adversarial_losses
from worldmodel.codecs.health import codebook_metrics, dying_scales, perplexities
from worldmodel.codecs.perceptual import load_perceptual
from worldmodel.codecs.picture import PictureVQ
from worldmodel.codecs.quantizer import still_change_share
from worldmodel.codecs.sound import SoundVQ
from worldmodel.layout import Pyramid
from worldmodel.settings import PictureLossSettings

SOUND_WEIGHT = 20.0
PRICE_RISES = 0.5  # share of a run in which the price of bits rises from nothing, so that entries come into use first
STILL_GREY_LEVELS = 2.0  # a patch stands still when it changes by less than this on average
FRAME_PATCHES = (8, 8)  # into which a frame is divided to tell whether all of it stands still


class CodecObjective(nn.Module):
    """What a codec's objectives share: they tell how rich its codes are.

    Attributes:
        share_done: share of the run that is done, told by the loop.
    """

    codec: PictureVQ | SoundVQ

    def __init__(self) -> None:
        super().__init__()
        self.share_done = 0.0

    @property
    def price_share(self) -> float:
        """How much of the price of bits is asked now."""
        return min(1.0, self.share_done / PRICE_RISES)

    def in_short(self, means: dict[str, float]) -> str:
        """What of the metrics is shown beside the progress."""
        return perplexities(means, len(self.codec.pyramid.scales))

    def alarms(self, means: dict[str, float]) -> dict[str, str]:
        """What is wrong, by name."""
        option = "" if self.codec.family == "vq" else self.codec.family
        return dying_scales(means, self.codec.quantizer, self.codec.kind, option)


class PictureObjective(CodecObjective):
    """Squared and absolute error of the pixels, commitment to the codes, and rest where the picture is at rest."""

    codec: PictureVQ

    def __init__(self, codec: PictureVQ, settings: PictureLossSettings | None = None) -> None:
        super().__init__()
        self.codec, self.settings = codec, settings or PictureLossSettings()
        self.perceptual = self.adversary = None
        if self.settings.perceptual_weight > 0:
            self.perceptual = load_perceptual(self.settings.perceptual_file, self.settings.perceptual_sha256)
        if self.settings.adversarial_weight > 0:
            self.adversary = PatchDiscriminator(self.settings.adversarial_channels)

    def forward(self, batch: Batch) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """Loss and metrics of the frames of a batch."""
        clips = to_float(batch.frames)
        frames = clips.flatten(0, 1)
        latent = self.codec.analyse(frames)
        quantized = self.codec.quantizer(latent, clips.shape[1] if self.settings.sticky else 1, self.price_share)
        rebuilt = self.codec.synthesise(quantized.latent).float()
        error = F.mse_loss(rebuilt, frames)
        movement = still_movement(clips, latent.unflatten(0, clips.shape[:2]), self.codec.pyramid.whole_frame)
        metrics = {
            "psnr": 10 * torch.log10(4 / error.detach()),
            "commitment": quantized.loss.detach(),
            "still_movement": movement.detach(),
        }
        loss = error + 0.1 * F.l1_loss(rebuilt, frames)
        if self.perceptual is not None:
            distance = self.perceptual(rebuilt, frames)
            loss = loss + self.settings.perceptual_weight * distance
            metrics["perceptual"] = distance.detach()
        if self.adversary is not None:
            metrics["adversary"] = torch.full_like(error, float("nan")).detach()
            if self.share_done >= self.settings.adversarial_from and loss.requires_grad:
                fooled, hinge = adversarial_losses(self.adversary, frames, rebuilt, loss)
                loss = loss + self.settings.adversarial_weight * fooled + hinge
                metrics["adversary"] = hinge.detach()
        loss = loss + 0.25 * quantized.loss + self.settings.still_weight * movement
        return loss, metrics | codebook_metrics(self.codec.quantizer)

    @torch.no_grad()
    def flicker(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """Share of the finest codes that change where the picture stands still, with and without stickiness."""
        clips = to_float(batch.frames)
        columns = self.codec.pyramid.slices[-1]
        still = still_codes(clips, self.codec.pyramid)
        latent = self.codec.latent(clips)
        sticky = self.codec.quantizer.encode(latent)[..., columns]
        plain = self.codec.quantizer.encode(latent, sticky=False)[..., columns]
        return {
            "still_codes_that_change": still_change_share(sticky, still),
            "still_codes_that_change_unsticky": still_change_share(plain, still),
        }


class SoundObjective(CodecObjective):
    """Squared error of log-mel slices, and commitment to the codes."""

    codec: SoundVQ

    def __init__(self, codec: SoundVQ) -> None:
        super().__init__()
        self.codec = codec

    def forward(self, batch: Batch) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """Loss and metrics of the clips of a batch that have sound."""
        slices = self.codec.log_mel(batch.sound)
        # A clip without sound is silence to the quantiser, but is not learned from.
        heard = batch.has_sound.float().repeat_interleave(slices.shape[1])
        slices = slices.flatten(0, 1)
        rebuilt, quantized = self.codec(slices, self.price_share)
        error = (rebuilt.float() - slices).square().mean(dim=(1, 2))
        error = (error * heard).sum() / heard.sum().clamp(min=1)
        metrics = {"log_mel_error": error.detach().sqrt(), "commitment": quantized.loss.detach()}
        # Mostly silence, so a small error: unweighted, the commitment alone would pull all latents together.
        return SOUND_WEIGHT * error + 0.25 * quantized.loss, metrics | codebook_metrics(self.codec.quantizer)


def still_places(
    frames: Float[Tensor, "batch frame 3 height width"], grid: tuple[int, int]
) -> Bool[Tensor, "batch step place"]:
    """Where the patch under a code changes by less than 2 grey levels from one frame to the next."""
    change = (frames.diff(dim=1).abs() * 127.5).round().sum(2)  # whole grey levels, whose sums are exact
    return F.adaptive_avg_pool2d(change, grid).flatten(2) < 3 * STILL_GREY_LEVELS


def still_codes(
    frames: Float[Tensor, "batch frame 3 height width"], pyramid: Pyramid
) -> Bool[Tensor, "batch step code"]:
    """Where the patch under a code of the finest scale stands still, or the whole frame where a code is of that."""
    places = still_frames(frames) if pyramid.whole_frame else still_places(frames, pyramid.grid)
    return places.repeat(1, 1, pyramid.scales[-1].num_codes // places.shape[2])


def still_frames(frames: Float[Tensor, "batch frame 3 height width"]) -> Bool[Tensor, "batch step 1"]:
    """Where no patch of a frame changes by 2 grey levels or more; the mean of a frame would hide small things."""
    return still_places(frames, FRAME_PATCHES).all(2, keepdim=True)


def still_movement(
    frames: Float[Tensor, "batch frame 3 height width"],
    latent: Float[Tensor, "batch frame dim row column"],
    whole_frame: bool = False,
) -> Float[Tensor, ""]:
    """Mean squared change of the latent where the picture stands still, in units of the mean squared latent.

    What moves elsewhere must not move it: sticky codes can only stay if their latents do.

    Args:
        frames: of clips.
        latent: of these frames.
        whole_frame: every latent is of the whole frame, and not of a place in it.
    """
    latent = latent.float()
    still = still_frames(frames) if whole_frame else still_places(frames, (latent.shape[3], latent.shape[4]))
    change = latent.diff(dim=1).square().mean(2).flatten(2)
    still = still.expand(change.shape)
    return (change * still).sum() / still.sum().clamp(min=1) / latent.detach().square().mean().clamp(min=1e-9)
