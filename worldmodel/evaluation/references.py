"""What well-known codecs make of the same frames with the same bits: JPEG (libjpeg, by Pillow) and H.264 (x264)."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from streams.pyav.h264 import MAX_CRF, recode
from worldmodel.evaluation.metrics import psnr
from worldmodel.evaluation.pictures import frame_pictures

MAX_QUALITY = 95  # libjpeg's advice; beyond it files grow and pictures do not
SHRINKS = (1, 2, 4)  # a small picture enlarged is often better than a large one with few bits
CRF_ROUNDS = 11
SCAN, HUFFMAN, END = 0xDA, 0xC4, b"\xff\xd9"  # second bytes of markers, and the last marker

Clips = UInt8[Tensor, "clip frame 3 height width"]


@dataclass(frozen=True)
class Reference:
    """Frames of a well-known codec.

    Attributes:
        frames: what it makes of them.
        bits_per_frame: what it took, headers left out.
        setting: with which it did.
        fits: whether that is at most what it was given; if not, it is the least it can do with.
    """

    frames: Clips
    bits_per_frame: float
    setting: str
    fits: bool


def jpeg_with(clips: Clips, bits_per_frame: float) -> Reference:
    """Every frame as a JPEG, the best of three sizes, with one quality for all frames and one more for some of them.

    What is the same for all files is given for nothing, as the weights of a learned codec are: headers, quantisation
    tables and the standard's Huffman tables. Each file has those or its own, which count, whichever is smaller.

    Args:
        clips: frames.
        bits_per_frame: mean over all frames that is not exceeded, if JPEG can do with it.
    """
    tried = [_jpeg_of_size(clips, shrink, bits_per_frame) for shrink in tqdm(SHRINKS, "JPEG", unit="size", leave=False)]
    fitting = [each for each in tried if each.fits] or [min(tried, key=lambda each: each.bits_per_frame)]
    return max(fitting, key=lambda each: psnr(each.frames, clips).clip(max=60.0).mean())


def h264_with(clips: Clips, frames_per_second: float, bits_per_frame: float) -> Reference:
    """Every clip as a film of one keyframe, with one rate factor for all clips (see `streams.pyav.h264`).

    Args:
        clips: frames, of even height and width.
        frames_per_second: rate of the clips.
        bits_per_frame: mean over all frames that is not exceeded, if H.264 can do with it.

    Raises:
        ValueError: height or width is odd.
    """
    num_frames = clips.shape[0] * clips.shape[1]

    def attempt(crf: float) -> tuple[Tensor, float]:
        films = [recode(clip, frames_per_second, crf) for clip in clips]
        return torch.stack([film for film, _ in films]), sum(bits for _, bits in films) / num_frames

    low, high, best = 0.0, MAX_CRF, MAX_CRF
    frames, bits = attempt(high)
    for _ in tqdm(range(CRF_ROUNDS), "H.264", unit="rate", leave=False):
        middle = (low + high) / 2
        tried, needed = attempt(middle)
        if needed > bits_per_frame:
            low = middle
            continue
        high = best = middle
        frames, bits = tried, needed
    return Reference(frames, bits, f"crf {best:.1f}", bits <= bits_per_frame)


def coded_bits(jpeg: bytes) -> int:
    """Bits of a baseline JPEG that its picture decides: the data of its scan, and Huffman tables of its own.

    A decoder knows the standard's tables (ITU-T T.81, annex K.3) beforehand, but not those made for one file.
    """
    segments, scan = _segments(jpeg)
    own = [segment for segment in segments if segment[1] == HUFFMAN and segment not in standard_tables()]
    return 8 * (len(jpeg) - scan - len(END) + sum(map(len, own)))


@cache
def standard_tables() -> frozenset[bytes]:
    """Segments of the Huffman tables that libjpeg writes if it makes none of its own."""
    segments, _ = _segments(_file(Image.new("RGB", (8, 8)), 50, optimize=False))
    return frozenset(segment for segment in segments if segment[1] == HUFFMAN)


def _segments(jpeg: bytes) -> tuple[list[bytes], int]:
    """All segments between the start marker and the scan's data, with their markers, and where the data begin."""
    place, found = 2, list[bytes]()
    while not found or found[-1][1] != SCAN:
        stop = place + 2 + int.from_bytes(jpeg[place + 2 : place + 4], "big")
        found.append(jpeg[place:stop])
        place = stop
    return found, place


def _jpeg_of_size(clips: Clips, shrink: int, bits_per_frame: float) -> Reference:
    """The largest quality that fits, and the next one for as many frames as still do."""
    height, width = clips.shape[-2:]
    size = max(1, width // shrink), max(1, height // shrink)
    small = [film.resize(size, Image.Resampling.LANCZOS) for film in frame_pictures(clips.flatten(0, 1))]

    @cache
    def files(quality: int) -> list[bytes]:
        return [_jpeg(picture, quality) for picture in small]

    def mean_bits(quality: int) -> float:
        return float(np.mean([coded_bits(file) for file in files(quality)]))

    quality = _largest(lambda quality: mean_bits(quality) <= bits_per_frame, 1, MAX_QUALITY)
    chosen = files(quality)
    if quality < MAX_QUALITY:
        share = (bits_per_frame - mean_bits(quality)) / max(1e-9, mean_bits(quality + 1) - mean_bits(quality))
        chosen = _with_some_better(chosen, files(quality + 1), bits_per_frame, share)
    shown = [Image.open(io.BytesIO(file)).convert("RGB") for file in chosen]
    pictures = np.stack([np.asarray(each.resize((width, height), Image.Resampling.BICUBIC)) for each in shown])
    frames = torch.from_numpy(pictures).permute(0, 3, 1, 2).unflatten(0, clips.shape[:2])
    bits = float(np.mean([coded_bits(file) for file in chosen]))
    return Reference(frames, bits, f"quality {quality}, {size[0]}x{size[1]}", bits <= bits_per_frame)


def _with_some_better(chosen: list[bytes], better: list[bytes], bits_per_frame: float, share: float) -> list[bytes]:
    """A share of the files, spread evenly, replaced by better ones while the mean stays within its bits."""
    mixed, spare = list(chosen), bits_per_frame * len(chosen) - sum(map(coded_bits, chosen))
    for number in range(len(chosen)):
        more = coded_bits(better[number]) - coded_bits(chosen[number])
        if int((number + 1) * share) > int(number * share) and more <= spare:
            mixed[number], spare = better[number], spare - more
    return mixed


def _jpeg(picture: Image.Image, quality: int) -> bytes:
    """The smaller of two files: with the standard's Huffman tables, or with its own."""
    return min((_file(picture, quality, optimize) for optimize in (False, True)), key=coded_bits)


def _file(picture: Image.Image, quality: int, optimize: bool) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality, optimize=optimize)
    return buffer.getvalue()


def _largest(fits: Callable[[int], bool], low: int, high: int) -> int:
    """The largest number up to `high` that fits, if all below it do; `low` if none does."""
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
