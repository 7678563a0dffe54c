"""The times of all frames, from the packets alone where the container tells them."""

from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError

from streams.addresses import Address
from streams.errors import MediaError
from streams.index import FrameIndex
from streams.pyav.container import codec_of, frames_of, lacks_times, open_container, packets, picture_track, read_only

# A seek believes a table of places here, which may be wrong, and numbers the frames from there on by it.
SEEKS_BY_TABLE = {"avi", "mxf"}
# Share of frames with times that run backwards (a wrong last one, two streams joined) which may be left out.
MAX_LATE = 0.02


def index_frames(path: Address, decode: bool = False) -> FrameIndex:
    """Reads the times of all frames, by default from the packets alone.

    Args:
        path: the video.
        decode: take the times from the decoded frames, for containers that do not tell the time of every packet.
            Single frames that come after their time are left out.

    Raises:
        MediaError: frames have no times, or too many run backwards.
    """
    with open_container(path) as container:
        track = picture_track(container, path)
        read_only(track)
        decode = decode or lacks_times(track)
        source = packets(container, track)
        shown, keys = times_of_frames(source, track) if decode else times_of_packets(source, track)
        known = [ticks for ticks in shown if ticks is not None]
        # Fields of one frame may have one time.
        if not decode and len(set(known)) < len(shown):
            return index_frames(path, decode=True)
        if not shown:
            raise MediaError(f"{path}: has no keyframe from which it could be decoded; leave it out")
        if len(known) < len(shown):
            num_known = len(known)
            raise MediaError(f"{path}: {len(shown)} frames, {num_known} of them with a time; write it anew with ffmpeg")
        known = in_order(known) if decode else known
        num_late = len(shown) - len(known)
        if num_late > MAX_LATE * len(shown):
            raise MediaError(f"{path}: the times of {num_late} frames run backwards; write it anew with ffmpeg")
        # A seek needs times that are the container's own and tell one frame.
        sought = [] if num_late or lacks_times(track) else sorted(keys)
        if container.format.name in SEEKS_BY_TABLE:
            sought = sought[:1] + [key for key in sought[1:] if is_found(container, track, key, keys[key])]
        sought = sought or [min(known)]
        ticks = sorted(tick for tick in known if tick >= sought[0])
        if not ticks:
            raise MediaError(f"{path}: all its {len(known)} frames come before the first keyframe; write it anew")
        time_base = track.time_base or Fraction(1)
        start = ticks[0] * time_base if container.start_time is None else Fraction(container.start_time, 1_000_000)
        return FrameIndex(
            ticks=np.array(ticks, dtype=np.int64),
            keys=np.array(sought, dtype=np.int64),
            tick_seconds=time_base,
            start_seconds=start,
            container=container.format.name,
            codec=codec_of(track),
            decoded=decode,
        )


def in_order(ticks: list[int]) -> list[int]:
    """Times without those that do not come after all before."""
    latest = np.maximum.accumulate([ticks[0] - 1, *ticks])
    return [tick for tick, before in zip(ticks, latest, strict=False) if tick > before]


def is_found(container: InputContainer, track: av.VideoStream, key: int, place: int | None) -> bool:
    """Whether a seek to a keyframe's time arrives at its place in the file."""
    try:
        container.seek(key, stream=track)
        first = next(packets(container, track), None)
    except FFmpegError:
        return False
    return first is not None and (first.pts, first.pos) == (key, place)


def times_of_packets(
    source: Iterator[av.Packet], track: av.VideoStream
) -> tuple[list[int | None], dict[int, int | None]]:
    """Times of the frames that are shown, in the order of decoding, and those of the keyframes with their places."""
    hides = codec_of(track) == "vp8"
    shown: list[int | None] = []
    keys: dict[int, int | None] = {}
    for packet in source:
        # VP8 has packets that only later frames need; a bit tells.
        if packet.size and not (hides and not memoryview(packet)[0] & 0x10):
            # Edit lists hide frames that others still need: a hidden keyframe can be sought, but is not shown.
            shown.extend([] if packet.is_discard else [packet.pts])
            keys.update({packet.pts: packet.pos} if packet.is_keyframe and packet.pts is not None else {})
    return shown, keys


def times_of_frames(
    source: Iterator[av.Packet], track: av.VideoStream
) -> tuple[list[int | None], dict[int, int | None]]:
    """Times of the decoded frames, in the order of display, and those of the keyframes with their places."""
    keys: dict[int, int | None] = {}

    def noted() -> Iterator[av.Packet]:
        for packet in source:
            keys.update({packet.pts: packet.pos} if packet.is_keyframe and packet.pts is not None else {})
            yield packet

    return [frame.pts for frame in frames_of(noted(), track)], keys
