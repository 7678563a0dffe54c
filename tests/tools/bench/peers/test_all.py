import sys

import pytest

from tools.bench.peers.all import contenders


def test_ours_comes_first():
    assert [contender.name for contender in contenders()] == ["ours", "torchcodec", "decord", "pyav"]
    assert [contender.name for contender in contenders("decord")] == ["decord"]


def test_a_library_that_is_not_installed_is_left_out(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, "tools.bench.peers.torchcodec", raising=False)
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    assert [contender.name for contender in contenders()] == ["ours", "decord", "pyav"]
