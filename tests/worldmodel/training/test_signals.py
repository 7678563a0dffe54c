import os
import signal
import subprocess
import sys
import time
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


LAUNCHER = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
LAUNCHED = """
import os, signal, sys, time
from worldmodel.training import signals
stop = signals.install()
FOLLOW
print(os.getpid(), flush=True)
for _ in range(500):
    if not stop.requested:
        time.sleep(0.01)
print(stop.signal_name, flush=True)
"""


def launched(follow: str, **environment: str) -> list[str]:
    """Kills a launcher whose process runs: what that process said afterwards, until it was gone."""
    command = [sys.executable, "-c", LAUNCHER, LAUNCHED.replace("FOLLOW", follow)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | environment) as launcher:
        assert launcher.stdout is not None
        process = int(launcher.stdout.readline())
        launcher.kill()
        launcher.wait()
        if not environment:
            time.sleep(0.3)
            os.kill(process, signal.SIGUSR1)  # else it would wait for ever
        return launcher.stdout.read().split()  # it ends where the process does


def test_a_process_that_has_nothing_to_save_ends_with_the_torchrun_that_started_it():
    assert launched("", TORCHELASTIC_RUN_ID="1") == []


def test_a_process_that_trains_is_asked_to_stop_when_the_torchrun_that_started_it_has_ended():
    assert launched("signals.follow_launcher(signal.SIGTERM)", TORCHELASTIC_RUN_ID="1") == ["SIGTERM"]


def test_without_torchrun_a_process_outlives_who_started_it():
    assert launched("signals.follow_launcher(signal.SIGTERM)") == ["SIGUSR1"]
