"""Exact frames by PyAV, in order or at random."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import numpy as np
import torch
from av.container import InputContainer
from av.error import FFmpegError
from jaxtyping import UInt8
from torch import Tensor

from streams.errors import MediaError
from streams.pyav.container import media_errors, open_container, packets, picture_track
from streams.pyav.index import index_frames


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
        frames = [self.advance(ticks) for ticks in self.index.ticks[:3].tolist()]
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
        wanted = int(self.index.ticks[index])
        key = max(0, bisect_right(self.index.keys, wanted) - 1)
        if self.last is not None and self.index.keys[key] <= (self.last.pts or 0) <= wanted:
            frame = self.advance(wanted)
            if frame is not None:
                return frame
        for start in (key, key - 1):
            frame = self.seek(int(self.index.keys[start]), wanted) if start > 0 else None
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
