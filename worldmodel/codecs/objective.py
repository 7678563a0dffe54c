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
from worldmodel.settings import PictureLossSettings

SOUND_WEIGHT = 20.0
ERROR_WEIGHT, LEAST_ERROR = 0.01, 1e-4  # LEAST_ERROR is 46 dB; better than that no frame need be
STILL_GREY_LEVELS = 2.0  # a patch stands still when it changes by less than this on average


class CodecObjective(nn.Module):
    """What a codec's objectives share: they tell how rich its codes are."""

    codec: PictureVQ | SoundVQ

    def in_short(self, means: dict[str, float]) -> str:
        """What of the metrics is shown beside the progress."""
        return perplexities(means, len(self.codec.pyramid.scales))

    def alarms(self, means: dict[str, float]) -> dict[str, str]:
        """What is wrong, by name."""
        return dying_scales(means, self.codec.quantizer, self.codec.kind)


class PictureObjective(CodecObjective):
    """PSNR of the pixels, commitment to the codes, and rest where the picture is at rest.

    PSNR is the logarithm of the squared error: a frame that is easy counts as much as one that is hard.
    """

    codec: PictureVQ

    def __init__(self, codec: PictureVQ, settings: PictureLossSettings | None = None) -> None:
        super().__init__()
        self.codec, self.settings = codec, settings or PictureLossSettings()
        self.share_done = 0.0
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
        quantized = self.codec.quantizer(latent, clips.shape[1] if self.settings.sticky else 1)
        rebuilt = self.codec.synthesise(quantized.latent).float()
        errors = (rebuilt - frames).square().mean(dim=(1, 2, 3))
        error = errors.mean()
        movement = still_movement(clips, latent.unflatten(0, clips.shape[:2]))
        metrics = {
            "psnr": 10 * torch.log10(4 / error.detach()),
            "commitment": quantized.loss.detach(),
            "still_movement": movement.detach(),
        }
        loss = ERROR_WEIGHT * (errors + LEAST_ERROR).log().mean()
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
        still = still_places(clips, self.codec.pyramid.grid)
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
        rebuilt, quantized = self.codec(slices)
        error = (rebuilt.float() - slices).square().mean(dim=(1, 2))
        error = (error * heard).sum() / heard.sum().clamp(min=1)
        metrics = {"log_mel_error": error.detach().sqrt(), "commitment": quantized.loss.detach()}
        # Mostly silence, so a small error: unweighted, the commitment alone would pull all latents together.
        return SOUND_WEIGHT * error + 0.25 * quantized.loss, metrics | codebook_metrics(self.codec.quantizer)


def still_places(
    frames: Float[Tensor, "batch frame 3 height width"], grid: tuple[int, int]
) -> Bool[Tensor, "batch step place"]:
    """Where the patch under a code changes by less than 2 grey levels from one frame to the next."""
    change = frames.diff(dim=1).abs().mean(2) * 127.5
    return F.adaptive_avg_pool2d(change, grid).flatten(2) < STILL_GREY_LEVELS


def still_movement(
    frames: Float[Tensor, "batch frame 3 height width"], latent: Float[Tensor, "batch frame dim row column"]
) -> Float[Tensor, ""]:
    """Mean squared change of the latent where the picture stands still, in units of the mean squared latent.

    What moves elsewhere must not move it: sticky codes can only stay if their latents do.
    """
    latent = latent.float()
    still = still_places(frames, (latent.shape[3], latent.shape[4]))
    change = latent.diff(dim=1).square().mean(2).flatten(2)
    return (change * still).sum() / still.sum().clamp(min=1) / latent.detach().square().mean().clamp(min=1e-9)
