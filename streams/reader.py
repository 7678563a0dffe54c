"""What every reader of pictures offers, and the choice among them."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64, UInt8
from torch import Tensor

from streams.addresses import Address
from streams.errors import DamageError, MediaError
from streams.index import FrameIndex
from streams.journal import Journal
from streams.settings import Library, ReaderName


@runtime_checkable
class VideoReader(Protocol):
    """An open video.

    Attributes:
        name: the library.
        index: what is known of the frames without decoding them.
    """

    name: str
    index: FrameIndex

    @property
    def seconds(self) -> Float64[np.ndarray, " frame"]:
        """Presentation time of every frame in the order of display, from the container's start, which sound shares."""
        ...

    def frames_at(
        self, indices: Sequence[int], size: tuple[int, int] | None = None
    ) -> UInt8[Tensor, "frame 3 height width"]:
        """Frames by their place in the order of display (any order, repeats allowed), upright, RGB.

        Args:
            indices: places.
            size: (height, width) to which they are cut at the centre and scaled, with square pixels; None keeps the
                pixels that are stored.

        Raises:
            MediaError: a frame cannot be decoded.
            IndexError: there is no such frame.
        """
        ...

    def close(self) -> None:
        """Frees the decoder."""
        ...

    def __enter__(self) -> "VideoReader":
        """Closes at the end of a `with`."""
        ...

    def __exit__(self, *error: object) -> None:
        """Closes."""
        ...


def open_video(
    path: Address,
    reader: ReaderName = "auto",
    index: FrameIndex | None = None,
    journal: Journal | None = None,
    size: tuple[int, int] | None = None,
) -> VideoReader:
    """Opens a video with one of the libraries; each is imported only when it is asked for.

    PyAV is right on most files and the fastest. Where it refuses one that is whole, "auto" takes the first of the
    others that does not, and counts that.

    Args:
        path: the video.
        reader: library that decodes pictures.
        index: saves reading the times of all frames, if they are known already.
        journal: counts under "fallbacks" how often another library was taken than PyAV; takes the time of scaling.
        size: (height, width) at which frames will be read, if it is known; another stays possible.

    Raises:
        MediaError: the file cannot be used.
    """
    if reader != "auto":
        return open_with(reader, path, index, journal, size)
    try:
        return open_with("pyav", path, index, journal, size)
    except DamageError:
        # Others show damaged frames without a word, or end the process.
        raise
    except MediaError:
        for other in ("torchcodec", "decord"):
            with suppress(MediaError):
                opened = open_with(other, path, index, journal, size)
                if journal is not None:
                    journal.count("fallbacks")
                return opened
        raise


def open_with(
    reader: Library,
    path: Address,
    index: FrameIndex | None = None,
    journal: Journal | None = None,
    size: tuple[int, int] | None = None,
) -> VideoReader:
    """Opens a video with this library, or raises MediaError; see `open_video`."""
    if reader == "pyav":
        from streams.pyav.pictures import PyAVReader

        return PyAVReader(path, index, journal, size)
    if not isinstance(path, Path):
        raise MediaError(f"{path}: {reader} reads local files alone; read it with pyav")
    if reader == "torchcodec":
        from streams.torchcodec import TorchCodecReader

        return TorchCodecReader(path, index)
    from streams.decord import DecordReader

    return DecordReader(path, index)
