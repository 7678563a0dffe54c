"""The device that a name in the settings means."""

import torch

from worldmodel.errors import SettingsError


def find_device(name: str) -> torch.device:
    """The device of a name; auto is a GPU if there is one.

    Raises:
        SettingsError: there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    gpus = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    known = ["cpu", *(["cuda"] if gpus else []), *gpus]
    if name not in known:
        raise SettingsError(f"device={name} is not here: give auto or one of {', '.join(known)}")
    return torch.device(name)
