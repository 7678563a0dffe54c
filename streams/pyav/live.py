"""One connection to a camera, a pipe, a network stream or a file: pictures and sound as they come, in one pass."""

import os
import re
import select
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any

import av
import numpy as np
import torch
from av.container import InputContainer
from av.error import ExitError, FFmpegError
from jaxtyping import UInt8
from torch import Tensor

from streams.closing import Closing
from streams.errors import MediaError
from streams.pyav.container import FORMATS, demuxed, picture_track
from streams.pyav.live_sound import LiveSound, Sound
from streams.pyav.scaling import Scaler
from streams.settings import LiveSettings

# What each kind of network address may open, and nothing else: a playlist must not reach the files of this machine.
WEB = "http,https,httpproxy,tcp,tls,crypto"
NETWORK = {
    "rtsp": "rtsp,rtp,srtp,udp,tcp,tls",
    "rtsps": "rtsp,rtp,srtp,udp,tcp,tls",
    "http": WEB,
    "https": WEB,
    "tcp": "tcp",
    "udp": "udp",
    "rtmp": "rtmp,tcp",
}
LIVE_FORMATS = f"{FORMATS},live_flv,mjpeg,mpjpeg"
# Playlists and session descriptions are opened only for the addresses that come with them.
MORE_FORMATS = {"rtsp": "rtsp", "rtsps": "rtsp", "http": "hls", "https": "hls"}
# HTTP is read from its start on, as it comes: looking for the end first would wait for it.
OPTIONS = {"rtsp": {"rtsp_transport": "tcp"}, "http": {"seekable": "0"}, "https": {"seekable": "0"}}
# These hold no times of their own, so a frame is shown when it comes.
WITHOUT_CLOCK = {"mjpeg", "mpjpeg", "h264", "hevc", "m4v", "mpegvideo"}
POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Picture:
    """A decoded frame and its time since the start of the connection."""

    seconds: float
    frame: av.VideoFrame


def kind_of(address: str) -> str:
    """What an address is: camera, pipe, file, or the scheme of a network address.

    Raises:
        MediaError: it is none of them.
    """
    scheme = address.partition("://")[0].lower() if "://" in address else ""
    if scheme in NETWORK:
        return scheme
    if scheme:
        known = ", ".join(f"{name}://" for name in NETWORK)
        raise MediaError(f"{hide_password(address)}: unknown kind of address; give {known}, pipe:0, a device or a file")
    if address == "-" or re.fullmatch(r"pipe:\d*", address):
        return "pipe"
    path = Path(address)
    if not path.exists() or path.is_dir():
        what = "is a folder" if path.is_dir() else "no such device or file"
        raise MediaError(
            f"{address}: {what}; give a camera (/dev/video0), a pipe (pipe:0), a network address or a file"
        )
    mode = path.stat().st_mode
    return "camera" if stat.S_ISCHR(mode) else "pipe" if stat.S_ISFIFO(mode) else "file"


def hide_password(address: str) -> str:
    """The address without the name and password that may stand in it."""
    return re.sub(r"://[^/@]*@", "://", address)


class Pipe:
    """A pipe as PyAV reads it: it waits for a bounded time, and ends soon after it is told to stop."""

    def __init__(self, address: str, timeout_seconds: float, stop: Event) -> None:
        """Opens a FIFO, or takes a descriptor that is open already.

        Raises:
            OSError: there is no such pipe.
        """
        if address == "-" or address.startswith("pipe:"):
            self.descriptor = os.dup(int(address.removeprefix("pipe:").strip("-") or 0))
        else:
            self.descriptor = os.open(address, os.O_RDONLY | os.O_NONBLOCK)  # else it waits for a writer, for ever
        self.timeout_seconds, self.stop = timeout_seconds, stop
        self.poll = select.poll()
        self.poll.register(self.descriptor, select.POLLIN)

    def read(self, num_bytes: int) -> bytes:
        """What is there, as soon as anything is; nothing at the end.

        Raises:
            TimeoutError: nothing came in time.
        """
        deadline = monotonic() + self.timeout_seconds
        while not self.stop.is_set():
            if self.poll.poll(1000 * POLL_SECONDS):
                return os.read(self.descriptor, num_bytes)
            if monotonic() > deadline:
                raise TimeoutError
        return b""

    def close(self) -> None:
        """Closes the descriptor."""
        os.close(self.descriptor)


class LiveFeed(Closing):
    """One connection, from its first frame on.

    Attributes:
        kind: see `kind_of`.
        has_sound: whether there is a track of sound.
        num_damaged: frames and packets that cannot be decoded, or have no time.
    """

    def __init__(self, address: str, settings: LiveSettings, sample_hz: int, stop: Event) -> None:
        """Connects, and learns what is in the source.

        Raises:
            MediaError: the source cannot be opened, has no pictures, or says nothing for too long.
        """
        self.kind, self.shown, self.settings, self.stop = kind_of(address), hide_password(address), settings, stop
        self.num_damaged, self.opened = 0, monotonic()
        self.pipe: Pipe | None = None
        self.container: InputContainer | None = None
        try:
            with self.errors("cannot be opened"):
                if self.kind == "pipe":
                    self.pipe = Pipe(address, settings.timeout_seconds, stop)
                self.container = container = self.open(address)
                self.pictures = picture_track(container, self.shown)
                self.clock = container.format.name not in WITHOUT_CLOCK
                self.scaler = Scaler(float(self.pictures.sample_aspect_ratio or 1))
        except MediaError:
            self.close()
            raise
        tracks = [track for track in container.streams.audio if track.codec_context and track.codec_context.sample_rate]
        self.heard = tracks[0] if tracks and self.clock else None
        self.has_sound = self.heard is not None
        self.sound = LiveSound(sample_hz)
        self.start = None if container.start_time is None else Fraction(container.start_time, 1_000_000)

    def open(self, address: str) -> InputContainer:
        """Opens the address and nothing that it refers to, but for the parts of a network stream."""
        settings = self.settings
        options = {"analyzeduration": str(round(settings.probe_seconds * 1e6)), **OPTIONS.get(self.kind, {})}
        options |= settings.options
        if self.kind == "camera":
            return av.open(
                address, "r", format=settings.format or "v4l2", metadata_errors="ignore", container_options=options
            )
        # A pipe is read by us, and what is in it has nothing to open.
        options["protocol_whitelist"] = NETWORK.get(self.kind, "file" if self.kind == "file" else "none")
        options["format_whitelist"] = ",".join((LIVE_FORMATS, *filter(None, [MORE_FORMATS.get(self.kind)])))
        source = self.pipe or (f"file:{address}" if self.kind == "file" else address)
        return av.open(
            source,
            "r",
            format=settings.format or None,
            metadata_errors="ignore",
            container_options=options,
            timeout=settings.timeout_seconds,
            buffer_size=4096 if self.pipe else 32768,
        )

    def parts(self) -> Iterator[Picture | Sound]:
        """Pictures and sound in the order in which they are decoded, from the first keyframe on.

        Raises:
            MediaError: the source broke off, or says nothing for too long.
        """
        assert self.container is not None
        started = False
        with self.errors("broke off"):
            for packet in demuxed(self.container, *filter(None, (self.pictures, self.heard))):
                if self.stop.is_set():
                    return
                if packet.stream is not self.pictures:
                    yield from self.sound_of(packet)
                    continue
                started = started or packet.is_keyframe
                if started:
                    yield from self.pictures_of(packet)
            yield from self.sound.end()

    def pictures_of(self, packet: av.Packet) -> Iterator[Picture]:
        """Whole frames of a packet."""
        for frame in self.frames_of(packet):
            if not self.clock:
                yield Picture(monotonic() - self.opened, frame)
            elif frame.is_corrupt or frame.pts is None:
                self.num_damaged += 1  # the first ones of RTSP have no time yet
            else:
                yield Picture(float(self.since_start(frame)), frame)

    def scaled(self, picture: Picture, height: int, width: int) -> UInt8[Tensor, "3 {height} {width}"]:
        """A picture upright, scaled and cut as `streams.geometry.resize_crop` does.

        Raises:
            MediaError: FFmpeg cannot scale such a picture.
        """
        out = np.empty((3, height, width), dtype=np.uint8)
        with self.errors("cannot be shown"):
            self.scaler(picture.frame, out, True, round((picture.frame.rotation or 0) / 90) % 4)
        return torch.from_numpy(out)

    def sound_of(self, packet: av.Packet) -> Iterator[Sound]:
        """Sound of a packet."""
        for frame in self.frames_of(packet):
            if frame.pts is not None:
                yield from self.sound.add(frame, self.since_start(frame))

    def frames_of(self, packet: av.Packet) -> list[Any]:
        """Decoded frames; a live source goes on after a damaged packet."""
        try:
            return list(packet.decode())
        except FFmpegError:
            self.num_damaged += 1
            return []

    def since_start(self, frame: av.VideoFrame | av.AudioFrame) -> Fraction:
        """Time of a frame since the container's start, or since the first frame where the container tells none."""
        time = frame.pts * frame.time_base  # type: ignore[operator]
        if self.start is None:
            self.start = time
        return time - self.start

    @contextmanager
    def errors(self, what: str) -> Iterator[None]:
        """Turns whatever PyAV and the system raise into a MediaError with the address."""
        try:
            yield
        except (ExitError, TimeoutError) as error:
            raise MediaError(
                f"{self.shown}: nothing came for {self.settings.timeout_seconds:g} s; see whether it is running, or "
                "give a larger timeout_seconds"
            ) from error
        except (FFmpegError, OSError, ValueError, IndexError, MemoryError) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            remedy = "look at the address and the source" if self.kind != "camera" else "look at the device and options"
            raise MediaError(f"{self.shown}: {what} ({reason}); {remedy}") from error

    def close(self) -> None:
        """Frees the decoders and the pipe."""
        if self.container is not None:
            self.container.close()
        if self.pipe is not None:
            self.pipe.close()
        self.container = self.pipe = None
