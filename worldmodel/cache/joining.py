"""Several caches of different videos by the same codecs as one."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from worldmodel.cache.building import Work
from worldmodel.cache.checking import check_files
from worldmodel.cache.code_statistics import CodeStatistics, StillStatistics
from worldmodel.cache.copying import blocks_of
from worldmodel.cache.encoding import heldout_of
from worldmodel.cache.info import CacheInfo, digest_of_positions
from worldmodel.cache.latents import LatentCache
from worldmodel.cache.locks import locked
from worldmodel.cache.store import Profile
from worldmodel.cache.writer import FORMAT_VERSION, LatentWriter
from worldmodel.errors import CacheError

# Of how a cache was built, what the codes of another may differ in.
FREE = ("batch_size", "thumbnail_side", "device", "num_threads", "num_clips", "clips")


def join_caches(caches: Sequence[LatentCache], path: Path, profile: Profile = "mapped") -> CacheInfo:
    """Writes the clips of all caches into a new one: all of the first in their order, then all of the second, and on.

    Where they were built alike, the new one holds what a build of all their videos in this order would, and says so of
    itself. Videos are held out by their content, as a build would hold them out, all videos counted. It appears whole
    or not at all; the caches stay as they are.

    Args:
        caches: two or more.
        path: the new cache.
        profile: how it lies on the disk.

    Raises:
        CacheError: the caches differ in more than their videos; a video is in two of them; a file of one is damaged;
            there is something at `path`, or it is being written; or the disk is full.
    """
    info, work = joined_info(caches), Work(path)
    if path.exists():
        raise CacheError(f"{path} exists already: give another name")
    with locked(work.folder / "merge.lock", str(path)):
        if work.read_plan() is not None:
            raise CacheError(f"a build of {path} was begun: finish it, or give another name")
        for cache in caches:
            check_files(cache.path)  # else the new checksums would vouch for what is damaged
        counts = {kind: CodeStatistics(pyramid) for kind, pyramid in info.pyramids.items()}
        with LatentWriter(path, info, expected_clips=sum(cache.num_clips for cache in caches), profile=profile) as new:
            for rows in _rows_of(caches, info):
                new.append(rows)
                for kind, count in counts.items():
                    count.add(rows[kind])
            measured: dict[str, Any] = {kind: count.summary() for kind, count in counts.items()}
            info = new.finish(info.skipped, measured | {"still": _still_of(caches, info)})
        work.remove()
    return info


def joined_info(caches: Sequence[LatentCache]) -> CacheInfo:
    """What the joined cache says about itself, before its statistics.

    Raises:
        CacheError: the caches differ in more than their videos, which is named, or a video is in two of them.
    """
    first, *others = caches
    for cache in caches:
        version = cache.attributes["format_version"]
        if version != FORMAT_VERSION:
            raise CacheError(
                f"{cache.path} has cache format {version}, not {FORMAT_VERSION}: build it again to join it"
            )
    for other in others:
        difference = _without_videos(first.info).difference(_without_videos(other.info))
        if difference is not None:
            raise CacheError(
                f"{first.path} (there) and {other.path} (here) cannot be one cache: {difference}; build them alike"
            )
    _refuse_twins(caches)
    return dataclasses.replace(
        first.info,
        videos=[video for cache in caches for video in cache.info.videos],
        skipped=[entry for cache in caches for entry in cache.info.skipped],
        statistics={},
        build=_joined_build([cache.info.build for cache in caches]),
    )


def _without_videos(info: CacheInfo) -> CacheInfo:
    kept = {name: value for name, value in info.build.items() if name not in FREE}
    return dataclasses.replace(info, videos=[], build=kept)


def _refuse_twins(caches: Sequence[LatentCache]) -> None:
    for here, there in ((here, there) for number, here in enumerate(caches) for there in caches[:number]):
        names = {digest: name for name, digest in there.info.videos}
        twins = [(name, names[digest]) for name, digest in here.info.videos if digest in names]
        if twins:
            raise CacheError(
                f"{len(twins)} videos are in {here.path} and in {there.path}, first {twins[0][0]} (there "
                f"{twins[0][1]}): build one of them without these"
            )
        changed = sorted({name for name, _ in here.info.videos} & set(names.values()))
        if changed:
            raise CacheError(
                f"{len(changed)} videos are in {here.path} and in {there.path} with another content, first "
                f"{changed[0]}: build one of them without these"
            )


def _joined_build(builds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Values that are the same; lists of those that are not; and the clips as if all videos had been one folder."""
    joined = {}
    for name, value in builds[0].items():
        values = [build[name] for build in builds]
        joined[name] = value if values.count(value) == len(values) else values
    num_clips = sum(build["num_clips"] for build in builds)
    whole = all(build["clips"] == digest_of_positions(np.arange(build["num_clips"])) for build in builds)
    clips = digest_of_positions(np.arange(num_clips)) if whole else [build["clips"] for build in builds]
    return joined | {"num_clips": num_clips, "clips": clips}


def _rows_of(caches: Sequence[LatentCache], info: CacheInfo) -> Iterator[dict[str, np.ndarray]]:
    """Rows in blocks, with the numbers of videos and the videos held out as they are in the joined cache."""
    held = np.array(heldout_of([digest for _, digest in info.videos], info.build["heldout"]))
    num_before = 0
    for cache in caches:
        for rows in blocks_of(cache):
            videos = rows["video"] + np.int32(num_before)
            yield rows | {"video": videos, "heldout": held[videos]}
        num_before += len(cache.info.videos)


def _still_of(caches: Sequence[LatentCache], info: CacheInfo) -> dict[str, Any]:
    still = StillStatistics(info.pyramids["picture"])
    for cache in caches:
        found = cache.info.statistics["still"]
        still.num_still += found["num_still"]
        # Caches of before the number was kept have the rounded share alone.
        still.num_changed += found.get("num_changed", round((found["changed"] or 0) * found["num_still"]))
    return still.summary()
