import subprocess
import sys

import pytest

from tests.worldmodel.training.toy import ROOT

HANG = """
import threading, time
from worldmodel.training import hanging

def wait_in_vain():
    time.sleep(1000)

threading.Thread(target=wait_in_vain, daemon=True).start()
with hanging.unwatched():
    hanging.alive(SECONDS)
    hanging.rest()
    hanging.alive(SECONDS)
    DO
print("went on")
"""


def run(seconds: float, what: str) -> subprocess.CompletedProcess[str]:
    script = HANG.replace("SECONDS", str(seconds)).replace("DO", what)
    return subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_process_that_hangs_ends_with_the_stacks_of_all_threads():
    done = run(0.2, "time.sleep(1000)")
    assert done.returncode == 1
    assert "Timeout" in done.stderr
    assert "in wait_in_vain" in done.stderr
    assert 'File "<string>", line 13 in <module>' in done.stderr
    assert "went on" not in done.stdout


@pytest.mark.parametrize(("seconds", "what"), [(0.2, "hanging.rest(); time.sleep(0.5)"), (0, "time.sleep(0.5)")])
def test_a_process_that_is_not_watched_goes_on(seconds: float, what: str):
    done = run(seconds, what)
    assert (done.returncode, done.stdout, done.stderr) == (0, "went on\n", "")
