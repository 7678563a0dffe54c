"""The door to torchaudio: log-mel slices that never look ahead of their frame, and the way back to sound."""

import torch
import torchaudio
from jaxtyping import Float
from torch import Tensor

# Magnitudes below this count as silence.
FLOOR = 1e-4


def log_mel(
    sound: Float[Tensor, "*batch frame sample"], num_mels: int, slices_per_frame: int, fft_samples: int, sample_hz: int
) -> Float[Tensor, "*batch frame {num_mels} {slices_per_frame}"]:
    """Natural logarithm of mel magnitudes, several slices per frame.

    Causal: the slices of a frame end inside it, the last at its end, and reach back into earlier frames (into silence
    before the clip). The magnitude is that of a Hann window of `fft_samples`.

    Raises:
        ValueError: a window is too short to cover the step between two slices.
    """
    *batch, num_frames, samples_per_frame = sound.shape
    hop = hop_of(samples_per_frame, slices_per_frame, fft_samples)
    # The windows of one frame overlap, and together end where the frame ends.
    reach = fft_samples + (slices_per_frame - 1) * hop
    flat = sound.reshape(-1, num_frames * samples_per_frame)
    padded = torch.nn.functional.pad(flat, (reach - samples_per_frame, 0))
    windows = padded.unfold(-1, reach, samples_per_frame).unfold(-1, fft_samples, hop)
    magnitudes = torch.fft.rfft(windows * torch.hann_window(fft_samples, device=sound.device)).abs()
    mel = magnitudes @ filters_of(num_mels, fft_samples, sample_hz).to(sound.device)
    return mel.clamp(min=FLOOR).log().transpose(-1, -2).reshape(*batch, num_frames, num_mels, slices_per_frame)


def invert(
    slices: Float[Tensor, "*batch frame mel slice"],
    samples_per_frame: int,
    fft_samples: int,
    sample_hz: int,
    num_rounds: int = 32,
) -> Float[Tensor, "*batch frame {samples_per_frame}"]:
    """Sound whose log-mel slices are close to these: inverse mel filters, then Griffin-Lim over the whole clip.

    Deterministic. Phases are invented, so the waveform differs from the original even where it sounds alike.
    """
    *batch, num_frames, num_mels, slices_per_frame = slices.shape
    hop = hop_of(samples_per_frame, slices_per_frame, fft_samples)
    flat = slices.float().reshape(-1, num_frames, num_mels, slices_per_frame).transpose(1, 2).flatten(2)
    magnitudes = flat.exp() - FLOOR
    # Griffin-Lim centres window k at k * hop, where ours is at (k + 1) * hop - fft_samples / 2: undo the shift.
    shift = fft_samples // 2 - hop
    num_samples = num_frames * slices_per_frame * hop
    tail = -(-(shift + hop) // hop) + 1 if shift > -hop else 1
    magnitudes = torch.nn.functional.pad(magnitudes.clamp(min=0.0), (0, tail))
    linear = torchaudio.transforms.InverseMelScale(fft_samples // 2 + 1, num_mels, sample_hz, driver="gelsd")
    spectrum = linear(magnitudes.cpu()).to(slices.device)
    window = torch.hann_window(fft_samples, device=slices.device)
    sound = torchaudio.functional.griffinlim(
        spectrum, window, fft_samples, hop, fft_samples, 1.0, num_rounds, 0.99, None, rand_init=False
    )
    sound = torch.nn.functional.pad(sound, (max(0, -shift), 0))[:, max(0, shift) : max(0, shift) + num_samples]
    # Where the slices do not divide the frame, each stands for a little more than the hop.
    stretched = torch.nn.functional.interpolate(sound[:, None], num_frames * samples_per_frame, mode="linear")
    return stretched.reshape(*batch, num_frames, samples_per_frame)


def hop_of(samples_per_frame: int, slices_per_frame: int, fft_samples: int) -> int:
    """Samples between two slices."""
    hop = samples_per_frame // slices_per_frame
    if hop < 1 or fft_samples < samples_per_frame - (slices_per_frame - 1) * hop:
        raise ValueError(
            f"{slices_per_frame} slices of {fft_samples} samples do not cover a frame of {samples_per_frame}; "
            "raise fft_samples or slices_per_frame"
        )
    return hop


def filters_of(num_mels: int, fft_samples: int, sample_hz: int) -> Float[Tensor, "bin {num_mels}"]:
    """Triangular mel filters over the bins of a real Fourier transform."""
    return torchaudio.functional.melscale_fbanks(fft_samples // 2 + 1, 0.0, sample_hz / 2, num_mels, sample_hz)
