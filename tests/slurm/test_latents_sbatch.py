import subprocess
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, needs_slurm, read, wait_for
from tests.slurm.stubs import Stubs
from tests.slurm.world import CLIP_FRAMES, HELDOUT, SmallWorld

# Before Python runs anything else: at its first start, part 2 stops in the middle of writing its second unit, and waits
# there to be killed.
STOPS_AT_ITS_SECOND_UNIT = """
import os, time
from pathlib import Path

here, replace = Path(__file__).parent, Path.replace

def stopping(self, target):
    if Path(target).parent.name == "units" and any(Path(target).parent.glob("*.npz")):
        (here / "stopped").touch()
        while True:
            time.sleep(0.1)
    return replace(self, target)

if os.environ.get("SLURM_ARRAY_TASK_ID") == "2" and not (here / "stopped").exists():
    Path.replace = stopping
"""


@pytest.fixture
def stubs(tmp_path: Path) -> Stubs:
    made = Stubs(tmp_path, "latents.sbatch")
    made.script("python", 'echo "$@" >>"$CALLS"')
    return made


def test_the_cache_is_built_by_the_tool(stubs: Stubs):
    assert stubs.start("") == (0, ["-m tools.latents build --a b"])


@pytest.mark.parametrize(("given", "part"), [({}, "3/16"), ({"NUM_PARTS": "32"}, "3/32")])
def test_a_job_of_an_array_builds_its_part(given: dict[str, str], part: str, stubs: Stubs):
    array = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_MAX": "16"} | given
    assert stubs.start("", **array) == (0, [f"-m tools.latents build --a b --part {part}"])


@needs_slurm
def test_an_array_with_one_job_killed_and_submitted_again_gives_the_cache_of_one_process(
    tmp_path: Path, cluster: Cluster, small_world: SmallWorld
):
    out, hooks = tmp_path / "out.zarr", tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(STOPS_AT_ITS_SECOND_UNIT)
    setup = tmp_path / "setup.sh"
    setup.write_text(f"export PYTHONPATH={hooks}${{PYTHONPATH:+:$PYTHONPATH}}\n")
    arguments = [str(small_world.videos), str(out), "--codec", str(small_world.picture)]
    arguments += [f"--clips.num_frames={CLIP_FRAMES}", f"--heldout={HELDOUT}", "--batch=2", "--workers=1"]

    def submit(numbers: str, log: Path, **variables: str) -> str:
        options = (f"--array={numbers}", "--cpus-per-task=1")
        return cluster.submit("latents.sbatch", log, *arguments, options=options, **variables)

    job = submit("1-3", tmp_path / "%a.log", WORLDMODEL_SETUP=str(setup))
    wait_for((hooks / "stopped").exists, tmp_path / "2.log")
    cluster.call("scancel", "--signal=KILL", f"{job}_2")
    assert [cluster.wait_for_end(f"{job}_{part}", tmp_path / f"{part}.log") for part in (1, 3)] == ["0:0"] * 2
    assert cluster.wait_for_end(f"{job}_2", tmp_path / "2.log") != "0:0"
    assert not out.exists()
    assert list((tmp_path / "out.zarr.building" / "units").glob("*.partial"))
    again = submit("2", tmp_path / "again.log", NUM_PARTS="3")
    assert cluster.wait_for_end(f"{again}_2", tmp_path / "again.log") == "0:0", read(tmp_path / "again.log")
    assert not (tmp_path / "out.zarr.building").exists()
    compared = subprocess.run(
        ["diff", "--recursive", out, small_world.cache], capture_output=True, text=True, check=False
    )
    assert compared.stdout == ""
    assert compared.returncode == 0
