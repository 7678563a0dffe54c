import os
import resource
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from worldmodel.training import durable


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Inodes that were synced."""
    found: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: found.append(os.fstat(descriptor).st_ino))
    return found


def test_tensors_are_read_back_synced_and_summed(tmp_path: Path, synced: list[int]):
    path = tmp_path / "tensors.safetensors"
    tensors = {"a": torch.arange(5), "b": torch.tensor(float("nan")), "c": torch.zeros(0, 3)}
    found = durable.save_tensors(tensors, path)
    assert torch.equal(load_file(path)["a"], torch.arange(5))
    assert synced == [path.stat().st_ino]
    assert found == subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout.split()[0]


def test_a_disk_that_gives_back_something_else_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def lose_a_bit(tensors: dict[str, torch.Tensor], path: Path) -> None:
        save_file({name: value ^ 1 for name, value in tensors.items()}, path)

    monkeypatch.setattr(durable, "write_tensors", lose_a_bit)
    with pytest.raises(OSError, match="does not hold what was written: a differs"):
        durable.save_tensors({"a": torch.arange(5)}, tmp_path / "tensors")


def test_files_and_folders_are_synced(tmp_path: Path, synced: list[int]):
    (tmp_path / "file").touch()
    durable.sync(tmp_path / "file")
    durable.sync(tmp_path)
    assert synced == [(tmp_path / "file").stat().st_ino, tmp_path.stat().st_ino]


def test_a_full_disk_is_named(tmp_path: Path):
    # Not on /dev/full: safetensors renames over its target, and would replace the device.
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises((OSError, SafetensorError), match="File too large"):
            durable.save_tensors({"a": torch.zeros(100_000)}, tmp_path / "tensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
