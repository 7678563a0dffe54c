import re
import subprocess
import sys

import pytest

from tests.worldmodel.training.toy import ROOT

HANG = """
import ctypes, threading, time
from worldmodel.training import hanging

def wait_in_vain():
    time.sleep(1000)

threading.Thread(target=wait_in_vain, daemon=True).start()
hanging.WORDS_SECONDS = 0.5
with hanging.unwatched(lambda: ["process 1 is gone"]):
    hanging.alive(AFTER)
    hanging.rest()
    hanging.alive(AFTER, "step 7")
    DO
print("went on")
"""


def run(seconds: float, what: str) -> subprocess.CompletedProcess[str]:
    script = HANG.replace("AFTER", str(seconds)).replace("DO", what)
    return subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_process_that_hangs_ends_with_the_stacks_of_all_threads():
    done = run(0.2, "time.sleep(1000)")
    assert done.returncode == 1
    assert re.match(r"error: process \d+ hangs: step 7 has taken more than 0.2 s\n  process 1 is gone\n", done.stderr)
    assert "in wait_in_vain" in done.stderr
    assert 'File "<string>", line 14 in <module>' in done.stderr
    assert "went on" not in done.stdout


def test_a_process_that_holds_the_interpreter_ends_too():
    done = run(0.2, "ctypes.PyDLL(None).sleep(1000)")  # without releasing the GIL
    assert done.returncode == 1
    assert "Timeout" in done.stderr
    assert 'File "<string>", line 14 in <module>' in done.stderr


def test_a_process_that_is_heard_of_again_goes_on():
    done = run(0.3, "[(hanging.alive(0.3), time.sleep(0.1)) for _ in range(6)]")
    assert (done.returncode, done.stdout, done.stderr) == (0, "went on\n", "")


@pytest.mark.parametrize(("seconds", "what"), [(0.2, "hanging.rest(); time.sleep(0.5)"), (0, "time.sleep(0.5)")])
def test_a_process_that_is_not_watched_goes_on(seconds: float, what: str):
    done = run(seconds, what)
    assert (done.returncode, done.stdout, done.stderr) == (0, "went on\n", "")
