from pathlib import Path

import pytest

from streams.errors import UserError
from tools.scaling import measured
from tools.scaling.measured import Beside, measure, run_workers
from tools.scaling.worker import CASES

# Norms, losses and the like are sent beside the weights, and TCP connections exchange a few words.
SMALL_BYTES = 20_000


@pytest.fixture(scope="module")
def found() -> list[Beside]:
    return measure()


@pytest.mark.parametrize("name", CASES)
def test_two_processes_send_what_the_arithmetic_says(name: str, found: list[Beside]):
    (one,) = [each for each in found if each.name == name]
    assert sum(one.expected.values()) > 10**7
    # The decoder's input runs once for every scale, and its weights are gathered each time if they are not kept.
    again = 0.15 if "not kept" in name else 0.0
    for kind, expected in one.expected.items():
        assert one.counted[kind] == pytest.approx(expected, rel=0.002 + again, abs=SMALL_BYTES), kind
        assert one.counted[kind] > 0.998 * expected - SMALL_BYTES, kind
    assert one.sent == pytest.approx(one.expected_sent, rel=0.01 + again)


def test_processes_that_fail_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(measured, "NUM_RANKS", 1)
    with pytest.raises(UserError, match=r"a process that counts what it sends failed: .*must divide"):
        run_workers(tmp_path)
