"""A folder of videos as a source of clips."""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Float64, UInt8
from torch import Tensor

from streams.addresses import Address
from streams.clip import Batch, Clip
from streams.errors import MediaError
from streams.geometry import resize_crop
from streams.journal import Journal
from streams.reader import VideoReader, open_video
from streams.settings import ClipSettings

# Times are sums of rounded numbers: a frame that starts this much late still counts as shown.
TINY_SECONDS = 1e-4
# Readers that stay open in each process.
OPEN_READERS = 4


@dataclass(frozen=True)
class Video:
    """One usable video.

    Attributes:
        path: the file.
        seconds: presentation time of every frame.
        first: first instant of the run's grid (in frames of the run) at which a frame is shown.
        num_frames: instants from there to the end of the video.
    """

    path: Address
    seconds: Float64[np.ndarray, " frame"]
    first: int
    num_frames: int


@dataclass(frozen=True)
class ClipAddress:
    """Where a clip begins: `start` counts frames of the run's grid since the start of the container."""

    path: Address
    video: int
    start: int


class VideoSource:
    """Clips of many videos (a `streams.loader.Source`).

    Attributes:
        clips: evenly spaced clips that together cover every video; they overlap where its length does not divide.
        skipped: files that are left out, with the reason.
        videos: usable videos.
        journal: time spent on decoding, resizing and sound.
    """

    def __init__(
        self, paths: Sequence[Address], settings: ClipSettings, random_start: bool = False, verify: bool = False
    ) -> None:
        """Probes every file once.

        Args:
            paths: files, for example from `find_videos`.
            settings: how clips are sampled.
            random_start: draw the start of a clip anew at every reading, anywhere in its video.
            verify: decode every file to its end, so that damage in the middle is found now.

        Raises:
            MediaError: not one clip can be read from all files.
        """
        self.settings, self.random_start, self.verify = settings, random_start, verify
        self.journal = Journal()
        self.videos: list[Video] = []
        self.clips: list[ClipAddress] = []
        self.skipped: list[tuple[Address, str]] = []
        self.readers: OrderedDict[Address, VideoReader] = OrderedDict()
        for path in paths:
            try:
                video = self.probe(path)
            except MediaError as error:
                self.skipped.append((path, str(error).removeprefix(f"{path}: ")))
                continue
            self.clips += [ClipAddress(path, len(self.videos), start) for start in self.starts_of(video)]
            self.videos.append(video)
        if not self.clips:
            reasons = "; ".join(f"{path}: {reason}" for path, reason in self.skipped[:3])
            raise MediaError(f"no clip can be read from {len(paths)} files; first reasons: {reasons or 'none given'}")

    def probe(self, path: Address) -> Video:
        """Reads the times of one file and decodes a bit of it."""
        with open_video(path, self.settings.reader) as reader:
            seconds = reader.seconds
            for index in range(len(seconds) if self.verify else 1):
                reader.frames_at([index])
        rate = self.settings.frames_per_second
        # The last frame is shown as long as frames usually are.
        stop = seconds[-1] + (float(np.median(np.diff(seconds))) if len(seconds) > 1 else 1.0 / rate)
        first = int(np.ceil((seconds[0] - TINY_SECONDS) * rate))
        num_frames = int(np.ceil((stop - TINY_SECONDS) * rate)) - first
        if num_frames < self.settings.num_frames:
            needed = self.settings.num_frames / rate
            raise MediaError(
                f"{path}: too short ({stop - seconds[0]:.2f} s, a clip needs {needed:.2f} s); leave it out"
            )
        self.read_sound(path, first, num_frames if self.verify else 1)
        return Video(path, seconds, first, num_frames)

    def starts_of(self, video: Video) -> list[int]:
        """Evenly spaced starts of as few clips as cover the video."""
        num_clips = -(-video.num_frames // self.settings.num_frames)
        last = video.num_frames - self.settings.num_frames
        return [video.first + round(start) for start in np.linspace(0, last, num_clips)]

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.clips)

    def path_of(self, index: int) -> str:
        """The file of a clip."""
        return str(self.clips[index].path)

    def read(self, index: int, generator: np.random.Generator) -> Clip:
        """Reads one clip; the generator decides its start if starts are random.

        Raises:
            MediaError: the file has changed, or is damaged.
        """
        address = self.clips[index]
        video, start = self.videos[address.video], address.start
        if self.random_start:
            start = video.first + int(generator.integers(video.num_frames - self.settings.num_frames + 1))
        seconds = np.arange(start, start + self.settings.num_frames) / self.settings.frames_per_second
        shown = [max(0, bisect_right(video.seconds, instant + TINY_SECONDS) - 1) for instant in seconds]
        reader = self.reader_of(video.path)
        if len(reader.seconds) != len(video.seconds):
            raise MediaError(f"{video.path}: has changed since it was probed; start again")
        frames = self.read_frames(reader, shown)
        with self.journal.timed("sound"):
            sound = self.read_sound(video.path, start, self.settings.num_frames)
        return Clip(frames, torch.from_numpy(seconds), sound, str(video.path))

    def read_frames(self, reader: VideoReader, shown: list[int]) -> UInt8[Tensor, "frame 3 height width"]:
        """Decodes the frames of a clip at the run's size."""
        with self.journal.timed("decode"):
            frames = reader.frames_at(shown)
        with self.journal.timed("resize"):
            return resize_crop(frames, self.settings.height, self.settings.width)

    def read_sound(self, path: Address, start: int, num_frames: int) -> Float32[Tensor, "frame sample"] | None:
        """Sound of each frame from its time on; None if the file has none."""
        from streams.pyav.sound import read_sound

        rate, hz = self.settings.frames_per_second, self.settings.sample_hz
        per_frame = self.settings.samples_per_frame
        # Frames begin at the nearest sample, which drifts where a frame is not a whole number of samples.
        starts = np.rint(np.arange(start, start + num_frames) / rate * hz).astype(int)
        sound = read_sound(path, starts[0] / hz, (starts[-1] + per_frame) / hz, hz)
        if sound is None:
            return None
        return torch.stack([sound[begin : begin + per_frame] for begin in starts - starts[0]])

    def reader_of(self, path: Address) -> VideoReader:
        """An open reader of this file; the least recently used one is closed for it."""
        if path not in self.readers:
            while len(self.readers) >= OPEN_READERS:
                self.readers.popitem(last=False)[1].close()
            self.readers[path] = open_video(path, self.settings.reader)
        self.readers.move_to_end(path)
        return self.readers[path]

    def collate(self, clips: list[Clip]) -> Batch:
        """Stacks clips; the sound of clips without any is zero."""
        return Batch.stack(clips, self.settings.samples_per_frame)

    def close(self) -> None:
        """Closes all readers."""
        while self.readers:
            self.readers.popitem()[1].close()

    def __getstate__(self) -> dict[str, Any]:
        """What goes to a worker: decoders are opened there."""
        return {**self.__dict__, "readers": OrderedDict()}


class SoundSource(VideoSource):
    """The same clips with their sound and times, and frames without pixels: decoding pictures is most of the cost."""

    def read_frames(self, reader: VideoReader, shown: list[int]) -> UInt8[Tensor, "frame 3 height width"]:
        """As many frames, of height and width 0."""
        return torch.zeros(len(shown), 3, 0, 0, dtype=torch.uint8)
