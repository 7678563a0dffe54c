import errno
from pathlib import Path

import pytest

from worldmodel.doctor import shared_folder
from worldmodel.doctor.shared_folder import examine_folder

# Between processes it is tested in test_examination.py and, between nodes, in tests/slurm/test_doctor.py.


def examined(folder: Path, least_gibibytes: float = 1e-6) -> dict[str, str]:
    return {finding.check: finding.verdict for finding in examine_folder(folder, least_gibibytes)}


def test_a_folder_of_this_machine_passes_and_is_left_as_it_was(tmp_path: Path):
    checks = ("free disk space", "shared folder", "rename", "locks (flock)")
    assert examined(tmp_path / "runs") == dict.fromkeys(checks, "pass")
    assert list((tmp_path / "runs").iterdir()) == []


def test_too_little_room_fails_and_little_is_a_warning(tmp_path: Path):
    import shutil

    free = shutil.disk_usage(tmp_path).free / 2**30
    assert examined(tmp_path, 10 * free)["free disk space"] == "FAIL"
    assert examined(tmp_path, 0.75 * free)["free disk space"] == "warn"


def test_a_folder_that_cannot_be_made_fails_with_the_reason(tmp_path: Path):
    (tmp_path / "file").touch()
    findings = examine_folder(tmp_path / "file" / "runs", 1e-6)
    assert [finding.verdict for finding in findings] == ["FAIL", "FAIL"]
    assert findings[0].value.startswith("Not a directory (process 0 on ")


def test_a_file_that_nfs_has_replaced_under_the_reader_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def stale(self: Path) -> bytes:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(Path, "read_bytes", stale)
    assert shared_folder.read_whole(tmp_path) is None


def test_a_file_that_is_read_in_halves_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shared_folder, "read_whole", lambda file: b"ab" * (shared_folder.PIECE_BYTES // 2))
    found = shared_folder.renaming(tmp_path)
    assert found.verdict == "FAIL"
    assert found.value.startswith("of 65536 equal bytes, 65536 with 2 values were read (process 0 on ")
