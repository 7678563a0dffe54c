"""The door to torchcodec: another reader of pictures, held to the times that the container tells."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from streams.closing import Closing
from streams.errors import MediaError
from streams.geometry import resize_crop
from streams.index import FrameIndex
from streams.pyav.checks import check_frames, look_at
from streams.pyav.container import media_errors
from streams.pyav.index import index_frames

# Containers round times to milliseconds at worst.
TOLERANCE_SECONDS = 2e-3
# Where torchcodec was seen to give the right frames. In transport and program streams and AVIs with B-frames it loses
# the end, and some of their files hang it.
CONTAINERS = {"mov", "matroska"}
CODECS = {"h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mjpeg"}


class TorchCodecReader(Closing):
    """Frames of one video by torchcodec's exact mode (a `streams.reader.VideoReader`).

    Every frame that it gives must have the time that the container lists for it.

    Attributes:
        index: what is known of the frames.
        seconds: presentation time of every frame, relative to the start of the container.
    """

    name = "torchcodec"

    def __init__(self, path: Path, index: FrameIndex | None = None) -> None:
        """Opens the file with one thread.

        Args:
            path: the video.
            index: given, the file is taken for whole. Otherwise all of it is decoded once by PyAV, since torchcodec
                shows damaged frames without a word.

        Raises:
            MediaError: the file cannot be used, or not with torchcodec, or torchcodec is not there.
        """
        self.path = path
        with media_errors(path):
            self.index = index or index_frames(path)
        self.seconds = self.index.seconds
        container, codec = self.index.container, self.index.codec
        if codec not in CODECS or not CONTAINERS & set(container.split(",")):
            raise MediaError(f"{path}: torchcodec is not exact on {codec} in {container}; read it with pyav")
        self.look = look_at(path)
        if self.look.mirrored:
            raise MediaError(f"{path}: torchcodec does not mirror frames; read it with pyav")
        if index is None:
            check_frames(path, self.index)
        try:
            from torchcodec.decoders import VideoDecoder  # pyright: ignore[reportPrivateImportUsage]

            self.decoder: VideoDecoder | None = VideoDecoder(
                str(path), stream_index=self.look.track, seek_mode="exact", num_ffmpeg_threads=1
            )
        except ImportError as error:
            raise MediaError(f"{path}: torchcodec is not installed ({error}); read it with pyav") from error
        except (RuntimeError, ValueError) as error:
            raise MediaError(f"{path}: torchcodec cannot open it ({reason_of(error)}); read it with pyav") from error
        if len(self.decoder) != len(self.seconds):
            raise MediaError(
                f"{path}: torchcodec finds {len(self.decoder)} frames of {len(self.seconds)}; read it with pyav"
            )
        # Some decoders give green frames unless the first one is decoded before any seek.
        self.frames_at([0])

    def frames_at(
        self, indices: Sequence[int], size: tuple[int, int] | None = None
    ) -> UInt8[Tensor, "frame 3 height width"]:
        """Frames by their place in the order of display; see `VideoReader.frames_at`."""
        num_frames = len(self.seconds)
        if not all(0 <= index < num_frames for index in indices):
            raise IndexError(f"{self.path}: frames {list(indices)} of {num_frames}")
        assert self.decoder is not None, "frames_at after close"
        try:
            batch = self.decoder.get_frames_at(list(indices))
        except RuntimeError as error:
            reason = reason_of(error)
            raise MediaError(f"{self.path}: torchcodec cannot decode it ({reason}); read it with pyav") from error
        expected = self.seconds[list(indices)] + float(self.index.start_seconds)
        away = np.abs(batch.pts_seconds.numpy() - expected).max()
        if away > TOLERANCE_SECONDS:
            raise MediaError(f"{self.path}: torchcodec's times are {away:.3f} s away; read it with pyav")
        frames = batch.data.contiguous()
        return frames if size is None else resize_crop(frames, *size, self.look.pixel_aspect)

    def close(self) -> None:
        """Frees the decoder."""
        self.decoder = None


def reason_of(error: Exception) -> str:
    """The end of the first line of torchcodec's message, without the places in its own source."""
    line = (str(error) or type(error).__name__).splitlines()[0]
    return line.rpartition(".cpp:")[2].lstrip("0123456789, ") or line
