"""Exact frames by PyAV, in order or at random."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain

import av
import numpy as np
import torch
from av.container import InputContainer
from av.error import FFmpegError
from av.video.codeccontext import VideoCodecContext
from jaxtyping import Float64, UInt8
from torch import Tensor

from streams.addresses import Address
from streams.closing import Closing
from streams.errors import DamageError, MediaError
from streams.geometry import crop_box
from streams.index import FrameIndex
from streams.journal import Journal
from streams.pyav.container import frames_of, media_errors, open_container, packets, picture_track, read_only
from streams.pyav.index import index_frames
from streams.pyav.scaling import Scaler, orientation

# Decoders that leave out a frame no other needs, and nothing else, when asked packet by packet (dav1d loses others).
SKIPPING_CODECS = {"h264", "hevc", "vp8"}
# Going on decoding for so many frames costs about as much as a seek, which throws away what the decoder holds back.
SEEK_FRAMES = 6
# With the next keyframe so near, a call at random is hardly ever followed by one that would go on decoding.
SHORT_FRAMES = 24
# Program and transport streams are found by their packets' places: a seek lands a keyframe late, always, and must be
# told an earlier one.
MAX_EARLY = 2
BEFORE_ALL = -(2**63)
# Deblocking is left out for frames that no other needs, where they are read at half their size or less (58 dB in the
# mean over a file, 50 in the worst frame that was seen), and for all B frames, where they are read at less still and
# the next keyframe soon ends what adds up (55 dB or more, 51 in the worst frame).
SMALL_FACTOR, TINY_FACTOR = 2.0, 2.5


def draft_of(
    size: tuple[int, int] | None, stored: tuple[int, int], index: FrameIndex, pixel_aspect: float = 1.0
) -> str:
    """Which frames need not be deblocked, in FFmpeg's words, where stored frames are cut and scaled to a size."""
    if size is None:
        return "default"
    box = crop_box(*stored, *size, pixel_aspect)
    factor = min(box.height / size[0], box.width / size[1])
    if factor >= TINY_FACTOR and index.longest_group <= SHORT_FRAMES:
        return "bidir"
    return "noref" if factor >= SMALL_FACTOR else "default"


class PyAVReader(Closing):
    """Exact frames of one video, in order or at random (a `streams.reader.VideoReader`).

    Attributes:
        seconds: presentation time of every frame, relative to the start of the container.
        index: what is known of the frames without decoding them.
    """

    name = "pyav"

    def __init__(
        self,
        path: Address,
        index: FrameIndex | None = None,
        journal: Journal | None = None,
        size: tuple[int, int] | None = None,
    ) -> None:
        """Indexes the file, unless its index is given, and decodes its first frame.

        Args:
            path: the video.
            index: its frames, if they are known already.
            journal: takes the time of scaling, apart from that of decoding.
            size: (height, width) at which frames will be read; another costs opening the file anew.

        Raises:
            MediaError: the file cannot be used.
        """
        self.path, self.journal = path, journal or Journal()
        self.container: InputContainer | None = None
        self.last: av.VideoFrame | None = None
        self.wanted: set[int] = set()
        self.awaited: set[int] = set()
        self.last_wanted = BEFORE_ALL
        self.next_place, self.draining = 0, False
        self.early, self.draft = 0, ""
        try:
            with media_errors(path):
                first = self.begin(index or index_frames(path), size)
                if first is None and index is None and not self.index.decoded:
                    first = self.begin(index_frames(path, decode=True), size)
        except MediaError:
            self.close()
            raise
        if first is None:
            self.close()
            raise MediaError(f"{path}: the first frames cannot be decoded; write it anew with ffmpeg")
        self.turns, self.mirrored = orientation(first)
        self.stored = first.height, first.width
        self.size = (first.height, first.width) if self.turns % 2 == 0 else (first.width, first.height)
        self.scaler = Scaler(self.pixel_aspect)

    @property
    def seconds(self) -> Float64[np.ndarray, " frame"]:
        """Presentation time of every frame, relative to the start of the container."""
        return self.index.seconds

    def begin(self, index: FrameIndex, size: tuple[int, int] | None) -> av.VideoFrame | None:
        """Decodes the first frames; None if they are not those of the index.

        Two packets may make one frame (fields), and some containers tell wrong times: then only decoding tells the
        index. Besides, some decoders give green frames unless the first one is decoded before any seek.
        """
        self.index = index
        container = self.open()
        context = self.track.codec_context
        self.draft = draft_of(size, (context.height, context.width), index, self.pixel_aspect)
        self.start(container)
        ticks = index.ticks[:3].tolist()
        frames = [frame for frame in map(self.advance, ticks) if frame is not None]
        if len(frames) < len(ticks):
            return None
        # The first call may want them.
        self.last, self.decoded = frames[0], chain(frames[1:], self.decoded)
        return frames[0]

    def frames_at(
        self, indices: Sequence[int], size: tuple[int, int] | None = None
    ) -> UInt8[Tensor, "frame 3 height width"]:
        """Frames by their place in the order of display; see `VideoReader.frames_at`."""
        num_frames = len(self.index.ticks)
        if not all(0 <= index < num_frames for index in indices):
            raise IndexError(f"{self.path}: frames {list(indices)} of {num_frames}")
        # Plain lists: between frames the caches hold the decoder, and every function of numpy must be fetched anew.
        indices = [int(index) for index in indices]
        distinct = sorted(set(indices))
        frames = np.empty((len(distinct), 3, *(size or self.size)), dtype=np.uint8)
        wanted = self.index.ticks[distinct].tolist()
        self.wanted, self.last_wanted = set(wanted), max(wanted, default=BEFORE_ALL)
        self.awaited = self.wanted
        if wanted:
            self.draining = self.is_random(distinct[0], distinct[-1])
            self.next_place = distinct[-1] + 1
        try:
            with media_errors(self.path):
                turned = (size[1], size[0]) if size is not None and self.turns % 2 else size
                self.set_draft(draft_of(turned, self.stored, self.index, self.pixel_aspect))
                for out, index, ticks in zip(frames, distinct, wanted, strict=True):
                    frame = self.find(index, ticks)
                    with self.journal.timed("resize"):
                        self.scaler(frame, out, size is not None, self.turns, self.mirrored)
        except MediaError:
            # The decoder stands nobody knows where: the next call must seek.
            self.last = None
            raise
        return torch.from_numpy(frames if indices == distinct else frames[np.searchsorted(distinct, indices)])

    def is_random(self, first: int, last: int) -> bool:
        """Whether the next call will most likely seek: then nothing is decoded in advance for it."""
        if -1 <= first - self.next_place <= SEEK_FRAMES:
            return False
        keys = self.index.keys
        following = bisect_right(keys, self.last_wanted)
        stop = self.place_of(int(keys[following])) if following < len(keys) else len(self.index.ticks)
        return stop - last <= SHORT_FRAMES

    def set_draft(self, draft: str) -> None:
        """Has the decoder deblock all frames, or less; it must be opened anew for that."""
        if draft != self.draft:
            self.draft = draft
            self.restart()
            # As in `begin`: before any seek.
            self.advance(int(self.index.ticks[0]))

    def find(self, index: int, wanted: int) -> av.VideoFrame:
        """Decodes one frame, going back as far as needed where a seek lands too late."""
        key = max(0, bisect_right(self.index.keys, wanted) - 1)
        # Some frames are damaged after a seek, and whole when all before them have been decoded.
        with suppress(DamageError):
            frame = self.advance(wanted) if self.is_near(key, wanted) else None
            if frame is not None:
                return frame
            for early in range(self.early, MAX_EARLY + 1):
                frame = self.seek(key - early, key, wanted) if key > early else None
                if frame is not None:
                    self.early = early
                    return frame
        self.restart()
        frame = self.advance(wanted)
        if frame is None:
            raise MediaError(f"{self.path}: the frame at {self.seconds[index]:.3f} s cannot be decoded; leave it out")
        return frame

    def is_near(self, key: int, wanted: int) -> bool:
        """Whether going on decoding is the shorter way to a frame than a seek to its keyframe."""
        if self.last is None or self.last.pts is None or self.last.pts > wanted:
            return False
        start = int(self.index.keys[key])
        if start <= self.last.pts:
            return True
        return self.place_of(start) - self.place_of(self.last.pts) <= SEEK_FRAMES

    def place_of(self, ticks: int) -> int:
        """Place of the first frame that is shown at this time or later."""
        return int(self.index.ticks.searchsorted(ticks))

    def advance(self, wanted: int) -> av.VideoFrame | None:
        """Decodes up to the frame of this time; None if it does not come."""
        if self.last is None or self.last.pts != wanted:
            for frame in self.decoded:
                if frame.pts is None:
                    continue
                self.last = frame
                if frame.pts >= wanted:
                    break
        if self.last is None or self.last.pts != wanted:
            return None
        if self.last.is_corrupt:
            raise DamageError(f"{self.path}: the frame at tick {wanted} is damaged; leave the file out")
        return self.last

    def seek(self, target: int, key: int, wanted: int) -> av.VideoFrame | None:
        """Seeks to one keyframe and decodes a frame; None where the container or the decoder does not stand the jump.

        Args:
            target: place of the keyframe that the container is told.
            key: place of the last keyframe from which the frame can be decoded.
            wanted: ticks of the frame.
        """
        self.last, self.decoded = None, iter(())
        if self.container is None:
            # The file could not be opened the last time.
            return None
        self.awaited = {ticks for ticks in self.wanted if ticks >= wanted}
        try:
            self.container.seek(int(self.index.keys[target]), stream=self.track)
            source = packets(self.container, self.track)
            first = next(source, None)
            if first is None or first.pts is None or first.pts > self.index.keys[key]:
                return None
            self.decoded = self.decode(chain([first], source))
            # Some containers call a frame a keyframe that needs others. One that an edit list hides does not come.
            start = self.advance(first.pts)
            if not first.is_discard and (start is None or not start.key_frame):
                return None
            return self.advance(wanted)
        except FFmpegError:
            return None

    def decode(self, source: Iterator[av.Packet]) -> Iterator[av.VideoFrame]:
        """Frames of these packets, in the order of display; some that nobody wants are left out."""
        context = self.track.codec_context
        # Where packets do not tell the times of the frames, nobody knows which to leave out.
        if context.name in SKIPPING_CODECS and not self.index.decoded:
            source = self.choose(source, context)
        return frames_of(source, self.track)

    def choose(self, source: Iterator[av.Packet], context: VideoCodecContext) -> Iterator[av.Packet]:
        """The same packets, while the decoder is told to leave out those that nobody wants and no other frame needs."""
        sent: set[int | None] = set()
        for packet in source:
            # What comes after the last wanted frame is decoded early, and may be wanted by the next call.
            passed = packet.pts is not None and packet.pts < self.last_wanted and packet.pts not in self.wanted
            context.skip_frame = "NONREF" if passed else "DEFAULT"
            yield packet
            if self.draining:
                sent.add(packet.pts)
                if self.awaited <= sent:
                    # An empty packet: the decoder gives what it holds back. The next seek resets it.
                    last = av.Packet()
                    last.stream = self.track
                    yield last
                    return

    def restart(self) -> None:
        """Opens the file anew, which is the one seek that every container gets right."""
        self.start(self.open())

    def open(self) -> InputContainer:
        """Opens the file anew."""
        self.close()
        self.container = open_container(self.path)
        self.track = picture_track(self.container, self.path)
        read_only(self.track)
        # Kept, since a track must not be asked once its container is closed.
        self.pixel_aspect = float(self.track.sample_aspect_ratio or 1)
        return self.container

    def start(self, container: InputContainer) -> None:
        """Gets ready to decode from the beginning of a file that was just opened."""
        context = self.track.codec_context
        context.options = {**context.options, "skip_loop_filter": self.draft}
        self.last = None
        self.decoded = self.decode(packets(container, self.track))

    def close(self) -> None:
        """Frees the decoder; unclosed containers leave threads and files behind."""
        if self.container is not None:
            self.last, self.decoded = None, iter(())
            self.container.close()
            self.container = None
