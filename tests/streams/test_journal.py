import pickle
import time

import pytest

from streams.journal import Journal


def test_stages_do_not_count_what_stages_inside_them_take(monkeypatch: pytest.MonkeyPatch):
    clock = iter([0.0, 1.0, 3.0, 10.0, 20.0, 25.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    journal = Journal()
    with journal.timed("read"), journal.timed("decode"):
        pass
    with journal.timed("read"):
        pass
    assert journal.seconds == {"read": 8.0 + 5.0, "decode": 2.0}


def test_a_stage_that_ends_in_an_error_counts(monkeypatch: pytest.MonkeyPatch):
    clock = iter([0.0, 1.0, 3.0, 10.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    journal = Journal()
    with pytest.raises(OSError, match="gone"), journal.timed("read"), journal.timed("decode"):
        raise OSError("gone")
    assert journal.seconds == {"read": 8.0, "decode": 2.0}


def test_what_is_taken_is_gone_and_can_be_added_elsewhere():
    journal, total = Journal(), Journal()
    for number in range(2):
        journal.count("read", 3)
        journal.fail("a.mp4", f"reason {number}")
        journal.seconds["decode"] = 0.5
        taken = pickle.loads(pickle.dumps(journal.take()))
        assert (journal.seconds, journal.counts, journal.failures) == ({}, {}, {})
        total.add(taken)
    assert total.counts == {"read": 6, "failed": 2}
    assert total.failures == {"a.mp4": "reason 0"}
    assert total.seconds == {"decode": 1.0}
