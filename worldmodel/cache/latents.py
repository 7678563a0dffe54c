"""Reading a latent cache: codes of every clip, mapped from raw chunk files, as batches for training.

Any zarr tool opens it. It is read by mapping the chunk files directly, because zarr reads a whole chunk for every clip
that is indexed, hundreds of times as much. A missing chunk would read as zeros through zarr; here it is an error.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from jaxtyping import Bool, Int, Integer, UInt8
from torch import Tensor

from streams.addresses import Address, address_of
from worldmodel.cache.chunks import MappedRows
from worldmodel.cache.info import CacheInfo
from worldmodel.cache.store import BlockRows, Profile, file_keys, open_array, read_attributes
from worldmodel.cache.windows import Windows
from worldmodel.cache.writer import FORMAT_VERSION, digest_of, work_folder
from worldmodel.errors import CacheError

READABLE_VERSIONS = {1, FORMAT_VERSION}  # format 1 has no digest, and says less about how it was made

Split = Literal["train", "heldout", "all"]


class LatentCache:
    """A finished cache, opened for reading.

    Raw local chunk files are mapped; an archive, and a cache at an address, is read in blocks.

    Attributes:
        path: where it is.
        info: what the cache says about itself.
        num_clips: clips in it.
        rows: its arrays by name.

    Raises:
        CacheError: when there is no finished cache at `path`, it has another format, or a chunk file is missing or cut.
    """

    def __init__(self, path: str | Address) -> None:
        self.path = address_of(path)
        self.attributes = open_attributes(self.path)
        self.info = CacheInfo.from_attributes(self.attributes)
        self.rows = {name: self._open(name) for name in self.info.arrays()}
        self.num_clips = len(self.rows["picture"])
        lengths = {name: len(rows) for name, rows in self.rows.items()}
        if len(set(lengths.values())) != 1:
            raise CacheError(f"the arrays of {self.path} have different lengths, {lengths}: build the cache again")

    @property
    def num_bytes(self) -> int:
        """Size of the cache where it is stored."""
        if isinstance(self.path, Path):
            return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())
        return cast(int, self.path.fs.du(self.path.path))

    @property
    def profile(self) -> Profile:
        """How it is stored."""
        return "archive" if open_array(self.path, "picture").shards else "mapped"

    def clips_of(self, split: Split) -> np.ndarray:
        """Positions of the clips of one split."""
        if split == "all":
            return np.arange(self.num_clips)
        return np.flatnonzero(self.rows["heldout"].to_array() == (split == "heldout"))

    def _open(self, name: str) -> MappedRows | BlockRows:
        (shape, dtype), array = self.info.arrays()[name], open_array(self.path, name)
        packed = bool(array.shards)
        if array.shape[1:] != shape or array.dtype != dtype or (array.compressors and not packed):
            raise CacheError(
                f"{self.path}/{name} is not raw {dtype} rows of {shape}: the cache was changed; build it again"
            )
        keys = file_keys(array)
        if len(keys) != len(self.attributes["crc32"][name]):
            raise CacheError(
                f"{self.path}/{name} has {len(keys)} chunks, {len(self.attributes['crc32'][name])} were written: the "
                "cache was changed; build it again"
            )
        if packed or not isinstance(self.path, Path):
            return BlockRows(array, self.path, name)
        return MappedRows([self.path / name / key for key in keys], array.shape[0], array.chunks[0], shape, dtype)


def open_attributes(path: Address) -> dict[str, Any]:
    """The attributes of a finished cache.

    Raises:
        CacheError: there is none, it is of another format, or its attributes are damaged.
    """
    try:
        attributes = read_attributes(path)
    except FileNotFoundError:
        if isinstance(path, Path) and work_folder(path).exists():
            raise CacheError(
                f"{path} is not finished: run the same `python -m tools.latents build` again, which goes on where it "
                f"stopped, or `merge` once all parts are there ({work_folder(path)} holds them)"
            ) from None
        raise CacheError(
            f"there is no latent cache at {path}: build one with `python -m tools.latents build`"
        ) from None
    version, digest = attributes.get("format_version"), attributes.get("digest")
    if digest != digest_of(attributes) and (digest is not None or version == FORMAT_VERSION):
        raise CacheError(f"{path}/zarr.json is damaged (its digest is another): build the cache again")
    if version not in READABLE_VERSIONS:
        raise CacheError(
            f"{path} has cache format {version}, expected {FORMAT_VERSION}: "
            "build it again with `python -m tools.latents build`"
        )
    return attributes


def require_codec(path: str | Address, fingerprints: dict[str, str]) -> CacheInfo:
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

    def __init__(self, path: str | Address, num_frames: int, split: Split = "train", random_start: bool = True) -> None:
        self.cache = LatentCache(path)
        self.info = self.cache.info
        self.windows = Windows(self.info.num_frames, num_frames, random_start)
        self.windows.check(str(path), f"build the cache again with --clips.num_frames {num_frames}")
        self.clips = self.cache.clips_of(split)
        self._has_sound = self.cache.rows["has_sound"].to_array()
        if len(self.clips) == 0:
            raise CacheError(f"{path} has no {split} clips: build it with another --heldout share or more videos")

    def __len__(self) -> int:
        return len(self.clips) * self.windows.per_clip

    def read(self, index: int, generator: np.random.Generator) -> CodeBatch:
        """One window as a batch of one."""
        return self.read_batch([index], [generator])

    def read_batch(self, indices: Sequence[int], generators: Iterable[np.random.Generator]) -> CodeBatch:
        """Windows stacked, each as `read` gives it; a generator is done with when the next one is taken."""
        clips, parts = [], []
        for index, generator in zip(indices, generators, strict=True):
            position, window = divmod(index, self.windows.per_clip)
            clips.append(int(self.clips[position]))
            parts.append(self.windows.parts(self.windows.start_of(window, generator)))
        here, backwards, fast = (list(cuts) for cuts in zip(*parts, strict=True))
        rows = self.cache.rows
        return CodeBatch(
            picture=_codes(rows["picture"].gather(clips, here)),
            reversed=_codes(rows["picture_reversed"].gather(clips, backwards)),
            fast=_codes(rows["picture_fast"].gather(clips, fast)),
            sound=_codes(rows["sound"].gather(clips, here) if "sound" in rows else self._no_sound(len(clips))),
            has_sound=torch.from_numpy(self._has_sound[clips]),
            thumbnails=torch.from_numpy(np.require(rows["thumbnails"].gather(clips, here), requirements="W")),
        )

    def _no_sound(self, num_clips: int) -> Integer[np.ndarray, "clip frame 0"]:
        return np.empty((num_clips, self.windows.num_frames, 0), np.uint16)

    def collate(self, items: list[CodeBatch]) -> CodeBatch:
        """Stack what `read` gave."""
        return CodeBatch.join(items)


def _codes(codes: Integer[np.ndarray, "batch frame code"]) -> Int[Tensor, "batch frame code"]:
    return torch.from_numpy(codes.astype(np.int64))  # converted in one go: row by row costs four times as much
