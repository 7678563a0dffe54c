"""Ways of keeping clips of codes: ours, a plain memmap, and what others use; all give the same batch.

A contender is written once into a folder, from rows by array as a latent cache has them; then it reads clips
by number, where it can, and epochs of all of them.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
import zarr

from streams.loader import Loader
from streams.settings import LoaderSettings
from tools.bench.settings import LatentsSettings
from worldmodel.cache.info import CacheInfo
from worldmodel.cache.latents import CodeBatch, LatentSource
from worldmodel.cache.windows import Windows
from worldmodel.cache.writer import LatentWriter

Rows = dict[str, np.ndarray]
# Arrays of a cache, as a batch for training names them.
FIELDS = {
    "picture": "picture",
    "picture_reversed": "reversed",
    "picture_fast": "fast",
    "sound": "sound",
    "has_sound": "has_sound",
    "thumbnails": "thumbnails",
}


WINDOW_FRAMES = 16  # of the windows of clips that a training reads; of shorter clips all


@dataclass(frozen=True)
class Window:
    """A part of a clip.

    Attributes:
        item: its number among all windows, as a source counts them.
        clip: whose.
        cuts: frames of it in each array that has frames.
    """

    item: int
    clip: int
    cuts: dict[str, slice]


def windows_of(info: CacheInfo, num_clips: int) -> list[Window]:
    """All windows of clips, evenly spaced over each."""
    windows = Windows(info.num_frames, min(WINDOW_FRAMES, info.num_frames), random_start=False)
    generator, found = np.random.default_rng(0), []  # nothing is drawn
    for item in range(num_clips * windows.per_clip):
        clip, number = divmod(item, windows.per_clip)
        here, backwards, fast = windows.parts(windows.start_of(number, generator))
        cuts = {"picture": here, "picture_reversed": backwards, "picture_fast": fast, "sound": here, "thumbnails": here}
        found.append(Window(item, clip, cuts))
    return found


class Contender(Protocol):
    """One way of keeping clips."""

    def epochs(self, num_clips: int, batch: int, seed: int) -> Iterator[CodeBatch]:
        """Batches of shuffled epochs without end, as it reads them for a training."""
        ...


@runtime_checkable
class ByNumber(Contender, Protocol):
    """One that also reads any clip that is asked for."""

    def read(self, clip: int) -> CodeBatch:
        """One clip as a batch of one."""
        ...

    def read_window(self, window: Window) -> CodeBatch:
        """A part of a clip as a batch of one."""
        ...

    def read_batch(self, clips: Sequence[int]) -> CodeBatch:
        """Clips stacked."""
        ...

    def codes(self, clip: int) -> np.ndarray:
        """The codes of a clip's pictures and nothing else, as they are kept, (frame, code), copied."""
        ...


class Ours:
    """The latent cache, read as training reads it."""

    def __init__(self, folder: Path, info: CacheInfo) -> None:
        self.source, self.windows = (
            LatentSource(folder / "ours.zarr", num_frames, "all", random_start=False)
            for num_frames in (info.num_frames, min(WINDOW_FRAMES, info.num_frames))
        )
        self.generator = np.random.default_rng(0)  # nothing is drawn

    @staticmethod
    def write(folder: Path, info: CacheInfo, rows: Rows) -> None:
        """Keeps them."""
        with LatentWriter(folder / "ours.zarr", info, overwrite=True, expected_clips=len(rows["video"])) as writer:
            writer.append(rows)
            writer.finish([], {})

    def read(self, clip: int) -> CodeBatch:
        """One clip."""
        return self.source.read(clip, self.generator)

    def read_window(self, window: Window) -> CodeBatch:
        """A part of a clip."""
        return self.windows.read(window.item, self.generator)

    def read_batch(self, clips: Sequence[int]) -> CodeBatch:
        """Clips stacked."""
        return self.source.read_batch(clips, [self.generator] * len(clips))

    def codes(self, clip: int) -> np.ndarray:
        """A row of one array."""
        return np.array(self.source.cache.rows["picture"][clip])

    def epochs(self, num_clips: int, batch: int, seed: int) -> Iterator[CodeBatch]:
        """By the loader of a training."""
        return Loader(self.source, LoaderSettings(batch_size=batch, num_workers=0), seed)


class Permuted:
    """Epochs of those that have no order of their own: permutations of numpy."""

    def read_batch(self, clips: Sequence[int]) -> CodeBatch:
        """Clips stacked."""
        raise NotImplementedError

    def epochs(self, num_clips: int, batch: int, seed: int) -> Iterator[CodeBatch]:
        """Clips by number; a batch may begin in one epoch and end in the next."""
        generator, order = np.random.default_rng(seed), list[int]()
        while True:
            while len(order) < batch:
                order += generator.permutation(num_clips).tolist()
            chosen, order = order[:batch], order[batch:]
            yield self.read_batch(chosen)


class Memmap(Permuted):
    """One raw file per array, mapped by numpy."""

    def __init__(self, folder: Path, info: CacheInfo) -> None:
        arrays = info.arrays()
        self.rows = {
            name: np.memmap(folder / f"{name}.raw", arrays[name][1], "r").reshape(-1, *arrays[name][0])
            for name in FIELDS
            if (folder / f"{name}.raw").exists()
        }

    @staticmethod
    def write(folder: Path, info: CacheInfo, rows: Rows) -> None:
        """Keeps them."""
        for name in kept_in(rows):
            rows[name].tofile(folder / f"{name}.raw")

    def read(self, clip: int) -> CodeBatch:
        """One clip."""
        return batch_of({name: np.array(rows[clip : clip + 1]) for name, rows in self.rows.items()})

    def read_window(self, window: Window) -> CodeBatch:
        """A part of a clip; no more is copied."""
        clip = slice(window.clip, window.clip + 1)
        found = {name: np.array(self.rows[name][clip, cut]) for name, cut in window.cuts.items()}
        return batch_of(found | {"has_sound": np.array(self.rows["has_sound"][clip])})

    def read_batch(self, clips: Sequence[int]) -> CodeBatch:
        """Clips stacked."""
        return batch_of({name: rows[clips] for name, rows in self.rows.items()})

    def codes(self, clip: int) -> np.ndarray:
        """A row of one file."""
        return np.array(self.rows["picture"][clip])


class ZarrIndexing(Permuted):
    """Our files, indexed through zarr."""

    def __init__(self, folder: Path, info: CacheInfo) -> None:
        self.rows: dict[str, Any] = {name: zarr.open_array(folder / "ours.zarr" / name, mode="r") for name in FIELDS}

    @staticmethod
    def write(folder: Path, info: CacheInfo, rows: Rows) -> None:
        """Nothing, it reads what ours wrote."""

    def read(self, clip: int) -> CodeBatch:
        """One clip."""
        return batch_of({name: np.asarray(rows[clip])[None] for name, rows in self.rows.items()})

    def read_window(self, window: Window) -> CodeBatch:
        """A part of a clip."""
        found = {name: np.asarray(self.rows[name][window.clip, cut])[None] for name, cut in window.cuts.items()}
        return batch_of(found | {"has_sound": np.asarray(self.rows["has_sound"][window.clip])[None]})

    def read_batch(self, clips: Sequence[int]) -> CodeBatch:
        """Clips stacked."""
        return batch_of({name: np.asarray(rows.oindex[list(clips)]) for name, rows in self.rows.items()})

    def codes(self, clip: int) -> np.ndarray:
        """A row of one array."""
        return np.asarray(self.rows["picture"][clip])


class Records:
    """Every clip as one record of bytes; how records are kept is told by those that are made from it."""

    def __init__(self, folder: Path, info: CacheInfo) -> None:
        self.folder, self.num_frames = folder, info.num_frames
        arrays, self.cuts, start = info.arrays(), {}, 0
        for name in FIELDS:
            shape, dtype = arrays[name]
            size = int(np.prod(shape)) * dtype.itemsize
            self.cuts[name] = (slice(start, start + size), shape, dtype)
            start += size

    def stack(self, records: Iterable[Any]) -> CodeBatch:
        """The batch of some records."""
        found = [self.arrays(record) for record in records]
        return batch_of({name: np.stack([arrays[name] for arrays in found]) for name in self.cuts})

    def arrays(self, record: Any) -> Rows:
        """The arrays of a record, not copied."""
        view = memoryview(record)
        return {name: np.frombuffer(view[cut], dtype).reshape(shape) for name, (cut, shape, dtype) in self.cuts.items()}


class RecordsByNumber(Records, Permuted):
    """Records of which any can be had."""

    def record(self, clip: int) -> Any:
        """The bytes of one clip."""
        raise NotImplementedError

    def read(self, clip: int) -> CodeBatch:
        """One clip."""
        return self.read_batch([clip])

    def read_window(self, window: Window) -> CodeBatch:
        """A part of a clip, whose whole record is read."""
        arrays = self.arrays(self.record(window.clip))
        found = {name: np.array(arrays[name][None, cut]) for name, cut in window.cuts.items()}
        return batch_of(found | {"has_sound": np.array(arrays["has_sound"][None])})

    def read_batch(self, clips: Sequence[int]) -> CodeBatch:
        """Clips stacked."""
        return self.stack(self.record(clip) for clip in clips)

    def codes(self, clip: int) -> np.ndarray:
        """The start of a record, or all of it where nothing else is kept."""
        cut, shape, dtype = self.cuts["picture"]
        return np.frombuffer(memoryview(self.record(clip))[cut], dtype).reshape(shape).copy()


def kept_in(rows: Rows) -> list[str]:
    """The arrays of a batch that are there, in the order in which records have them."""
    return [name for name in FIELDS if name in rows]


def batch_of(rows: Rows) -> CodeBatch:
    """The batch of stacked rows, as training takes it: codes as int64."""
    made = {}
    for name, block in rows.items():
        wide = block.astype(np.int64) if block.dtype == np.uint16 else np.asarray(block)
        made[FIELDS[name]] = torch.from_numpy(wide)
    return CodeBatch(**made)


def random_rows(info: CacheInfo, settings: LatentsSettings) -> Rows:
    """Rows of random codes."""
    generator, rows = np.random.default_rng(0), {}
    for name, (shape, dtype) in info.arrays().items():
        if dtype == np.float64:
            rows[name] = np.tile(np.arange(info.num_frames) / info.frames_per_second, (settings.num_clips, 1))
        elif dtype in (np.bool_, np.int32):
            rows[name] = np.zeros((settings.num_clips, *shape), dtype)
        else:
            most = 256 if dtype == np.uint8 else settings.vocabulary
            rows[name] = generator.integers(0, most, (settings.num_clips, *shape), dtype)
    return rows
