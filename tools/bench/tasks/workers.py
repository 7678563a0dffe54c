"""Worker processes of our loader: what two deliver against one, and whether their memory grows."""

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from streams.loader import Loader
from streams.settings import ClipSettings, LoaderSettings
from streams.videos import VideoSource
from tools.bench.footage import RATE, Footage, make_footage
from tools.bench.peers.contender import SIDE
from tools.bench.race import Finding
from tools.bench.settings import StreamsSettings

BATCH = 8
MIN_CLIPS = 48  # that are timed: clips come out of a worker four at a time
EARLY_CLIPS, LATE_CLIPS = 20_000, 200_000


def workers(footage: Sequence[Footage], settings: StreamsSettings) -> Iterator[Finding]:
    """Clips per second of wall clock with one worker and with two, in turns."""
    for file in footage[:1] if settings.quick else footage:
        clips = ClipSettings(frames_per_second=float(RATE), height=SIDE, width=SIDE)
        source = VideoSource([file.path], clips)
        rates: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(settings.rounds):
            for num_workers, found in rates.items():
                found.append(clips_per_second(source, num_workers, 4 * settings.round_seconds))
        ratio = float(np.median(np.array(rates[2]) / np.array(rates[1])))
        note = f"{np.median(rates[1]):.1f} and {np.median(rates[2]):.1f} clips/s, {len(os.sched_getaffinity(0))} cores"
        yield Finding("workers", file.name, "ours", ratio, "x", note)


def clips_per_second(source: VideoSource, num_workers: int, seconds: float) -> float:
    """Throughput once the workers are at work, over so many seconds and `MIN_CLIPS` clips at least."""
    loader = Loader(source, LoaderSettings(batch_size=BATCH, num_workers=num_workers, prefetch_batches=2), seed=0)
    try:
        # What was prefetched before the clock starts is as much as what stands ready when it stops.
        for _ in range(4 * num_workers):
            next(loader)
        begun, num_clips = time.perf_counter(), 0
        while num_clips < MIN_CLIPS or time.perf_counter() - begun < seconds:
            num_clips += len(next(loader).videos)
        return num_clips / (time.perf_counter() - begun)
    finally:
        loader.close()


def memory(
    footage: Sequence[Footage], settings: StreamsSettings, early: int = EARLY_CLIPS, late: int = LATE_CLIPS
) -> Iterator[Finding]:
    """Resident memory of one worker after many clips against that after few: short clips of a tiny file with sound."""
    tiny = next(make_footage(Path(settings.folder).expanduser(), [64], [12], 4.0))
    clips = ClipSettings(frames_per_second=float(RATE), height=32, width=32, num_frames=4)
    loader = Loader(VideoSource([tiny.path], clips), LoaderSettings(batch_size=BATCH, num_workers=1), seed=0)
    resident: dict[int, tuple[int, float]] = {}
    try:
        bar = tqdm(total=late, desc="clips", unit="clip", leave=False, disable=None)
        for mark in (early, late):
            while loader.position < mark:
                next(loader)
                bar.update(BATCH)
            worker = next(iter(loader.workers))
            resident[mark] = worker.pid or 0, resident_megabytes(worker.pid or 0)
    finally:
        loader.close()
    (first, before), (second, after) = resident[early], resident[late]
    same = "the same worker" if first == second else "another worker: it was recycled"
    yield Finding("memory", tiny.name, "ours", after / before, "x", f"{before:.0f} MB, then {after:.0f} MB; {same}")


def resident_megabytes(process: int) -> float:
    """Resident set size of a process."""
    pages = int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
