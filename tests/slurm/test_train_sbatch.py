import re
import subprocess
from pathlib import Path

import pytest

from tests.slurm.cluster import SBATCH
from tests.slurm.stubs import Stubs


@pytest.mark.parametrize("path", sorted(SBATCH.iterdir()), ids=lambda path: path.name)
def test_the_scripts_are_valid_and_name_no_cluster(path: Path):
    subprocess.run(["bash", "-n", str(path)], check=True)
    options = re.findall(r"^#SBATCH --([a-z-]+)", path.read_text(), re.MULTILINE)
    assert not {"partition", "account", "qos", "constraint", "nodelist", "mail-user"} & set(options)


@pytest.fixture
def stubs(tmp_path: Path) -> Stubs:
    return Stubs(tmp_path, "train.sbatch")


def test_the_first_start_reads_the_config_and_later_ones_resume(stubs: Stubs):
    first = f"node7 train --config some.yaml --run {stubs.run} --a b"
    save = f"mkdir -p {stubs.run}/checkpoints/step_00000001"  # killed before `latest` named it
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
    save = f"mkdir -p {stubs.run}/checkpoints/step_$(date +%s%N); exit 9"
    assert [stubs.start(save)[0] for _ in range(4)] == [0] * 4


def test_a_missing_variable_is_named(stubs: Stubs):
    assert stubs.start("true", RUN="")[0] == 1
    assert stubs.start("true", CONFIG="")[0] == 1


def test_each_job_of_an_array_has_a_run_and_a_config_of_its_own(stubs: Stubs):
    variables = {"SLURM_ARRAY_JOB_ID": "10", "SLURM_ARRAY_TASK_ID": "3"}
    run = f"{stubs.run}_%a"
    assert stubs.start("true", RUN=run, CONFIG="configs/%a.yaml", **variables) == (
        0,
        [f"node7 train --config configs/3.yaml --run {stubs.run}_3 --a b"],
    )
