"""What is in a file: all its pictures and sound decoded once, and counted."""

from collections.abc import Collection
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import av
import av.filter
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from jaxtyping import Float, Int64, UInt8

from streams.errors import MediaError
from streams.pyav.container import Decoding, media_errors, open_container, picture_track
from streams.pyav.scaling import Scaler, orientation
from streams.pyav.soundtrack import SoundTrack
from streams.pyav.sync import drift_of, jumps_of

# Damage that the decoder would hide is an error in a scan.
STRICT = "explode+crccheck+bitstream+buffer"
# Cuts are found in frames of this size, which costs little and does not see noise.
CUT_COLUMNS, CUT_ROWS = 96, 54
# Height and width of the frames that readers are held to.
SAMPLE_SIZE = 48, 64


@dataclass
class PictureFacts:
    """What the pictures of a file are.

    Attributes:
        num_listed: frames that the header tells of; 0 if it does not.
        nominal_rate: frames per second that the header tells of; 0 if it does not.
        sample_aspect_ratio: width of a pixel over its height.
        ticks: times of the frames that decode, in the order in which they come, up to the first damage.
        damage: what the decoder said of it; empty without.
        num_hidden: packets that an edit list hides.
        sizes: heights and widths of the frames, each once, in the order in which they come.
        pixel_format: FFmpeg's name of how pixels are stored.
        rotation: degrees counterclockwise by which pictures are turned to be upright.
        is_interlaced: whether two packets may make one frame.
        cuts: times of frames that begin another scene.
        samples: frames of the places that were asked for, by time; upright, cut and scaled to SAMPLE_SIZE.
    """

    num_listed: int
    nominal_rate: float
    sample_aspect_ratio: float
    ticks: list[int] = field(default_factory=list)
    damage: str = ""
    num_hidden: int = 0
    sizes: dict[tuple[int, int], None] = field(default_factory=dict)
    pixel_format: str = ""
    rotation: int = 0
    is_interlaced: bool = False
    cuts: list[int] = field(default_factory=list)
    samples: dict[int, UInt8[np.ndarray, "3 height width"]] = field(default_factory=dict)


@dataclass
class SoundFacts:
    """What the sound of a file is, up to the first damage.

    Attributes:
        codec: FFmpeg's name of the codec; empty if it is unknown.
        sample_hz: rate of the samples.
        num_channels: channels of the samples.
        times: time of every frame of sound, on the clock of the container's packets.
        lengths: seconds of every frame, by its samples.
        peak: largest sample, 1 is full scale.
        damage: what the decoder said of the first damage; empty without.
        lag_seconds: see `streams.pyav.soundtrack.SoundTrack`; None where packets tell their own time.
        told: time of the packet before.
    """

    codec: str = ""
    sample_hz: int = 0
    num_channels: int = 0
    times: list[float] = field(default_factory=list)
    lengths: list[float] = field(default_factory=list)
    peak: float = 0.0
    damage: str = ""
    lag_seconds: float | None = None
    told: float | None = None

    @property
    def start_seconds(self) -> float:
        """Time of the first sample."""
        return self.times[0] if self.times else 0.0

    @property
    def seconds(self) -> float:
        """Length of the sound, by its samples."""
        return sum(self.lengths)

    @property
    def gaps(self) -> list[float]:
        """Silence between samples where their times jump ahead; negative where they jump back."""
        return [float(jump) for jump in jumps_of(np.array(self.times), np.array(self.lengths)) if jump]

    @property
    def drift_seconds(self) -> float:
        """What the times gain on the samples; see `streams.pyav.sync.Sync`."""
        return drift_of(np.array(self.times), np.array(self.lengths))


def measure(
    path: Path, cut_threshold: float, sample_places: Collection[int] = ()
) -> tuple[PictureFacts, SoundFacts | None, float]:
    """Decodes all of a file.

    Args:
        path: the video.
        cut_threshold: change between two frames, in percent, that begins another scene.
        sample_places: places of the frames to keep, in the order of display.

    Returns:
        the pictures; the sound, None without a track of it; and the seconds that the header tells of, 0 if it does not.

    Raises:
        MediaError: the file cannot be opened, or has no pictures.
    """
    with media_errors(path), open_container(path) as container:
        track = picture_track(container, path)
        context = track.codec_context
        context.options = {**context.options, "err_detect": STRICT}
        ratio = track.sample_aspect_ratio or context.sample_aspect_ratio
        pictures = PictureFacts(
            num_listed=track.frames,
            nominal_rate=float(track.average_rate or track.guessed_rate or 0),
            sample_aspect_ratio=float(ratio) if ratio else 1.0,
        )
        heard = container.streams.audio[0] if container.streams.audio else None
        sound = None if heard is None else SoundFacts()
        if heard is not None and heard.codec_context is None:
            heard = None
        if heard is not None:
            heard.codec_context.options = {"err_detect": STRICT}
            if sound is not None and heard.codec_context.name == "vorbis":
                sound.lag_seconds = lag_of_sound(path)
        look = Look(CutFinder(cut_threshold), Scaler(float(track.sample_aspect_ratio or 1)), set(sample_places))
        _decode_all(container, track, pictures, heard, sound or SoundFacts(), look)
        return pictures, sound, (container.duration or 0) / 1_000_000


def _decode_all(
    container: InputContainer,
    track: av.VideoStream,
    pictures: PictureFacts,
    heard: av.AudioStream | None,
    sound: SoundFacts,
    look: "Look",
) -> None:
    """Goes through the file once; each track up to its first damage."""
    started, decoding = False, Decoding(track)
    packets = iter(container.demux([track] if heard is None else [track, heard]))
    while True:
        try:
            packet = next(packets, None)
        except FFmpegError as error:
            pictures.damage = pictures.damage or str(error.strerror)
            return
        if packet is None:
            return
        if packet.stream.index == track.index:  # the packet's own number is not set at the end
            started = started or packet.is_keyframe
            pictures.num_hidden += packet.is_discard
            if started and not pictures.damage:
                pictures.damage = _see(packet, decoding, pictures, look)
        elif not sound.damage:
            sound.damage = _hear(packet, sound)


def _see(packet: av.Packet, decoding: Decoding, pictures: PictureFacts, look: "Look") -> str:
    """Counts the frames of a packet; returns what is wrong with them."""
    try:
        frames = decoding.decode(packet)
    except FFmpegError as error:
        return str(error.strerror)
    for frame in frames:
        if frame.is_corrupt:
            return "a damaged frame"
        if frame.pts is None:
            return "a frame without a time"
        if not pictures.ticks:
            pictures.pixel_format, pictures.rotation = frame.format.name, round(frame.rotation or 0)
        if len(pictures.ticks) in look.sample_places:
            pictures.samples[frame.pts] = _sample(frame, look.scaler)
        pictures.ticks.append(frame.pts)
        pictures.sizes[frame.height, frame.width] = None
        pictures.is_interlaced |= frame.interlaced_frame
        if look.cuts.begins_scene(frame):
            pictures.cuts.append(frame.pts)
    return ""


def _sample(frame: av.VideoFrame, scaler: Scaler) -> UInt8[np.ndarray, "3 height width"]:
    """A frame as a reader would give it."""
    sample = np.empty((3, *SAMPLE_SIZE), dtype=np.uint8)
    scaler(frame, sample, True, *orientation(frame))
    return sample


def _hear(packet: av.Packet, sound: SoundFacts) -> str:
    """Counts the samples of a packet; returns what is wrong with them."""
    try:
        frames = packet.decode()
    except FFmpegError as error:
        return str(error.strerror)
    for frame in frames:
        if not frame.samples:
            continue
        length = frame.samples / frame.sample_rate
        if not sound.sample_hz:
            context = packet.stream.codec_context
            sound.codec, sound.sample_hz, sound.num_channels = context.name, frame.sample_rate, frame.layout.nb_channels
        time = frame.time
        if sound.lag_seconds is not None and sound.told is not None:
            time = sound.told + sound.lag_seconds
        following = sound.times[-1] + sound.lengths[-1] if sound.times else 0.0
        sound.times.append(following if time is None else time)
        sound.lengths.append(length)
        sound.peak = max(sound.peak, peak_of(frame.to_ndarray()))
    if packet.pts is not None and packet.time_base:
        sound.told = float(packet.pts * packet.time_base)
    return ""


def lag_of_sound(path: Path) -> float | None:
    """Seconds by which the times of Vorbis packets lag, if they do."""
    with suppress(FFmpegError, MediaError), closing(SoundTrack(path)) as track:
        track.from_start()
        if track.lag_ticks is not None and track.track is not None and track.track.time_base is not None:
            return float(track.lag_ticks * track.track.time_base)
    return None


def peak_of(samples: Float[np.ndarray, "..."] | Int64[np.ndarray, "..."] | np.ndarray) -> float:
    """The largest sample over full scale, whatever the type of the samples."""
    if samples.dtype.kind == "f":
        return float(np.abs(samples, dtype=np.float64).max())
    limits = np.iinfo(samples.dtype)
    middle = (int(limits.max) + int(limits.min) + 1) // 2
    return max(int(samples.max()) - middle, middle - int(samples.min())) / (int(limits.max) + 1 - middle)


@dataclass(frozen=True)
class Look:
    """What is looked for in frames.

    Attributes:
        cuts: finds scenes.
        scaler: makes samples.
        sample_places: places of these.
    """

    cuts: "CutFinder"
    scaler: Scaler
    sample_places: set[int]


class CutFinder:
    """Finds the frames that begin another scene, by FFmpeg's scdet."""

    def __init__(self, threshold: float) -> None:
        """Calls a change of `threshold` percent and more a cut."""
        self.threshold = threshold
        self.shape: tuple[str, int, int] | None = None

    def begins_scene(self, frame: av.VideoFrame) -> bool:
        """Whether this frame, the next one of a video, begins another scene."""
        shape = frame.format.name, frame.width, frame.height
        if shape != self.shape:
            self.shape, self.graph = shape, self._graph_of(frame)
        self.graph.vpush(frame)
        seen = self.graph.vpull()
        return "lavfi.scd.time" in seen.metadata

    def _graph_of(self, frame: av.VideoFrame) -> av.filter.Graph:
        graph = av.filter.Graph()
        graph.threads = 1
        graph.link_nodes(
            graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base),
            graph.add("scale", f"{CUT_COLUMNS}:{CUT_ROWS}:flags=fast_bilinear"),
            graph.add("format", "gray"),
            graph.add("scdet", f"threshold={self.threshold}"),
            graph.add("buffersink"),
        ).configure()
        return graph


def small_frame(path: Path, share: float, side: int) -> UInt8[np.ndarray, "rows columns 3"]:
    """A frame from somewhere in a video, upright and right in its aspect, for people to look at.

    Args:
        path: the video.
        share: where in it, from 0 to 1; the next place that decodes by itself is taken.
        side: pixels of the longer side.

    Raises:
        MediaError: no frame can be decoded.
    """
    with media_errors(path), open_container(path) as container:
        track = picture_track(container, path)
        frame = next(container.decode(track))
        if container.duration and share > 0:
            container.seek((container.start_time or 0) + int(share * container.duration))
            frame = next((later for later in container.decode(track) if not later.is_corrupt), frame)
        ratio = float(track.sample_aspect_ratio or 1)
        factor = side / max(frame.width * ratio, frame.height)
        columns, rows = max(1, round(frame.width * ratio * factor)), max(1, round(frame.height * factor))
        shown = frame.to_ndarray(format="rgb24", width=columns, height=rows)
        return np.ascontiguousarray(np.rot90(shown, round((frame.rotation or 0) / 90)))
