"""One video damaged, scanned and read: what a child process of `tools.fuzz` does."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from streams.addresses import require_content
from streams.children import peak_memory_bytes
from streams.errors import MediaError
from streams.examine import examine
from streams.manifest import Entry
from streams.pyav.pictures import PyAVReader
from streams.pyav.sound import read_sound
from streams.settings import ScanSettings

KINDS = ("flipped", "cut", "spliced")
MAX_FLIPS, MAX_SPLICE_SHARE = 200, 0.3
NUM_READ = 12
SIZE = (64, 64)


@dataclass(frozen=True)
class Outcome:
    """What came of one damaged file.

    Attributes:
        kind: how it was damaged.
        is_refused_by_hash: whether an entry of the file before the damage is refused.
        scanned: what a scan says: decoded, decoded in part, or refused.
        read: what reading under the entry of the damaged file gives: frames, an error, or nothing to read.
        blind: the same under the index of the file before the damage, as if the hash had not been looked at.
        peak_bytes: most memory that the process has had until now.
    """

    kind: str
    is_refused_by_hash: bool
    scanned: str
    read: str
    blind: str
    peak_bytes: int


def damage(content: bytes, other: bytes, generator: np.random.Generator) -> tuple[str, bytes]:
    """Another content, and the kind of its damage.

    Args:
        content: bytes of a video.
        other: bytes of another, from which parts are spliced in.
        generator: decides everything.
    """
    kind = KINDS[generator.integers(len(KINDS))]
    damaged = np.frombuffer(content, np.uint8).copy()
    if kind == "flipped":
        places = generator.integers(len(damaged), size=generator.integers(1, MAX_FLIPS + 1))
        damaged[places] ^= generator.integers(1, 256, size=len(places)).astype(np.uint8)
    elif kind == "cut":
        damaged = damaged[: generator.integers(len(damaged))]
    else:
        length = int(generator.integers(1, max(2, int(MAX_SPLICE_SHARE * min(len(damaged), len(other))))))
        to, source = generator.integers(len(damaged) - length + 1), generator.integers(len(other) - length + 1)
        damaged[to : to + length] = np.frombuffer(other, np.uint8)[source : source + length]
    # Flips may undo each other, and a splice may hit its own bytes.
    return kind, damaged.tobytes() if damaged.tobytes() != content else content[:-1]


def try_one(folder: Path, entries: list[Entry], seed: int, settings: ScanSettings, number: int) -> Outcome:
    """Makes one damaged file, and scans and reads it; the child process that does this may crash or hang."""
    generator = np.random.Generator(np.random.Philox(key=[seed, number]))
    before, other = (entries[place] for place in generator.integers(len(entries), size=2))
    kind, content = damage(Path(before.path).read_bytes(), Path(other.path).read_bytes(), generator)
    path = folder / f"{number}{Path(before.path).suffix}"
    path.write_bytes(content)
    try:
        entry = examine(path, settings)
        return Outcome(
            kind=kind,
            is_refused_by_hash=is_refused(path, before),
            scanned="refused" if not entry.reader else "decoded in part" if entry.problems else "decoded",
            read=read(path, entry, generator),
            blind=read(path, before, generator),
            peak_bytes=peak_memory_bytes(),
        )
    finally:
        path.unlink()


def is_refused(path: Path, before: Entry) -> bool:
    """Whether the file is told from the one that was scanned, even if it had the same size."""
    try:
        require_content(path, path.stat().st_size, before.content_hash)
    except MediaError:
        return True
    return False


def read(path: Path, entry: Entry, generator: np.random.Generator) -> str:
    """What comes of reading some frames and all sound."""
    if not entry.reader or entry.index is None:
        return "nothing to read"
    try:
        with PyAVReader(path, entry.index) as reader:
            for index in generator.integers(entry.num_frames, size=NUM_READ).tolist():
                reader.frames_at([index], SIZE)
        if entry.has_sound:
            read_sound(path, 0.0, max(0.1, entry.duration_seconds), 16000)
    except MediaError:
        return "error"
    return "frames"
