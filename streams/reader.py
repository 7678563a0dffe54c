"""What every reader of pictures offers, and the choice among them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64, UInt8
from torch import Tensor

from streams.addresses import Address
from streams.errors import MediaError
from streams.index import FrameIndex


@runtime_checkable
class VideoReader(Protocol):
    """An open video.

    Attributes:
        index: what is known of the frames without decoding them.
    """

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
            size: (height, width) to which they are cut at the centre and scaled; None keeps the pixels that are stored.

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


def open_video(path: Address, reader: Literal["pyav", "decord"] = "pyav") -> VideoReader:
    """Opens a video with one of the libraries; each is imported only when it is asked for.

    Raises:
        MediaError: the file cannot be used.
    """
    if reader == "pyav":
        from streams.pyav.pictures import PyAVReader

        return PyAVReader(path)
    if not isinstance(path, Path):
        raise MediaError(f"{path}: decord reads local files alone; read it with pyav")
    from streams.decord import DecordReader

    return DecordReader(path)
