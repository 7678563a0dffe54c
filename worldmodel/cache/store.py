"""The door to zarr: arrays of a latent cache made, opened, and read in blocks where they cannot be mapped.

A cache lies in one of two profiles: raw chunk files, to be mapped, or an archive, whose chunks are compressed and
packed into shards. Any zarr tool opens both.
"""

import json
import math
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import zarr
import zarr.codecs
import zarr.storage
from jaxtyping import Shaped

from streams.addresses import NOT_THERE, Address, address_errors
from streams.errors import MediaError
from worldmodel.cache.info import CacheInfo
from worldmodel.errors import CacheError

CHUNK_BYTES = 16 * 2**20
ARCHIVE_CHUNK_BYTES = 2**20  # what reading one clip of an archive decompresses
KEPT_BYTES = 128 * 2**20  # blocks of one array that stay in memory
_MAX_CHUNK_CLIPS = 1024

Profile = Literal["mapped", "archive"]

_DIMENSIONS = {
    "picture": ("clip", "frame", "code"),
    "picture_reversed": ("clip", "frame", "code"),
    "picture_fast": ("clip", "frame", "code"),
    "sound": ("clip", "frame", "code"),
    "thumbnails": ("clip", "frame", "channel", "height", "width"),
    "seconds": ("clip", "frame"),
    "has_sound": ("clip",),
    "video": ("clip",),
    "heldout": ("clip",),
}


def create_arrays(
    folder: Path, info: CacheInfo, num_clips: int | None = None, profile: Profile = "mapped"
) -> dict[str, zarr.Array]:
    """Empty arrays of a new cache, by name.

    Args:
        folder: of the cache; what is there is deleted.
        info: says which arrays there are.
        num_clips: most clips that will come, so that the chunks of a small cache are not larger than the cache.
        profile: how they are to lie on the disk.
    """
    group, arrays = zarr.open_group(folder, mode="w", zarr_format=3), {}
    most = min(_MAX_CHUNK_CLIPS, num_clips or _MAX_CHUNK_CLIPS)
    for name, (shape, dtype) in info.arrays().items():
        row_bytes = math.prod(shape) * dtype.itemsize
        rows, packing = max(1, min(most, CHUNK_BYTES // row_bytes)), dict[str, Any](compressors=None)
        if profile == "archive":
            inner = max(1, min(most, ARCHIVE_CHUNK_BYTES // row_bytes))
            # The index stands first, since not every web server sends the end of a file whose length is not known.
            packing["shards"] = {"shape": (inner * max(1, rows // inner), *shape), "index_location": "start"}
            rows = inner
            packing["compressors"] = zarr.codecs.BloscCodec(
                typesize=dtype.itemsize, cname="zstd", clevel=5, shuffle=zarr.codecs.BloscShuffle.bitshuffle
            )
        arrays[name] = group.create_array(
            name,
            shape=(0, *shape),
            chunks=(rows, *shape),
            dtype=dtype,
            filters=None,
            dimension_names=_DIMENSIONS[name],
            config={"write_empty_chunks": True},  # else a chunk of zeros would be a missing file
            **packing,
        )
    return arrays


def file_rows(array: zarr.Array) -> int:
    """Rows of an array that lie in one file."""
    return (array.shards or array.chunks)[0]


def file_keys(array: zarr.Array) -> list[str]:
    """Names of an array's files inside its folder, in the order of its rows."""
    num_files = math.ceil(array.shape[0] / file_rows(array))
    return [file_key(number, array.ndim) for number in range(num_files)]


def file_key(number: int, num_axes: int) -> str:
    """Name of one file of an array, whose other axes are never cut."""
    return "/".join(["c", str(number), *"0" * (num_axes - 1)])


def read_attributes(root: Address) -> dict[str, Any]:
    """The attributes of a group, read without zarr, which would not say what is wrong with them.

    Raises:
        CacheError: the file is damaged, or is not a group of zarr v3.
        FileNotFoundError: there is none.
    """
    file = root / "zarr.json"
    try:
        with address_errors(file):
            content = json.loads(file.read_bytes())
        if content["zarr_format"] != 3 or content["node_type"] != "group":
            raise ValueError("not a group of zarr v3")
        return cast(dict[str, Any], content["attributes"])
    except MediaError as error:
        if NOT_THERE in str(error):
            raise FileNotFoundError(str(root)) from error
        raise CacheError(str(error)) from error
    except (ValueError, KeyError, TypeError) as error:
        raise CacheError(f"{file} is damaged ({error}): build the cache again") from error


def write_attributes(folder: Path, attributes: dict[str, Any]) -> None:
    """Set the attributes of a group."""
    zarr.open_group(folder, mode="r+", zarr_format=3).update_attributes(attributes)


def open_array(root: Address, name: str) -> zarr.Array:
    """An array of a cache, local or wherever fsspec reads.

    Raises:
        CacheError: there is none, or its description is damaged.
    """
    where: Any = (
        root / name
        if isinstance(root, Path)
        else zarr.storage.FsspecStore.from_url(
            str(root / name), storage_options=dict(root.storage_options), read_only=True
        )
    )
    try:
        return zarr.open_array(where, mode="r", zarr_format=3)
    except FileNotFoundError:
        raise CacheError(f"{root} has no array {name!r}: build the cache again") from None
    except (ValueError, KeyError, TypeError, NotImplementedError, AttributeError) as error:
        raise CacheError(f"{root}/{name}/zarr.json is damaged ({error}): build the cache again") from error


class BlockRows:
    """Rows of one array, read by zarr in blocks of which the latest stay in memory; for archives and remote caches.

    Args:
        array: opened by `open_array`.
        root: of the cache.
        name: of the array.
    """

    def __init__(self, array: zarr.Array, root: Address, name: str) -> None:
        self.array, self.root, self.name = array, root, name
        self.num_rows, self.block_rows = array.shape[0], array.chunks[0]
        self.row_shape, self.dtype = array.shape[1:], np.dtype(cast(Any, array.dtype))
        block_bytes = self.block_rows * math.prod(self.row_shape) * self.dtype.itemsize
        self._most = max(2, KEPT_BYTES // block_bytes)
        self._blocks: OrderedDict[int, np.ndarray] = OrderedDict()

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, row: int) -> Any:
        """One row (an array, or a plain numpy value where a row has no axes), read-only."""
        if not 0 <= row < self.num_rows:
            raise IndexError(f"row {row} of {self.num_rows}")
        number, offset = divmod(row, self.block_rows)
        return self._block(number)[offset]

    def gather(self, rows: Sequence[int], cuts: Sequence[slice]) -> Shaped[np.ndarray, "row part ..."]:
        """A part of each of several rows, all parts as long."""
        return np.stack([self[row][cut] for row, cut in zip(rows, cuts, strict=True)])

    def to_array(self) -> np.ndarray:
        """All rows as one array in memory; for the small ones."""
        return self._read(0, self.num_rows)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_blocks": OrderedDict()}

    def _block(self, number: int) -> Shaped[np.ndarray, "row ..."]:
        if number not in self._blocks:
            start = number * self.block_rows
            block = self._read(start, start + self.block_rows)
            self._require_file(start, block)
            block.flags.writeable = False
            self._blocks[number] = block
            if len(self._blocks) > self._most:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(number)
        return self._blocks[number]

    def _read(self, start: int, stop: int) -> Shaped[np.ndarray, "row ..."]:
        try:
            return np.asarray(self.array[start:stop])
        except (RuntimeError, ValueError) as error:
            raise CacheError(
                f"rows {start} and on of {self.root}/{self.name} are damaged ({error}): build the cache again"
            ) from error

    def _require_file(self, start: int, block: np.ndarray) -> None:
        """What is missing reads as zeros through zarr; here it is an error."""
        file = self.root / self.name / file_key(start // file_rows(self.array), self.array.ndim)
        if not block.any() and not file.exists():
            raise CacheError(f"chunk {file} of the latent cache is missing: build the cache again")
