"""The decoded frames of a file's sound, from any time on."""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain, islice

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError, InvalidDataError

from streams.addresses import Address
from streams.errors import MediaError
from streams.pyav.container import demuxed, open_container, read_only

# How far ahead of the wanted time to look where a seek lands too late.
BACK_SECONDS = (0, 2, 10)
# Packets that show whether times lag, and how far off times may be that do not.
LAG_PACKETS, LAG_SECONDS = 400, 0.005


class SoundTrack:
    """The first sound track of an open file.

    Attributes:
        track: FFmpeg's stream; None if the file has no sound.
        start_seconds: time of the container's start.
        first: presentation time (in ticks), length and samples of the first frame of sound; None before it is decoded.
        lag_ticks: set where packets tell the time of the next one's sound (Vorbis by some writers of WebM): what their
            times must be moved by so that the first frame keeps its own.
        priming_samples: samples at the beginning that the container says to leave out, known with the first frame.
    """

    def __init__(self, path: Address) -> None:
        """Opens the file.

        Raises:
            MediaError: the sound is in an unknown format.
        """
        self.path = path
        self.container: InputContainer | None = None
        self.first: tuple[int | None, int, bytes] | None = None
        self.first_packet: int | None = None
        self.priming_samples = 0
        self.lag_ticks: int | None = None
        self.track = self.open()

    @property
    def codec(self) -> str:
        """FFmpeg's name of the sound's codec."""
        return self.track.codec_context.name if self.track is not None else "none"

    @property
    def frame_samples(self) -> int:
        """Samples of a frame; 0 where they differ, or are not known."""
        return self.track.codec_context.frame_size if self.track is not None else 0

    def open(self) -> av.AudioStream | None:
        """Opens the file anew, which is the one seek that every container gets right."""
        self.close()
        self.container = open_container(self.path)
        self.start_seconds = Fraction(self.container.start_time or 0, 1_000_000)
        if not self.container.streams.audio:
            return None
        track = self.container.streams.audio[0]
        if track.codec_context is None or not track.codec_context.sample_rate:
            raise MediaError(f"{self.path}: its sound is in an unknown format; write it anew with ffmpeg")
        read_only(track)
        return track

    def from_start(self) -> Iterator[av.AudioFrame]:
        """All frames; the file is opened anew only where a seek does not find the same first frame again."""
        if self.container is None:
            self.track = self.open()
        elif self.first is not None and self.first_packet is not None:
            frames = self.sought(self.first_packet)
            first = next(frames, None)
            if first is not None and what_is(first) == self.first:
                return chain([first], frames)
        if self.first is not None:
            self.track = self.open()
        assert self.container is not None
        assert self.track is not None
        packets = demuxed(self.container, self.track)
        packet = next(packets, None)
        if packet is None:
            return iter(())
        self.first_packet = packet.pts
        if packet.has_sidedata("skip_samples"):
            self.priming_samples = int.from_bytes(bytes(packet.get_sidedata("skip_samples"))[:4], "little")
        if self.first is None and self.codec == "vorbis":
            self.lag_ticks = lag_of(chain([packet], packets))
            self.first = 0, 0, b""
            return self.from_start()
        frames = self.decoded(chain([packet], packets))
        first = next(frames, None)
        if first is None:
            return iter(())
        self.first = what_is(first)
        return chain([first], frames)

    def sought(self, ticks: int) -> Iterator[av.AudioFrame]:
        """Frames from a seek on, wherever it lands."""
        if self.container is None:
            return
        try:
            self.container.seek(ticks, stream=self.track)
            yield from self.decoded(demuxed(self.container, self.track))
        except FFmpegError:
            return

    def from_ticks(self, ticks: int) -> Iterator[av.AudioFrame]:
        """Frames of the packets from a time on, which need not be right before some of them are decoded."""
        if self.container is None:
            # The file could not be opened the last time.
            self.track = self.open()
        assert self.container is not None
        assert self.track is not None
        second = 1 / (self.track.time_base or Fraction(1))
        for back in BACK_SECONDS:
            try:
                self.container.seek(ticks - int(back * second), stream=self.track)
                packets = demuxed(self.container, self.track)
                packet = next(packets, None)
            except FFmpegError:
                continue
            if packet is not None and packet.pts is not None and packet.pts <= ticks:
                return self.decoded(chain([packet], packets), ticks)
        self.track = self.open()
        return self.decoded(demuxed(self.container, self.track), ticks)

    def decoded(self, packets: Iterable[av.Packet], ticks: int | None = None) -> Iterator[av.AudioFrame]:
        """Frames of the packets from a time on, with times that are right."""
        if self.lag_ticks is None:
            return decoded(packets, ticks)
        return decoded_lagging(packets, self.lag_ticks, ticks)

    def close(self) -> None:
        """Frees the decoder; unclosed containers leave threads and files behind."""
        if self.container is not None:
            self.container.close()
            self.container = None


def decoded(packets: Iterable[av.Packet], ticks: int | None = None) -> Iterator[av.AudioFrame]:
    """Frames of the packets from a time on; the first after a seek may need others and are left out."""
    packets = iter(packets)
    for packet in packets:
        if ticks is None or packet.pts is None or packet.pts + (packet.duration or 1) > ticks:
            try:
                frames = packet.decode()
            except InvalidDataError:
                continue
            if frames:
                yield from frames
                break
    for packet in packets:
        yield from packet.decode()


def decoded_lagging(packets: Iterable[av.Packet], lag_ticks: int, ticks: int | None = None) -> Iterator[av.AudioFrame]:
    """The same where a packet tells the time at which its sound ends, and so that of the next; see `SoundTrack.lag`."""
    before: int | None = None

    def noted() -> Iterator[av.Packet]:
        nonlocal before
        for packet in packets:
            told = packet.pts
            yield packet
            before = told

    for frame in decoded(noted(), ticks):
        if before is not None:
            frame.pts = before + lag_ticks
        yield frame


def what_is(frame: av.AudioFrame) -> tuple[int | None, int, bytes]:
    """Presentation time (in ticks), length and first plane of a frame."""
    return frame.pts, frame.samples, bytes(frame.planes[0])


def lag_of(packets: Iterable[av.Packet]) -> int | None:
    """How far times lag, if those of the packets before fit the lengths of the frames and their own do not."""
    told: list[int] = []
    lengths: list[float] = []
    for packet in islice(packets, LAG_PACKETS):
        if packet.pts is None or packet.time_base is None:
            break
        told.append(packet.pts)
        lengths.append(float(sum(frame.samples / frame.sample_rate for frame in packet.decode()) / packet.time_base))
    if len(told) < 4 or lengths[0]:
        return None
    second = float(1 / packet.time_base) if packet.time_base else 1.0
    steps = np.diff(told)
    own, before = np.abs(steps[1:] - lengths[1:-1]).max(), np.abs(steps[:-1] - lengths[1:-1]).max()
    return told[1] - told[0] if before < LAG_SECONDS * second < own else None
