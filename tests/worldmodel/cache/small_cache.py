"""A small cache whose every value says which clip and frame it belongs to."""

from pathlib import Path

import numpy as np

from worldmodel.cache.info import CacheInfo
from worldmodel.cache.writer import LatentWriter
from worldmodel.layout import Pyramid, Scale

NUM_CLIPS, NUM_FRAMES = 11, 9
PICTURE = Pyramid((Scale(1, 1, 16), Scale(2, 2, 65536)))
SOUND = Pyramid((Scale(1, 2, 8),))
INFO = CacheInfo(
    fingerprints={"picture": "p1", "sound": "s1"},
    pyramids={"picture": PICTURE, "sound": SOUND},
    num_frames=NUM_FRAMES,
    frames_per_second=10.0,
    sample_hz=16000,
    thumbnail=(4, 6),
    videos=[("a.mp4", "aa"), ("b.mp4", "bb")],
)


def rows_of(info: CacheInfo, num_clips: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Every value says which clip and frame it belongs to: code = 1000 * clip + frame (the reversed ones backwards)."""
    generator, rows = np.random.default_rng(seed), {}
    for name, (shape, dtype) in info.arrays().items():
        rows[name] = generator.integers(0, 250, (num_clips, *shape)).astype(dtype)
    code = 1000 * np.arange(num_clips)[:, None] + np.arange(info.num_frames)
    rows["picture"][:] = code[:, :, None]
    rows["picture_reversed"][:] = code[:, ::-1, None]
    rows["picture_fast"][:] = code[:, 0 : 2 * (info.num_frames // 2) : 2, None]
    rows["thumbnails"][:] = (code % 1000)[:, :, None, None, None]
    rows["heldout"][:] = np.arange(num_clips) % 4 == 1
    return rows


def write(path: Path, info: CacheInfo = INFO, num_clips: int = NUM_CLIPS, **options) -> dict[str, np.ndarray]:
    rows = rows_of(info, num_clips)
    with LatentWriter(path, info, **options) as writer:
        for start in range(0, num_clips, 2):
            writer.append({name: block[start : start + 2] for name, block in rows.items()})
        writer.finish(skipped=[("c.mp4", "no pictures")], statistics={"still_changes": 0.1})
    return rows
