"""Previews during training: rollouts beside the truth, as pictures and sound for TensorBoard."""

from dataclasses import replace
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, Int, UInt8
from PIL import Image
from torch import Tensor

from streams.clip import Batch, Clip
from streams.geometry import resize_crop
from streams.settings import ClipSettings
from worldmodel.cache.latents import CodeBatch
from worldmodel.evaluation.films import CodedModel, decode_clips, encode_clips, joined_sound, strip_of
from worldmodel.evaluation.pictures import side_by_side
from worldmodel.rollouts.rollout import roll_out
from worldmodel.settings import SamplingSettings


class Preview(NamedTuple):
    """Pictures and sound of rollouts for TensorBoard.

    Attributes:
        strip: film strip, rows of truth and rollout of some clips.
        frames: film of truth and rollouts side by side.
        sound: of the first rollout, its context included.
        reconstruction: film strip, rows of the frames and of what the codec makes of them (the limit of any rollout).
    """

    strip: UInt8[Tensor, "height width 3"]
    frames: UInt8[Tensor, "frame 3 height width"]
    sound: Float32[Tensor, " sample"] | None
    reconstruction: UInt8[Tensor, "height width 3"]


def preview_pictures(
    coded: CodedModel,
    batch: Batch | CodeBatch,
    horizon: int,
    num_clips: int = 2,
    sampling: SamplingSettings | None = None,
    seed: int = 0,
) -> Preview:
    """Rollouts of the first clips of a batch beside the truth. No global random state is touched.

    Args:
        coded: the world model, in evaluation mode, and its codecs, on the batch's device.
        batch: clips, or their codes: then the truth beside the rollout is what the codecs make of them.
        horizon: how many of a clip's last frames are imagined; one frame of context remains at least.
        num_clips: clips shown.
        sampling: how codes are drawn.
        seed: of the draws.

    Raises:
        ValueError: the clips have one frame, or the horizon none.
    """
    codes = _codes_of(coded, batch)[:num_clips]
    num_context = max(1, codes.shape[1] - horizon)
    if horizon < 1 or codes.shape[1] < 2:
        raise ValueError(f"a horizon of {horizon} in clips of {codes.shape[1]} frames: 1 and 2 are needed at least")
    generator = torch.Generator(codes.device).manual_seed(seed)
    imagined = roll_out(
        coded.model, codes[:, :num_context], batch.has_sound[:num_clips], sampling or SamplingSettings(), generator
    )
    frames = [*codes[:, :num_context].unbind(1), *islice(imagined, codes.shape[1] - num_context)]
    rollouts, rebuilt = decode_clips(coded, torch.stack(frames, 1)), decode_clips(coded, codes)
    truths = _truths_of(batch, rebuilt) if isinstance(batch, Batch) else rebuilt
    clips = coded.picture.clips
    rows = _pairs("truth", truths, "rollout", rollouts)
    return Preview(
        strip=_tensor(strip_of(rows, num_context, clips)),
        frames=side_by_side([clip.frames for clip in rows.values()]),
        sound=joined_sound(rollouts[0], clips),
        reconstruction=_reconstruction(batch, rebuilt, clips),
    )


def _codes_of(coded: CodedModel, batch: Batch | CodeBatch) -> Int[Tensor, "batch frame code"]:
    if isinstance(batch, Batch):
        return encode_clips(coded, batch)
    return batch.picture if coded.sound is None else torch.cat((batch.picture, batch.sound), 2)


def _truths_of(batch: Batch, rebuilt: list[Clip]) -> list[Clip]:
    """The first clips as they really are; with sound if the codecs have it."""
    return [
        replace(clip, frames=frames.cpu(), sound=None if clip.sound is None else sound.cpu())
        for clip, frames, sound in zip(rebuilt, batch.frames, batch.sound, strict=False)
    ]


def _reconstruction(
    batch: Batch | CodeBatch, rebuilt: list[Clip], clips: ClipSettings
) -> UInt8[Tensor, "height width 3"]:
    """Of cached clips there are only thumbnails to compare with: then what the codec makes is shown as small."""
    frames = (batch.frames if isinstance(batch, Batch) else batch.thumbnails).cpu()
    height, width = frames.shape[-2:]
    silent = [replace(clip, sound=None) for clip in rebuilt]
    real = [replace(clip, frames=real) for clip, real in zip(silent, frames, strict=False)]
    small = [replace(clip, frames=resize_crop(clip.frames, height, width)) for clip in silent]
    return _tensor(strip_of(_pairs("frames", real, "codec", small), None, clips))


def _pairs(one: str, clips: list[Clip], other: str, others: list[Clip]) -> dict[str, Clip]:
    """Rows of a film strip, every clip above its counterpart."""
    rows = {}
    for number, (clip, counterpart) in enumerate(zip(clips, others, strict=True)):
        rows |= {f"{one} {number}": clip, f"{other} {number}": counterpart}
    return rows


def _tensor(picture: Image.Image) -> UInt8[Tensor, "height width 3"]:
    return torch.from_numpy(np.array(picture))
