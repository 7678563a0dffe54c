"""A process that hangs is ended after a set time, and says in which line of every thread it stood.

The interpreter's own watchdog (faulthandler) waits in a thread of C, which needs neither the GIL nor a healthy process.
Those who wait for the one that hangs end likewise, so that the launcher sees the job fail.
"""

import faulthandler
from collections.abc import Iterator
from contextlib import contextmanager

STDERR = 2


def alive(seconds: float) -> None:
    """Begins to wait anew: if nothing is called for so many seconds, stacks are written and the process ends with 1."""
    if seconds > 0:
        faulthandler.dump_traceback_later(seconds, exit=True, file=STDERR)


def rest() -> None:
    """Stops waiting, until the next `alive`."""
    faulthandler.cancel_dump_traceback_later()


@contextmanager
def unwatched() -> Iterator[None]:
    """Nothing is waited for after it, however it ends."""
    try:
        yield
    finally:
        rest()
