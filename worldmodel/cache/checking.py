"""Whether a cache is as it was written, and whether its codec still gives its codes for its videos."""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from streams.addresses import Address, address_of, content_hash, read_errors, reason_of
from streams.clip import Batch, to_uint8
from streams.errors import MediaError
from streams.videos import VideoSource
from worldmodel.cache.encoding import by_kind, clip_settings, encode_batch
from worldmodel.cache.info import CacheInfo
from worldmodel.cache.latents import LatentCache, open_attributes
from worldmodel.cache.store import file_key
from worldmodel.errors import CacheError

BLOCK_ROWS = 1024
LEAST_SHARE = 0.99  # of codes that must agree: ties may be broken differently by another machine


def check_files(path: str | Address) -> int:
    """Compare every file of a cache with its checksum; the files are read as they are, without zarr.

    Returns:
        How many there are.

    Raises:
        CacheError: names every file that is missing or damaged.
    """
    root = address_of(path)
    broken, num_files = [], 1
    for key, expected in _checksums(open_attributes(root)):
        num_files += 1
        try:
            if zlib.crc32((root / key).read_bytes()) != expected:
                broken.append(f"{key} (damaged)")
        except read_errors() as error:
            broken.append(f"{key} ({reason_of(error)})")
    if broken:
        raise CacheError(f"{root}: {len(broken)} files are not as they were written: {', '.join(broken)}: build again")
    return num_files


def check_values(cache: LatentCache) -> None:
    """Compare all codes with the vocabularies of their scales, and clips with the list of videos.

    Raises:
        CacheError: says where a value cannot be.
    """
    for name, rows in cache.rows.items():
        most = _largest(cache.info, name)
        for start in range(0, cache.num_clips if most is not None else 0, BLOCK_ROWS):
            block = np.stack([rows[row] for row in range(start, min(start + BLOCK_ROWS, cache.num_clips))])
            wrong = (block > most) | (block < 0)
            if wrong.any():
                clip = start + int(np.argwhere(wrong)[0][0])
                raise CacheError(
                    f"{cache.path}/{name}: clip {clip} holds {block[wrong][0]}, beyond what its scale or the list of "
                    "videos has: build the cache again"
                )


@dataclass(frozen=True)
class Sample:
    """What encoding some clips again showed.

    Attributes:
        num_clips: how many.
        shares: of the codes that are as in the cache, by kind of codec.
        psnr: in decibels, of the frames that the codes of the cache give against those of the videos.
        darkest, brightest: of the frames that the codes give, from 0 to 255.
    """

    num_clips: int
    shares: dict[str, float]
    psnr: float
    darkest: int
    brightest: int


@torch.no_grad()
def check_codes(cache: LatentCache, codecs: Sequence[Any], num_clips: int, generator: np.random.Generator) -> Sample:
    """Read some clips of a cache from their videos again, encode them again, and decode what the cache holds.

    The shares are 1 up to ties that another machine breaks differently. That of the sound is not judged: a manifest may
    have told the build of a drift that the file alone does not.

    Raises:
        MediaError: when a video is gone or has changed.
        CacheError: when fewer than 99 % of the picture codes agree.
    """
    kinds, equal, decoded = by_kind(codecs), {"picture": [], "sound": []}, []
    chosen = generator.choice(cache.num_clips, min(num_clips, cache.num_clips), replace=False)
    for position in sorted(chosen.tolist()):
        batch = _read_again(cache, kinds, position)
        again = encode_batch(batch, kinds, cache.info.thumbnail, "cpu")
        for name in sorted(again.keys() & {"picture", "picture_reversed", "picture_fast", "sound"}):
            equal[name.partition("_")[0]].append((again[name][0] == cache.rows[name][position]).mean())
        codes = torch.from_numpy(cache.rows["picture"][position].astype(np.int64))[None]
        frames = to_uint8(kinds["picture"].decode(codes))[0]
        error = np.square(frames.numpy().astype(float) - batch.frames[0].numpy()).mean()
        decoded.append((error, int(frames.min()), int(frames.max())))
    shares = {kind: float(np.mean(values)) for kind, values in equal.items() if values}
    if shares["picture"] < LEAST_SHARE:
        raise CacheError(
            f"only {shares['picture']:.1%} of the codes in {cache.path} are what the codec gives now: build the cache "
            "again"
        )
    errors, lows, highs = zip(*decoded, strict=True)
    with np.errstate(divide="ignore"):
        decibels = float(10 * np.log10(255.0**2 / np.mean(errors)))
    return Sample(len(chosen), shares, decibels, min(lows), max(highs))


def _read_again(cache: LatentCache, kinds: dict[str, Any], position: int) -> Batch:
    name, digest = cache.info.videos[int(cache.rows["video"][position])]
    address = address_of(name)
    if not address.exists() or content_hash(address) != digest:
        raise MediaError(f"{name} is gone or has changed since the cache was made: build the cache again")
    settings = clip_settings(list(kinds.values()), cache.info.num_frames)
    source = VideoSource([address], settings)
    first = round(float(cache.rows["seconds"][position][0]) * settings.frames_per_second)
    batch = source.collate(source.clips_at(0, [first]))
    source.close()
    return batch


def _checksums(attributes: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """Every file of a cache but its own description, which carries a digest of itself."""
    shapes = CacheInfo.from_attributes(attributes).arrays()
    for name, (shape, _) in shapes.items():
        described = attributes.get("crc32_of_descriptions", {})  # format 1 has none
        if name in described:
            yield f"{name}/zarr.json", described[name]
        for number, checksum in enumerate(attributes["crc32"][name]):
            yield f"{name}/{file_key(number, 1 + len(shape))}", checksum


def _largest(info: CacheInfo, name: str) -> Any:
    """Largest value that an array may hold, where there is such a thing."""
    if name == "video":
        return len(info.videos) - 1
    kind = name.partition("_")[0]
    if kind not in info.pyramids or name == "has_sound":
        return None
    return np.concatenate([np.full(scale.num_codes, scale.vocabulary - 1) for scale in info.pyramids[kind].scales])
