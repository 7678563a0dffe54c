"""What is known of a file's frames without decoding them."""

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
from jaxtyping import Float64, Int64


@dataclass(frozen=True, eq=False)
class FrameIndex:
    """The frames that a file shows, in ticks of its picture track's clock.

    Attributes:
        ticks: presentation time of every frame shown, increasing.
        keys: presentation times of the keyframes, increasing; hidden ones (edit lists) included.
        tick_seconds: length of a tick.
        start_seconds: time of the container's start, which sound and pictures share.
        container: FFmpeg's names of the container's format, with commas.
        codec: FFmpeg's name of the pictures' codec.
        decoded: whether the times came from decoding, since the packets do not tell them.
    """

    ticks: Int64[np.ndarray, " frame"]
    keys: Int64[np.ndarray, " key"]
    tick_seconds: Fraction
    start_seconds: Fraction
    container: str
    codec: str
    decoded: bool = False

    @cached_property
    def seconds(self) -> Float64[np.ndarray, " frame"]:
        """Presentation times since the start of the container."""
        ticks = self.ticks * self.tick_seconds.numerator / self.tick_seconds.denominator
        return ticks - float(self.start_seconds)

    @cached_property
    def longest_group(self) -> int:
        """Frames from one keyframe to the next, at most."""
        places = self.ticks.searchsorted(self.keys)
        return int(np.diff(places, append=len(self.ticks)).max())
