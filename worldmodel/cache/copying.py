"""A cache as another one, for example compressed for the archive."""

from pathlib import Path

import numpy as np

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
    with LatentWriter(path, info, expected_clips=cache.num_clips, profile=profile) as writer:
        for start in range(0, cache.num_clips, BLOCK_ROWS):
            chosen = range(start, min(start + BLOCK_ROWS, cache.num_clips))
            writer.append({name: np.stack([rows[row] for row in chosen]) for name, rows in cache.rows.items()})
        return writer.finish(info.skipped, info.statistics)
