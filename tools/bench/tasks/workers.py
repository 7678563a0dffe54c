"""Worker processes of our loader: what two deliver against one, and whether their memory grows."""

import itertools
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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
from tools.bench.tasks.training import REPEATS, long_video

BATCH = 8
# The same for all. So many that every open block is read once: a batch in which many of them begin costs many times one
# in which none does.
WARM_BATCHES, TIMED_BATCHES = 12, 48
EARLY_CLIPS, LATE_CLIPS = 20_000, 200_000


def workers(
    footage: Sequence[Footage], settings: StreamsSettings, num_batches: int = TIMED_BATCHES
) -> Iterator[Finding]:
    """Clips per second of wall clock of two workers and of two loaders apart, for each of one worker, in turns."""
    for file in footage[:1] if settings.quick else footage:
        with long_video(file.path, 1 if settings.quick else REPEATS) as path:
            yield from compare(file.name, path, settings.rounds, num_batches)


def compare(name: str, path: Path, rounds: int, num_batches: int) -> Iterator[Finding]:
    """The two ratios of one file."""
    clips = ClipSettings(frames_per_second=float(RATE), height=SIDE, width=SIDE)
    source = VideoSource([path], clips)
    rates: dict[str, list[float]] = {"one": [], "two": [], "apart": []}
    for _ in range(rounds):
        rates["one"].append(clips_per_second(source, [1], num_batches))
        rates["two"].append(clips_per_second(source, [2], num_batches))
        # What the machine gives to two processes that know nothing of each other: the limit.
        rates["apart"].append(clips_per_second(source, [1, 1], num_batches))
    one, two, apart = (np.array(found) for found in rates.values())
    cores = f"{len(os.sched_getaffinity(0))} cores"
    note = f"{np.median(one):.1f} and {np.median(two):.1f} clips/s, {cores}"
    yield Finding("workers", name, "ours", float(np.median(two / one)), "x", note)
    note = f"{np.median(apart):.1f} clips/s of both, {cores}"
    yield Finding("workers", name, "two loaders apart", float(np.median(apart / one)), "x", note)


def clips_per_second(source: VideoSource, workers_of_loaders: Sequence[int], num_batches: int) -> float:
    """Sum of the throughputs of loaders at the same time, each over the same batches, once its workers are at work."""
    loaders = [
        Loader(source, LoaderSettings(batch_size=BATCH, num_workers=num_workers), seed=0)
        for num_workers in workers_of_loaders
    ]

    def throughput(loader: Loader) -> float:
        begun = time.perf_counter()
        for _ in range(num_batches):
            next(loader)
        return BATCH * num_batches / (time.perf_counter() - begun)

    try:
        # What was prefetched before the clock starts is as much as what stands ready when it stops.
        for _, loader in itertools.product(range(WARM_BATCHES), loaders):
            next(loader)
        with ThreadPoolExecutor(len(loaders)) as pool:
            return sum(pool.map(throughput, loaders))
    finally:
        for loader in loaders:
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
