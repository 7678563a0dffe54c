"""The times of all frames, from the packets alone where the container tells them."""

from fractions import Fraction

import numpy as np

from streams.addresses import Address
from streams.errors import MediaError
from streams.index import FrameIndex
from streams.pyav.container import open_container, packets, picture_track


def index_frames(path: Address, decode: bool = False) -> FrameIndex:
    """Reads the times of all frames, by default from the packets alone.

    Args:
        path: the video.
        decode: take the times from the decoded frames, for containers that do not tell the time of every packet.
    """
    with open_container(path) as container:
        track = picture_track(container, path)
        shown: list[int | None] = []
        keys: list[int] = []
        for packet in packets(container, track):
            if decode:
                shown.extend(frame.pts for frame in packet.decode())
            elif packet.size:
                # Edit lists hide frames that others still need: a hidden keyframe can be sought, but is not shown.
                shown.extend([] if packet.is_discard else [packet.pts])
                keys.extend([packet.pts] if packet.is_keyframe and packet.pts is not None else [])
        known = [ticks for ticks in shown if ticks is not None]
        if len(known) < len(shown) and not decode:
            return index_frames(path, decode=True)
        if not known or len(known) < len(shown):
            raise MediaError(
                f"{path}: {len(shown)} frames, {len(known)} of them with a time; write it anew with ffmpeg"
            )
        if decode and known != sorted(known):
            raise MediaError(f"{path}: its frames do not come in the order of their times; write it anew with ffmpeg")
        keys = sorted(set(keys)) or [min(known)]
        ticks = sorted({tick for tick in known if tick >= keys[0]})
        time_base = track.time_base or Fraction(1)
        start = ticks[0] * time_base if container.start_time is None else Fraction(container.start_time, 1_000_000)
        return FrameIndex(
            ticks=np.array(ticks, dtype=np.int64),
            keys=np.array(keys, dtype=np.int64),
            tick_seconds=time_base,
            start_seconds=start,
            container=container.format.name,
            codec=track.codec_context.name,
            decoded=decode,
        )
