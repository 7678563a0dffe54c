from collections import Counter

import pytest

from tools.kill_storm.plan import SIGNALS, TARGETS, plan_of, steps_needed


def test_a_plan_is_a_function_of_its_seed():
    assert plan_of(50, 2, 3) == plan_of(50, 2, 3)
    assert plan_of(50, 2, 3) != plan_of(50, 2, 4)
    assert [kill.number for kill in plan_of(50, 2, 3)] == list(range(1, 51))


def test_a_hundred_kills_hit_every_moment_and_everybody_by_every_signal():
    plan = plan_of(100, 2, 0)
    assert Counter(kill.moment for kill in plan) == {"step": 40, "save": 30, "start": 20, "end": 10}
    hit = Counter((kill.target, kill.signal) for kill in plan if kill.moment != "end")
    assert set(hit) == {(target, signal) for target in TARGETS for signal in SIGNALS}
    assert min(hit.values()) >= 9
    assert {kill.rank for kill in plan} == {0, 1}
    assert all(0 <= kill.share < 1 for kill in plan)
    for moment in ("start", "step", "save"):  # spread over the run, not one after the other
        places = [place for place, kill in enumerate(plan) if kill.moment == moment]
        assert places[0] < 20
        assert places[-1] > 60


def test_the_end_comes_last_and_has_no_workers():
    plan = plan_of(40, 2, 0)
    assert [kill.moment for kill in plan[-4:]] == ["end"] * 4
    assert {kill.target for kill in plan[-4:]} <= {"rank", "launcher"}


@pytest.mark.parametrize("seed", range(5))
def test_a_run_lasts_until_its_last_kill_even_if_every_save_is_waited_for_and_every_start_makes_a_step(seed: int):
    plan = plan_of(30, 2, seed)
    reached = 0
    for kill in plan:
        reached += {"start": 1, "step": max(kill.offset, 1) + 1, "save": 4, "end": 0}[kill.moment]
    assert reached + 4 < steps_needed(plan, 4)
