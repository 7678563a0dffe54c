"""Codes to films for people: decoded clips, film strips of truth and rollouts, and how close they are."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from PIL import Image
from torch import Tensor

from streams.clip import Batch, Clip, to_float, to_uint8
from streams.mel import log_mel
from streams.settings import ClipSettings
from worldmodel.codecs.sound import SoundVQ
from worldmodel.codecs.store import PictureCodec
from worldmodel.evaluation.metrics import psnr
from worldmodel.evaluation.pictures import film_strip
from worldmodel.rollouts.moment import FrameModel

HORIZONS = (1, 2, 4, 8, 16, 32)  # at which rollouts are compared to the truth
MAX_COLUMNS, CELL_PIXELS = 16, 96  # of a film strip that stays readable
MAX_ROLLOUTS_SHOWN = 8
DECODED_FRAMES = 32  # at a time, so that the length of a rollout costs no memory while decoding
WATCHED_PIXELS = 256  # the shorter side of a written video, at least
NUM_MELS, SLICES_PER_FRAME, FFT_SAMPLES = 32, 8, 1024  # of the pictures of sound


@runtime_checkable
class CodedModel(Protocol):
    """A world model and the codecs of its codes, as `worldmodel.run.load_run` gives them."""

    @property
    def model(self) -> FrameModel:
        """The world model."""
        ...

    @property
    def picture(self) -> PictureCodec:
        """Codec of the frames."""
        ...

    @property
    def sound(self) -> SoundVQ | None:
        """Codec of the sound, if the model hears."""
        ...


def encode_clips(coded: CodedModel, batch: Batch) -> Int[Tensor, "batch frame code"]:
    """Rows of codes of clips, picture then sound, in the order of their frames."""
    codes = [coded.picture.encode(to_float(batch.frames))]
    if coded.sound is not None:
        codes.append(coded.sound.encode(batch.sound))
    return torch.cat(codes, 2)


def decode_clips(coded: CodedModel, codes: Int[Tensor, "batch frame code"], start_seconds: float = 0.0) -> list[Clip]:
    """What the codes of clips look and sound like; on the CPU."""
    picture, sound = coded.picture, coded.sound
    num_picture = picture.pyramid.num_codes
    parts = codes[..., :num_picture].split(DECODED_FRAMES, 1)
    frames = torch.cat([to_uint8(picture.decode(part)).cpu() for part in parts], 1)
    heard = None if sound is None else sound.decode(codes[..., num_picture:]).float().cpu()
    seconds = start_seconds + torch.arange(codes.shape[1], dtype=torch.float64) / picture.clips.frames_per_second
    return [
        Clip(frames[clip], seconds, None if heard is None else heard[clip], f"rollout {clip}")
        for clip in range(len(codes))
    ]


def joined_sound(clip: Clip, clips: ClipSettings) -> Float32[Tensor, " sample"] | None:
    """The sound of a clip in one piece."""
    return None if clip.sound is None else join_frames(clip.sound, clips)


def join_frames(sound: Float[Tensor, "frame slice"], clips: ClipSettings, first: int = 0) -> Float32[Tensor, " sample"]:
    """Sound of frames in one piece; `first` is the number of the first of them in its video."""
    starts = sample_starts(first, len(sound), clips)
    joined = torch.zeros(int(starts[-1]), dtype=torch.float32)
    for start, samples in zip(starts, sound, strict=False):
        part = joined[start : start + len(samples)]
        part.copy_(samples[: len(part)])
    return joined


def sample_starts(first: int, num_frames: int, clips: ClipSettings) -> Int[np.ndarray, " start"]:
    """Samples at which frames begin, and the last one ends, counted from the first of them.

    Each is the one nearest to its frame's time in the video, so that nothing drifts.
    """
    times = np.arange(first, first + num_frames + 1) / clips.frames_per_second
    starts = np.rint(times * clips.sample_hz).astype(int)
    return starts - starts[0]


def watchable(height: int, width: int) -> int:
    """How often pixels are repeated until the shorter side has 256 and both sides are even, as H.264 needs."""
    factor = max(1, -(-WATCHED_PIXELS // min(height, width)))
    return factor + 1 if factor % 2 and (height % 2 or width % 2) else factor


def strip_of(rows: dict[str, Clip], num_context: int | None, clips: ClipSettings) -> Image.Image:
    """Film strip of clips and their sound, with a line where imagination begins; at most 16 columns.

    Args:
        rows: clips by label, all from the same time on.
        num_context: frames that were not imagined; None if nothing was, and there is no line.
        clips: how the clips were sampled.
    """
    every = -(-max(len(clip.frames) for clip in rows.values()) // MAX_COLUMNS)
    height, width = next(iter(rows.values())).frames.shape[-2:]
    heard = {label: clip.sound for label, clip in rows.items() if clip.sound is not None}
    return film_strip(
        {label: clip.frames for label, clip in rows.items()},
        every,
        max(1, round(CELL_PIXELS / max(height, width))),
        num_context,
        clips.frames_per_second,
        {f"{label}, sound": mel_of(sound, clips.sample_hz) for label, sound in heard.items()},
        # The first imagined frame is always shown, at the line.
        first=(num_context or 0) % every,
    )


def mel_of(sound: Float[Tensor, "frame sample"], sample_hz: int) -> Float[Tensor, "frame mel slice"]:
    """Log-mel slices of sound for a picture; they cover every sample at any frame rate."""
    samples_per_frame = sound.shape[1]
    slices = min(SLICES_PER_FRAME, samples_per_frame)
    uncovered = samples_per_frame - (slices - 1) * (samples_per_frame // slices)
    return log_mel(sound, NUM_MELS, slices, max(FFT_SAMPLES, uncovered), sample_hz)


def compare(truth: Clip, rollouts: Sequence[Clip], num_context: int) -> dict[str, dict[int, float]]:
    """PSNR in decibels of frames at several horizons, mean of the rollouts, beside that of copying the last frame.

    Args:
        truth: the video from the first context frame on, perhaps shorter than the rollouts.
        rollouts: clips from the same frame on.
        num_context: frames that were not imagined.

    Returns:
        By method (rollout, copy last frame) and horizon; nothing where the truth ends before the first.
    """
    last = truth.frames[num_context - 1]
    longest = min(len(truth.frames), len(rollouts[0].frames)) - num_context
    result: dict[str, dict[int, float]] = {"rollout": {}, "copy last frame": {}}
    for horizon in (horizon for horizon in HORIZONS if horizon <= longest):
        wanted = truth.frames[num_context + horizon - 1]
        imagined = torch.stack([clip.frames[num_context + horizon - 1] for clip in rollouts])
        result["rollout"][horizon] = float(psnr(imagined, wanted.expand_as(imagined)).mean())
        result["copy last frame"][horizon] = float(psnr(last, wanted))
    return result


def label_rollouts(truth: Clip | None, rollouts: Sequence[Clip]) -> dict[str, Clip]:
    """Rows of a film strip: the truth, if there is one, and the first few rollouts."""
    rows = {} if truth is None else {"truth": truth}
    names = ["rollout"] if len(rollouts) == 1 else [f"rollout {number}" for number in range(len(rollouts))]
    return rows | dict(list(zip(names, rollouts, strict=True))[:MAX_ROLLOUTS_SHOWN])
