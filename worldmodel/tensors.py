"""Tensors as a safetensors file that those who can read its folder can read too."""

from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor


def write_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a file, with the folder's rights: safetensors' own are for the owner alone.

    Raises:
        OSError, SafetensorError: the disk is full, or the folder cannot be written.
    """
    save_file(tensors, path, metadata)
    path.chmod(path.parent.stat().st_mode & 0o666)
