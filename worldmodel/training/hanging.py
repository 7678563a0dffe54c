"""A process that hangs is ended after a set time, and says what it waited for, and in which line every thread stood.

A thread of Python watches, and says it in words. Behind it waits the interpreter's own watchdog (faulthandler) in a
thread of C, which needs neither the GIL nor a healthy process. Those who wait for the one that hangs end likewise, so
that the launcher sees the job fail.
"""

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

STDERR = 2
# What the thread may take, to ask who of the others is there, before the watchdog ends the process.
WORDS_SECONDS = 10.0


@dataclass
class Watch:
    """Until when the process must be heard of again, what it does, and who knows what it waits for."""

    stop: float | None = None
    seconds: float = 0.0
    what: str = ""
    explain: Callable[[], list[str]] = list
    changed: threading.Condition = field(default_factory=threading.Condition)
    thread: threading.Thread | None = None


watch = Watch()


def alive(seconds: float, what: str = "what it does") -> None:
    """Begins to wait anew: if nothing is called for so many seconds, stacks are written and the process ends with 1.

    Args:
        seconds: to wait; 0 for ever.
        what: takes so long, for the message.
    """
    if seconds <= 0:
        return
    faulthandler.dump_traceback_later(seconds + WORDS_SECONDS, exit=True, file=STDERR)
    with watch.changed:
        watch.stop, watch.seconds, watch.what = time.monotonic() + seconds, seconds, what
        if watch.thread is None or not watch.thread.is_alive():
            watch.thread = threading.Thread(target=_look, name="hanging", daemon=True)
            watch.thread.start()
        watch.changed.notify()


def rest() -> None:
    """Stops waiting, until the next `alive`."""
    faulthandler.cancel_dump_traceback_later()
    with watch.changed:
        watch.stop = None


@contextmanager
def unwatched(explain: Callable[[], list[str]] = list) -> Iterator[None]:
    """Nothing is waited for after it, however it ends; inside, `explain` says who or what is waited for."""
    watch.explain = explain
    try:
        yield
    finally:
        rest()
        watch.explain = list


def _look() -> None:
    with watch.changed:
        while watch.stop is None or time.monotonic() < watch.stop:
            watch.changed.wait(None if watch.stop is None else watch.stop - time.monotonic())
        what, seconds, explain = watch.what, watch.seconds, watch.explain
    lines = [f"process {os.getpid()} hangs: {what} has taken more than {seconds:g} s", *explain()]
    sys.stderr.write("error: " + "\n  ".join(lines) + "\n")
    sys.stderr.flush()
    faulthandler.dump_traceback(STDERR, all_threads=True)
    os._exit(1)
