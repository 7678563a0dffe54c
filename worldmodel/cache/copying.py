"""A cache as another one, for example compressed for the archive."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from worldmodel.cache.checking import check_files
from worldmodel.cache.info import CacheInfo
from worldmodel.cache.latents import LatentCache
from worldmodel.cache.store import Profile
from worldmodel.cache.writer import LatentWriter

BLOCK_ROWS = 256


def copy_cache(cache: LatentCache, path: Path, profile: Profile) -> CacheInfo:
    """Writes the same rows and attributes in a new place.

    Args:
        cache: where they come from, local or at an address.
        path: the new cache.
        profile: how it lies on the disk.

    Raises:
        CacheError: there is something at `path`, a chunk of the cache is damaged, or the disk is full.
    """
    info = cache.info
    check_files(cache.path)  # else the new checksums would vouch for what is damaged
    with LatentWriter(path, info, expected_clips=cache.num_clips, profile=profile) as writer:
        for rows in blocks_of(cache):
            writer.append(rows)
        return writer.finish(info.skipped, info.statistics)


def blocks_of(cache: LatentCache) -> Iterator[dict[str, np.ndarray]]:
    """All rows of a cache in order, in blocks, by array."""
    for start in range(0, cache.num_clips, BLOCK_ROWS):
        chosen = range(start, min(start + BLOCK_ROWS, cache.num_clips))
        yield {name: np.stack([rows[row] for row in chosen]) for name, rows in cache.rows.items()}
