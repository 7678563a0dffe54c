"""Files that are on the disk, as they were meant, when the call returns."""

import hashlib
import os
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from worldmodel.tensors import write_tensors


def sync(path: Path) -> None:
    """Waits until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def save_tensors(tensors: dict[str, Tensor], path: Path) -> str:
    """Writes safetensors through to the disk and reads them back; returns the file's checksum.

    Raises:
        OSError, SafetensorError: the disk is full, the folder cannot be written, or something else came back.
    """
    write_tensors(tensors, path)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)  # else memory would be read back, not the disk
    finally:
        os.close(descriptor)
    with safe_open(path, "pt") as file:
        for name, value in tensors.items():
            if not same_bytes(file.get_tensor(name), value):
                raise OSError(f"{path} does not hold what was written: {name} differs")
    return checksum(path)


def same_bytes(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal to the bit."""
    first, second = (each.contiguous().reshape(-1).view(torch.uint8) for each in (one, other))
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(first, second)


def checksum(path: Path) -> str:
    """SHA-256 of a file.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
