"""Ways of keeping every clip as one record of bytes: files of .npy, LMDB, MosaicML's MDS, litdata and webdataset.

All at the settings that are theirs by default, with shards of 64 MB.
"""

import shutil
from collections.abc import Iterator
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np

from tools.bench.peers.rows import Records, RecordsByNumber, Rows, kept_in
from worldmodel.cache.info import CacheInfo
from worldmodel.cache.latents import CodeBatch

SHARD_BYTES = 2**26
NUM_SHUFFLED = 1000  # clips that webdataset shuffles among each other, as its documentation does


class NpyPerFrame(RecordsByNumber):
    """One .npy for every frame."""

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
        target = self.folder / "npy" / str(clip)
        return np.concatenate([np.load(target / f"{frame}.npy") for frame in range(self.num_frames)])


class Lmdb(RecordsByNumber):
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

        size = 2 * sum(rows[name].nbytes for name in kept_in(rows)) + 2**24
        with lmdb.open(str(folder / "lmdb"), map_size=size) as environment, environment.begin(write=True) as values:
            for clip, record in enumerate(records_of(rows)):
                values.put(clip.to_bytes(8, "big"), record)

    def record(self, clip: int) -> Any:
        """The value, mapped."""
        return self.values.get(clip.to_bytes(8, "big"))


class Mds(RecordsByNumber):
    """MosaicML's streaming shards."""

    def __init__(self, folder: Path, info: CacheInfo) -> None:
        from streaming import StreamingDataset  # type: ignore[import-not-found]

        super().__init__(folder, info)
        self.dataset = StreamingDataset(local=str(folder / "mds"), shuffle=True, batch_size=1)

    @staticmethod
    def write(folder: Path, info: CacheInfo, rows: Rows) -> None:
        """Keeps them."""
        from streaming import MDSWriter  # type: ignore[import-not-found]

        shutil.rmtree(folder / "mds", ignore_errors=True)
        with MDSWriter(out=str(folder / "mds"), columns={"record": "bytes"}, size_limit=SHARD_BYTES) as writer:
            for record in records_of(rows):
                writer.write({"record": record})

    def record(self, clip: int) -> Any:
        """The sample's bytes."""
        return self.dataset[clip]["record"]

    def epochs(self, num_clips: int, batch: int, seed: int) -> Iterator[CodeBatch]:
        """In the dataset's own shuffled order, which is another in every epoch."""
        while True:
            samples = iter(self.dataset)
            for _ in range(num_clips // batch):
                yield self.stack(sample["record"] for sample in islice(samples, batch))


class LitData(RecordsByNumber):
    """litdata's chunks."""

    def __init__(self, folder: Path, info: CacheInfo) -> None:
        super().__init__(folder, info)
        self.dataset = self._open(0)

    @staticmethod
    def write(folder: Path, info: CacheInfo, rows: Rows) -> None:
        """Keeps them; its worker reads the records from a file."""
        from litdata import optimize  # type: ignore[import-not-found]

        records, source = records_of(rows), folder / "litdata.records"
        source.write_bytes(b"".join(records))
        optimize(
            partial(_record_in, source, len(records[0])),
            list(range(len(records))),
            str(folder / "litdata"),
            chunk_bytes=SHARD_BYTES,
            num_workers=1,
            keep_data_ordered=True,
            verbose=False,
        )
        source.unlink()

    def record(self, clip: int) -> Any:
        """The item."""
        return self.dataset[clip]

    def epochs(self, num_clips: int, batch: int, seed: int) -> Iterator[CodeBatch]:
        """In the dataset's own shuffled order."""
        dataset = self._open(seed)
        for epoch in count():
            dataset.set_epoch(epoch)
            items = (item for item in dataset)  # the dataset is its own iterator, and begins anew at every `iter`
            for _ in range(num_clips // batch):
                yield self.stack(islice(items, batch))

    def _open(self, seed: int) -> Any:
        from litdata import StreamingDataset  # type: ignore[import-not-found]

        return StreamingDataset(str(self.folder / "litdata"), shuffle=True, seed=seed)


class WebDataset(Records):
    """Tar files, read from the front: no clip can be had by its number."""

    @staticmethod
    def write(folder: Path, info: CacheInfo, rows: Rows) -> None:
        """Keeps them."""
        from webdataset import ShardWriter  # type: ignore[import-not-found]

        (folder / "webdataset").mkdir()
        with ShardWriter(str(folder / "webdataset" / "%06d.tar"), maxsize=SHARD_BYTES, verbose=0) as writer:
            for clip, record in enumerate(records_of(rows)):
                writer.write({"__key__": f"{clip:08d}", "record": record})

    def epochs(self, num_clips: int, batch: int, seed: int) -> Iterator[CodeBatch]:
        """Shards in random order, and their clips shuffled in a buffer."""
        import webdataset  # type: ignore[import-not-found]

        shards = sorted(map(str, (self.folder / "webdataset").glob("*.tar")))
        dataset = webdataset.WebDataset(shards, shardshuffle=len(shards), seed=seed).shuffle(NUM_SHUFFLED)
        while True:
            samples = iter(dataset)
            for _ in range(num_clips // batch):
                yield self.stack(sample["record"] for sample in islice(samples, batch))


def records_of(rows: Rows) -> list[bytes]:
    """The bytes of every clip."""
    return [b"".join(rows[name][clip].tobytes() for name in kept_in(rows)) for clip in range(len(rows["picture"]))]


def _record_in(path: Path, size: int, clip: int) -> bytes:
    with path.open("rb") as file:
        file.seek(clip * size)
        return file.read(size)
