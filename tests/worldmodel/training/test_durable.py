import os
from pathlib import Path

import pytest
import torch

from worldmodel.training import durable


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Inodes that were synced."""
    found: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: found.append(os.fstat(descriptor).st_ino))
    return found


def test_tensors_are_read_back_and_synced(tmp_path: Path, synced: list[int]):
    path = tmp_path / "tensors.pt"
    durable.save_tensors({"a": torch.arange(5)}, path)
    assert torch.equal(torch.load(path, weights_only=True)["a"], torch.arange(5))
    assert synced == [path.stat().st_ino]


def test_files_and_folders_are_synced(tmp_path: Path, synced: list[int]):
    (tmp_path / "file").touch()
    durable.sync(tmp_path / "file")
    durable.sync(tmp_path)
    assert synced == [(tmp_path / "file").stat().st_ino, tmp_path.stat().st_ino]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's device that is always full")
def test_a_full_disk_is_named():
    with pytest.raises(OSError, match="No space left on device"):
        durable.save_tensors(torch.zeros(100_000), Path("/dev/full"))
