"""Opening a file for reading, and its errors."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import IO

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.format import Flags
from av.stream import Discard, Disposition

from streams.addresses import Address, open_seekable, read_errors
from streams.errors import DamageError, MediaError

# A playlist renamed to .mp4 must not open other files or addresses, so only files that hold media themselves are read.
FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,m4v,h263,h264,hevc,ivf,flv,ogg,asf,gif,mxf,nut,wav"
)
# Larger pictures than 8K cost gigabytes before anyone asks for them.
MAX_PIXELS = 8192 * 4320


@contextmanager
def media_errors(path: Address) -> Iterator[None]:
    """Turns whatever PyAV raises on a broken file into a DamageError with the path and the reason."""
    try:
        yield
    except (FFmpegError, UnicodeDecodeError, IndexError, MemoryError, ValueError, *read_errors()) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DamageError(f"{path}: cannot be decoded ({reason}); repair the file or leave it out") from error


def open_container(path: Address) -> InputContainer:
    """Opens a file for reading, and nothing that the file refers to."""
    options = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
    # Metadata that is not UTF-8 would raise.
    if isinstance(path, Path):
        return av.open(f"file:{path}", metadata_errors="ignore", container_options=options)
    # The container holds the file object, which closes itself when nothing holds it any more.
    file: IO[bytes] = open_seekable(path)
    return av.open(file, "r", metadata_errors="ignore", container_options=options)


def picture_track(container: InputContainer, path: Address | str) -> av.VideoStream:
    """The first track of moving pictures, ready to decode."""
    tracks = [track for track in container.streams.video if not track.disposition & Disposition.attached_pic]
    if not tracks:
        raise MediaError(f"{path}: has no pictures; leave it out")
    context = tracks[0].codec_context
    if context is None:
        raise MediaError(f"{path}: its pictures are in an unknown format; write it anew with ffmpeg")
    if context.width * context.height > MAX_PIXELS:
        raise MediaError(f"{path}: frames of {context.width}x{context.height} pixels are larger than 8K; scale it down")
    context.options = {"max_pixels": str(MAX_PIXELS)}
    # More threads hang now and then on damaged files; the loader's workers are the parallelism.
    context.thread_count = 1
    return tracks[0]


def read_only(track: av.VideoStream | av.AudioStream) -> None:
    """Has the container pass over what belongs to other tracks, rather than read it for nobody."""
    for other in track.container.streams:
        other.discard = Discard.default if other is track else Discard.all


def demuxed(container: InputContainer, *tracks: av.VideoStream | av.AudioStream | None) -> Iterator[av.Packet]:
    """Packets of these tracks from where the container stands.

    PyAV 18 leaks 144 bytes with every iterator over packets that is dropped before its end; this one closes it.
    """
    yield from container.demux(*tracks)


def packets(container: InputContainer, track: av.VideoStream) -> Iterator[av.Packet]:
    """Packets from the first keyframe on: what comes before cannot be decoded."""
    started = False
    for packet in demuxed(container, track):
        started = started or packet.is_keyframe
        if started:
            yield packet


def lacks_times(track: av.VideoStream) -> bool:
    """Whether the container tells no times, so that those of the packets are made up by the library, and wrong.

    Raw streams have none. AVI numbers packets in the order of decoding, and the frames of some codecs are reordered.
    """
    container = track.container.format
    return is_raw(track) or (container.name == "avi" and codec_of(track) in {"h264", "hevc"})


def is_raw(track: av.VideoStream) -> bool:
    """Whether the file is a codec's stream without a container."""
    return bool(track.container.format.flags & Flags.no_timestamps.value)


def codec_of(track: av.VideoStream) -> str:
    """FFmpeg's name of the codec, whichever library decodes it."""
    return track.codec_context.codec.canonical_name


class Decoding:
    """Packets to frames. Where the container lacks times, frames get them as in the ffmpeg program.

    Those of an AVI come at the times of the packets, and those of a raw stream one after the other, from its start.
    """

    def __init__(self, track: av.VideoStream) -> None:
        """Begins at the start of the track."""
        self.guessing, self.raw, self.following = lacks_times(track), is_raw(track), 0
        rate, time_base = track.guessed_rate or Fraction(25), track.time_base or Fraction(1)
        self.step = round(1 / (rate * time_base))

    def decode(self, packet: av.Packet) -> list[av.VideoFrame]:
        """Frames that come when a packet is given to the decoder."""
        frames = packet.decode()
        for frame in frames if self.guessing else ():
            frame.pts = self.following if self.raw or frame.dts is None else frame.dts
            self.following = frame.pts + self.step
        return frames


def frames_of(source: Iterable[av.Packet], track: av.VideoStream) -> Iterator[av.VideoFrame]:
    """Decodes packets in order."""
    decoding = Decoding(track)
    for packet in source:
        yield from decoding.decode(packet)
