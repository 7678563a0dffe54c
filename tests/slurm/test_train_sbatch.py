import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.worldmodel.training.toy import ROOT, finish, launch

SLURM = ROOT / "slurm"
TESTBED = Path(__file__).parent / "testbed.sh"
needs_slurm = pytest.mark.skipif(
    not all(shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") for name in ("slurmctld", "slurmd", "munged")),
    reason="needs slurm-wlm and munge",
)


@pytest.mark.parametrize("path", sorted(SLURM.iterdir()), ids=lambda path: path.name)
def test_the_scripts_are_valid_and_name_no_cluster(path: Path):
    subprocess.run(["bash", "-n", str(path)], check=True)
    options = re.findall(r"^#SBATCH --([a-z-]+)", path.read_text(), re.MULTILINE)
    assert not {"partition", "account", "qos", "constraint", "nodelist", "mail-user"} & set(options)


class Stubs:
    """A job outside Slurm: srun and scontrol are scripts that write down how they were called."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.run = folder, folder / "run"
        self.calls = folder / "calls"
        (folder / "bin").mkdir()
        self.script("srun", 'exec "${@:2}"')
        self.script("scontrol", 'if [ "$1" = show ]; then echo node7; else echo "$@" >>"$CALLS"; fi')
        self.script("worldmodel", f'echo "$MASTER_ADDR $@" >>"$CALLS"; {folder}/body')

    def script(self, name: str, body: str) -> None:
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/bash\n{body}\n")
        path.chmod(0o755)

    def start(self, body: str, **variables: str) -> tuple[int, list[str]]:
        """Runs the job with a program that does `body`: its exit status, and the calls it made."""
        (self.folder / "body").write_text(f"#!/bin/bash\n{body}\n")
        (self.folder / "body").chmod(0o755)
        self.calls.write_text("")
        environment = {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "CALLS": str(self.calls),
            "RUN": str(self.run),
            "CONFIG": "some.yaml",
            "SLURM_SUBMIT_DIR": str(ROOT),
            "SLURM_JOB_ID": "12",
            "SLURM_JOB_NODELIST": "node[7-8]",
            "WORLDMODEL_VENV": "nowhere",
        } | variables
        command = ["bash", SLURM / "train.sbatch", "--a", "b"]
        done = subprocess.run(command, env=environment, capture_output=True, check=False)
        return done.returncode, self.calls.read_text().splitlines()


@pytest.fixture
def stubs(tmp_path: Path) -> Stubs:
    return Stubs(tmp_path)


def test_the_first_start_reads_the_config_and_later_ones_resume(stubs: Stubs):
    first = f"node7 train --config some.yaml --run {stubs.run} --a b"
    save = f"mkdir -p {stubs.run}/checkpoints; echo step_1 >{stubs.run}/checkpoints/latest"
    assert stubs.start(save) == (0, [first])
    assert stubs.start("true") == (0, [f"node7 train --resume {stubs.run}"])


def test_an_interrupted_run_is_requeued(stubs: Stubs):
    status, calls = stubs.start("exit 75")
    assert status == 0
    assert calls[1:] == ["requeue 12"]


def test_one_job_of_an_array_is_requeued_alone(stubs: Stubs):
    _, calls = stubs.start("exit 75", SLURM_ARRAY_JOB_ID="10", SLURM_ARRAY_TASK_ID="3")
    assert calls[1:] == ["requeue 10_3"]


def test_a_mistake_of_the_user_is_not_requeued(stubs: Stubs):
    status, calls = stubs.start("exit 2")
    assert status == 2
    assert len(calls) == 1


def test_crashes_without_progress_end_the_job(stubs: Stubs):
    ends = [stubs.start("exit 9") for _ in range(3)]
    assert [status for status, _ in ends] == [0, 0, 9]
    assert ["requeue 12" in calls for _, calls in ends] == [True, True, False]


def test_crashes_with_progress_are_requeued_for_ever(stubs: Stubs):
    save = f"mkdir -p {stubs.run}/checkpoints; date +%N >{stubs.run}/checkpoints/latest; exit 9"
    assert [stubs.start(save)[0] for _ in range(4)] == [0] * 4


def test_a_missing_variable_is_named(stubs: Stubs):
    assert stubs.start("true", RUN="")[0] == 1
    assert stubs.start("true", CONFIG="")[0] == 1


def test_the_cache_is_built_by_the_tool(stubs: Stubs):
    stubs.script("python", 'echo "$@" >>"$CALLS"')
    environment = {
        "PATH": f"{stubs.folder / 'bin'}:{os.environ['PATH']}",
        "CALLS": str(stubs.calls),
        "SLURM_SUBMIT_DIR": str(ROOT),
        "SLURM_JOB_NODELIST": "node7",
        "WORLDMODEL_VENV": "nowhere",
    }
    subprocess.run(["bash", SLURM / "latents.sbatch", "videos", "out.zarr"], env=environment, check=True)
    assert stubs.calls.read_text() == "-m tools.latents build videos out.zarr\n"
    for given, part in (({}, "3/16"), ({"NUM_PARTS": "32"}, "3/32")):
        array = environment | {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_MAX": "16"} | given
        subprocess.run(["bash", SLURM / "latents.sbatch", "videos", "out.zarr"], env=array, check=True)
        assert stubs.calls.read_text().splitlines()[-1] == f"-m tools.latents build videos out.zarr --part {part}"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a client of a throwaway cluster with two nodes."""
    folder = tmp_path / "cluster"
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(min(listener.getsockname()[1], 60000))
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin",
        "SLURM_CONF": str(folder / "slurm.conf"),
    }
    try:
        subprocess.run(["bash", TESTBED, "up", folder, "2", port], env=environment, check=True, timeout=60)
        yield environment
    finally:
        subprocess.run(["bash", TESTBED, "down", folder], env=environment, check=True, timeout=60)


def wait_for(condition: Callable[[], bool], log: Path) -> None:
    stop = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < stop, log.read_text() if log.exists() else "the job has not started"
        time.sleep(0.2)


@needs_slurm
def test_a_signalled_job_on_two_nodes_is_requeued_and_ends_as_an_unbroken_run(tmp_path: Path, cluster: dict[str, str]):
    run, log = tmp_path / "run", tmp_path / "job.log"
    variables = {
        "RUN": str(run),
        "CONFIG": "some.yaml",
        "WORLDMODEL": f"{sys.executable} -W error -m tests.slurm.toy_command",
        "MASTER_ADDR": "127.0.0.1",
        "OMP_NUM_THREADS": "1",
    }
    command = ["sbatch", "--parsable", "--nodes=2", f"--output={log}", str(SLURM / "train.sbatch")]
    submitted = subprocess.run(command, env=cluster | variables, cwd=ROOT, check=True, capture_output=True, text=True)
    job = submitted.stdout.strip()
    wait_for(lambda: (run / "waiting0").exists() and (run / "waiting1").exists(), log)
    subprocess.run(["scancel", "--signal=USR1", job], env=cluster, check=True)
    unbroken = launch("unbroken", tmp_path / "unbroken", num_ranks=2)  # while the job waits in the queue
    wait_for(lambda: "exit status 0" in (log.read_text() if log.exists() else ""), log)
    text = log.read_text()
    assert f"train --config some.yaml --run {run}" in text
    assert f"train --resume {run}" in text
    assert (run / "checkpoints" / "latest").read_text() == "step_00000012\n"
    finish(unbroken)
    for rank in range(2):
        assert (run / f"losses{rank}").read_text() == (tmp_path / "unbroken" / f"losses{rank}").read_text()
