"""Sound codecs on the same clips: spectral distance, when events are heard, bits."""

from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from streams.settings import ClipSettings
from worldmodel.evaluation.codec_measures import Coded, mean_over_videos, measure_codes, through
from worldmodel.evaluation.films import mel_of
from worldmodel.evaluation.sound_measures import floor_of, log_spectral_distance, match_onsets, onsets_of
from worldmodel.layout import Pyramid

NUM_SHOWN = 3  # clips in the picture


@runtime_checkable
class SoundCodec(Protocol):
    """A codec of sound, as `worldmodel.codecs.store.load_codec` gives it."""

    @property
    def clips(self) -> ClipSettings:
        """How the clips were sampled that it was made for."""
        ...

    @property
    def pyramid(self) -> Pyramid:
        """Layout of the codes of one frame's sound."""
        ...

    def encode(self, sound: Tensor, /) -> Tensor:
        """Codes of the sound of clips."""
        ...

    def decode(self, codes: Tensor, /) -> Tensor:
        """Waveforms of codes."""
        ...


def measure_sound(
    codec: SoundCodec, sound: Float[Tensor, "clip frame sample"], videos: list[str], device: torch.device, seed: int
) -> tuple[dict[str, Any], Coded]:
    """Everything that is measured of a sound codec, and what it makes of the clips.

    Args:
        codec: on the device.
        sound: of held-out clips.
        videos: the video of each clip.
        device: where the codec is.
        seed: of the bootstrap.
    """
    coded = through(sound, codec.encode, codec.decode, device)
    measures = measure_codes(codec.pyramid, coded)
    hz, truth, decoded = codec.clips.sample_hz, sound.flatten(1), coded.decoded.flatten(1)
    distances = log_spectral_distance(decoded, truth, hz).double().numpy()
    return measures | {
        "log_spectral_distance_db": mean_over_videos(distances, videos, seed),
        "onsets": measure_onsets(decoded, truth, hz),
    }, coded


def measure_onsets(
    decoded: Float[Tensor, "clip sample"], truth: Float[Tensor, "clip sample"], sample_hz: int
) -> dict[str, Any]:
    """By how many milliseconds onsets are off (None where none was matched), how many are missed and how many extra.

    The floor of every clip is that of the truth.
    """
    errors, num_truth, num_missed, num_extra = [np.zeros(0)], 0, 0, 0
    for sound, reference in zip(decoded, truth, strict=True):
        floor = floor_of(reference, sample_hz)
        heard = onsets_of(reference, sample_hz, floor)
        matched = match_onsets(onsets_of(sound, sample_hz, floor), heard)
        errors.append(np.abs(matched.errors))
        num_truth += len(heard)
        num_missed += matched.num_missed
        num_extra += matched.num_extra
    away = 1000 * np.concatenate(errors)
    return {
        "num_truth": num_truth,
        "num_missed": num_missed,
        "num_extra": num_extra,
        "median_error_ms": float(np.median(away)) if len(away) else None,
        "error_ms_95": float(np.quantile(away, 0.95)) if len(away) else None,
    }


def mels_to_show(
    codecs: dict[str, Coded], sound: Float[Tensor, "clip frame sample"], videos: list[str], sample_hz: int
) -> dict[str, list[Float[np.ndarray, "mel slice"]]]:
    """Log-mel spectra of some clips, by name: of the truth and of what each codec makes of it.

    Those whose loudness varies most from frame to frame, one of a video.
    """
    liveliest = sound.square().mean(2).sqrt().std(1).argsort(descending=True).tolist()
    chosen = list({videos[clip]: clip for clip in reversed(liveliest)}.values())
    chosen = sorted(sorted(chosen, key=liveliest.index)[:NUM_SHOWN])
    rows = {"truth": sound} | {name: coded.decoded for name, coded in codecs.items()}
    return {name: [joined(mel_of(row[clip].float(), sample_hz)) for clip in chosen] for name, row in rows.items()}


def joined(mel: Float[Tensor, "frame mel slice"]) -> Float[np.ndarray, "mel all_slices"]:
    """The slices of all frames in one row."""
    return mel.movedim(0, 1).flatten(1).numpy(force=True)
