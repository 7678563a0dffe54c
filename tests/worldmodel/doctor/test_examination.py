"""The doctor as a whole: in one process, in two with a fault in one of them, and under torchrun."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from streams.settings import ClipSettings, LoaderSettings
from tests.worldmodel.doctor.faulty import EVERYWHERE, SETTINGS, faults
from tests.worldmodel.training.toy import ROOT
from worldmodel.cli import main
from worldmodel.doctor.examination import examine, shm_bytes
from worldmodel.errors import SettingsError
from worldmodel.settings import DoctorSettings

CHECKS = [
    *("ranks", "processes on machines", "versions", "/dev/shm", "open files", "locked memory", "GPUs", "decoders"),
    *("clocks", "free disk space", "shared folder", "rename", "locks (flock)", "all-reduce"),
]
# Each fault, the check that finds it, and what it says.
FAULTS = {
    "version": ("versions", "but 9.9 on n2"),
    "source": ("versions", "but 0.1.0 (0badc0de) on n2"),
    "clock": ("clocks", "between n1 and n2"),
    "folder": ("shared folder", "what process 0 made is not there (process 1 on n2)"),
    "lock": ("locks (flock)", "process 1 takes a lock that process 0 holds"),
    "open files": ("open files", "256 on n2"),
    "GPU": ("GPUs", "3 ECC errors of GPU-1 on n2"),
    "decoder": ("decoders", "without h264"),
    "machine": ("processes on machines", "n2 has 1 instead of 4"),
    "rename": ("rename", "of 65536 equal bytes"),
    "sums": ("all-reduce", "wrong sums (gloo)"),
    "shm": ("/dev/shm", "GiB free, on n1"),
    "disk": ("free disk space", "GiB"),
}


def two_processes(folder: Path, *names: str) -> list[tuple[int, str, str]]:
    """Status and what was printed of two processes with these faults."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error", "-m", "tests.worldmodel.doctor.faulty", str(folder), *names]
    started = []
    for rank in ("0", "1"):
        environment = os.environ | shared | {"RANK": rank, "LOCAL_RANK": rank, "CUDA_VISIBLE_DEVICES": ""}
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, cwd=ROOT, env=environment, **pipes))
    printed = [process.communicate(timeout=600) for process in started]
    return [(process.returncode, *texts) for process, texts in zip(started, printed, strict=True)]


@pytest.fixture(scope="module")
def examined(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, dict[str, str]]]:
    """Findings by fault and check, of two processes that were examined with one fault after the other."""
    folder = tmp_path_factory.mktemp("faults")
    names = ["none", *FAULTS, "rate"]
    ended = two_processes(folder, *names)
    expected = "".join(f"{name}: {name in ('none', 'rate')}\n" for name in names)
    assert [status for status, _, _ in ended] == [0, 0], ended
    assert ended[1][1] == expected  # process 0 prints tables too
    found = {name: json.loads((folder / f"{name}.json").read_text()) for name in names}
    return {name: {finding["check"]: finding for finding in findings} for name, findings in found.items()}


def test_two_healthy_processes_pass_every_check(examined: dict):
    findings = examined["none"]
    assert list(findings) == CHECKS
    assert "FAIL" not in {finding["verdict"] for finding in findings.values()}
    assert findings["processes on machines"]["value"] == "2 on 2 (n1 127.0.0.1, n2 127.0.0.1)"
    assert findings["all-reduce"]["value"].endswith(" GB/s (gloo)")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_fails_the_check_that_is_for_it_and_no_other(fault: str, examined: dict):
    check, said = FAULTS[fault]
    failed = [name for name, finding in examined[fault].items() if finding["verdict"] == "FAIL"]
    assert failed == [check]
    assert said in examined[fault][check]["value"]
    assert examined[fault][check]["remedy"]


def test_a_slow_network_is_a_warning(examined: dict):
    assert examined["rate"]["all-reduce"]["verdict"] == "warn"


def test_every_fault_there_is_was_injected(tmp_path: Path):
    assert {*faults(tmp_path), *EVERYWHERE, *SETTINGS, "folder"} == {*FAULTS, "rate", "hang", "death"}


def test_a_process_that_hangs_in_a_check_ends_the_doctor_in_time_and_is_named(tmp_path: Path):
    ended = two_processes(tmp_path, "hang")
    assert [status for status, _, _ in ended] == [1, 1]
    for rank, (_, _, said) in enumerate(ended):
        assert "hangs: the doctor's check of the clocks has taken more than 6 s" in said
        assert f"process {1 - rank} on n{2 - rank} (127.0.0.1) " in said
        assert "and call the doctor again" in said


def test_a_process_that_ends_in_a_check_is_named(tmp_path: Path):
    (status, said, _), (other, _, _) = two_processes(tmp_path, "death")
    assert (status, other) == (1, 9)
    assert "process 1 on n2 (127.0.0.1) has ended; see to the machines named" in said


def test_one_process_without_a_launcher_is_examined(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "doctor.json"
    options = ["--folder", str(tmp_path), "--json", str(file), "--disk_gibibytes", "0.001"]
    assert main(["doctor", *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["check", "verdict", "found", "expected"]
    assert [finding["check"] for finding in json.loads(file.read_text())] == CHECKS
    assert main(["doctor", "--folder", str(tmp_path), "--disk_gibibytes", "1e9"]) == 1
    assert "free disk space        FAIL" in capsys.readouterr().out


def test_under_torchrun_two_processes_are_examined(tmp_path: Path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "--"]
    command += ["worldmodel", "doctor", "--folder", str(tmp_path), "--disk_gibibytes", "0.001"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ranks                  pass     2 of 2 came" in done.stdout
    assert done.stdout.count("processes on machines") == 1


def test_a_time_that_is_none_is_refused():
    with pytest.raises(SettingsError, match="timeout_seconds=0 is out of range: it must be above 0"):
        examine(DoctorSettings(timeout_seconds=0.0))


def test_what_loaders_keep_ready_is_counted_by_clips():
    clips = ClipSettings(frames_per_second=10.0, height=8, width=4, num_frames=5, sample_hz=100)
    clip = 5 * (8 * 4 * 3 + 10 * 4)
    loader = LoaderSettings(batch_size=7, num_workers=3, prefetch_batches=4)
    assert shm_bytes(clips, loader, num_ranks=2) == 3 * 5 * 4 * clip
    assert shm_bytes(clips, LoaderSettings(num_workers=0), num_ranks=2) == 0
