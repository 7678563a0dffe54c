import pytest

from tests.tools.ablation.test_candidates import batch_of
from tests.tools.ablation.untrained import lively
from tests.worldmodel.tiny import random_codes
from tools.ablation import speed
from tools.ablation.speed import speed_table


def test_speeds_are_medians_and_ratios_are_to_the_first(monkeypatch: pytest.MonkeyPatch):
    candidates = {"one": lively("coarse-to-fine"), "other": lively("factorised")}
    batch = batch_of(random_codes(4, 6, candidates["one"].model.num_codes))
    steps, frames = iter([1.0, 2.0, 4.0, 2.0, 2.0, 8.0] * 9), iter([0.5, 0.25] * 9)
    monkeypatch.setattr(speed, "NUM_ROUNDS", 3)
    monkeypatch.setattr(speed, "step_seconds", lambda *_: next(steps))
    monkeypatch.setattr(speed, "frame_seconds", lambda *_: next(frames))
    # Clips per second of the rounds: one has 4, 1 and 2, the other 2, 2 and a half.
    assert speed_table(candidates, batch, 2)[2:] == [
        "| one | 2 | 1.00 | 2 | 1.00 |",
        "| other | 2 | 0.50 | 4 | 2.00 |",
    ]


def test_steps_and_frames_take_time_and_leave_no_gradient():
    candidate = lively("one-stack")
    batch = batch_of(random_codes(2, 6, candidate.model.num_codes))
    assert speed.step_seconds(candidate, batch) > 0
    assert speed.frame_seconds(candidate, batch.picture[:1, :3]) > 0
    assert all(parameter.grad is None for parameter in candidate.parameters())
