import math

import pytest

from worldmodel.training.schedule import factor


def test_the_warm_up_is_linear_and_ends_at_the_peak():
    assert [factor(step, 4, 100) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]


def test_the_cosine_falls_from_the_peak_to_a_tenth():
    rates = [factor(step, 10, 100) for step in range(9, 100)]
    assert rates[0] == 1.0
    assert rates[-1] == pytest.approx(0.1)
    assert rates == sorted(rates, reverse=True)
    assert rates[45] == pytest.approx((1 + 0.1) / 2)


def test_it_is_the_cosine_of_torch():
    import torch

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=49, eta_min=0.1)
    for step in range(50):
        assert factor(step, 0, 50) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9)
        optimizer.step()
        reference.step()


@pytest.mark.parametrize(("warmup_steps", "steps"), [(0, 1), (5, 3), (1, 1), (3, 3)])
def test_short_runs_have_finite_rates(warmup_steps: int, steps: int):
    assert all(0 < factor(step, warmup_steps, steps) <= 1 for step in range(steps + 2))


def test_after_the_last_step_the_rate_stays_at_a_tenth():
    assert math.isclose(factor(1000, 10, 100), 0.1)


def test_a_negative_step_is_refused():
    with pytest.raises(ValueError, match="step -1 is negative"):
        factor(-1, 10, 100)
