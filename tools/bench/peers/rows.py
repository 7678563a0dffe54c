"""Ways of keeping clips of codes: ours, a plain memmap, and what others use; all give the same batch.

A contender is written once into a folder, from rows by array as a latent cache has them; then it reads clips
by number.
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import zarr

from tools.bench.settings import LatentsSettings
from worldmodel.cache.info import CacheInfo
from worldmodel.cache.latents import CodeBatch, LatentSource
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


class Contender(Protocol):
    """One way of keeping clips."""

    def read(self, clip: int) -> CodeBatch:
        """One clip as a batch of one."""
        ...

    def read_batch(self, clips: Sequence[int]) -> CodeBatch:
        """Clips stacked."""
        ...


class Ours:
    """The latent cache, read as training reads it."""

    def __init__(self, folder: Path, info: CacheInfo) -> None:
        self.source = LatentSource(folder / "ours.zarr", info.num_frames, "all", random_start=False)
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

    def read_batch(self, clips: Sequence[int]) -> CodeBatch:
        """Clips stacked."""
        return self.source.read_batch(clips, [self.generator] * len(clips))


class Memmap:
    """One raw file per array, mapped by numpy."""

    def __init__(self, folder: Path, info: CacheInfo) -> None:
        arrays = info.arrays()
        self.rows = {
            name: np.memmap(folder / f"{name}.raw", arrays[name][1], "r").reshape(-1, *arrays[name][0])
            for name in FIELDS
        }

    @staticmethod
    def write(folder: Path, info: CacheInfo, rows: Rows) -> None:
        """Keeps them."""
        for name in FIELDS:
            rows[name].tofile(folder / f"{name}.raw")

    def read(self, clip: int) -> CodeBatch:
        """One clip."""
        return batch_of({name: np.array(rows[clip : clip + 1]) for name, rows in self.rows.items()})

    def read_batch(self, clips: Sequence[int]) -> CodeBatch:
        """Clips stacked."""
        return batch_of({name: rows[clips] for name, rows in self.rows.items()})


class ZarrIndexing:
    """Our files, indexed through zarr."""

    def __init__(self, folder: Path, info: CacheInfo) -> None:
        self.rows: dict[str, Any] = {name: zarr.open_array(folder / "ours.zarr" / name, mode="r") for name in FIELDS}

    @staticmethod
    def write(folder: Path, info: CacheInfo, rows: Rows) -> None:
        """Nothing, it reads what ours wrote."""

    def read(self, clip: int) -> CodeBatch:
        """One clip."""
        return batch_of({name: np.asarray(rows[clip])[None] for name, rows in self.rows.items()})

    def read_batch(self, clips: Sequence[int]) -> CodeBatch:
        """Clips stacked."""
        return batch_of({name: np.asarray(rows.oindex[list(clips)]) for name, rows in self.rows.items()})


class Records:
    """Every clip as one record of bytes; how records are kept is told by those below."""

    def __init__(self, folder: Path, info: CacheInfo) -> None:
        arrays, self.cuts, start = info.arrays(), {}, 0
        for name in FIELDS:
            shape, dtype = arrays[name]
            size = int(np.prod(shape)) * dtype.itemsize
            self.cuts[name] = (slice(start, start + size), shape, dtype)
            start += size

    def record(self, clip: int) -> Any:
        """The bytes of one clip."""
        raise NotImplementedError

    def read(self, clip: int) -> CodeBatch:
        """One clip."""
        return self.read_batch([clip])

    def read_batch(self, clips: Sequence[int]) -> CodeBatch:
        """Clips stacked."""
        found = [memoryview(self.record(clip)) for clip in clips]
        return batch_of(
            {
                name: np.stack([np.frombuffer(record[cut], dtype).reshape(shape) for record in found])
                for name, (cut, shape, dtype) in self.cuts.items()
            }
        )


class NpyPerFrame(Records):
    """One .npy for every frame."""

    def __init__(self, folder: Path, info: CacheInfo) -> None:
        super().__init__(folder, info)
        self.folder, self.num_frames = folder / "npy", info.num_frames

    @staticmethod
    def write(folder: Path, info: CacheInfo, rows: Rows) -> None:
        """A folder per clip; its record in as many parts as it has frames."""
        for clip, record in enumerate(records_of(rows)):
            target = folder / "npy" / str(clip)
            target.mkdir(parents=True, exist_ok=True)
            for frame, part in enumerate(np.array_split(np.frombuffer(record, np.uint8), info.num_frames)):
                np.save(target / f"{frame}.npy", part)

    def record(self, clip: int) -> np.ndarray:
        """Joins its frames."""
        return np.concatenate([np.load(self.folder / str(clip) / f"{frame}.npy") for frame in range(self.num_frames)])


class Lmdb(Records):
    """LMDB, one value per clip."""

    def __init__(self, folder: Path, info: CacheInfo) -> None:
        import lmdb  # type: ignore[import-not-found]

        super().__init__(folder, info)
        environment = lmdb.open(str(folder / "lmdb"), readonly=True, lock=False, readahead=False)
        self.values = environment.begin(buffers=True)

    @staticmethod
    def write(folder: Path, info: CacheInfo, rows: Rows) -> None:
        """Keeps them."""
        import lmdb  # type: ignore[import-not-found]

        size = 2 * sum(rows[name].nbytes for name in FIELDS) + 2**24
        with lmdb.open(str(folder / "lmdb"), map_size=size) as environment, environment.begin(write=True) as values:
            for clip, record in enumerate(records_of(rows)):
                values.put(clip.to_bytes(8, "big"), record)

    def record(self, clip: int) -> Any:
        """The value, mapped."""
        return self.values.get(clip.to_bytes(8, "big"))


class Mds(Records):
    """MosaicML's streaming shards."""

    def __init__(self, folder: Path, info: CacheInfo) -> None:
        from streaming import StreamingDataset  # type: ignore[import-not-found]

        super().__init__(folder, info)
        self.dataset = StreamingDataset(local=str(folder / "mds"), batch_size=1)

    @staticmethod
    def write(folder: Path, info: CacheInfo, rows: Rows) -> None:
        """Keeps them."""
        from streaming import MDSWriter  # type: ignore[import-not-found]

        shutil.rmtree(folder / "mds", ignore_errors=True)
        with MDSWriter(out=str(folder / "mds"), columns={"record": "bytes"}) as writer:
            for record in records_of(rows):
                writer.write({"record": record})

    def record(self, clip: int) -> Any:
        """The sample's bytes."""
        return self.dataset[clip]["record"]


CONTENDERS: dict[str, Callable[[Path, CacheInfo], Contender]] = {
    "ours": Ours,
    "memmap": Memmap,
    "zarr": ZarrIndexing,
    "npy": NpyPerFrame,
    "lmdb": Lmdb,
    "mds": Mds,
}
MODULES = {"lmdb": "lmdb", "mds": "streaming"}


def batch_of(rows: Rows) -> CodeBatch:
    """The batch of stacked rows, as training takes it: codes as int64."""
    made = {}
    for name, block in rows.items():
        wide = block.astype(np.int64) if block.dtype == np.uint16 else np.asarray(block)
        made[FIELDS[name]] = torch.from_numpy(wide)
    return CodeBatch(**made)


def records_of(rows: Rows) -> list[bytes]:
    """The bytes of every clip."""
    return [b"".join(rows[name][clip].tobytes() for name in FIELDS) for clip in range(len(rows["video"]))]


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
