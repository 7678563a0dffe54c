"""Many videos as a source of clips."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, Float64, UInt8
from torch import Tensor
from tqdm import tqdm

from streams.addresses import Address, require_content
from streams.clip import Batch, Clip
from streams.errors import MediaError
from streams.journal import Journal
from streams.manifest import Entry
from streams.pyav.sound import SoundReader
from streams.reader import VideoReader, open_video
from streams.settings import ClipSettings, SelectionSettings
from streams.starts import starts_of
from streams.video import Video, of_entry, probe, status_of

# Videos that stay open in each process.
OPEN_VIDEOS = 8
# Probing so many files takes long enough to show how far it is.
MANY_FILES = 500


@dataclass(frozen=True)
class ClipAddress:
    """Where a clip begins: `start` counts frames of the run's grid since the start of the container."""

    path: Address
    video: int
    start: int


@dataclass(frozen=True)
class View:
    """How a clip is read: other than as it is only to be told from it, never to be predicted.

    Attributes:
        reverse: last frame first.
        speed: every how many frames of the grid one is taken.
        sound_shift_seconds: how much later the sound is that is heard beside a frame.
    """

    reverse: bool = False
    speed: int = 1
    sound_shift_seconds: float = 0.0


PLAIN = View()


class Opened(NamedTuple):
    """The readers of one video; that of pictures is opened when the first picture is asked for."""

    pictures: VideoReader | None
    sound: SoundReader


class VideoSource:
    """Clips of many videos (a `streams.source.BlockSource`).

    Attributes:
        videos: usable videos.
        skipped: files that are left out, with the reason.
        blocks: lengths of the runs of clips that are read in one pass over their video.
        journal: time spent on decoding, resizing and sound.
    """

    with_pictures = True

    def __init__(
        self,
        videos: Sequence[Address | Entry],
        settings: ClipSettings,
        selection: SelectionSettings | None = None,
        random_start: bool = False,
    ) -> None:
        """Probes every file once; of those that a scan has examined, none is opened.

        Args:
            videos: files or entries of a manifest, for example from `find_videos`.
            settings: how time and pictures are sampled.
            selection: which clips; evenly spaced ones that cover every video by default.
            random_start: draw the start of a clip anew at every reading, near its place in the even spacing.

        Raises:
            MediaError: not one clip can be read from all files.
        """
        self.settings, self.random_start = settings, random_start
        self.videos: list[Video] = []
        self.skipped: list[tuple[Address, str]] = []
        self.journal = Journal()
        self.opened: OrderedDict[int, Opened] = OrderedDict()
        self.known_contents: dict[int, tuple[int, ...]] = {}
        selection = selection or SelectionSettings()
        starts, lows, highs, blocks = [], [], [], []
        for video, found in self.usable(videos, selection):
            self.videos.append(video)
            starts.append(found.starts)
            lows.append(found.lows)
            highs.append(found.highs)
            blocks.append(block_lengths(len(found.starts), selection.block_clips))
        if not self.videos:
            reasons = "; ".join(f"{address}: {reason}" for address, reason in self.skipped[:3])
            raise MediaError(f"no clip can be read from {len(videos)} files; first reasons: {reasons or 'none given'}")
        self.starts, self.lows, self.highs = map(np.concatenate, (starts, lows, highs))
        self.video_of = np.repeat(np.arange(len(self.videos), dtype=np.int32), [len(each) for each in starts])
        self.blocks = np.concatenate(blocks)

    def usable(self, videos: Sequence[Address | Entry], selection: SelectionSettings) -> Iterator[tuple[Video, Any]]:
        """Usable videos with their clips; the others go to `skipped`."""
        for each in tqdm(videos, unit="file", desc="probing", disable=len(videos) < MANY_FILES):
            address = Path(each.path) if isinstance(each, Entry) else each
            try:
                video = of_entry(each, self.settings) if isinstance(each, Entry) else probe(each, self.settings)
                yield video, starts_of(video, self.settings.num_frames, selection)
            except MediaError as error:
                self.skipped.append((address, str(error).removeprefix(f"{address}: ")))

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.starts)

    @property
    def clips(self) -> Sequence[ClipAddress]:
        """Where each clip begins, in order."""
        return Clips(self)

    def path_of(self, index: int) -> str:
        """The file of a clip."""
        return str(self.videos[self.video_of[index]].path)

    def read(self, index: int, generator: np.random.Generator) -> Clip:
        """Reads one clip; the generator decides its start if starts are random.

        Raises:
            MediaError: the file has changed, or is damaged.
        """
        return self.read_together([index], [generator])[0]

    def read_together(self, indices: list[int], generators: list[np.random.Generator]) -> list[Clip]:
        """Reads clips of one video in one pass; each is what `read` would give.

        Raises:
            MediaError: the file has changed, or is damaged.
        """
        starts = [self.draw_start(index, generator) for index, generator in zip(indices, generators, strict=True)]
        return self.clips_at(int(self.video_of[indices[0]]), starts)

    def draw_start(self, index: int, generator: np.random.Generator) -> int:
        """First frame of a clip, on the grid."""
        if not self.random_start:
            return int(self.starts[index])
        return int(generator.integers(self.lows[index], self.highs[index] + 1))

    def clips_at(self, number: int, starts: list[int], view: View = PLAIN) -> list[Clip]:
        """Clips of one video from these frames of the grid on.

        Args:
            number: of the video.
            starts: first frames.
            view: how they are read.

        Raises:
            MediaError: the file has changed, or is damaged.
        """
        try:
            return self.clips_of(self.open(number), number, starts, view)
        except MediaError:
            # What the file is when it can be read again must be checked again.
            if number in self.opened:
                close(self.opened.pop(number))
            raise

    def clips_of(self, opened: Opened, number: int, starts: list[int], view: View) -> list[Clip]:
        """Reads clips of an open video; see `clips_at`."""
        video, rate = self.videos[number], self.settings.frames_per_second
        offsets = np.arange(self.settings.num_frames)
        grids = [start + offsets * view.speed for start in starts]
        shown = [video.shown_at((grid[::-1] if view.reverse else grid) / rate) for grid in grids]
        frames = self.read_frames(opened, np.concatenate(shown))
        with self.journal.timed("sound"):
            plain = not view.reverse and view.speed == 1
            sounds = [self.read_sound(opened, start, view) if plain else None for start in starts]
        name, num_frames = str(video.path), self.settings.num_frames
        return [
            Clip(part.clone() if len(starts) > 1 else part, torch.from_numpy((start + offsets) / rate), sound, name)
            for part, start, sound in zip(frames.split(num_frames), starts, sounds, strict=True)
        ]

    def read_frames(
        self, opened: Opened, shown: Float64[np.ndarray, " frame"] | np.ndarray
    ) -> UInt8[Tensor, "frame 3 height width"]:
        """Decodes frames at the run's size."""
        assert opened.pictures is not None, "pictures of a source that reads none"
        with self.journal.timed("decode"):
            return opened.pictures.frames_at(shown.tolist(), (self.settings.height, self.settings.width))

    def read_sound(
        self, opened: Opened, start: int, view: View = PLAIN
    ) -> Float32[Tensor, "frame *channel sample"] | None:
        """Sound of each frame of a clip from its time on; None if the video has none."""
        rate, hz, per_frame = self.settings.frames_per_second, self.settings.sample_hz, self.settings.samples_per_frame
        # Frames begin at the nearest sample, which drifts where a frame is not a whole number of samples.
        places = (start + np.arange(self.settings.num_frames)) / rate + view.sound_shift_seconds
        begins = np.rint(places * hz).astype(int)
        sound = opened.sound.read(begins[0] / hz, (begins[-1] + per_frame) / hz)
        if sound is None:
            return None
        samples = sound.numpy()
        return torch.from_numpy(np.stack([samples[..., begin : begin + per_frame] for begin in begins - begins[0]]))

    def open(self, number: int) -> Opened:
        """The readers of a video; those least recently used are closed for them."""
        if number not in self.opened:
            while len(self.opened) >= OPEN_VIDEOS:
                close(self.opened.popitem(last=False)[1])
            video = self.videos[number]
            self.require_same(number)
            sound = SoundReader(video.path, self.settings.sample_hz, self.settings.sound_channels, video.drift)
            pictures = None
            if self.with_pictures:
                size = self.settings.height, self.settings.width
                pictures = open_video(video.path, video.reader, video.index, self.journal, size)
            self.opened[number] = Opened(pictures, sound)
        self.opened.move_to_end(number)
        return self.opened[number]

    def require_same(self, number: int) -> None:
        """Refuses a file that is not the one that was scanned or probed.

        The bytes of a scanned one are read at its first opening, and again only where its status has changed.

        Raises:
            MediaError: it is another file, or cannot be read.
        """
        video = self.videos[number]
        status = status_of(video.path)
        if video.entry is None:
            if status != video.status:
                raise MediaError(f"{video.path}: has changed since it was probed; start again")
        elif self.known_contents.get(number) != status:
            with self.journal.timed("hash"):
                require_content(video.path, video.entry.size_bytes, video.entry.content_hash)
            self.known_contents[number] = status

    def collate(self, clips: list[Clip]) -> Batch:
        """Stacks clips; the sound of clips without any is zero."""
        return Batch.stack(clips, self.settings.samples_per_frame, self.settings.sound_channels)

    def close(self) -> None:
        """Closes all readers."""
        while self.opened:
            close(self.opened.popitem()[1])

    def __getstate__(self) -> dict[str, Any]:
        """What goes to a worker: decoders are opened there."""
        return {**self.__dict__, "opened": OrderedDict(), "known_contents": {}}


class SoundSource(VideoSource):
    """The same clips with their sound and times, and frames without pixels: decoding pictures is most of the cost."""

    with_pictures = False

    def read_frames(self, opened: Opened, shown: np.ndarray) -> UInt8[Tensor, "frame 3 height width"]:
        """As many frames, of height and width 0."""
        return torch.zeros(len(shown), 3, 0, 0, dtype=torch.uint8)


class Clips(Sequence[ClipAddress]):
    """The clips of a source as a sequence; ten million addresses are not kept as objects."""

    def __init__(self, source: VideoSource) -> None:
        """Looks into `source`."""
        self.source = source

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.source)

    def __getitem__(self, index: int) -> ClipAddress:  # type: ignore[override] (slices are not needed)
        """Where a clip begins."""
        number = int(self.source.video_of[index])
        return ClipAddress(self.source.videos[number].path, number, int(self.source.starts[index]))


def block_lengths(num_clips: int, block_clips: int) -> list[int]:
    """As even blocks of at most `block_clips` clips as there are."""
    num_blocks = -(-num_clips // block_clips)
    edges = np.rint(np.linspace(0, num_clips, num_blocks + 1)).astype(int)
    return np.diff(edges).tolist()


def close(opened: Opened) -> None:
    """Frees the decoders of one video."""
    opened.sound.close()
    if opened.pictures is not None:
        opened.pictures.close()
