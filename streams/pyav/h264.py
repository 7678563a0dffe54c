"""Frames through H.264 and back in memory, to know what its bits buy (x264, by PyAV)."""

import itertools
import re
from collections.abc import Sequence
from fractions import Fraction

import av
import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

MAX_CRF = 51.0
PICTURE_UNITS = (1, 5)  # NAL units that hold coded pictures; the others are headers and remarks


def recode(
    frames: UInt8[Tensor, "frame 3 height width"], frames_per_second: float, crf: float
) -> tuple[UInt8[Tensor, "frame 3 height width"], int]:
    """What x264 makes of a clip, and the bits of its pictures without parameter sets and remarks.

    One keyframe, B-frames, preset slow, tuned for PSNR, yuv420p, one thread: the same bits every time.

    Args:
        frames: of one clip.
        frames_per_second: rate of the clip.
        crf: constant rate factor, 0 (lossless) to 51.

    Raises:
        ValueError: height or width is odd, which yuv420p cannot hold.
    """
    height, width = frames.shape[-2:]
    if height % 2 or width % 2:
        raise ValueError(f"frames are {height}x{width}: height and width must be even for H.264 in yuv420p")
    encoder = av.CodecContext.create("libx264", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    rate = Fraction(frames_per_second).limit_denominator(1001)
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.time_base, encoder.framerate = 1 / rate, rate
    encoder.gop_size = len(frames)
    encoder.options = {"crf": f"{crf:.3f}", "preset": "slow", "tune": "psnr", "threads": "1", "sc_threshold": "0"}
    # Else x264's AVX-512 code gives one clip other bits from one time to the next.
    encoder.options |= {"x264-params": "cpu-independent=1"}
    packets = []
    for number, frame in enumerate(frames.permute(0, 2, 3, 1).contiguous().numpy()):
        shown = av.VideoFrame.from_ndarray(frame, format="rgb24")
        shown.pts = number
        packets += encoder.encode(shown)
    packets += encoder.encode(None)
    return _decoded(packets), 8 * sum(picture_bytes(bytes(packet)) for packet in packets)


def picture_bytes(stream: bytes) -> int:
    """Bytes of the coded pictures in an Annex B stream, with the one byte of each unit's header."""
    starts = [(match.start(), match.end()) for match in re.finditer(rb"\x00?\x00\x00\x01", stream)]
    stops = [start for start, _ in starts[1:]] + [len(stream)]
    units = [stream[begin:stop] for (_, begin), stop in zip(starts, stops, strict=True)]
    return sum(len(unit) for unit in units if unit[0] & 31 in PICTURE_UNITS)


def _decoded(packets: Sequence[av.Packet]) -> UInt8[Tensor, "frame 3 height width"]:
    decoder = av.CodecContext.create("h264", "r")
    assert isinstance(decoder, av.VideoCodecContext)
    decoder.thread_count = 1
    shown = [*itertools.chain.from_iterable(decoder.decode(packet) for packet in packets), *decoder.decode(None)]
    pictures = np.stack([frame.to_ndarray(format="rgb24") for frame in shown])
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()
