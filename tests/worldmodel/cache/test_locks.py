import errno
import fcntl
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from worldmodel.cache import locks
from worldmodel.cache.locks import holder_of, is_held, locked
from worldmodel.errors import CacheError

HOLD = """
import sys, time
from pathlib import Path
from typing import Any
from worldmodel.cache.locks import locked
with locked(Path(sys.argv[1]), "it"):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_holder_is_refused_and_told_who_holds_it(tmp_path: Path):
    with locked(tmp_path / "lock", "part 1/2"):
        refused = pytest.raises(CacheError, match=r"part 1/2 is being written already by host .*, process \d+")
        with refused, locked(tmp_path / "lock", "part 1/2"):
            pass
        assert is_held(tmp_path / "lock")
    assert not is_held(tmp_path / "lock")
    with locked(tmp_path / "lock", "part 1/2"):
        pass


def test_locks_are_asked_for_as_nfs_gives_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    flock = fcntl.flock

    def of_nfs(file: Any, operation: int) -> None:
        """On NFS a lock is one of the server's on all bytes, and that for one alone needs a file open for writing."""
        if operation & fcntl.LOCK_EX and fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", of_nfs)
    with locked(tmp_path / "lock", "it"):
        assert is_held(tmp_path / "lock")
    assert not is_held(tmp_path / "lock")


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path):
    file = tmp_path / "folder" / "lock"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(file)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert is_held(file)
        assert f"process {process.pid}" in holder_of(file)
        process.kill()
    assert not is_held(file)
    with locked(file, "it"):
        pass


def test_a_job_of_slurm_waits_for_the_lock_of_its_predecessor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setattr(locks, "POLL_SECONDS", 0.02)
    file = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(file)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        ending = threading.Timer(0.3, process.kill)
        ending.start()
        with caplog.at_level(logging.WARNING), locked(file, "the run"):
            assert process.wait() != 0
        ending.join()
    assert len(caplog.messages) == 1
    assert f"process {process.pid}: waiting for it, 120 s at most" in caplog.text


def test_the_patience_of_a_job_of_slurm_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setattr(locks, "LEASE_SECONDS", 0.1)
    monkeypatch.setattr(locks, "POLL_SECONDS", 0.02)
    stays = rf"if its machine has died and its lock stays \(NFS\), delete {tmp_path / 'lock'}"
    with locked(tmp_path / "lock", "it"):
        refused = pytest.raises(CacheError, match=stays)
        with refused, locked(tmp_path / "lock", "it"):
            pass
        (tmp_path / "lock").unlink()
        with locked(tmp_path / "lock", "it"):
            pass
