"""Measures reading latent caches against a numpy memmap of the same data, and against what others use."""

import dataclasses
import gc
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from streams.errors import UserError
from tools.bench import machine, report
from tools.bench.peers.records import LitData, Lmdb, Mds, NpyPerFrame, WebDataset
from tools.bench.peers.rows import FIELDS, ByNumber, Contender, Memmap, Ours, ZarrIndexing, random_rows, windows_of
from tools.bench.race import Finding, Race, Work, cpu_seconds, take_turns
from tools.bench.settings import LatentsSettings
from tools.bench.streams import line_of, print_tables, write
from worldmodel.cache.info import CacheInfo
from worldmodel.cache.latents import CodeBatch
from worldmodel.layout import Pyramid, Scale

CONTENDERS: dict[str, Callable[[Path, CacheInfo], Contender]] = {
    "ours": Ours,
    "memmap": Memmap,
    "zarr": ZarrIndexing,
    "npy": NpyPerFrame,
    "lmdb": Lmdb,
    "mds": Mds,
    "litdata": LitData,
    "webdataset": WebDataset,
}
MODULES = {"lmdb": "lmdb", "mds": "streaming", "litdata": "litdata", "webdataset": "webdataset"}
NUM_PARTS = 8  # of a round, between which contenders take turns
CHECK_EVERY = 16  # clips, between looks at the clock
CODES: dict[str, Any] = {
    "num_frames": 16,
    "side": 16,
    "thumbnail": 1,
}  # of the clips of which nothing but codes is read
CODES_CLIPS = 8  # so many times as many of them


def run(settings: LatentsSettings) -> None:
    """Measures, prints tables, and writes all numbers to a file.

    Raises:
        UserError: there is no such peer.
    """
    if settings.quick:
        settings = dataclasses.replace(settings, num_clips=200, num_frames=8, rounds=2, round_seconds=0.1, cold_clips=9)
    names = chosen_peers(settings)
    torch.set_num_threads(1)
    described, info = machine.describe(), info_of(settings)
    print("\n".join(f"{name}: {value}" for name, value in described.items()))
    above = Path(settings.folder).expanduser()
    above.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="latents.", dir=above) as name:
        folder = Path(name)
        rows = random_rows(info, settings)
        clip_bytes = sum(rows[each].nbytes for each in FIELDS) // settings.num_clips
        described["caches"] = f"{settings.num_clips} clips of {clip_bytes} bytes"
        print(f"caches: {described['caches']}\n", flush=True)
        for peer in tqdm(names, desc="writing", disable=None):
            CONTENDERS[peer].write(folder, info, rows)  # type: ignore[attr-defined] (every contender has it)
        del rows
        findings = list(told(cold_reads(folder, info, names, settings, clip_bytes)))
        races = list(told(races_of(folder, info, names, settings)))
        races += told(iter([race_of_codes(folder / "codes", names, settings)]))
    described["load at the end"] = machine.load()
    verdicts = report.judge(races, findings)
    print_tables(races, findings, verdicts)
    print(f"all numbers: {write('latents', settings, above, described, races, findings, verdicts)}")


def chosen_peers(settings: LatentsSettings) -> list[str]:
    """Ours and those of the peers that are installed; says which are not.

    Raises:
        UserError: there is no such peer.
    """
    unknown = sorted(set(settings.peers) - set(CONTENDERS))
    if unknown:
        raise UserError(f"peers {', '.join(unknown)}: unknown; there are {', '.join(CONTENDERS)}")
    names = ["ours", *(name for name in CONTENDERS if name in settings.peers and name != "ours")]
    missing = {name for name in names if name in MODULES and find_spec(MODULES[name]) is None}
    for name in sorted(missing):
        print(f"passed over: {name}, since {MODULES[name]} is not installed")
    return [name for name in names if name not in missing]


def info_of(settings: LatentsSettings) -> CacheInfo:
    """What the caches hold."""
    sides = [1]
    while sides[-1] < settings.side:
        sides.append(2 * sides[-1])
    picture = Pyramid(tuple(Scale(side, side, settings.vocabulary) for side in sides))
    sound = Pyramid((Scale(1, 4, settings.vocabulary),))
    thumbnail = (settings.thumbnail, settings.thumbnail)
    return CacheInfo({}, {"picture": picture, "sound": sound}, settings.num_frames, 10.0, 16000, thumbnail)


def races_of(folder: Path, info: CacheInfo, names: Sequence[str], settings: LatentsSettings) -> Iterator[Race]:
    """Single clips, windows and batches of those that read clips by number, and a shuffled epoch as training has it."""
    opened = {name: CONTENDERS[name](folder, info) for name in names}
    require_same(opened, settings)  # also reads all: after the cold reads that comes from the disk, and is not measured
    tasks: dict[str, Callable[[Any, int, LatentsSettings], Iterator[int]]] = {
        "latents: single clips": single_clips,
        "latents: windows": single_windows,
        f"latents: batches of {settings.batch}": batches,
        "latents: epoch": epochs,
    }
    for task, reads in tasks.items():
        runners = {
            name: lambda number, contender=contender, reads=reads: slices(reads(contender, number, settings), settings)
            for name, contender in opened.items()
            if reads is epochs or isinstance(contender, ByNumber)
        }
        yield Race(task, f"{settings.num_clips} clips", "clips", take_turns(runners, settings.rounds))


def race_of_codes(folder: Path, names: Sequence[str], settings: LatentsSettings) -> Race:
    """Codes of single clips and nothing else: what keeping them costs, without making a batch for training.

    Of more and smaller clips, in caches of their own, where records have nothing else in them.
    """
    settings = dataclasses.replace(settings, num_clips=CODES_CLIPS * settings.num_clips, **CODES)
    info = info_of(settings)
    rows = random_rows(info, settings)
    folder.mkdir()
    for name in tqdm(names, desc="writing codes", disable=None):
        kept = rows if name == "ours" else {"picture": rows["picture"]}
        CONTENDERS[name].write(folder, info, kept)  # type: ignore[attr-defined] (every contender has it)
    runners = {}
    for name in names:
        contender = CONTENDERS[name](folder, info)
        if isinstance(contender, ByNumber):
            for clip in range(0, settings.num_clips, CHECK_EVERY):
                assert np.array_equal(contender.codes(clip), rows["picture"][clip]), (name, clip)
            runners[name] = lambda number, contender=contender: slices(codes(contender, number, settings), settings)
    clip_bytes = rows["picture"].nbytes // settings.num_clips
    return Race(
        "latents: codes",
        f"{settings.num_clips} clips of {clip_bytes} bytes",
        "clips",
        take_turns(runners, settings.rounds),
    )


def codes(contender: ByNumber, number: int, settings: LatentsSettings) -> Iterator[int]:
    """Reads the codes of clips drawn at random, one by one."""
    generator = np.random.default_rng(number)
    while True:
        for clip in generator.integers(settings.num_clips, size=1000).tolist():
            contender.codes(clip)
            yield 1


def single_clips(contender: ByNumber, number: int, settings: LatentsSettings) -> Iterator[int]:
    """Reads clips drawn at random, one by one; yields how many at a time."""
    generator = np.random.default_rng(number)
    while True:
        for clip in generator.integers(settings.num_clips, size=1000).tolist():
            contender.read(clip)
            yield 1


def single_windows(contender: ByNumber, number: int, settings: LatentsSettings) -> Iterator[int]:
    """Reads parts of clips drawn at random, one by one."""
    generator, windows = np.random.default_rng(number), windows_of(info_of(settings), settings.num_clips)
    while True:
        for item in generator.integers(len(windows), size=1000).tolist():
            contender.read_window(windows[item])
            yield 1


def batches(contender: ByNumber, number: int, settings: LatentsSettings) -> Iterator[int]:
    """Reads batches of clips drawn at random."""
    generator = np.random.default_rng(number)
    while True:
        contender.read_batch(generator.integers(settings.num_clips, size=settings.batch).tolist())
        yield settings.batch


def epochs(contender: Contender, number: int, settings: LatentsSettings) -> Iterator[int]:
    """Reads all clips in shuffled order."""
    read = contender.epochs(settings.num_clips, settings.batch, number)
    while True:
        next(read)  # and dropped at once: memory that is used again is warm
        yield settings.batch


def slices(reads: Iterator[int], settings: LatentsSettings) -> Work:
    """The parts of a round, each as long for everybody."""
    for _ in range(NUM_PARTS):
        begun, units = cpu_seconds(), 0
        while units == 0 or cpu_seconds() - begun < settings.round_seconds / NUM_PARTS:
            before = units
            while units < before + CHECK_EVERY:
                units += next(reads)
        yield units


def cold_reads(
    folder: Path, info: CacheInfo, names: Sequence[str], settings: LatentsSettings, clip_bytes: int
) -> Iterator[Finding]:
    """Bytes that the disk gives for single clips, when none of them are in memory, for each of theirs."""
    clips = np.random.default_rng(0).choice(settings.num_clips, settings.cold_clips, replace=False).tolist()
    os.sync()  # what is not on the disk yet cannot be forgotten
    for name in names:
        contender = CONTENDERS[name](folder, info)
        if not isinstance(contender, ByNumber):
            continue
        forget(folder)
        before = bytes_read()
        for clip in clips:
            contender.read(clip)
        value = (bytes_read() - before) / (clip_bytes * len(clips))
        del contender
        gc.collect()  # pages that are mapped cannot be forgotten for the next one
        note = "none came from the disk: the folder is in memory, measure on a disk" if value == 0 else ""
        yield Finding("latents: cold", f"{settings.cold_clips} clips", name, value, "x", note)


def forget(folder: Path) -> None:
    """Empties the page cache of all files of a folder."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def bytes_read() -> int:
    """Bytes that this process has had read from disks."""
    lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes:"))


def require_same(opened: dict[str, Contender], settings: LatentsSettings) -> None:
    """Whoever reads something else is not in the race: clips by number, windows, and an epoch with every clip once."""
    everything, size = list(range(settings.num_clips)), settings.batch
    ours = opened["ours"]
    assert isinstance(ours, ByNumber)
    windows = windows_of(info_of(settings), settings.num_clips)
    wanted, clip_of = [], dict[bytes, int]()
    for start in range(0, settings.num_clips, size):
        wanted.append(ours.read_batch(everything[start : start + size]))
        clip_of |= {key: start + row for row, key in enumerate(_keys(wanted[-1]))}
    for name, contender in opened.items():
        if isinstance(contender, ByNumber):
            _compare(name, contender.read(3), ours.read_batch([3]))
            for window in windows[:: max(1, len(windows) // size)]:
                _compare(name, contender.read_window(window), ours.read_window(window))
            for start, batch in zip(everything[::size], wanted, strict=True):
                _compare(name, contender.read_batch(everything[start : start + size]), batch)
        read, found = contender.epochs(settings.num_clips, size, seed=0), list[int]()
        for _ in range(settings.num_clips // size):
            batch = next(read)
            clips = [clip_of[key] for key in _keys(batch)]
            _compare(name, batch, ours.read_batch(clips))
            found += clips
        assert len(set(found)) == len(found), (name, "reads clips of an epoch twice")


def told(results: Iterator[Race] | Iterator[Finding]) -> Iterator:
    """The same, each printed as it comes."""
    for result in results:
        tqdm.write(line_of(result), file=sys.stderr)
        yield result


def _keys(batch: CodeBatch) -> list[bytes]:
    return [codes.numpy().tobytes() for codes in batch.picture]


def _compare(name: str, read: CodeBatch, wanted: CodeBatch) -> None:
    for field, tensor in vars(wanted).items():
        assert getattr(read, field).dtype == tensor.dtype, (name, field)
        assert torch.equal(getattr(read, field), tensor), (name, field)
