"""Writing a latent cache: whole files of rows into a folder beside it, which takes its place when it is complete."""

import dataclasses
import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from worldmodel.cache.info import CacheInfo
from worldmodel.cache.store import Profile, create_arrays, file_key, file_rows, write_attributes
from worldmodel.errors import CacheError, SettingsError

FORMAT_VERSION = 2


class LatentWriter:
    """Writes a cache; use it as a context manager. What is not finished leaves nothing behind.

    Rows are collected until they fill a file; whole files are written into a folder beside the cache, and `finish`
    writes the attributes and puts the folder in the cache's place. One process writes at a time.

    Args:
        path: the cache, OUT.zarr.
        info: what is known before the first clip.
        overwrite: replace a cache that is there already, once the new one is complete.
        expected_clips: so that the chunks of a small cache are not larger than the cache.
        profile: how the rows lie on the disk.

    Raises:
        CacheError: when there is something at `path` and `overwrite` is not asked for.
    """

    def __init__(
        self,
        path: str | Path,
        info: CacheInfo,
        overwrite: bool = False,
        expected_clips: int | None = None,
        profile: Profile = "mapped",
    ) -> None:
        self.path, self.info, self.overwrite, self.num_clips = Path(path), info, overwrite, 0
        if self.path.exists() and not overwrite:
            raise CacheError(f"{self.path} exists already: give another name, or --overwrite to replace it")
        require_two_bytes(info)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._folder = self.path.with_name(f"{self.path.name}.partial")
        self._waiting: dict[str, list[np.ndarray]] = {name: [] for name in info.arrays()}
        with write_errors(self._folder):
            self._arrays = create_arrays(self._folder, info, expected_clips, profile)

    def __enter__(self) -> "LatentWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._folder.exists():
            shutil.rmtree(self._folder)

    def append(self, rows: dict[str, np.ndarray]) -> None:
        """Add clips: for every array of `CacheInfo.arrays()` a block with one row per clip.

        Raises:
            ValueError: when an array is missing or its rows have another shape.
            CacheError: when the disk is full.
        """
        arrays = self.info.arrays()
        counts = {len(block) for block in rows.values()}
        if rows.keys() != arrays.keys() or len(counts) != 1:
            raise ValueError(f"rows of {sorted(rows)} ({counts} clips), expected the same number of {sorted(arrays)}")
        for name, (shape, dtype) in arrays.items():
            if rows[name].shape[1:] != shape:
                raise ValueError(f"rows of {name} have shape {rows[name].shape[1:]}, expected {shape}")
            self._waiting[name].append(rows[name].astype(dtype, casting="same_kind"))
            self._write(name, last=False)
        self.num_clips += counts.pop()

    def finish(self, skipped: list[tuple[str, str]], statistics: dict[str, Any]) -> CacheInfo:
        """Write what is left, then the attributes, and put the cache in its place.

        Raises:
            CacheError: when no clip was added, or the disk is full.
        """
        if self.num_clips == 0:
            raise CacheError(f"{self.path}: no clip could be encoded, so no cache is written ({len(skipped)} skipped)")
        for name in self._waiting:
            self._write(name, last=True)
        self.info = dataclasses.replace(self.info, skipped=skipped, statistics=statistics)
        with write_errors(self._folder):
            write_attributes(self._folder, sealed(self.info.to_attributes() | self._checksums()))
            sync_tree(self._folder)
        old = self.path.with_name(f"{self.path.name}.old.partial")
        if old.exists():
            shutil.rmtree(old)
        if self.path.exists():
            self.path.replace(old)
        self._folder.replace(self.path)
        if old.exists():
            shutil.rmtree(old)
        return self.info

    def _write(self, name: str, last: bool) -> None:
        """Write all files that are full, and with `last` the rest too."""
        array = self._arrays[name]
        most = file_rows(array)
        if not last and sum(map(len, self._waiting[name])) < most:
            return
        rows = np.concatenate(self._waiting[name])
        stop = len(rows) if last else len(rows) // most * most
        with write_errors(self._folder):
            for start in range(0, stop, most):
                block = rows[start : min(start + most, stop)]
                first = array.shape[0]
                array.resize((first + len(block), *array.shape[1:]))
                array[first:] = block
        self._waiting[name] = [rows[stop:]]

    def _checksums(self) -> dict[str, Any]:
        """Of every file; the profile is seen from the arrays themselves."""
        sums: dict[str, list[int]] = {}
        for name, array in self._arrays.items():
            count = -(-array.shape[0] // file_rows(array))
            files = [self._folder / name / file_key(number, array.ndim) for number in range(count)]
            sums[name] = [zlib.crc32(file.read_bytes()) for file in files]
        described = {name: zlib.crc32((self._folder / name / "zarr.json").read_bytes()) for name in self._arrays}
        return {"format_version": FORMAT_VERSION, "crc32": sums, "crc32_of_descriptions": described}


def work_folder(path: Path) -> Path:
    """Where the finished parts of a cache are until it is complete."""
    return path.with_name(f"{path.name}.building")


def sealed(attributes: dict[str, Any]) -> dict[str, Any]:
    """Attributes with a digest of themselves."""
    return attributes | {"digest": digest_of(attributes)}


def digest_of(attributes: dict[str, Any]) -> str:
    """SHA-256 over attributes without their own digest, shortened."""
    plain = {name: value for name, value in attributes.items() if name != "digest"}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def require_two_bytes(info: CacheInfo) -> None:
    """Refuse codecs whose codes do not fit.

    Raises:
        SettingsError: names the codec.
    """
    for kind, pyramid in info.pyramids.items():
        if any(scale.vocabulary > 2**16 for scale in pyramid.scales):
            raise SettingsError(f"the {kind} codec has a vocabulary above 65536, more than a cache holds (uint16)")


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turns what a full or lost disk raises into one line.

    Raises:
        CacheError: says what could not be written, why, and how to go on.
    """
    try:
        yield
    except OSError as error:
        raise CacheError(
            f"{path} cannot be written ({error.strerror or error}): what is finished is kept; make room, then run the "
            "same command again"
        ) from error


def sync(path: Path) -> None:
    """Waits until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Waits until all of a folder is on the disk."""
    for path in sorted(folder.rglob("*")):
        sync(path)
    sync(folder)
