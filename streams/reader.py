"""What every reader of pictures offers, and the choice among them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64, UInt8
from torch import Tensor


@runtime_checkable
class VideoReader(Protocol):
    """An open video.

    Attributes:
        seconds: presentation time of every frame in the order of display, relative to the start of the container (which
            the sound shares).
    """

    seconds: Float64[np.ndarray, " frame"]

    def frames_at(self, indices: Sequence[int]) -> UInt8[Tensor, "frame 3 height width"]:
        """Frames by their place in the order of display (any order, repeats allowed), upright, full size, RGB.

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


def open_video(path: Path, reader: Literal["pyav", "decord"] = "pyav") -> VideoReader:
    """Opens a video with one of the libraries; each is imported only when it is asked for.

    Raises:
        MediaError: the file cannot be used.
    """
    if reader == "pyav":
        from streams.pyav.pictures import PyAVReader

        return PyAVReader(path)
    from streams.decord import DecordReader

    return DecordReader(path)
