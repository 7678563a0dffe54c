"""One process at a time: files that the kernel locks, and frees when their holder ends, however it ends."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from worldmodel.errors import CacheError


@contextmanager
def locked(path: Path, what: str, wait: bool = False) -> Iterator[None]:
    """Holds the lock of a file, which is made with its folder where it is missing.

    Args:
        path: the file; it says which host and process hold it.
        what: is worked on, for the message.
        wait: until the other one is done, instead of refusing.

    Raises:
        CacheError: another process holds it, or the file system has no locks.
    """
    descriptor = _acquire(path, what, wait)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"host {socket.gethostname()}, process {os.getpid()}".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def is_held(path: Path) -> bool:
    """Whether a process holds the lock of a file that is there; one that has died does not."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def holder_of(path: Path) -> str:
    """Who holds a lock, or held it last."""
    return path.read_text(encoding="utf-8") or "another process"


def _acquire(path: Path, what: str, wait: bool) -> int:
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise CacheError(
                f"{what} is being written already by {holder_of(path)}: wait for it, or stop it first"
            ) from None
        except OSError as error:
            os.close(descriptor)
            raise CacheError(
                f"{path} cannot be locked ({error.strerror}): build on a file system with locks (flock), then copy"
            ) from error
        os.close(descriptor)  # of a folder that was deleted while we waited: its work is done
