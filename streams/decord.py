"""The door to decord: another reader of pictures, held to the times that the container tells."""

import re
from collections.abc import Sequence
from pathlib import Path

import decord
import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from streams.closing import Closing
from streams.errors import MediaError
from streams.geometry import resize_crop
from streams.index import FrameIndex
from streams.pyav.checks import check_frames, look_at
from streams.pyav.container import media_errors
from streams.pyav.index import index_frames

# Containers round times to milliseconds at worst; decord to float32.
TOLERANCE_SECONDS = 2e-3
# Where decord was seen to give the right frames; in transport and program streams it is one off from the start on, and
# with MPEG-4 Part 2 and HEVC (open GOPs) after a seek.
CONTAINERS = {"mov", "matroska"}
CODECS = {"h264", "vp8", "vp9"}


class DecordReader(Closing):
    """Frames of one video by decord (a `streams.reader.VideoReader`).

    decord gives wrong frames without a word on some files (edit lists, open GOPs), so a file is refused unless decord
    sees the frames that the container lists, at the same times.

    Attributes:
        index: what is known of the frames.
        seconds: presentation time of every frame, relative to the start of the container.
    """

    name = "decord"

    def __init__(self, path: Path, index: FrameIndex | None = None) -> None:
        """Opens the file with one thread.

        Args:
            path: the video.
            index: given, the file is taken for whole. Otherwise all of it is decoded once by PyAV, since decord ends
                the process on some damaged files.

        Raises:
            MediaError: the file cannot be used, or not with decord.
        """
        self.path = path
        with media_errors(path):
            self.index = index or index_frames(path)
        self.seconds = self.index.seconds
        container, codec = self.index.container, self.index.codec
        if codec not in CODECS or not CONTAINERS & set(container.split(",")):
            raise MediaError(f"{path}: decord is not exact on {codec} in {container}; read it with pyav")
        if self.index.ticks[0] < 0:
            raise MediaError(f"{path}: decord is not exact on times below zero; read it with pyav")
        self.look = look_at(path)
        if self.look.mirrored:
            raise MediaError(f"{path}: decord does not mirror frames; read it with pyav")
        if index is None:
            check_frames(path, self.index)
        try:
            self.decoder: decord.VideoReader | None = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1)
            num_frames = len(self.decoder)
            # Some decoders give green frames unless the first one is decoded before any seek.
            self.decoder.get_batch([0])
            times = np.asarray(self.decoder.get_frame_timestamp(range(num_frames)), dtype=np.float64).reshape(-1, 2)[
                :, 0
            ]
        except (decord.DECORDError, RuntimeError, IndexError) as error:
            raise MediaError(f"{path}: decord cannot open it ({reason_of(error)}); read it with pyav") from error
        if num_frames != len(self.seconds):
            raise MediaError(f"{path}: decord finds {num_frames} frames of {len(self.seconds)}; read it with pyav")
        away = np.abs((times - times[0]) - (self.seconds - self.seconds[0])).max()
        if away > TOLERANCE_SECONDS:
            raise MediaError(f"{path}: decord's times are {away:.3f} s away from the container's; read it with pyav")

    def frames_at(
        self, indices: Sequence[int], size: tuple[int, int] | None = None
    ) -> UInt8[Tensor, "frame 3 height width"]:
        """Frames by their place in the order of display; see `VideoReader.frames_at`."""
        num_frames = len(self.seconds)
        if not all(0 <= index < num_frames for index in indices):
            raise IndexError(f"{self.path}: frames {list(indices)} of {num_frames}")
        assert self.decoder is not None, "frames_at after close"
        try:
            frames = self.decoder.get_batch(list(indices)).asnumpy()
        except (decord.DECORDError, RuntimeError, IndexError) as error:
            raise MediaError(f"{self.path}: decord cannot decode it ({reason_of(error)}); read it with pyav") from error
        planar = torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous()
        return planar if size is None else resize_crop(planar, *size, self.look.pixel_aspect)

    def close(self) -> None:
        """Frees the decoder."""
        self.decoder = None


def reason_of(error: Exception) -> str:
    """The first line of decord's message, without the clock and the places in its own source."""
    line = (str(error) or type(error).__name__).splitlines()[0]
    return re.sub(r"\[\d\d:\d\d:\d\d\] \S+: ", "", line)
