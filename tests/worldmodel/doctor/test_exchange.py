import pytest

from worldmodel.doctor import exchange
from worldmodel.training.cluster import Ranks

# Between processes they are tested in test_examination.py.


def test_one_machine_has_one_clock():
    found = exchange.clocks([0], ["n0"])
    assert (found.verdict, found.value) == ("pass", "one machine")


def test_one_process_exchanges_nothing():
    assert exchange.bandwidth(0.1, 1.0).verdict == "pass"


@pytest.mark.parametrize(("offset", "verdict"), [(0.1, "pass"), (-1.0, "warn"), (60.0, "FAIL")])
def test_the_offset_of_a_clock_is_judged_by_its_size(offset: float, verdict: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(exchange, "_ask", lambda other: offset if other == 3 else 0.0)
    monkeypatch.setattr(exchange.cluster, "find_ranks", lambda: Ranks(0, 4))
    found = exchange.clocks([0, 2, 3], ["n0", "n1", "n2"])
    assert (found.verdict, found.value) == (verdict, f"{abs(offset):.3f} s between n0 and n2")
