import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from worldmodel.training import signals


@pytest.fixture(autouse=True)
def same_handlers_afterwards() -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_a_signal_only_sets_the_flag(name: str):
    stop = signals.install()
    assert not stop.requested
    os.kill(os.getpid(), signal.Signals[name])
    assert stop.requested
    assert stop.signal_name == name


def test_the_first_signal_is_remembered():
    stop = signals.install()
    os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.signal_name == "SIGUSR1"


def test_a_second_control_c_ends_at_once():
    stop = signals.install()
    stop.handle(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        stop.handle(signal.SIGINT)


def test_signals_left_out_keep_their_handlers():
    before = signal.getsignal(signal.SIGUSR1)
    signals.install(("SIGTERM",))
    assert signal.getsignal(signal.SIGUSR1) == before


def test_an_unknown_signal_is_named():
    with pytest.raises(ValueError, match="SIGNOTHING"):
        signals.install(("SIGNOTHING",))


def test_handlers_stand_before_torch_is_imported():
    program = "import sys, worldmodel.training.signals; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
