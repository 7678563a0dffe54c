"""The wish to stop, asked for by a signal. No heavy import: the handlers stand before torch is imported."""

import ctypes
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# sysexits' EX_TEMPFAIL: the program stopped at a signal, its checkpoint is saved, and it is to be started again.
EXIT_INTERRUPTED = 75
PR_SET_PDEATHSIG = 1  # of Linux's prctl


class StopRequest:
    """Whether, and by which signal, the run was asked to stop; training asks it once per step.

    Attributes:
        signal_name: name of the first signal that came, or None.
    """

    def __init__(self) -> None:
        """Nothing has been asked yet."""
        self.signal_name: str | None = None

    @property
    def requested(self) -> bool:
        """Whether a signal came."""
        return self.signal_name is not None

    def handle(self, number: int, frame: FrameType | None = None) -> None:
        """Signal handler: sets the flag and does nothing else; a second Ctrl-C ends the program at once."""
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal_name = self.signal_name or signal.Signals(number).name


def install(names: tuple[str, ...] = ("SIGTERM", "SIGINT", "SIGUSR1")) -> StopRequest:
    """Installs handlers for the named signals in the main thread.

    Call it in the first lines of the entry module: a job can be told to stop while torch is still being imported.

    Args:
        names: signals that mean "save and stop". Leave SIGUSR1 out where another library needs it (NCCL may).

    Raises:
        ValueError: a name is not a signal's.
    """
    stop = StopRequest()
    for name in names:
        if name not in signal.Signals.__members__:
            raise ValueError(f"signal {name!r} is unknown: give names such as SIGUSR1")
        signal.signal(signal.Signals[name], stop.handle)
    follow_launcher(signal.SIGKILL)  # nothing is there yet to be saved
    return stop


@contextmanager
def stopping() -> Iterator[StopRequest]:
    """Signals save a training while it runs, and end the program at once before and after."""
    names = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    before = {name: signal.getsignal(name) for name in names}
    try:
        yield install()
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def follow_launcher(number: signal.Signals) -> None:
    """Has the kernel send this process a signal when torchrun, which started it, ends before it, however it ends.

    torchrun ends its processes itself, but not where it is killed, or gets a signal that it does not handle (SIGUSR1).
    They would train on without it, or wait for each other in vain, and hold the run's folder against its next start.
    Nothing is asked for where another launcher started the process, or none.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(number), 0, 0, 0)
