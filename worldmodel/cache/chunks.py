"""Rows of an array that lies in raw chunk files, mapped into memory: a read costs what its bytes cost."""

import ctypes
import math
import mmap
import os
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from worldmodel.errors import CacheError

_MAX_MAPS = 4096  # of one array at a time; Linux gives a process 65,530


class MappedRows:
    """Rows of one array; chunk file i holds rows i * chunk_rows to (i + 1) * chunk_rows, the last one padded.

    Args:
        files: the chunk files in order.
        num_rows: rows of the array.
        chunk_rows: rows of one chunk file.
        row_shape: shape of one row.
        dtype: of the values, as they lie in the file.

    Raises:
        CacheError: when a chunk file is missing or has not its full size.
    """

    def __init__(
        self, files: list[Path], num_rows: int, chunk_rows: int, row_shape: tuple[int, ...], dtype: np.dtype
    ) -> None:
        self.files, self.num_rows, self.chunk_rows = files, num_rows, chunk_rows
        self.row_shape, self.dtype = row_shape, dtype
        self._maps: dict[int, np.ndarray] = {}
        self.statuses = [self._check(file) for file in files]

    @property
    def chunk_bytes(self) -> int:
        """Size of one chunk file."""
        return self.chunk_rows * math.prod(self.row_shape) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, row: int) -> Any:
        """One row (an array, or a plain numpy value where a row has no axes), read-only and not copied."""
        if not 0 <= row < self.num_rows:
            raise IndexError(f"row {row} of {self.num_rows}")
        chunk, offset = divmod(row, self.chunk_rows)
        return self._map(chunk)[offset]

    def gather(self, rows: Sequence[int], cuts: Sequence[slice]) -> Shaped[np.ndarray, "row part ..."]:
        """A part of each of several rows, all parts as long; copied once, but a single one is a read-only view."""
        if len(rows) == 1:
            return self[rows[0]][cuts[0]][None]
        chunk_rows, kept = self.chunk_rows, self._maps.get  # looked up once: the loop is as fast as its lines are few
        parts = []
        for row, cut in zip(rows, cuts, strict=True):
            chunk, offset = divmod(row, chunk_rows)
            mapped = kept(chunk)
            parts.append((self._map(chunk) if mapped is None else mapped)[offset, cut])
        return np.concatenate(parts).reshape(len(rows), -1, *self.row_shape[1:])  # copied by C, not by the loop

    def to_array(self) -> np.ndarray:
        """All rows as one array in memory; for the small ones."""
        chunks = [np.fromfile(file, self.dtype).reshape(self.chunk_rows, *self.row_shape) for file in self.files]
        return np.concatenate(chunks)[: self.num_rows]

    def __getstate__(self) -> dict[str, Any]:
        # A map would travel to a loader's worker as a copy of all its data; each process makes its own.
        return self.__dict__ | {"_maps": {}}

    def _check(self, file: Path) -> tuple[int, int, int]:
        try:
            status = file.stat()
        except FileNotFoundError:
            raise CacheError(f"chunk {file} of the latent cache is missing: build the cache again") from None
        if status.st_size != self.chunk_bytes:
            raise CacheError(
                f"chunk {file} of the latent cache has {status.st_size} bytes, expected {self.chunk_bytes}: build the "
                "cache again"
            )
        return status.st_ino, status.st_mtime_ns, status.st_size

    def _map(self, chunk: int) -> np.ndarray:
        found = self._maps.get(chunk)
        if found is None:
            if self._check(self.files[chunk]) != self.statuses[chunk]:
                raise CacheError(
                    f"chunk {self.files[chunk]} of the latent cache was replaced while the cache was read: start "
                    "again, else rows would be of two caches"
                )
            mapped = _mapped(self.files[chunk], self.chunk_bytes)
            found = np.frombuffer(mapped, self.dtype).reshape(self.chunk_rows, *self.row_shape)
            found.flags.writeable = False
            if len(self._maps) >= _MAX_MAPS:
                del self._maps[next(iter(self._maps))]
            self._maps[chunk] = found
        return found


def _mapped(file: Path, num_bytes: int) -> Any:
    """A file as memory. By the C library, since a map of Python's `mmap` keeps a file descriptor until 3.13."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        address = _LIBC.mmap(None, num_bytes, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
    finally:
        os.close(descriptor)
    if address == ctypes.c_void_p(-1).value:
        number = ctypes.get_errno()
        raise CacheError(f"chunk {file} of the latent cache cannot be mapped ({os.strerror(number)})")
    # A cold read would else fetch a hundred times what is asked for.
    _LIBC.madvise(address, num_bytes, mmap.MADV_RANDOM)
    memory = (ctypes.c_ubyte * num_bytes).from_address(address)
    weakref.finalize(memory, _LIBC.munmap, address, num_bytes).atexit = False
    return memory


_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
_LIBC.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_LIBC.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
