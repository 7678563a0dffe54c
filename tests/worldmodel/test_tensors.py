from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from worldmodel.tensors import write_tensors


@pytest.mark.parametrize(("folder_mode", "file_mode"), [(0o755, 0o644), (0o775, 0o664), (0o700, 0o600)])
def test_a_file_is_as_readable_as_its_folder(tmp_path: Path, folder_mode: int, file_mode: int):
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(folder_mode)
    write_tensors({"a": torch.arange(3)}, folder / "a.safetensors", {"said": "so"})
    assert (folder / "a.safetensors").stat().st_mode & 0o777 == file_mode
    with safe_open(folder / "a.safetensors", "pt") as file:
        assert file.metadata() == {"said": "so"}
        assert torch.equal(file.get_tensor("a"), torch.arange(3))
