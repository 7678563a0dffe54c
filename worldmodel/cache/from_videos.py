"""Codes made while training, equal to those of a cache: workers read whole clips, and this process encodes them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from streams.clip import Batch, Clip
from streams.journal import Journal
from streams.loader import Loader
from streams.videos import VideoSource
from worldmodel.attention import full_precision
from worldmodel.cache.encoding import by_kind, encode_clips, limited_threads, thumbnails_of
from worldmodel.cache.latents import CodeBatch
from worldmodel.cache.windows import Windows


@dataclass(frozen=True)
class WindowBatch:
    """Clips of which a window is wanted: whole, since codes are sticky from a clip's first frame on.

    Attributes:
        clips: the whole clips.
        starts: first frame of each clip's window.
        thumbnails: the frames of the windows, small.
    """

    clips: Batch
    starts: list[int]
    thumbnails: UInt8[Tensor, "batch frame 3 height width"]

    def pin_memory(self) -> "WindowBatch":
        """The same batch in page-locked memory."""
        return replace(self, clips=self.clips.pin_memory(), thumbnails=self.thumbnails.pin_memory())

    def to(self, device: torch.device | str) -> "WindowBatch":
        """The same batch on another device."""
        return replace(
            self,
            clips=self.clips.to(device, non_blocking=True),
            thumbnails=self.thumbnails.to(device, non_blocking=True),
        )

    def split(self, num_clips: int) -> Iterator["WindowBatch"]:
        """Parts of `num_clips` clips at most, in order."""
        for first in range(0, len(self.starts), num_clips):
            part = slice(first, first + num_clips)
            clips = Batch(**{name: value[part] for name, value in vars(self.clips).items()})
            yield WindowBatch(clips, self.starts[part], self.thumbnails[part])


class VideoWindows:
    """Windows of clips read from videos, item by item those of a `LatentSource`; a `streams.loader.Source`.

    Args:
        videos: whole clips, sampled as `worldmodel.cache.encoding.clip_settings` says.
        positions: which of its clips, in order.
        windows: what is wanted of each.
        thumbnail: (height, width) of the thumbnails.
    """

    def __init__(
        self, videos: VideoSource, positions: Sequence[int], windows: Windows, thumbnail: tuple[int, int]
    ) -> None:
        self.videos, self.positions = videos, list(positions)
        self.windows, self.thumbnail = windows, thumbnail

    @property
    def journal(self) -> Journal:
        """That of the videos."""
        return self.videos.journal

    @journal.setter
    def journal(self, journal: Journal) -> None:
        self.videos.journal = journal

    def path_of(self, index: int) -> str:
        """The file of an item."""
        return self.videos.path_of(self.positions[index // self.windows.per_clip])

    def __len__(self) -> int:
        return len(self.positions) * self.windows.per_clip

    def read(self, index: int, generator: np.random.Generator) -> tuple[Clip, int]:
        """A whole clip, and the first frame of the window.

        Raises:
            MediaError: the file has changed, or is damaged.
        """
        position, window = divmod(index, self.windows.per_clip)
        start = self.windows.start_of(window, generator)  # first, so that nothing else draws before it
        return self.videos.read(self.positions[position], generator), start

    def collate(self, items: list[tuple[Clip, int]]) -> WindowBatch:
        """Stack what `read` gave."""
        starts = [start for _, start in items]
        shown = torch.stack([clip.frames[self.windows.parts(start)[0]] for clip, start in items])
        return WindowBatch(
            self.videos.collate([clip for clip, _ in items]), starts, thumbnails_of(shown, self.thumbnail)
        )


class WindowEncoder:
    """Windows of clips to codes, by codecs that are frozen.

    Args:
        codecs: one picture codec and at most one sound codec, on `device`.
        windows: what is cut from every clip.
        chunk_clips: clips that are encoded at a time, which bounds the memory.
        device: where the codecs are.
    """

    def __init__(
        self, codecs: Sequence[Any], windows: Windows, chunk_clips: int = 32, device: torch.device | str = "cpu"
    ) -> None:
        self.kinds, self.windows = by_kind(codecs), windows
        self.chunk_clips, self.device = chunk_clips, torch.device(device)

    def __call__(self, batch: WindowBatch) -> CodeBatch:
        """Codes on the device, in full precision whatever surrounds the call."""
        # One thread on the CPU, as a cache is built: the steps are too small for more.
        num_threads = 1 if self.device.type == "cpu" else torch.get_num_threads()
        with limited_threads(num_threads), full_precision(self.device):
            return CodeBatch.join([self._encode(part) for part in batch.split(self.chunk_clips)])

    def _encode(self, batch: WindowBatch) -> CodeBatch:
        batch = batch.to(self.device)
        here, backwards, fast = zip(*map(self.windows.parts, batch.starts), strict=True)
        # Sticky codes depend on what comes before them and on nothing after.
        stops = [[part.stop for part in parts] for parts in (here, backwards, fast)]
        codes = encode_clips(batch.clips, self.kinds, self.device, stops)
        no_sound = codes["picture"][..., :0]
        return CodeBatch(
            picture=_cut(codes["picture"], here),
            reversed=_cut(codes["picture_reversed"], backwards),
            fast=_cut(codes["picture_fast"], fast),
            sound=_cut(codes.get("sound", no_sound), here),
            has_sound=batch.clips.has_sound,
            thumbnails=batch.thumbnails,
        )


class CodingLoader:
    """A loader of windows whose batches come as codes.

    Attributes:
        loader: reads the clips; it holds the whole state.
        encode: makes codes of a batch, in this process.
    """

    def __init__(self, loader: Loader, encode: Callable[[WindowBatch], CodeBatch]) -> None:
        self.loader, self.encode = loader, encode

    def __iter__(self) -> "CodingLoader":
        return self

    def __next__(self) -> CodeBatch:
        """The next batch of this process."""
        batch = next(self.loader)
        with self.journal.timed("encode"):
            return self.encode(batch)

    @property
    def position(self) -> int:
        """Samples consumed over all processes."""
        return self.loader.position

    @property
    def waited_seconds(self) -> float:
        """Time spent waiting for clips, without that of encoding them."""
        return self.loader.waited_seconds

    @property
    def journal(self) -> Journal:
        """What was read so far, and the time that encoding took beside."""
        return self.loader.journal

    def close(self) -> None:
        """Ends the workers."""
        self.loader.close()


def _cut(codes: Tensor, parts: Sequence[slice]) -> Tensor:
    """Of every clip the frames of its own part; all parts are as long."""
    return torch.stack([clip[part] for clip, part in zip(codes, parts, strict=True)])
