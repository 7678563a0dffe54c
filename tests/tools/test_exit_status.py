import pytest

from streams.errors import UserError
from tools.exit_status import exit_status


def fail(error: BaseException) -> None:
    raise error


def test_a_program_that_ends_has_status_0_and_says_nothing(capsys: pytest.CaptureFixture[str]):
    assert exit_status(lambda: 3) == 0
    assert capsys.readouterr().err == ""


def test_what_a_user_can_mend_is_one_line(capsys: pytest.CaptureFixture[str]):
    assert exit_status(lambda: fail(UserError("a is 3: it must be 2"))) == 1
    assert capsys.readouterr().err == "error: a is 3: it must be 2\n"


def test_ctrl_c_is_told(capsys: pytest.CaptureFixture[str]):
    assert exit_status(lambda: fail(KeyboardInterrupt()), "stopped; all is kept") == 130
    assert capsys.readouterr().err == "stopped; all is kept\n"


def test_other_errors_are_not_hidden():
    with pytest.raises(ZeroDivisionError):
        exit_status(lambda: 1 / 0)
