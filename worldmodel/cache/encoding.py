"""Clips to codes: every clip is encoded in the three orders that views need."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Int, Integer, UInt8
from torch import Tensor

from streams.clip import Batch, to_float
from streams.geometry import resize_crop
from streams.settings import ClipSettings
from worldmodel.errors import SettingsError
from worldmodel.layout import Pyramid


class Codec(Protocol):
    """What the build needs of a codec; `worldmodel.codecs` has the real ones."""

    kind: Any
    clips: Any
    settings: Any

    @property
    def pyramid(self) -> Pyramid:
        """Layout of the codes of one frame."""
        ...

    @property
    def fingerprint(self) -> Any:
        """What tells this codec from every other."""
        ...

    def encode(self, clip: Tensor, /) -> Int[Tensor, "batch frame code"]:
        """Codes of frames (-1 to 1), or of sound, in the order in which they are given."""
        ...


def by_kind(codecs: Sequence[Any]) -> dict[str, Any]:
    """Codecs by what they encode.

    Raises:
        SettingsError: unless there is one picture codec and at most one sound codec, sampling time alike.
    """
    kinds = [codec.kind for codec in codecs]
    if sorted(kinds) not in (["picture"], ["picture", "sound"]):
        raise SettingsError(f"codecs of kinds {kinds} were given: give one picture codec and at most one sound codec")
    if len({(codec.clips.frames_per_second, codec.clips.sample_hz) for codec in codecs}) != 1:
        rates = [(codec.kind, codec.clips.frames_per_second, codec.clips.sample_hz) for codec in codecs]
        raise SettingsError(
            f"the codecs sample time differently (kind, frames_per_second, sample_hz): {rates}; train them alike"
        )
    return dict(zip(kinds, codecs, strict=True))


def clip_settings(codecs: Sequence[Any], num_frames: int) -> ClipSettings:
    """How videos must be read for these codecs: as they were trained, in clips of `num_frames`."""
    return replace(by_kind(codecs)["picture"].clips, num_frames=num_frames)


@torch.no_grad()
def encode_clips(
    batch: Batch,
    kinds: dict[str, Any],
    device: torch.device | str,
    lengths: Sequence[Sequence[int]] | None = None,
) -> dict[str, Tensor]:
    """Codes of clips in all their views, on the device, by the names of a cache's arrays.

    Args:
        batch: whole clips.
        kinds: codecs by what they encode, on the device.
        device: where the codes are made.
        lengths: of every view of the picture, how many of its first frames are wanted of each clip; all if None.
    """
    frames = to_float(batch.frames.to(device))
    # Sticky codes depend on the direction: merely turning them round would give the arrow of time away.
    views = kinds["picture"].encode_views(frames, lengths)
    codes: dict[str, Tensor] = dict(zip(("picture", "picture_reversed", "picture_fast"), views, strict=True))
    if "sound" in kinds:
        codes["sound"] = kinds["sound"].encode(batch.sound.to(device))
    return codes


def thumbnails_of(
    frames: UInt8[Tensor, "batch frame 3 height width"], size: tuple[int, int]
) -> UInt8[Tensor, "batch frame 3 small_height small_width"]:
    """The frames at the (height, width) of thumbnails."""
    return resize_crop(frames.flatten(0, 1), *size).unflatten(0, frames.shape[:2])


def encode_batch(
    batch: Batch, kinds: dict[str, Any], thumbnail: tuple[int, int], device: torch.device | str
) -> dict[str, np.ndarray]:
    """Rows of a cache for a batch of clips, without those that say which video they are from."""
    codes = encode_clips(batch, kinds, device)
    return {name: _uint16(value) for name, value in codes.items()} | {
        "thumbnails": thumbnails_of(batch.frames, thumbnail).numpy(),
        "seconds": batch.seconds.numpy(),
        "has_sound": batch.has_sound.numpy(),
    }


def heldout_of(hashes: list[str], share: float) -> list[bool]:
    """Which videos are held out, by the hash of their content, so that new videos leave the others where they are.

    With two different videos or more, both splits have one at least, unless `share` is 0 or 1.

    Raises:
        SettingsError: for a share outside 0 to 1.
    """
    if not 0 <= share <= 1:
        raise SettingsError(f"heldout {share} is not a share: give a number from 0 to 1")
    place = {digest: int(digest[:8], 16) / 2**32 for digest in hashes}
    chosen = {digest for digest in hashes if place[digest] < share}
    if len(place) > 1 and 0 < share < 1:
        chosen = chosen or {min(hashes, key=place.__getitem__)}
        if chosen == place.keys():
            chosen = chosen - {max(hashes, key=place.__getitem__)}
    return [digest in chosen for digest in hashes]


def thumbnail_size(settings: ClipSettings, side: int) -> tuple[int, int]:
    """(height, width) with the aspect of the frames, so that a thumbnail shows all of a frame; never larger."""
    factor = min(1.0, side / min(settings.height, settings.width))
    return round(settings.height * factor), round(settings.width * factor)


@contextmanager
def limited_threads(num_threads: int) -> Iterator[None]:
    """Torch's threads inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _uint16(codes: Int[Tensor, "batch frame code"]) -> Integer[np.ndarray, "batch frame code"]:
    return codes.cpu().numpy().astype(np.uint16)
