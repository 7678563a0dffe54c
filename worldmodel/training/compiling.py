"""Compiling the transformers' blocks: what it does not go with, and what must be there for it."""

from collections.abc import Callable

import torch
from torch import Tensor

from worldmodel.errors import SettingsError
from worldmodel.settings import TrainingSettings


def refuse_unfit(settings: TrainingSettings) -> None:
    """Refuse what blocks are not compiled with.

    Raises:
        ValueError: names the setting.
    """
    if not settings.compile:
        return
    if settings.zero_stage == 3:
        raise ValueError(
            "training.compile=true with training.zero_stage=3: DeepSpeed brings the weights of one layer at a time, in "
            "the middle of what would be compiled; use stage 0, 1 or 2, or leave training.compile out"
        )
    if settings.tensor_parallel != 1:
        raise ValueError(
            f"training.compile=true with training.tensor_parallel={settings.tensor_parallel}: processes add up in the "
            "middle of what would be compiled; leave one of them out"
        )


def require_compiler(device: torch.device, setting: str = "training.compile") -> None:
    """Compile something small, before work begins that would fail in the middle.

    Raises:
        SettingsError: there is no compiler that works.
    """
    try:
        compiled: Callable[[Tensor], Tensor] = torch.compile(doubled)
        compiled(torch.ones(8, device=device))
    except RuntimeError as error:  # what every error of torch's compilers is
        first = str(error).strip().splitlines()[0]
        needed = "g++ and the headers of Python" if device.type == "cuda" else "g++"
        raise SettingsError(
            f"{setting}=true needs a compiler that works ({first}): install {needed}, name another one in the "
            f"variable CXX, or leave {setting} out"
        ) from error


def doubled(x: Tensor) -> Tensor:
    """Twice as much."""
    return x + x
