"""The door to PyAV (FFmpeg's libraries): reads pictures and sound, writes videos."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from math import gcd
from pathlib import Path

import av
import numpy as np
import torch
from av.container import InputContainer, OutputContainer
from av.error import FFmpegError, InvalidDataError
from av.stream import Disposition
from jaxtyping import Float32, Float64, UInt8
from torch import Tensor

from streams.errors import MediaError
from streams.settings import EncoderSettings

# A playlist renamed to .mp4 must not open other files or addresses, so only files that hold media themselves are read.
FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,m4v,h263,h264,hevc,ivf,flv,ogg,asf,gif,mxf,nut,wav"
)
# Larger pictures than 8K cost gigabytes before anyone asks for them.
MAX_PIXELS = 8192 * 4320
# Packets of sound follow each other; a smaller jump of the times is rounding (a millisecond in Matroska), not a gap.
SOUND_JITTER_SECONDS = 0.02
# Sound codecs need some sound before the first exact sample.
SOUND_RUN_UP_SECONDS = 0.5


@contextmanager
def media_errors(path: Path) -> Iterator[None]:
    """Turns whatever PyAV raises on a broken file into a MediaError with the path and the reason."""
    try:
        yield
    except (FFmpegError, UnicodeDecodeError, IndexError, MemoryError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise MediaError(f"{path}: cannot be decoded ({reason}); repair the file or leave it out") from error


def open_container(path: Path) -> InputContainer:
    """Opens a file for reading, and nothing that the file refers to."""
    options = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
    # Metadata that is not UTF-8 would raise.
    return av.open(f"file:{path}", metadata_errors="ignore", container_options=options)


def picture_track(container: InputContainer, path: Path) -> av.VideoStream:
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


def packets(container: InputContainer, track: av.VideoStream) -> Iterator[av.Packet]:
    """Packets from the first keyframe on: what comes before cannot be decoded."""
    started = False
    for packet in container.demux(track):
        started = started or packet.is_keyframe
        if started:
            yield packet


@dataclass(frozen=True)
class FrameIndex:
    """What is known of a file without decoding: ticks of the track's clock.

    Attributes:
        ticks: presentation time of every frame shown, increasing.
        keys: presentation times of the keyframes, increasing.
        seconds: `ticks` in seconds since the start of the container.
        container: FFmpeg's names of the container's format.
        codec: FFmpeg's name of the pictures' codec.
    """

    ticks: list[int]
    keys: list[int]
    seconds: Float64[np.ndarray, " frame"]
    container: str
    codec: str


def index_frames(path: Path, decode: bool = False) -> FrameIndex:
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
        seconds = np.array([float(tick * time_base - start) for tick in ticks])
        return FrameIndex(ticks, keys, seconds, container.format.name, track.codec_context.name)


class PyAVReader:
    """Exact frames of one video, in order or at random (a `streams.reader.VideoReader`).

    Attributes:
        seconds: presentation time of every frame, relative to the start of the container.
    """

    def __init__(self, path: Path) -> None:
        """Indexes the file and decodes its first frame.

        Raises:
            MediaError: the file cannot be used.
        """
        self.path = path
        self.container: InputContainer | None = None
        self.last: av.VideoFrame | None = None
        try:
            with media_errors(path):
                first = self.begin(decode=False) or self.begin(decode=True)
        except MediaError:
            self.close()
            raise
        if first is None:
            self.close()
            raise MediaError(f"{path}: the first frames cannot be decoded; write it anew with ffmpeg")
        self.size = (first.height, first.width)
        self.seconds = self.index.seconds

    def begin(self, decode: bool) -> av.VideoFrame | None:
        """Indexes the file and decodes its first frames; None if they are not those of the index.

        Two packets may make one frame (fields), and some containers tell wrong times: then only decoding tells the
        index. Besides, some decoders give green frames unless the first one is decoded before any seek.
        """
        self.index = index_frames(self.path, decode)
        self.restart()
        frames = [self.advance(ticks) for ticks in self.index.ticks[:3]]
        return None if None in frames else frames[0]

    def frames_at(self, indices: Sequence[int]) -> UInt8[Tensor, "frame 3 height width"]:
        """Frames by their place in the order of display; see `VideoReader.frames_at`."""
        num_frames = len(self.seconds)
        if not all(0 <= index < num_frames for index in indices):
            raise IndexError(f"{self.path}: frames {list(indices)} of {num_frames}")
        frames = {}
        try:
            with media_errors(self.path):
                for index in sorted(set(indices)):
                    frames[index] = self.to_array(self.find(index))
        except MediaError:
            # The decoder stands nobody knows where: the next call must seek.
            self.last = None
            raise
        return torch.from_numpy(np.stack([frames[index] for index in indices]))

    def to_array(self, frame: av.VideoFrame) -> UInt8[np.ndarray, "3 height width"]:
        """Upright RGB; all frames have the size of the first."""
        height, width = self.size
        picture = frame.to_ndarray(format="rgb24", width=width, height=height)
        turns = round((frame.rotation or 0) / 90)
        return np.rot90(picture, turns).transpose(2, 0, 1)

    def find(self, index: int) -> av.VideoFrame:
        """Decodes one frame, going back as far as needed where a seek lands too late."""
        wanted = self.index.ticks[index]
        key = bisect_right(self.index.keys, wanted) - 1
        if self.last is not None and self.index.keys[key] <= (self.last.pts or 0) <= wanted:
            frame = self.advance(wanted)
            if frame is not None:
                return frame
        for start in (key, key - 1):
            frame = self.seek(self.index.keys[start], wanted) if start > 0 else None
            if frame is not None:
                return frame
        self.restart()
        frame = self.advance(wanted)
        if frame is None:
            raise MediaError(f"{self.path}: the frame at {self.seconds[index]:.3f} s cannot be decoded; leave it out")
        return frame

    def advance(self, wanted: int) -> av.VideoFrame | None:
        """Decodes up to the frame of this time; None if it does not come."""
        if self.last is not None and self.last.pts == wanted:
            return self.last
        for frame in self.decoded:
            if frame.pts is None:
                continue
            self.last = frame
            if frame.pts >= wanted:
                break
        if self.last is None or self.last.pts != wanted:
            return None
        if self.last.is_corrupt:
            raise MediaError(f"{self.path}: the frame at tick {wanted} is damaged; leave the file out")
        return self.last

    def seek(self, key: int, wanted: int) -> av.VideoFrame | None:
        """Decodes a frame from a keyframe on; None where the container or the decoder does not stand the jump."""
        assert self.container is not None
        self.last, self.decoded = None, iter(())
        try:
            self.container.seek(key, stream=self.track)
            source = packets(self.container, self.track)
            first = next(source, None)
            if first is None or first.pts is None or first.pts > key:
                return None
            self.decoded = self.decode(first, source)
            return self.advance(wanted)
        except FFmpegError:
            return None

    def decode(self, first: av.Packet | None, source: Iterator[av.Packet]) -> Iterator[av.VideoFrame]:
        """Frames of these packets, in the order of display."""
        if first is not None:
            yield from first.decode()
        for packet in source:
            yield from packet.decode()

    def restart(self) -> None:
        """Opens the file anew, which is the one seek that every container gets right."""
        self.close()
        self.container = open_container(self.path)
        self.track = picture_track(self.container, self.path)
        self.last = None
        self.decoded = self.decode(None, packets(self.container, self.track))

    def close(self) -> None:
        """Frees the decoder; unclosed containers leave threads and files behind."""
        if self.container is not None:
            self.decoded = iter(())
            self.container.close()
            self.container = None

    def __enter__(self) -> "PyAVReader":
        """Closes at the end of a `with`."""
        return self

    def __exit__(self, *error: object) -> None:
        """Closes."""
        self.close()


def read_sound(
    path: Path, start_seconds: float, stop_seconds: float, sample_hz: int
) -> Float32[Tensor, " sample"] | None:
    """Mono sound of an interval, on the clock of `PyAVReader.seconds`.

    Returns:
        round((stop - start) * sample_hz) samples, silent where the file has no sound; None if it has no sound track.

    Raises:
        MediaError: the sound cannot be decoded.
        ValueError: the interval is empty.
    """
    if not start_seconds < stop_seconds:
        raise ValueError(f"sound from {start_seconds} to {stop_seconds} s: stop must be after start")
    with media_errors(path), open_container(path) as container:
        if not container.streams.audio:
            return None
        track = container.streams.audio[0]
        if track.codec_context is None or not track.codec_context.sample_rate:
            raise MediaError(f"{path}: its sound is in an unknown format; write it anew with ffmpeg")
        native_hz = track.codec_context.sample_rate
        # The first sample stands on a tick that both rates share, so that resampling does not shift it.
        ticks_hz = gcd(native_hz, sample_hz)
        origin = Fraction(int(np.floor((start_seconds - SOUND_RUN_UP_SECONDS) * ticks_hz)), ticks_hz)
        stop = Fraction(int(np.ceil((stop_seconds + 0.1) * ticks_hz)), ticks_hz)
        native = decode_sound(container, track, origin, stop)
    sound = resample(native, native_hz, sample_hz)
    first = round((start_seconds - float(origin)) * sample_hz)
    wanted = np.zeros(round((stop_seconds - start_seconds) * sample_hz), dtype=np.float32)
    part = sound[first : first + len(wanted)]
    wanted[: len(part)] = part
    return torch.from_numpy(wanted)


def decode_sound(
    container: InputContainer, track: av.AudioStream, origin: Fraction, stop: Fraction
) -> Float32[np.ndarray, " sample"]:
    """Mono samples at the track's own rate, each at its place between two times since the container's start."""
    hz = track.codec_context.sample_rate
    shift = Fraction(container.start_time or 0, 1_000_000)
    samples = np.zeros(int((stop - origin) * hz), dtype=np.float32)
    mixer = av.AudioResampler(format="fltp", layout="mono", rate=hz)
    time_base = track.time_base or Fraction(1, hz)
    if origin > 0:
        container.seek(int((origin + shift) / time_base), stream=track)
    following: int | None = None
    for frame in sound_frames(container, track):
        if frame.pts is None:
            continue
        place = round((frame.pts * (frame.time_base or time_base) - shift - origin) * hz)
        if following is not None and abs(place - following) < SOUND_JITTER_SECONDS * hz:
            place = following
        if place >= len(samples):
            break
        part = np.concatenate([mixed.to_ndarray()[0] for mixed in mixer.resample(frame)] or [samples[:0]])
        following = place + len(part)
        low, high = max(place, 0), min(following, len(samples))
        if low < high:
            samples[low:high] = part[low - place : high - place]
    return samples


def sound_frames(container: InputContainer, track: av.AudioStream) -> Iterator[av.AudioFrame]:
    """Decoded sound; the first packets after a seek may be parts that cannot be decoded by themselves."""
    started = False
    for packet in container.demux(track):
        try:
            frames = packet.decode()
        except InvalidDataError:
            if started:
                raise
            continue
        started = started or bool(frames)
        yield from frames


def resample(samples: Float32[np.ndarray, " sample"], from_hz: int, to_hz: int) -> Float32[np.ndarray, " resampled"]:
    """Another rate; the first sample keeps its time."""
    if from_hz == to_hz:
        return samples
    frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = from_hz, 0, Fraction(1, from_hz)
    resampler = av.AudioResampler(format="fltp", layout="mono", rate=to_hz)
    parts = [*resampler.resample(frame), *resampler.resample(None)]
    return np.concatenate([part.to_ndarray()[0] for part in parts])


def write_video(
    path: Path,
    frames: UInt8[Tensor, "frame 3 height width"],
    frames_per_second: float,
    sound: Float32[Tensor, " sample"] | None = None,
    sample_hz: int = 16000,
    encoder: EncoderSettings | None = None,
) -> None:
    """Writes an mp4 with H.264 (yuv420p) and AAC; the file appears under its name only when it is complete.

    Raises:
        ValueError: height or width is odd, which yuv420p cannot hold.
    """
    encoder = encoder or EncoderSettings()
    height, width = frames.shape[-2:]
    if height % 2 or width % 2:
        raise ValueError(f"frames are {height}x{width}: height and width must be even for H.264 in yuv420p")
    partial = path.with_name(f".{path.name}.partial")
    with av.open(str(partial), "w", format="mp4") as container:
        picture = add_picture_track(container, height, width, frames_per_second, encoder)
        track = None
        if sound is not None:
            track = container.add_stream("aac", rate=sample_hz, layout="mono")
            track.bit_rate = encoder.sound_bits_per_second
        for number, frame in enumerate(frames.permute(0, 2, 3, 1).contiguous().numpy()):
            shown = av.VideoFrame.from_ndarray(frame, format="rgb24")
            shown.pts = number
            container.mux(picture.encode(shown))
        container.mux(picture.encode(None))
        if track is not None and sound is not None:
            write_sound(container, track, sound, sample_hz)
    partial.replace(path)


def add_picture_track(
    container: OutputContainer, height: int, width: int, frames_per_second: float, encoder: EncoderSettings
) -> av.VideoStream:
    """Adds an H.264 track whose clock ticks once per frame."""
    rate = Fraction(frames_per_second).limit_denominator(1001)
    options = {"crf": str(encoder.crf), "preset": encoder.preset, "threads": "1"}
    track = container.add_stream("libx264", rate=rate, options=options)
    track.height, track.width = height, width
    track.pix_fmt = "yuv420p"
    track.gop_size = encoder.gop_frames
    track.max_b_frames = encoder.num_b_frames
    track.codec_context.time_base = 1 / rate
    return track


def write_sound(
    container: OutputContainer, track: av.AudioStream, sound: Float32[Tensor, " sample"], sample_hz: int
) -> None:
    """Encodes mono sound in blocks of the codec's size."""
    samples = sound.detach().cpu().contiguous().numpy()
    block = track.codec_context.frame_size or 1024
    for start in range(0, len(samples), block):
        part = av.AudioFrame.from_ndarray(samples[None, start : start + block], format="fltp", layout="mono")
        part.sample_rate, part.pts, part.time_base = sample_hz, start, Fraction(1, sample_hz)
        container.mux(track.encode(part))
    container.mux(track.encode(None))
