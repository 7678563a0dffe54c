import logging
import warnings

import pytest
import torch

from worldmodel import compiler
from worldmodel.compiler import quietly, reason_of, require_compiler
from worldmodel.errors import SettingsError

CPU = torch.device("cpu")


def test_the_reason_is_what_the_compiler_said_first():
    told = "C++ compile error\n\nOutput:\nx.cpp:3:10: fatal error: Python.h: No such file\nerror: more"
    assert reason_of(RuntimeError(told)) == "x.cpp:3:10: fatal error: Python.h: No such file"
    assert reason_of(RuntimeError("InvalidCxxCompiler: none\nsecond line")) == "InvalidCxxCompiler: none"
    assert reason_of(RuntimeError()) == "RuntimeError"


def test_a_compiler_that_fails_is_one_line_with_the_setting_and_a_remedy(monkeypatch: pytest.MonkeyPatch):
    def failing(x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("g++: error: no space left on device\nand more")

    monkeypatch.setattr(torch, "compile", lambda function: failing)
    with pytest.raises(
        SettingsError, match=r"^compile=true .*\(g\+\+: error: no space left on device\): install g\+\+"
    ):
        require_compiler(CPU, "compile")


def test_what_is_not_known_is_still_told():
    logger = logging.getLogger(compiler.QUIET[0])
    level = logger.level
    with quietly():
        warnings.warn(f"{compiler.KNOWN[0]} operators.", UserWarning, stacklevel=1)
        assert not logger.isEnabledFor(logging.WARNING)
        with pytest.warns(UserWarning, match="something else"):
            warnings.warn("something else", UserWarning, stacklevel=1)
    assert logger.level == level
    with pytest.warns(UserWarning, match="complex"):
        warnings.warn(compiler.KNOWN[0], UserWarning, stacklevel=1)
