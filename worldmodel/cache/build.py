"""Videos to a latent cache, by any number of processes, each of which goes on where it was stopped."""

import dataclasses
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from streams.children import Failure, run_in_children
from streams.clip import Batch
from streams.errors import MediaError
from streams.video import Video, status_of
from streams.videos import VideoSource
from worldmodel.cache.building import Plan, Unit, Work
from worldmodel.cache.code_statistics import StillStatistics
from worldmodel.cache.encoding import (
    by_kind,
    clip_settings,
    encode_batch,
    heldout_of,
    limited_threads,
    thumbnail_size,
)
from worldmodel.cache.info import CacheInfo, digest_of_positions
from worldmodel.cache.latents import LatentCache
from worldmodel.cache.store import Profile
from worldmodel.errors import CacheError, SettingsError
from worldmodel.folders import name_of

log = logging.getLogger(__name__)

# Longest that a worker may need for one clip before its decoder counts as hung.
CLIP_SECONDS = 60.0
WORKER_MEMORY_BYTES = 64 * 2**30


@dataclass(frozen=True)
class BuildOptions:
    """How videos are encoded; everything but the last three lines changes the cache.

    Attributes:
        heldout: share of the videos that is kept for evaluation; a video is wholly in or out of it.
        batch_size: clips encoded at a time.
        thumbnail_side: shorter side of the thumbnails.
        device: where the codecs are.
        num_threads: of torch while encoding. Sticky encoding is many small steps, one frame after another, at each of
            which threads wait for each other: on a busy machine of two cores, two were tens of times slower than one.
        part: (i, N), counted from 1: only the i-th of N parts is encoded.
        num_workers: processes that decode, and where the codecs are on the CPU encode too; in this process if below 2.
        profile: how the rows lie on the disk.
        overwrite: replace a cache that is there already, once the new one is complete, or drop a build of another kind.
        progress: show clips per second and the time left.
    """

    heldout: float = 0.1
    batch_size: int = 32
    thumbnail_side: int = 32
    device: str = "cpu"
    num_threads: int = 1
    part: tuple[int, int] = (1, 1)
    num_workers: int = 1
    profile: Profile = "mapped"
    overwrite: bool = False
    progress: bool = True


def encode_videos(
    source: VideoSource,
    codecs: Sequence[Any],
    path: str | Path,
    options: BuildOptions | None = None,
    positions: Sequence[int] | None = None,
    runs: Sequence[str] = (),
) -> CacheInfo | None:
    """Write the latent cache of the clips of a source, or a part of it; go on where a build was stopped.

    Args:
        source: clips, sampled as `clip_settings` says.
        codecs: one picture codec and at most one sound codec (`worldmodel.cache.encoding.Codec`), on the device.
        path: the cache to write.
        options: how.
        positions: which of the source's clips; all if None.
        runs: from which the codecs were loaded, noted so that they are found again.

    Returns:
        What the cache says about itself; None while other parts are missing.

    Raises:
        SettingsError: when the codecs do not fit together or the source.
        CacheError: when another cache is there already, or was begun; another process writes the same part; no clip
            could be read; or the disk is full.
        MediaError: a worker crashed or hung.
    """
    options, path = options or BuildOptions(), Path(path)
    chosen = np.arange(len(source)) if positions is None else np.asarray(positions)
    finished, work = _finished(path, options), Work(path)
    with work.planning():
        begun = work.read_plan()
        plan = make_plan(source, codecs, options, chosen, runs, begun)
        if finished is not None and (begun is None or not begun.overwrite):
            _require_same(path, finished, plan.info)
            if begun is None or begun.info.difference(plan.info) is None:
                work.remove()
            return finished
        plan = work.begin(plan)
    with work.holding(plan, options.part) as units, closing(source):
        todo = sorted(set(units) - work.done())
        jobs = [(unit, chosen[plan.clips_of(unit)].tolist()) for unit in todo]
        total = sum(len(plan.clips_of(unit)) for unit in units)
        left = sum(len(clips) for _, clips in jobs)
        with tqdm(total=total, initial=total - left, unit="clip", disable=not options.progress) as bar:
            for (number, clips), unit in encode_units(source, codecs, plan.info, jobs, options):
                work.save(number, unit)
                bar.update(len(clips))
    return _complete(work, plan, options)


def make_plan(
    source: VideoSource,
    codecs: Sequence[Any],
    options: BuildOptions,
    positions: np.ndarray,
    runs: Sequence[str] = (),
    begun: Plan | None = None,
) -> Plan:
    """What is to be done, from which a cache can be told from any other.

    Raises:
        SettingsError: when the codecs do not fit together or the source.
        MediaError: a video is gone.
    """
    kinds, settings = by_kind(codecs), source.settings
    if settings != clip_settings(codecs, settings.num_frames):
        raise SettingsError(
            f"the videos are read as {settings}, but the codecs were trained on {kinds['picture'].clips}"
        )
    names = [name_of(video.path) for video in source.videos]
    statuses = {name: list(status_of(video.path)) for name, video in zip(names, source.videos, strict=True)}
    hashes = _hashes_of(dict(zip(names, source.videos, strict=True)), statuses, begun, options.num_workers)
    heldout_of(list(hashes.values()), options.heldout)  # refuses a wrong share before anything is encoded
    loaded = dict(zip((codec.kind for codec in codecs), runs, strict=False))
    described = {
        kind: {"settings": dataclasses.asdict(codec.settings), "run": loaded.get(kind, "")}
        for kind, codec in kinds.items()
    }
    info = CacheInfo(
        fingerprints={kind: codec.fingerprint for kind, codec in kinds.items()},
        pyramids={kind: codec.pyramid for kind, codec in kinds.items()},
        num_frames=settings.num_frames,
        frames_per_second=settings.frames_per_second,
        sample_hz=settings.sample_hz,
        thumbnail=thumbnail_size(settings, options.thumbnail_side),
        videos=[(name, hashes[name]) for name in names],
        skipped=[(str(file), reason) for file, reason in source.skipped],
        codecs=json.loads(json.dumps(described)),  # as they will be read back
        clips=dataclasses.asdict(settings),
        build={
            "heldout": options.heldout,
            "batch_size": options.batch_size,
            "thumbnail_side": options.thumbnail_side,
            "device": torch.device(options.device).type,
            "num_threads": options.num_threads,
            "num_clips": len(positions),
            "clips": digest_of_positions(positions),
        },
    )
    return Plan(info, len(positions), options.batch_size, options.overwrite, statuses)


def encode_units(
    source: VideoSource,
    codecs: Sequence[Any],
    info: CacheInfo,
    jobs: Sequence[tuple[int, list[int]]],
    options: BuildOptions,
) -> Iterator[tuple[tuple[int, list[int]], Unit]]:
    """Encodes the clips of every job; yields in any order.

    Raises:
        MediaError: a worker crashed or hung; says on which files.
    """
    held = heldout_of([digest for _, digest in info.videos], options.heldout)
    encode = partial(encode_reading, by_kind(codecs), info.thumbnail, held, options.device, options.num_threads)
    if options.num_workers < 2 or len(jobs) < 2:
        for job, reading in _read_ahead(source, jobs):
            yield job, encode(reading)
        return
    on_cpu = torch.device(options.device).type == "cpu"
    work: Callable[[tuple[int, list[int]]], Any] = partial(read_and, encode if on_cpu else itself, source)
    seconds = partial(_seconds_of, CLIP_SECONDS)
    for job, result in run_in_children(work, jobs, seconds, options.num_workers, WORKER_MEMORY_BYTES):
        if isinstance(result, Failure):
            paths = sorted({source.path_of(position) for position in job[1]})
            raise MediaError(
                f"{result.reason} while unit {job[0]} was encoded, of {', '.join(paths)}: what is finished is kept; "
                "examine the videos with `python -m tools.videos scan` and build from its manifest"
            )
        yield job, result if on_cpu else encode(result)


@dataclass(frozen=True)
class Reading:
    """Clips as they were read.

    Attributes:
        batch: those that could be; None if none could.
        videos: number of the video of each.
        skipped: (name, reason) of the others.
    """

    batch: Batch | None
    videos: list[int]
    skipped: list[tuple[str, str]]


def read_clips(source: VideoSource, positions: Sequence[int]) -> Reading:
    """Reads clips in order; those that fail are listed with their reason."""
    clips, videos, skipped, generator = [], [], [], np.random.default_rng(0)
    for position in positions:
        try:
            clips.append(source.read(position, generator))
        except MediaError as error:
            address = source.clips[position]
            skipped.append((str(address.path), f"clip at frame {address.start}: {error}"))
        else:
            videos.append(source.clips[position].video)
    return Reading(source.collate(clips) if clips else None, videos, skipped)


def encode_reading(
    kinds: dict[str, Any],
    thumbnail: tuple[int, int],
    heldout: Sequence[bool],
    device: str,
    num_threads: int,
    reading: Reading,
) -> Unit:
    """Rows of a cache of what was read."""
    if reading.batch is None:
        return Unit(skipped=reading.skipped)
    with limited_threads(num_threads):
        rows = encode_batch(reading.batch, kinds, thumbnail, device)
    still = StillStatistics(kinds["picture"].pyramid)
    still.add(rows["picture"], reading.batch.frames)
    videos = np.array(reading.videos, dtype=np.int32)
    rows |= {"video": videos, "heldout": np.array(heldout)[videos]}
    return Unit(rows, reading.skipped, (still.num_still, still.num_changed))


def itself(reading: Reading) -> Reading:
    """What the workers of a GPU send: the codecs are in this process."""
    return reading


def read_and(then: Callable[[Reading], Any], source: VideoSource, job: tuple[int, list[int]]) -> Any:
    """What a worker does."""
    return then(read_clips(source, job[1]))


def _seconds_of(clip_seconds: float, job: tuple[int, list[int]]) -> float:
    return clip_seconds * (1 + len(job[1]))


def _read_ahead(
    source: VideoSource, jobs: Sequence[tuple[int, list[int]]]
) -> Iterator[tuple[tuple[int, list[int]], Reading]]:
    """Reads the next job by a thread while this one is encoded."""
    with ThreadPoolExecutor(max_workers=1) as reader:  # one, since a source's decoders are used by one thread at a time
        waiting = None
        try:
            for job in jobs:
                following = (job, reader.submit(read_clips, source, job[1]))
                if waiting is not None:
                    yield waiting[0], waiting[1].result()
                waiting = following
            if waiting is not None:
                yield waiting[0], waiting[1].result()
        finally:
            reader.shutdown(cancel_futures=True)


def _hashes_of(
    videos: dict[str, Video], statuses: dict[str, list[int]], begun: Plan | None, num_threads: int
) -> dict[str, str]:
    """SHA-256 of every video, read again only where the file may have changed since the build was begun."""
    known = {} if begun is None else dict(begun.info.videos)
    same = {name for name in videos if begun and statuses[name] and begun.statuses.get(name) == statuses[name]}
    with ThreadPoolExecutor(max(1, num_threads)) as pool:
        read = {name: pool.submit(video.content_hash) for name, video in videos.items() if name not in same}
        return {name: known[name] if name in same else read[name].result() for name in videos}


def _finished(path: Path, options: BuildOptions) -> CacheInfo | None:
    """A cache that is there already and is to stay."""
    if not path.exists() or options.overwrite:
        return None
    try:
        return LatentCache(path).info
    except CacheError as error:
        raise CacheError(
            f"{path} exists already and is no cache that can be used ({error}): give another name, or --overwrite to "
            "replace it"
        ) from error


def _require_same(path: Path, finished: CacheInfo, wanted: CacheInfo) -> None:
    difference = finished.difference(wanted)
    if difference is not None:
        raise CacheError(
            f"{path} exists already, made otherwise: {difference}; give another name, or --overwrite to replace it"
        )
    log.info("%s: is complete already", path)


def _complete(work: Work, plan: Plan, options: BuildOptions) -> CacheInfo | None:
    """The last part that finishes makes the cache."""
    num_done = len(work.done())
    if num_done < plan.num_units and work.read_plan() is not None:
        log.info("%s: %d of %d units are done", work.path, num_done, plan.num_units)
        return None
    info = work.put_together(options.profile)
    log.info("%s: %d videos, %d skipped", work.path, len(info.videos), len(info.skipped))
    return info
