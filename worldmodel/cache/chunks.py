"""Rows of an array that lies in raw chunk files, mapped into memory: a read costs what its bytes cost."""

import math
import mmap
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from worldmodel.errors import CacheError

_MAX_MAPS = 64  # of one array at a time: every map holds a file descriptor


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
        self._maps: OrderedDict[int, np.ndarray] = OrderedDict()
        for file in files:
            self._check(file)

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

    def to_array(self) -> np.ndarray:
        """All rows as one array in memory; for the small ones."""
        chunks = [np.fromfile(file, self.dtype).reshape(self.chunk_rows, *self.row_shape) for file in self.files]
        return np.concatenate(chunks)[: self.num_rows]

    def __getstate__(self) -> dict[str, Any]:
        # A map would travel to a loader's worker as a copy of all its data; each process makes its own.
        return self.__dict__ | {"_maps": OrderedDict()}

    def _check(self, file: Path) -> None:
        try:
            size = file.stat().st_size
        except FileNotFoundError:
            raise CacheError(f"chunk {file} of the latent cache is missing: build the cache again") from None
        if size != self.chunk_bytes:
            raise CacheError(
                f"chunk {file} of the latent cache has {size} bytes, expected {self.chunk_bytes}: build the cache again"
            )

    def _map(self, chunk: int) -> np.ndarray:
        if chunk in self._maps:
            self._maps.move_to_end(chunk)
            return self._maps[chunk]
        self._check(self.files[chunk])
        with self.files[chunk].open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        mapped.madvise(mmap.MADV_RANDOM)  # a cold read would else fetch a hundred times what is asked for
        self._maps[chunk] = np.frombuffer(mapped, self.dtype).reshape(self.chunk_rows, *self.row_shape)
        if len(self._maps) > _MAX_MAPS:
            self._maps.popitem(last=False)
        return self._maps[chunk]
