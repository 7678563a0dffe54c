"""Clips to measure on, spread over all that there are; what cannot be read is left out and said."""

from collections.abc import Iterator

import numpy as np

from streams.clip import Clip
from streams.errors import MediaError
from streams.videos import VideoSource


def spread_clips(source: VideoSource, count: int, left_out: list[str]) -> Iterator[Clip]:
    """Evenly spaced clips, at most `count`, read one after another.

    Args:
        source: of the clips.
        count: most clips that are read.
        left_out: a line is added for each that cannot be read.

    Raises:
        MediaError: none can be read.
    """
    count = min(count, len(source))
    found = 0
    for index in np.linspace(0, len(source) - 1, count).astype(int):
        try:
            clip = source.read(int(index), np.random.default_rng(0))
        except MediaError as error:
            left_out.append(f"left out: {error}")
            continue
        found += 1
        yield clip
    if not found:
        raise MediaError(f"none of {count} clips can be read; first reason: {left_out[0]}")
