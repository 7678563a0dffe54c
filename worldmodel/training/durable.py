"""Files that are on the disk when the call returns."""

import os
from pathlib import Path
from typing import Any

import torch


def sync(path: Path) -> None:
    """Waits until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def save_tensors(state: Any, path: Path) -> None:
    """`torch.save`, through to the disk.

    Raises:
        OSError: the disk is full, or the folder cannot be written; torch alone would say "unexpected pos".
    """
    with path.open("wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
        file.flush()
        os.fsync(file.fileno())
