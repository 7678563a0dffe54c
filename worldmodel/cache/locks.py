"""One process at a time: files that the kernel locks, and frees when their holder ends, however it ends."""

import fcntl
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from worldmodel.errors import CacheError

log = logging.getLogger(__name__)

# A server of files (NFSv4) keeps the locks of a machine that has died for a lease, 90 s by default; and a machine that
# is cut off from the scheduler works on until it hears that its job was given to another.
LEASE_SECONDS = 120.0
POLL_SECONDS = 0.5


@contextmanager
def locked(path: Path, what: str, wait: bool = False) -> Iterator[None]:
    """Holds the lock of a file, which is made with its folder where it is missing.

    In a job of Slurm, which may be the next start of one whose machine has died, refusing comes after a lease's time.

    Args:
        path: the file; it says which host and process hold it.
        what: is worked on, for the message.
        wait: until the other one is done, instead of refusing.

    Raises:
        CacheError: another process holds it, or the file system has no locks.
    """
    patience_seconds = LEASE_SECONDS if "SLURM_JOB_ID" in os.environ else 0.0
    descriptor = _acquire(path, what, wait, time.monotonic() + patience_seconds)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"host {socket.gethostname()}, process {os.getpid()}".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def is_held(path: Path) -> bool:
    """Whether a process holds the lock of a file that is there; one that has died does not."""
    with path.open("r+b") as file:  # NFS locks for one alone only what may be written
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def holder_of(path: Path) -> str:
    """Who holds a lock, or held it last."""
    return path.read_text(encoding="utf-8") or "another process"


def _acquire(path: Path, what: str, wait: bool, stop_waiting: float) -> int:
    told = False
    while (descriptor := _try(path, wait)) is None:
        if time.monotonic() >= stop_waiting:
            raise CacheError(
                f"{what} is being written already by {holder_of(path)}: wait for it, or stop it first; if its machine "
                f"has died and its lock stays (NFS), delete {path}"
            )
        if not told:
            log.warning("%s is held by %s: waiting for it, %.0f s at most", what, holder_of(path), LEASE_SECONDS)
        told = True
        time.sleep(POLL_SECONDS)
    return descriptor


def _try(path: Path, wait: bool) -> int | None:
    """The locked file; None if another process holds it and is not waited for."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError as error:
            os.close(descriptor)
            raise CacheError(
                f"{path} cannot be locked ({error.strerror}): build on a file system with locks (flock), then copy"
            ) from error
        os.close(descriptor)  # of a folder that was deleted while we waited: its work is done
