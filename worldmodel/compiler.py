"""torch.compile's compiler: whether it works here, and what it need not tell."""

import logging
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from worldmodel.errors import SettingsError

QUIET = ("torch._inductor.ir", "torch.utils.cpp_extension")
KNOWN = (
    # Rotations are complex numbers; made real they were no faster.
    "Torchinductor does not support code generation for complex",
    # What is kept of a sight are its masks, which do not change.
    "Dynamo detected a call to a `functools.lru_cache`",
)


def require_compiler(device: torch.device, setting: str = "training.compile") -> None:
    """Compile something small, before work begins that would fail in the middle.

    Raises:
        SettingsError: there is no compiler that works.
    """
    try:
        compiled: Callable[[Tensor], Tensor] = torch.compile(doubled)
        with quietly():
            compiled(torch.ones(8, device=device))
    except RuntimeError as error:  # what every error of torch's compilers is
        raise SettingsError(
            f"{setting}=true needs a compiler that works ({reason_of(error)}): install g++ and the headers of Python, "
            f"name another compiler in the variable CXX, or leave {setting} out"
        ) from error


def doubled(x: Tensor) -> Tensor:
    """Twice as much."""
    return x + x


def reason_of(error: Exception) -> str:
    """What a compiler said of the first thing that it found wrong, or else the first line of an error."""
    text = str(error).strip()
    told = re.search(r"^.*\b(?:fatal )?error: .*$", text, re.MULTILINE)
    return (told.group() if told else text.splitlines()[0] if text else type(error).__name__).strip()[:300]


@contextmanager
def quietly() -> Iterator[None]:
    """Inside, torch.compile does not tell what is known: that there is no GPU, and what it leaves as it is."""
    loggers = [logging.getLogger(name) for name in QUIET]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        for message in KNOWN:
            warnings.filterwarnings("ignore", message, UserWarning)
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
