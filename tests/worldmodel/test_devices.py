import pytest
import torch

from worldmodel.devices import find_device
from worldmodel.errors import SettingsError


def test_a_device_that_is_not_here_is_refused():
    assert find_device("auto") == find_device("cpu") == torch.device("cpu")
    for name in ("cuda", "cuda:0", "gpu"):
        with pytest.raises(SettingsError, match=f"device={name} is not here: give auto or one of cpu"):
            find_device(name)
