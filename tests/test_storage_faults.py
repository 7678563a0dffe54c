"""A disk that is full, a quota, a folder that cannot be written: one line, and nothing of what was there is lost."""

import hashlib
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.worldmodel.training.toy import ROOT
from tests.worldmodel.whole_run import TRAINING, WholeRun
from worldmodel import config
from worldmodel.cli import main
from worldmodel.codecs import store
from worldmodel.commands import train_codec, train_world
from worldmodel.config import write_settings
from worldmodel.errors import CheckpointError
from worldmodel.run import CODECS, SETTINGS, begin_run, load_run
from worldmodel.training import checkpoint

# The body of a shell's command in which a small file system is mounted at $1, seen by nobody else.
IN_A_SMALL_DISK = 'mount -t tmpfs -o size=$2 none "$1" && shift 2 && exec "$@"'
MOUNTS = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
PROGRAM = """
import shutil, sys
from pathlib import Path
from worldmodel.cli import main
source, disk = Path(sys.argv[1]), Path(sys.argv[2])
if source.is_dir():
    shutil.copytree(source, disk / "run")
(disk / "filling").write_bytes(bytes(shutil.disk_usage(disk).free - int(sys.argv[3])))
print("status", main(sys.argv[4:]))
(disk / "filling").unlink()
print("left", sorted(str(path.relative_to(disk)) for path in disk.rglob("*")))
print("then", main(sys.argv[4:]))
"""


def can_mount(folder: Path) -> bool:
    command = [*MOUNTS, "bash", "-c", IN_A_SMALL_DISK, "bash", folder, "1m", "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def on_a_full_disk(folder: Path, source: Path, free_bytes: int, *arguments: object) -> tuple[str, str]:
    """Runs a command twice, on a file system that is full but for some bytes, and with room: what it printed."""
    folder.mkdir()
    if not can_mount(folder):
        pytest.skip("no file system can be mounted here; tests by RLIMIT_FSIZE stand beside this one")
    program = [sys.executable, "-c", PROGRAM, source, folder, free_bytes, *arguments]
    command = [*MOUNTS, "bash", "-c", IN_A_SMALL_DISK, "bash", folder, "24m", *program]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [str(part) for part in command], cwd=ROOT, capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout, done.stderr


def test_a_disk_that_is_full_when_a_run_begins_is_refused_and_leaves_no_folder(tmp_path: Path, whole_run: WholeRun):
    disk = tmp_path / "disk"
    options = ["train", "--config", whole_run.world / SETTINGS, "--run", disk / "run", "--training.steps", "1"]
    printed, told = on_a_full_disk(disk, tmp_path / "nothing", 8192, *options)
    assert f"error: {disk / 'run'} cannot be written (No space left on device): make room there" in told
    assert "status 2\nleft []\nthen 0\n" in printed.replace(f"world model trained in {disk / 'run'}", "").replace(
        f"; next: worldmodel evaluate {disk / 'run'}\n", ""
    )


def test_a_disk_that_is_full_at_a_checkpoint_is_told_and_the_run_goes_on_once_there_is_room(
    tmp_path: Path, whole_run: WholeRun
):
    disk = tmp_path / "disk"
    options = ["train", "--resume", disk / "run", "--training.steps", "8", "--training.checkpoint_every", "0"]
    printed, told = on_a_full_disk(disk, whole_run.world, 100_000, *options)
    # The curves, which are written first, or the checkpoint: whichever no longer fits.
    run = disk / "run"
    places = (
        f"error: cannot write {run / 'tensorboard'} (",
        f"error: cannot save {run / 'checkpoints'}/step_00000008 (",
    )
    (line,) = [line for line in told.splitlines() if line.startswith("error: ")]
    assert line.startswith(places)
    assert re.search(r"\(.*(No space left on device|os error 28).*\): make room there and resume", line)
    left = printed.partition("left ")[2].splitlines()[0]
    assert "step_00000006/checkpoint.json" in left
    assert "partial" not in left
    assert "status 2\n" in printed
    assert "then 0\n" in printed


@contextmanager
def quota(num_bytes: int) -> Iterator[None]:
    """No file may become larger; the kernel's signal for it becomes an error of the call, as Python sets it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_quota_that_a_run_begins_beyond_is_refused_and_leaves_no_folder(whole_run: WholeRun, tmp_path: Path):
    run = tmp_path / "run"
    with quota(100), pytest.raises(CheckpointError, match=r"run cannot be written \(File too large\): make room"):
        train_world(replace(whole_run.settings, run=str(run)))
    assert not run.exists()


def test_a_quota_reached_when_a_codec_is_frozen_loses_no_step(
    whole_run: WholeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    settings = whole_run.codec_settings("picture", tmp_path / "run")
    settings = replace(settings, training=replace(TRAINING, steps=1))
    write_tensors = store.write_tensors

    def limited(*arguments: object) -> None:
        with quota(100):
            write_tensors(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(store, "write_tensors", limited)
        with pytest.raises(CheckpointError, match=r"cannot be written to .*run \(.*too large.*\): make room .* resume"):
            train_codec(settings)
    assert not [path for path in (tmp_path / "run").rglob("*") if path.name.endswith("partial")]
    assert train_codec(settings, resume=True).step == 1
    assert store.load_codec(tmp_path / "run").kind == "picture"


def read_only(folder: Path) -> list[str]:
    """Makes a folder read-only, and gives what a command must begin with so that the mode holds for root too."""
    for path in [folder, *folder.rglob("*")]:
        path.chmod(path.stat().st_mode & ~0o222)
    assert shutil.which("setpriv"), "needs util-linux's setpriv"
    return ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-all"] if os.geteuid() == 0 else []


def snapshot(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("part", ["run", "settings alone"])
def test_a_run_that_cannot_be_written_is_not_resumed_and_stays_as_it_was(
    part: str, whole_run: WholeRun, tmp_path: Path
):
    run = tmp_path / "run"
    shutil.copytree(whole_run.world, run)
    before = snapshot(run)
    prefix = read_only(run)
    if part == "settings alone":  # the lock can be had, but no new file
        (run / ".lock").chmod(0o644)
    command = [*prefix, sys.executable, "-m", "worldmodel", "train", "--resume", str(run), "--training.steps", "8"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"error: {run} cannot be written (Permission denied): ")
    assert "Traceback" not in done.stderr
    (run / ".lock").chmod(0o644)
    assert {name: digest for name, digest in snapshot(run).items() if name != ".lock"} == {
        name: digest for name, digest in before.items() if name != ".lock"
    }


class Killed(BaseException):
    """The process ends here."""


def dies_at(call: Callable[..., object], number: int) -> Callable[..., object]:
    """The function, up to a call of it that kills."""
    calls: list[int] = []

    def dying(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == number:
            raise Killed
        return call(*arguments)

    return dying


def test_a_run_that_was_killed_while_it_began_begins_again_with_all_its_codecs(
    whole_run: WholeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    settings = replace(whole_run.settings, run=str(tmp_path / "run"))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("worldmodel.run.copy_codec", dies_at(store.copy_codec, 2))
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)  # who is killed tidies nothing
        begin_run(settings)
    assert (tmp_path / "run" / f".{CODECS}.partial").is_dir()
    begin_run(settings)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [CODECS, SETTINGS]
    assert sorted(path.name for path in (tmp_path / "run" / CODECS).iterdir()) == ["picture", "sound"]


def test_settings_that_were_half_written_are_replaced_and_never_read(
    whole_run: WholeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / SETTINGS
    write_settings(whole_run.settings, path)
    before = path.read_bytes()
    for _ in range(3):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(config.os, "fsync", dies_at(os.fsync, 1))
            write_settings(replace(whole_run.settings, num_frames=4), path)
        assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2  # however often
    write_settings(whole_run.settings, path)
    assert [each.name for each in tmp_path.iterdir()] == [SETTINGS]


def test_a_batch_that_does_not_divide_is_refused_before_the_settings_of_a_run_are_replaced(
    whole_run: WholeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str], kept_signals: None
):
    shutil.copytree(whole_run.world, tmp_path / "run")
    before = snapshot(tmp_path / "run")
    options = ["--loader.batch_size", "3", "--training.accumulate", "2"]
    assert main(["train", "--resume", str(tmp_path / "run"), *options]) == 2
    assert "loader.batch_size=3 does not divide among the 1 processes with training.acc" in capsys.readouterr().err
    assert snapshot(tmp_path / "run") == before
    assert load_run(tmp_path / "run").step == TRAINING.steps
    assert checkpoint.newest(tmp_path / "run") is not None
