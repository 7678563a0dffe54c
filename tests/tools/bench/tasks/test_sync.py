from pathlib import Path

import numpy as np
import pytest

from tools.bench.peers.ours import Exact
from tools.bench.tasks import sync


def test_bursts_are_found_where_they_begin():
    burst = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(640) / 16000)
    samples = np.random.default_rng(0).normal(0, 0.02, 16000).astype(np.float32)
    for start in (500, 9000):
        samples[start : start + 640] += burst
    np.testing.assert_allclose(sorted(sync.onsets(samples)), [500 / 16000, 9000 / 16000], atol=1e-4)
    assert len(sync.onsets(np.zeros(16000, np.float32))) == 0
    assert len(sync.onsets(np.zeros(10, np.float32))) == 0


def test_a_shift_of_the_sound_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = sync.make_file(tmp_path / "mp4", "a.mp4", ())
    right = sync.measure("ours", Exact, "mp4", path)
    assert right.value < 1
    from tools.bench.peers import ours

    class Late(ours.Sound):
        def between(self, start: float, stop: float):
            samples, _ = super().between(start, stop)
            return samples, start + 0.010

    monkeypatch.setattr(ours, "Sound", Late)
    assert sync.measure("ours", Exact, "mp4", path).value == pytest.approx(10, abs=1)
