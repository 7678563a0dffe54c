"""Sound codec: one frame's slice of log-mel through a small autoencoder around a multi-scale quantiser."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from streams.mel import invert, log_mel
from streams.settings import ClipSettings
from worldmodel.codecs.quantizer import MultiScaleQuantizer, Quantized
from worldmodel.layout import Pyramid
from worldmodel.settings import SoundCodecSettings

LOUD = 5.0  # natural log of the mel magnitudes of loud sound


class SoundVQ(nn.Module):
    """Sound of frames to codes and back; the waveform is found by Griffin-Lim (Griffin and Lim 1984)."""

    kind = "sound"
    family = "vq"
    fingerprint: str | None = None  # set when a trained codec is loaded; no cache is made without

    def __init__(self, settings: SoundCodecSettings, clips: ClipSettings) -> None:
        super().__init__()
        self.settings, self.clips = settings, clips
        self.quantizer = MultiScaleQuantizer(settings.quantizer)
        rows, columns = self.quantizer.pyramid.grid
        if rows != 1 or settings.slices_per_frame % columns:
            raise ValueError(
                f"the sound's finest grid is {rows}x{columns}, but it must have one row and a number of columns that "
                f"divides sound.slices_per_frame={settings.slices_per_frame}; change sound.quantizer.grids"
            )
        if settings.floor <= 0:
            raise ValueError(
                f"sound.floor={settings.floor} must be above 0: it is the magnitude that counts as silence"
            )
        self.silence = math.log(settings.floor)
        fold, channels, dim = settings.slices_per_frame // columns, settings.channels, settings.quantizer.dim
        self.encoder = nn.Sequential(
            nn.Conv1d(settings.num_mels, channels, 3, padding=1),
            nn.SiLU(),
            nn.Conv1d(channels, channels, fold, stride=fold),
            nn.SiLU(),
            nn.Conv1d(channels, dim, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv1d(dim, channels, 3, padding=1),
            nn.SiLU(),
            nn.ConvTranspose1d(channels, channels, fold, stride=fold),
            nn.SiLU(),
            nn.Conv1d(channels, settings.num_mels, 3, padding=1),
        )

    @property
    def pyramid(self) -> Pyramid:
        """Layout of the codes of one frame's sound."""
        return self.quantizer.pyramid

    def log_mel(self, sound: Float[Tensor, "batch frame sample"]) -> Float[Tensor, "batch frame mel slice"]:
        """Log-mel slices, from -1 (silence) to about 1 (loud)."""
        settings = self.settings
        mel = log_mel(sound, settings.num_mels, settings.slices_per_frame, settings.fft_samples, self.clips.sample_hz)
        return (mel.clamp(min=self.silence) - self.silence) / (LOUD - self.silence) * 2 - 1

    def forward(
        self, slices: Float[Tensor, "item mel slice"], price_share: float = 1.0
    ) -> tuple[Float[Tensor, "item mel slice"], Quantized]:
        """Reconstruction of single frames' slices through the quantiser, at a share of its price of bits."""
        quantized = self.quantizer(self.encoder(slices)[:, :, None], price_share=price_share)
        return self.decoder(quantized.latent[:, :, 0]), quantized

    @torch.no_grad()
    def encode(
        self,
        sound: Float[Tensor, "batch heard sample"],
        previous: Int[Tensor, "batch code"] | None = None,
        num_before: int = 0,
    ) -> Int[Tensor, "batch frame code"]:
        """Codes of the sound of clips in the order of their frames.

        Args:
            sound: of the clips, and of `num_before` frames before them, into which the first spectra reach back.
            previous: codes of the frame before the clip.
            num_before: frames of `sound` that are heard but not encoded.
        """
        mel = self.log_mel(sound)[:, num_before:]
        latent = self.encoder(mel.flatten(0, 1))[:, :, None]
        return self.quantizer.encode(latent.unflatten(0, mel.shape[:2]), previous)

    @torch.no_grad()
    def decode_log_mel(self, codes: Int[Tensor, "batch frame code"]) -> Float[Tensor, "batch frame mel slice"]:
        """Log-mel slices (near -1 to 1) of codes."""
        slices = self.decoder(self.quantizer.embed(codes.flatten(0, 1))[:, :, 0])
        return slices.unflatten(0, codes.shape[:2])

    @torch.no_grad()
    def decode(self, codes: Int[Tensor, "batch frame code"]) -> Float[Tensor, "batch frame sample"]:
        """Waveform of codes, over the whole clip at once so that the phases of neighbouring frames agree."""
        mel = (self.decode_log_mel(codes) + 1) / 2 * (LOUD - self.silence) + self.silence
        clips, settings = self.clips, self.settings
        sound = invert(mel, clips.samples_per_frame, settings.fft_samples, clips.sample_hz)
        return F.hardtanh(sound)
