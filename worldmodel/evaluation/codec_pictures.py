"""Picture codecs on the same frames: quality, bits, what JPEG and H.264 make of those bits, and a picture of it all."""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from streams.clip import to_float, to_uint8
from streams.geometry import structural_similarity
from streams.settings import ClipSettings
from worldmodel.cache.code_statistics import StillStatistics
from worldmodel.evaluation.codec_measures import Coded, mean_over_videos, measure_codes, through
from worldmodel.evaluation.metrics import psnr
from worldmodel.evaluation.pictures import film_strip
from worldmodel.evaluation.references import Reference, h264_with, jpeg_with
from worldmodel.layout import Pyramid

MAX_PSNR = 60.0  # dB; frames that are equal do not decide the mean
NUM_SHOWN, CELL_PIXELS = 8, 112

Clips = UInt8[Tensor, "clip frame 3 height width"]


@runtime_checkable
class PictureCodec(Protocol):
    """A codec of frames, as `worldmodel.codecs.store.load_codec` gives it."""

    @property
    def clips(self) -> ClipSettings:
        """How the clips were sampled that it was made for."""
        ...

    @property
    def pyramid(self) -> Pyramid:
        """Layout of the codes of one frame."""
        ...

    def encode(self, frames: Tensor, /) -> Tensor:
        """Codes of clips, frames from -1 to 1."""
        ...

    def decode(self, codes: Tensor, num_scales: int | None = None, /) -> Tensor:
        """Frames of codes, from the first scales."""
        ...


@dataclass(frozen=True)
class MeasuredPictures:
    """One codec's row, and what is drawn of it."""

    measures: dict[str, Any]
    coded: Coded
    references: dict[str, Reference]


def measure_pictures(
    codec: PictureCodec, clips: Clips, videos: list[str], device: torch.device, seed: int
) -> MeasuredPictures:
    """Everything that is measured of a picture codec.

    JPEG codes every frame alone, so it is given the bits of the model `alone`; H.264 looks back, so it is given those
    of the cheaper model.

    Args:
        codec: on the device.
        clips: held-out frames.
        videos: the video of each clip.
        device: where the codec is.
        seed: of the bootstrap.
    """
    coded = through(
        clips,
        lambda frames: codec.encode(to_float(frames)),
        lambda codes: to_uint8(codec.decode(codes)),
        device,
    )
    measures = measure_codes(codec.pyramid, coded)
    bits, (height, width) = measures["bits_per_frame"], clips.shape[-2:]
    rate = codec.clips.frames_per_second
    references = {"jpeg": jpeg_with(clips, bits["alone"])}
    if height % 2 == 0 and width % 2 == 0:
        references["h264"] = h264_with(clips, rate, min(bits.values()))
    still = StillStatistics(codec.pyramid)
    still.add(coded.codes, clips)
    measures |= {
        "bits_per_pixel": min(bits.values()) / (height * width),
        "still_finest_codes": still.summary(),
        **quality_of(coded.decoded, clips, videos, seed),
        **{name: _described(each, clips, videos, seed) for name, each in references.items()},
    }
    return MeasuredPictures(measures, coded, references)


def quality_of(frames: Clips, clips: Clips, videos: list[str], seed: int) -> dict[str, Any]:
    """PSNR in decibels (capped at 60 for a frame) and SSIM of frames, with intervals."""
    similar = torch.stack([structural_similarity(*pair) for pair in zip(frames, clips, strict=True)])
    return {
        "psnr": mean_over_videos(psnr(frames, clips).clip(max=MAX_PSNR).mean(1), videos, seed),
        "ssim": mean_over_videos(similar.mean(1).double().numpy(), videos, seed),
    }


def picture_of(
    codecs: dict[str, tuple[PictureCodec, MeasuredPictures]], clips: Clips, device: torch.device
) -> Image.Image:
    """Single frames of several clips through every codec and through JPEG and H.264; below, scale after scale.

    Args:
        codecs: by name, all of one size.
        clips: the truth.
        device: where the codecs are.
    """
    frame = clips.shape[1] // 2
    chosen = np.linspace(0, len(clips) - 1, min(NUM_SHOWN, len(clips))).astype(int)
    truth, whole, by_scale = clips[chosen, frame], {}, {}
    for name, (codec, measured) in codecs.items():
        whole[f"{name}, {_bits(measured)}"] = measured.coded.decoded[chosen, frame]
        codes = torch.from_numpy(measured.coded.codes[chosen, frame][:, None])
        num_scales = len(codec.pyramid.scales)
        for scale in range(1, num_scales + 1):
            part = codec.decode(codes.to(device), scale)
            by_scale[f"{name}, {scale} of {num_scales} scales"] = to_uint8(part)[:, 0].cpu()
    for name, (_, measured) in codecs.items():
        for label, reference in measured.references.items():
            title = {"jpeg": "JPEG", "h264": "H.264"}[label]
            row = f"{title} for {name}, {reference.bits_per_frame:.0f} bits"
            whole[row] = reference.frames[chosen, frame]
    scale_up = max(1, round(CELL_PIXELS / max(truth.shape[-2:])))
    return film_strip({"truth": truth} | whole | by_scale, scale_up=scale_up)


def _described(reference: Reference, clips: Clips, videos: list[str], seed: int) -> dict[str, Any]:
    return {
        "bits_per_frame": reference.bits_per_frame,
        "setting": reference.setting,
        "fits": reference.fits,
        **quality_of(reference.frames, clips, videos, seed),
    }


def _bits(measured: MeasuredPictures) -> str:
    return f"{min(measured.measures['bits_per_frame'].values()):.0f} bits"
