"""What a latent cache says about itself, and in what two of them differ."""

import dataclasses
import hashlib
import importlib.metadata
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from worldmodel.layout import Pyramid


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
        statistics: what was measured while encoding, see `worldmodel.cache.code_statistics`.
        codecs: settings of the codecs by kind, and the runs that they were loaded from.
        clips: how the videos were read (`streams.settings.ClipSettings`).
        build: everything else on which the codes depend: clips encoded at a time, device, share held out, and so on.
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
    codecs: dict[str, Any] = field(default_factory=dict)
    clips: dict[str, Any] = field(default_factory=dict)
    build: dict[str, Any] = field(default_factory=dict)
    package_version: str = field(default_factory=lambda: importlib.metadata.version("worldmodel"))

    def to_attributes(self) -> dict[str, Any]:
        """Plain values for JSON."""
        plain = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        return plain | {"pyramids": {kind: pyramid.describe() for kind, pyramid in self.pyramids.items()}}

    @classmethod
    def from_attributes(cls, attributes: dict[str, Any]) -> "CacheInfo":
        """Read back what `to_attributes` wrote."""
        names = [entry.name for entry in dataclasses.fields(cls)]
        known = {name: attributes[name] for name in names if name in attributes}  # format 1 has fewer
        known["pyramids"] = {
            kind: Pyramid.from_description(description) for kind, description in known["pyramids"].items()
        }
        known["thumbnail"] = tuple(known["thumbnail"])
        known["videos"] = [tuple(video) for video in known["videos"]]
        known["skipped"] = [tuple(entry) for entry in known["skipped"]]
        return cls(**known)

    def content(self) -> str:
        """A digest of all on which the clips and their codes depend; that of a copy in another form is the same."""
        made_of = [_comparable(self), self.videos, self.skipped]
        return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:16]

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

    @property
    def bytes_per_hour(self) -> float:
        """Size of an hour of video, uncompressed."""
        clip_bytes = sum(math.prod(shape) * dtype.itemsize for shape, dtype in self.arrays().values())
        return clip_bytes * self.frames_per_second * 3600 / self.num_frames

    def difference(self, other: "CacheInfo") -> str | None:
        """The first thing in which a build differs from this one, in words; None if both give the same codes.

        What becomes known while encoding does not count, nor do the places from which the same codecs were loaded.
        """
        changed = _difference_of_videos(dict(self.videos), dict(other.videos))
        if changed is not None:
            return changed  # first, since the number of clips changes with it
        mine, theirs = dict(_flat("", _comparable(self))), dict(_flat("", _comparable(other)))
        for name in sorted(mine.keys() | theirs.keys()):
            if mine.get(name) != theirs.get(name):
                return f"{name} is {mine.get(name)} there and {theirs.get(name)} here"
        return "the same videos stand in another order" if self.videos != other.videos else None


def digest_of_positions(positions: np.ndarray) -> str:
    """Tells which of the clips of all videos are in a cache."""
    return hashlib.sha256(positions.astype("<i8").tobytes()).hexdigest()[:16]


def _comparable(info: CacheInfo) -> dict[str, Any]:
    plain = json.loads(json.dumps(info.to_attributes()))
    for kind in plain["codecs"].values():
        kind.pop("run", None)
    return {name: value for name, value in plain.items() if name not in {"statistics", "skipped", "videos"}}


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flat(f"{prefix}.{name}" if prefix else name, inner)
    else:
        yield prefix, value


def _difference_of_videos(mine: dict[str, str], theirs: dict[str, str]) -> str | None:
    for names, what in (
        (sorted(mine.keys() - theirs.keys()), "missing here"),
        (sorted(theirs.keys() - mine.keys()), "new here"),
        (sorted(name for name in mine.keys() & theirs.keys() if mine[name] != theirs[name]), "changed since"),
    ):
        if names:
            return f"{len(names)} videos are {what}, first {names[0]}"
    return None
