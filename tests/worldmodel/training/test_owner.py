import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.worldmodel.training.toy import ROOT
from worldmodel.errors import CheckpointError
from worldmodel.training.owner import owned

HOLD = """
import sys
from pathlib import Path
from worldmodel.training.owner import owned
with owned(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_job_on_a_run_is_refused_until_the_first_has_ended_however(tmp_path: Path):
    run = tmp_path / "run"
    command = [sys.executable, "-c", HOLD, str(run)]
    first = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    assert first.stdout.readline() == "held\n"
    refused = rf"the run .*run is being written already by host .*, process {first.pid}: wait for it, or stop it first"
    with pytest.raises(CheckpointError, match=refused), owned(run):
        pass
    first.kill()
    first.communicate()
    with owned(run):
        (run / "work").touch()
    assert (run / "work").exists()


def test_a_run_that_was_refused_leaves_no_folder(tmp_path: Path):
    with pytest.raises(CheckpointError, match="some reason"), owned(tmp_path / "run"):
        raise CheckpointError("some reason")
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path):
    run = tmp_path / "run"
    run.mkdir(mode=0o555)
    command = [sys.executable, "-c", HOLD, str(run)]
    if os.geteuid() == 0:  # whom no mode keeps out, but without this capability it does
        assert shutil.which("setpriv"), "needs util-linux's setpriv"
        command = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-all", *command]
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert f"{run} cannot be written (Permission denied): give the folder of a run that can" in done.stderr
    assert list(run.iterdir()) == []
