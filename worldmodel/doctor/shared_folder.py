"""Whether a folder is one folder for all processes: what one writes, all see, whole, and one lock holds for all."""

import errno
import fcntl
import json
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from worldmodel.doctor.findings import Finding, judge
from worldmodel.doctor.judging import in_words, shortened
from worldmodel.training import cluster

SEEN_SECONDS = 10.0
RENAMING_SECONDS = 0.5
PIECE_BYTES = 2**16
MIN_FREE_INODES = 1000


def examine_folder(folder: Path, least_gibibytes: float) -> list[Finding]:
    """All checks of a folder; all processes call it together. What they write is deleted."""
    place = folder / f".doctor-{cluster.texts(uuid.uuid4().hex)[0]}"
    findings = [free_space(folder, least_gibibytes)]
    try:
        seen = visible(place)
        findings.append(seen)
        if seen.verdict != "FAIL":
            findings += [renaming(place), locking(place)]
    finally:
        if cluster.is_main():
            shutil.rmtree(place, ignore_errors=True)
    return findings


def free_space(folder: Path, least_gibibytes: float) -> Finding:
    """Room for checkpoints and caches, on the machine that sees the least."""

    def look() -> str:
        folder.mkdir(parents=True, exist_ok=True)
        found = os.statvfs(folder)
        inodes = found.f_favail if found.f_files else MIN_FREE_INODES  # some file systems do not count them
        return f"{found.f_bavail * found.f_frsize} {inodes}"

    values, troubles = agree(look)
    free = min((int(value.split()[0]) for value in values), default=0)
    inodes = min((int(value.split()[1]) for value in values), default=0)
    least = least_gibibytes * 2**30
    return judge(
        "free disk space",
        bool(troubles) or free < least or inodes < MIN_FREE_INODES,
        "; ".join(shortened(troubles))
        or f"{in_words(free)}" + (f", {inodes} files" if inodes < MIN_FREE_INODES else ""),
        f"{least_gibibytes:g} GiB or more",
        f"make room in {folder}, or give another folder; a quota is not seen here",
        warned=free < 2 * least,
    )


def visible(place: Path) -> Finding:
    """What each process writes, all see; says after how long."""

    def begin() -> str:
        if cluster.is_main():
            place.mkdir(parents=True)
        return ""

    def write() -> str:
        if not until(place.is_dir):
            raise OSError(errno.ENOENT, "what process 0 made is not there")
        rank = cluster.find_ranks().rank
        partial = place / f"partial-{rank}"
        partial.write_text(text_of(rank), encoding="utf-8")
        partial.rename(place / f"rank-{rank}")
        return ""

    def read() -> str:
        started = time.monotonic()
        if not until(lambda: unseen(place) is None):
            raise OSError(errno.ENOENT, f"what process {unseen(place)} wrote is not there")
        return str(time.monotonic() - started)

    troubles, values = [], list[str]()
    for step in (begin, write, read):
        values, trouble = agree(step)
        troubles += [each for each in trouble if each not in troubles]
        if troubles:
            break
    latest = max(map(float, values)) if values and not troubles else 0.0
    return judge(
        "shared folder",
        bool(troubles),
        "; ".join(shortened(troubles)) or f"all see what each wrote, after {latest:.2f} s",
        "one folder for all",
        "give a folder on a file system that every machine mounts in the same place, writable by this user",
        warned=latest > 1.0,
    )


def renaming(place: Path) -> Finding:
    """While one process replaces a file again and again, all always see it, and whole."""
    target = place / "replaced"
    main = cluster.is_main()

    def begin() -> str:
        if main:
            replace_by(target, b"a")
        return ""

    def look() -> str:
        if not until(target.exists):
            raise OSError(errno.ENOENT, "a file that was renamed is not there")
        stop = time.monotonic() + RENAMING_SECONDS
        with replacing(target) if main else nullcontext():
            num_read = 0
            while time.monotonic() < stop:
                content = read_whole(target)
                if content is not None and (len(content) != PIECE_BYTES or len(set(content)) != 1):
                    raise OSError(
                        errno.EIO,
                        f"of {PIECE_BYTES} equal bytes, {len(content)} with {len(set(content))} values were read",
                    )
                num_read += 1
        return str(num_read)

    _, troubles = agree(begin)
    values, more = agree(look)
    return judge(
        "rename",
        bool(troubles + more),
        "; ".join(shortened(troubles + more)) or f"whole in all of {sum(map(int, values))} readings",
        "old or new, never half or gone",
        "give a folder on a file system whose rename is atomic: checkpoints depend on it",
    )


def locking(place: Path) -> Finding:
    """A lock (flock) that one process holds is refused to all others, and free when it ends."""
    file = place / "lock"

    def attempt() -> str:
        return "taken" if taken(file) else "refused"

    descriptor = -1

    def hold() -> str:
        nonlocal descriptor
        if cluster.is_main():
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return ""

    def release() -> str:
        if descriptor >= 0:
            os.close(descriptor)
        return ""

    def last() -> str:
        ranks = cluster.find_ranks()
        return "taken" if ranks.rank < ranks.num_ranks - 1 or until(lambda: taken(file)) else "refused"

    _, troubles = agree(hold)
    tried, more = agree(attempt)
    agree(release)
    free, still = agree(last)
    troubles += more + still
    troubles += [
        f"process {rank} takes a lock that process 0 holds" for rank, got in enumerate(tried) if got == "taken"
    ]
    troubles += ["a lock stays when its holder has let go"] if "refused" in free else []
    return judge(
        "locks (flock)",
        bool(troubles),
        "; ".join(shortened(troubles)) or "one holder at a time",
        "one holder at a time",
        "mount with locks (Lustre: -o flock, not localflock; NFS: not nolock), or never start two jobs on one run",
    )


def agree(step: Callable[[], str]) -> tuple[list[str], list[str]]:
    """What a step gives in every process, and what the operating system refused; all call it together."""
    try:
        mine = {"value": step()}
    except OSError as error:
        mine = {"trouble": f"{error.strerror or error} (process {cluster.find_ranks().rank} on {cluster.machine()})"}
    all_of_them = [json.loads(text) for text in cluster.texts(json.dumps(mine))]
    values = [each["value"] for each in all_of_them if "value" in each]
    return values, [each["trouble"] for each in all_of_them if "trouble" in each]


def until(condition: Callable[[], bool], seconds: float | None = None) -> bool:
    """Whether it becomes true in time; what another machine wrote may come late."""
    stop = time.monotonic() + (SEEN_SECONDS if seconds is None else seconds)
    while not condition():
        if time.monotonic() > stop:
            return False
        time.sleep(0.02)
    return True


def text_of(rank: int) -> str:
    """What a process writes."""
    return f"process {rank}\n" * 100


def unseen(place: Path) -> int | None:
    """The first process whose file is not there, or not with its text."""
    for rank in range(cluster.find_ranks().num_ranks):
        try:
            if (place / f"rank-{rank}").read_text(encoding="utf-8") != text_of(rank):
                return rank
        except FileNotFoundError:
            return rank
    return None


def replace_by(target: Path, letter: bytes) -> None:
    """Replaces a file by another that is full of one letter."""
    partial = target.with_name("replacing")
    partial.write_bytes(letter * PIECE_BYTES)
    partial.rename(target)


@contextmanager
def replacing(target: Path) -> Iterator[None]:
    """Inside, a thread replaces the file without a pause."""
    ended = threading.Event()

    def work() -> None:
        while not ended.is_set():
            for letter in (b"a", b"b"):
                replace_by(target, letter)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def read_whole(file: Path) -> bytes | None:
    """The content; None where NFS says that the file which was opened has been replaced since (ESTALE), as it may."""
    try:
        return file.read_bytes()
    except OSError as error:
        if error.errno == errno.ESTALE:
            return None
        raise


def taken(file: Path) -> bool:
    """Whether the lock can be had right now."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
