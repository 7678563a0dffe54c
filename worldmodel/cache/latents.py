"""The latent cache: codes of every clip as a zarr v3 group whose chunk files are raw arrays, mapped when read.

Any zarr tool opens it. It is read by mapping the chunk files directly, because zarr reads a whole chunk for every clip
that is indexed, hundreds of times as much. A missing chunk would read as zeros through zarr; here it is an error.
"""

import dataclasses
import importlib.metadata
import math
import shutil
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, cast

import numpy as np
import torch
import zarr
import zarr.errors
from jaxtyping import Bool, Int, UInt8
from torch import Tensor

from worldmodel.cache.chunks import MappedRows
from worldmodel.cache.windows import Windows
from worldmodel.errors import CacheError, SettingsError
from worldmodel.layout import Pyramid

FORMAT_VERSION = 1
CHUNK_BYTES = 16 * 2**20
_MAX_CHUNK_CLIPS = 1024

Split = Literal["train", "heldout", "all"]


@dataclass(frozen=True)
class CacheInfo:
    """What a cache says about itself; its zarr attributes.

    Attributes:
        fingerprints: of the codec that made the codes, by kind (picture, sound).
        pyramids: layout of the codes, by kind.
        num_frames: frames of one clip.
        frames_per_second: rate at which the videos were sampled.
        sample_hz: rate of the sound.
        thumbnail: (height, width) of the thumbnails.
        videos: (name, SHA-256 of the file) of every video; the array `video` holds positions in this list.
        skipped: (name, reason) of every file, or clip of one, that is not in the cache.
        statistics: what was measured while encoding, see `worldmodel.cache.encoding.CodeStatistics`.
        package_version: of worldmodel.
    """

    fingerprints: dict[str, str]
    pyramids: dict[str, Pyramid]
    num_frames: int
    frames_per_second: float
    sample_hz: int
    thumbnail: tuple[int, int] = (32, 32)
    videos: list[tuple[str, str]] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    statistics: dict[str, Any] = field(default_factory=dict)
    package_version: str = field(default_factory=lambda: importlib.metadata.version("worldmodel"))

    def to_attributes(self) -> dict[str, Any]:
        """Plain values for JSON."""
        plain = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        return plain | {"pyramids": {kind: pyramid.describe() for kind, pyramid in self.pyramids.items()}}

    @classmethod
    def from_attributes(cls, attributes: dict[str, Any]) -> "CacheInfo":
        """Read back what `to_attributes` wrote."""
        known = {entry.name: attributes[entry.name] for entry in dataclasses.fields(cls)}
        known["pyramids"] = {
            kind: Pyramid.from_description(description) for kind, description in known["pyramids"].items()
        }
        known["thumbnail"] = tuple(known["thumbnail"])
        known["videos"] = [tuple(video) for video in known["videos"]]
        known["skipped"] = [tuple(entry) for entry in known["skipped"]]
        return cls(**known)

    def arrays(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Shape of one clip's row and type of the values, for every array of the cache."""
        frames, codes = self.num_frames, self.pyramids["picture"].num_codes
        shapes: dict[str, tuple[tuple[int, ...], str]] = {
            "picture": ((frames, codes), "<u2"),
            "picture_reversed": ((frames, codes), "<u2"),
            "picture_fast": ((frames // 2, codes), "<u2"),
            "thumbnails": ((frames, 3, *self.thumbnail), "|u1"),
            "seconds": ((frames,), "<f8"),
            "has_sound": ((), "|b1"),
            "video": ((), "<i4"),
            "heldout": ((), "|b1"),
        }
        if "sound" in self.pyramids:
            shapes["sound"] = ((frames, self.pyramids["sound"].num_codes), "<u2")
        return {name: (shape, np.dtype(dtype)) for name, (shape, dtype) in shapes.items()}


class LatentWriter:
    """Writes a cache; use it as a context manager. What is not finished leaves nothing behind.

    Rows are collected until they fill a chunk; whole chunks are written into a folder beside the cache, and `finish`
    writes the attributes and puts the folder in the cache's place.

    Args:
        path: the cache, OUT.zarr.
        info: what is known before the first clip.
        overwrite: replace a cache that is there already, once the new one is complete.
        expected_clips: so that the chunks of a small cache are not larger than the cache.

    Raises:
        CacheError: when there is something at `path` and `overwrite` is not asked for.
    """

    def __init__(
        self, path: str | Path, info: CacheInfo, overwrite: bool = False, expected_clips: int | None = None
    ) -> None:
        self.path, self.info, self.overwrite, self.num_clips = Path(path), info, overwrite, 0
        if self.path.exists() and not overwrite:
            raise CacheError(f"{self.path} exists already: give another name, or --overwrite to replace it")
        for kind, pyramid in info.pyramids.items():
            if any(scale.vocabulary > 2**16 for scale in pyramid.scales):
                raise SettingsError(f"the {kind} codec has a vocabulary above 65536, more than a cache holds (uint16)")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix=f"{self.path.name}.", suffix=".partial", dir=self.path.parent))
        self._group = zarr.open_group(self._folder, mode="w", zarr_format=3)
        self._checksums: dict[str, list[int]] = {name: [] for name in info.arrays()}
        self._waiting: dict[str, list[np.ndarray]] = {name: [] for name in info.arrays()}
        self._arrays: dict[str, zarr.Array] = {}
        most = min(_MAX_CHUNK_CLIPS, expected_clips or _MAX_CHUNK_CLIPS)
        for name, (shape, dtype) in info.arrays().items():
            chunk = max(1, min(most, CHUNK_BYTES // (math.prod(shape) * dtype.itemsize)))
            self._arrays[name] = self._group.create_array(
                name,
                shape=(0, *shape),
                chunks=(chunk, *shape),
                dtype=dtype,
                compressors=None,
                filters=None,
                dimension_names=_DIMENSIONS[name],
                config={"write_empty_chunks": True},  # else a chunk of zeros would be a missing file
            )

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
            CacheError: when no clip was added.
        """
        if self.num_clips == 0:
            raise CacheError(f"{self.path}: no clip could be encoded, so no cache is written ({len(skipped)} skipped)")
        for name in self._waiting:
            self._write(name, last=True)
        self.info = dataclasses.replace(self.info, skipped=skipped, statistics=statistics)
        self._group.update_attributes(
            self.info.to_attributes() | {"format_version": FORMAT_VERSION, "crc32": self._checksums}
        )
        if self.path.exists():
            old = Path(tempfile.mkdtemp(prefix=f"{self.path.name}.old.", suffix=".partial", dir=self.path.parent))
            self.path.replace(old / self.path.name)
            self._folder.replace(self.path)
            shutil.rmtree(old)
        else:
            self._folder.replace(self.path)
        return self.info

    def _write(self, name: str, last: bool) -> None:
        """Write all chunks that are full, and with `last` the rest too."""
        array = self._arrays[name]
        chunk = array.chunks[0]
        if not last and sum(map(len, self._waiting[name])) < chunk:
            return
        rows = np.concatenate(self._waiting[name])
        stop = len(rows) if last else len(rows) // chunk * chunk
        for start in range(0, stop, chunk):
            block = rows[start : min(start + chunk, stop)]
            first = array.shape[0]
            array.resize((first + len(block), *array.shape[1:]))
            array[first:] = block
            padded = np.zeros((chunk, *block.shape[1:]), block.dtype)
            padded[: len(block)] = block
            self._checksums[name].append(zlib.crc32(padded.tobytes()))
        self._waiting[name] = [rows[stop:]]


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


class LatentCache:
    """A finished cache, opened for reading.

    Attributes:
        info: what the cache says about itself.
        num_clips: clips in it.
        rows: its arrays by name, mapped.

    Raises:
        CacheError: when there is no cache at `path`, it has another format, or a chunk file is missing or short.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        group = _open_group(self.path)
        attributes = cast(dict[str, Any], dict(group.attrs))
        if attributes.get("format_version") != FORMAT_VERSION:
            raise CacheError(
                f"{self.path} has cache format {attributes.get('format_version')}, expected {FORMAT_VERSION}: "
                "build it again with `python -m tools.latents build`"
            )
        self.info = CacheInfo.from_attributes(attributes)
        self._checksums: dict[str, list[int]] = attributes["crc32"]
        self.rows = {name: self._mapped(_array(group, name), name) for name in self.info.arrays()}
        self.num_clips = len(self.rows["picture"])

    @property
    def num_bytes(self) -> int:
        """Size of the cache on disk."""
        return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())

    def clips_of(self, split: Split) -> np.ndarray:
        """Positions of the clips of one split."""
        if split == "all":
            return np.arange(self.num_clips)
        return np.flatnonzero(self.rows["heldout"].to_array() == (split == "heldout"))

    def verify(self) -> int:
        """Compare every chunk file with its checksum; returns how many there are.

        Raises:
            CacheError: names every damaged file.
        """
        damaged, num_files = [], 0
        for name, rows in self.rows.items():
            for file, expected in zip(rows.files, self._checksums[name], strict=True):
                num_files += 1
                if zlib.crc32(file.read_bytes()) != expected:
                    damaged.append(str(file.relative_to(self.path)))
        if damaged:
            raise CacheError(f"{self.path}: damaged chunks {', '.join(damaged)}: build the cache again")
        return num_files

    def _mapped(self, array: zarr.Array, name: str) -> MappedRows:
        shape, dtype = self.info.arrays()[name]
        if array.shards is not None or array.compressors or array.shape[1:] != shape or array.dtype != dtype:
            raise CacheError(
                f"{self.path}/{name} is not raw {dtype} rows of {shape}: the cache was changed; build it again"
            )
        num_chunks = math.ceil(array.shape[0] / array.chunks[0])
        keys = (array.metadata.encode_chunk_key((chunk, *[0] * len(shape))) for chunk in range(num_chunks))
        files = [self.path / name / key for key in keys]
        return MappedRows(files, array.shape[0], array.chunks[0], shape, dtype)


def require_codec(path: str | Path, fingerprints: dict[str, str]) -> CacheInfo:
    """Refuse to go on with a codec that did not make the cache: losses would fall and rollouts would be noise.

    Args:
        path: the cache.
        fingerprints: of the codecs at hand, by kind.

    Raises:
        CacheError: says which codec made the cache, which was given, and what to do.
    """
    info = LatentCache(path).info
    for kind in sorted(info.fingerprints.keys() | fingerprints.keys()):
        made, given = info.fingerprints.get(kind, "none"), fingerprints.get(kind, "none")
        if made != given:
            raise CacheError(
                f"{path} was made with {kind} codec {made}, but codec {given} was given: give the codec it was made "
                "with, or build the cache again with `python -m tools.latents build`"
            )
    return info


@dataclass(frozen=True)
class CodeBatch:
    """Windows of clips as codes, stacked.

    Attributes:
        picture: codes of the frames.
        reversed: codes of the same frames, encoded (and standing) in reversed order.
        fast: codes of every second frame, encoded in that order.
        sound: codes of the frames' slices of sound; no columns where there is no sound codec.
        has_sound: whether the clip's video has a sound track.
        thumbnails: the frames, small.
    """

    picture: Int[Tensor, "batch frame code"]
    reversed: Int[Tensor, "batch frame code"]
    fast: Int[Tensor, "batch half code"]
    sound: Int[Tensor, "batch frame sound_code"]
    has_sound: Bool[Tensor, " batch"]
    thumbnails: UInt8[Tensor, "batch frame 3 height width"]

    def to(self, device: torch.device | str) -> "CodeBatch":
        """The same batch on another device."""
        return CodeBatch(**{name: value.to(device, non_blocking=True) for name, value in vars(self).items()})

    def pin_memory(self) -> "CodeBatch":
        """The same batch in page-locked memory."""
        return CodeBatch(**{name: value.pin_memory() for name, value in vars(self).items()})

    @classmethod
    def join(cls, batches: Sequence["CodeBatch"]) -> "CodeBatch":
        """The clips of all batches in one."""
        names = [entry.name for entry in dataclasses.fields(cls)]
        return cls(**{name: torch.cat([getattr(batch, name) for batch in batches]) for name in names})


class LatentSource:
    """Windows of cached clips; a `streams.loader.Source`.

    Every clip gives the items that `Windows` says.

    Args:
        path: the cache.
        num_frames: frames of a window.
        split: which videos' clips.
        random_start: draw the start from the generator.

    Raises:
        SettingsError: when a clip of the cache is shorter than the window.
        CacheError: when the cache cannot be used or the split is empty.
    """

    def __init__(self, path: str | Path, num_frames: int, split: Split = "train", random_start: bool = True) -> None:
        self.cache = LatentCache(path)
        self.info = self.cache.info
        self.windows = Windows(self.info.num_frames, num_frames, random_start)
        self.windows.check(str(path), f"build the cache again with --clips.num_frames {num_frames}")
        self.clips = self.cache.clips_of(split)
        if len(self.clips) == 0:
            raise CacheError(f"{path} has no {split} clips: build it with another --heldout share or more videos")

    def __len__(self) -> int:
        return len(self.clips) * self.windows.per_clip

    def read(self, index: int, generator: np.random.Generator) -> CodeBatch:
        """One window as a batch of one."""
        position, window = divmod(index, self.windows.per_clip)
        clip, rows = int(self.clips[position]), self.cache.rows
        start = self.windows.start_of(window, generator)
        here, backwards, fast = self.windows.parts(start)
        sound = rows["sound"][clip][here] if "sound" in rows else np.zeros((self.windows.num_frames, 0), np.uint16)
        return CodeBatch(
            picture=_codes(rows["picture"][clip][here]),
            reversed=_codes(rows["picture_reversed"][clip][backwards]),
            fast=_codes(rows["picture_fast"][clip][fast]),
            sound=_codes(sound),
            has_sound=torch.tensor([bool(rows["has_sound"][clip])]),
            thumbnails=torch.from_numpy(rows["thumbnails"][clip][here].copy())[None],
        )

    def collate(self, items: list[CodeBatch]) -> CodeBatch:
        """Stack what `read` gave."""
        return CodeBatch.join(items)


def _codes(codes: np.ndarray) -> Tensor:
    return torch.from_numpy(codes.astype(np.int64))[None]


def _open_group(path: Path) -> zarr.Group:
    try:
        return zarr.open_group(path, mode="r", zarr_format=3)
    except (FileNotFoundError, zarr.errors.GroupNotFoundError) as error:
        raise CacheError(
            f"there is no latent cache at {path}: build one with `python -m tools.latents build`"
        ) from error


def _array(group: zarr.Group, name: str) -> zarr.Array:
    try:
        array = group[name]
    except KeyError:
        raise CacheError(f"{group.store_path} has no array {name!r}: build the cache again") from None
    assert isinstance(array, zarr.Array)
    return array
