from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, needs_slurm, read
from tests.slurm.stubs import Stubs

CODECS = {"CODECS": "runs/p runs/s", "VIDEOS": "heldout"}


@pytest.fixture
def stubs(tmp_path: Path) -> Stubs:
    return Stubs(tmp_path, "evaluate.sbatch")


def test_every_run_and_the_codecs_are_evaluated(stubs: Stubs):
    status, calls = stubs.start("true", RUN="runs/a runs/b", **CODECS)
    assert status == 0
    assert sorted(calls) == [
        "node7 evaluate codec runs/p runs/s --videos heldout --a b",
        "node7 evaluate runs/a --a b",
        "node7 evaluate runs/b --a b",
    ]


@pytest.mark.parametrize(("number", "evaluated"), [(1, "runs/a"), (2, "codec runs/p runs/s --videos heldout")])
def test_a_job_of_an_array_does_one_of_them(number: int, evaluated: str, stubs: Stubs):
    assert stubs.start("true", RUN="runs/a", SLURM_ARRAY_TASK_ID=str(number), **CODECS) == (
        0,
        [f"node7 evaluate {evaluated} --a b"],
    )


def test_a_number_beyond_the_last_is_refused(stubs: Stubs):
    assert stubs.start("true", RUN="runs/a", SLURM_ARRAY_TASK_ID="2") == (2, [])
    assert "number 2 of the array has nothing to evaluate: give --array=1-1" in stubs.done.stderr


def test_the_worst_status_is_that_of_the_job(stubs: Stubs):
    body = 'case "$*" in *runs/b*) exit 3 ;; *codec*) exit 1 ;; esac'
    stubs.script("worldmodel", f'echo "$@" >>"$CALLS"; {body}')
    assert stubs.start("true", RUN="runs/a runs/b runs/c", **CODECS)[0] == 3
    assert stubs.start("true", RUN="runs/a", **CODECS)[0] == 1
    assert stubs.start("true", RUN="runs/a runs/c")[0] == 0


@pytest.mark.parametrize(
    ("variables", "named"),
    [({"RUN": ""}, "nothing to evaluate: set RUN, or CODECS and VIDEOS"), ({"CODECS": "runs/p"}, "set VIDEOS to what")],
)
def test_what_is_missing_is_named(variables: dict[str, str], named: str, stubs: Stubs):
    status, calls = stubs.start("true", **variables)
    assert status != 0
    assert calls == []
    assert named in stubs.done.stderr


@needs_slurm
def test_as_many_evaluations_run_at_a_time_as_the_job_has_tasks(tmp_path: Path, cluster: Cluster):
    log, stand_in = tmp_path / "job.log", tmp_path / "stand_in.sh"
    # Each waits until there is another one: one after the other would never end.
    stand_in.write_text(f"""
        touch {tmp_path}/started.$SLURM_STEP_ID
        until [ "$(ls {tmp_path}/started.* | wc -l)" = 2 ]; do sleep 0.1; done
        echo "worldmodel $*"
        case "$*" in *codec*) exit 0 ;; *) exit 3 ;; esac
    """)
    variables = {"RUN": "runs/a", "WORLDMODEL": f"bash {stand_in}", **CODECS}
    job = cluster.submit("evaluate.sbatch", log, "--num_clips", "2", options=("--ntasks=2",), **variables)
    assert cluster.wait_for_end(job, log) == "3:0"
    assert "worldmodel evaluate runs/a --num_clips 2\n" in read(log)
    assert "worldmodel evaluate codec runs/p runs/s --videos heldout --num_clips 2\n" in read(log)
