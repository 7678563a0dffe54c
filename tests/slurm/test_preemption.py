"""A job is told to stop: it saves, goes back to the queue, and goes on."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.slurm.cluster import TOY, Cluster, losses_of, needs_slurm, read, told, wait_for
from tests.slurm.world import SmallWorld
from worldmodel.commands import train_world
from worldmodel.config import write_settings
from worldmodel.training.checkpoint import load_weights


@needs_slurm
def test_a_signalled_job_on_two_nodes_is_requeued_and_ends_as_an_unbroken_run(
    tmp_path: Path, cluster: Cluster, unbroken: Callable[[int, int], list[str]]
):
    run, log = tmp_path / "run", tmp_path / "job.log"
    variables = {"RUN": str(run), "CONFIG": "some.yaml", "WORLDMODEL": TOY}
    job = cluster.submit("train.sbatch", log, options=("--nodes=2",), **variables)
    wait_for(lambda: (run / "waiting0-5").exists() and (run / "waiting1-5").exists(), log)
    started = time.time()
    cluster.call("scancel", "--signal=USR1", job)
    whole = [unbroken(2, rank) for rank in range(2)]  # while the job waits in the queue
    assert cluster.wait_for_end(job, log) == "0:0", read(log)
    assert f"train --config some.yaml --run {run}" in read(log)
    assert "exit status 75" in read(log)
    assert f"train --resume {run}" in read(log)
    assert (run / "checkpoints" / "latest").read_text() == "step_00000012\n"
    assert [losses_of(run, rank) for rank in range(2)] == whole
    told("USR1 on two nodes", started, (run / "resumed0").stat().st_mtime)


# What `worldmodel train` does, but for the training: waits for a signal or a file, and is done at its second start.
STAND_IN = """
run=${@: -1}
mkdir -p "$run/checkpoints"
echo "$2" >>"$run/starts"
trap 'mkdir "$run/checkpoints/step_00000001"; exit 75' USR1
touch "$run/waiting"
if [ "$2" = --config ]; then while [ ! -e "$run/go" ]; do sleep 0.1; done; fi
"""


@needs_slurm
def test_one_job_of_an_array_of_trainings_is_requeued_alone(tmp_path: Path, cluster: Cluster):
    (tmp_path / "stand_in.sh").write_text(STAND_IN)
    # The last job of an array bears the array's own number, by which all of it can be meant.
    others, last = tmp_path / "run_1", tmp_path / "run_2"
    variables = {
        "RUN": str(tmp_path / "run_%a"),
        "CONFIG": "some.yaml",
        "WORLDMODEL": f"bash {tmp_path / 'stand_in.sh'}",
    }
    job = cluster.submit("train.sbatch", tmp_path / "%a.log", options=("--array=1-2",), **variables)
    wait_for(lambda: all((run / "waiting").exists() for run in (others, last)), tmp_path / "1.log")
    cluster.call("scancel", "--signal=USR1", f"{job}_2")
    assert cluster.wait_for_end(f"{job}_2", tmp_path / "2.log") == "0:0"
    assert (last / "starts").read_text() == "--config\n--resume\n"
    assert (others / "starts").read_text() == "--config\n"
    (others / "go").touch()
    assert cluster.wait_for_end(f"{job}_1", tmp_path / "1.log") == "0:0"
    assert (others / "starts").read_text() == "--config\n"


@needs_slurm
def test_a_training_on_two_nodes_that_is_requeued_in_the_middle_ends_as_one_process_does(
    tmp_path: Path, cluster: Cluster, small_world: SmallWorld
):
    run, log, steps = tmp_path / "run", tmp_path / "job.log", 30
    write_settings(small_world.settings(run, steps), tmp_path / "config.yaml")
    variables = {
        "RUN": str(run),
        "CONFIG": str(tmp_path / "config.yaml"),
        "WORLDMODEL": f"{sys.executable} -m worldmodel",
    }
    job = cluster.submit("train.sbatch", log, options=("--nodes=2",), **variables)
    latest = run / "checkpoints" / "latest"
    wait_for(latest.exists, log)
    started = time.time()
    cluster.call("scontrol", "requeue", job)
    alone = tmp_path / "alone"
    train_world(small_world.settings(alone, steps))
    wait_for(lambda: f"train --resume {run}" in read(log), log)
    before = latest.read_text()
    assert before < f"step_{steps:08d}\n", "the job was over before it was requeued: give it more steps"
    wait_for(lambda: latest.read_text() > before, log)
    told("scontrol requeue", started, latest.stat().st_mtime)
    assert cluster.wait_for_end(job, log) == "0:0", read(log)
    weights, ours = load_weights(alone)[0], load_weights(run)[0]
    assert weights.keys() == ours.keys()
    moved = {name: float((weights[name] - ours[name]).abs().max()) for name in weights if weights[name].numel()}
    assert max(moved.values()) < 1e-5, moved
