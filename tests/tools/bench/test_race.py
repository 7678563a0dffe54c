import time
from functools import partial

import numpy as np
import pytest

from tools.bench.race import Part, Race, Work, cpu_seconds, fastest, mean_ratio, take_turns, with_fastest


def burn(seconds: float) -> None:
    begun = time.process_time()
    while time.process_time() - begun < seconds:
        pass


def test_contenders_take_turns_and_each_begins_a_round():
    ran: list[str] = []

    def work(name: str, number: int) -> Work:
        for part in range(2):
            ran.append(f"{name}{number}{part}")
            yield 5

    runners = {name: partial(work, name) for name in "abc"}
    costs = take_turns(runners, 4)
    assert ran[:12] == ["a00", "b00", "c00", "a01", "b01", "c01", "b10", "c10", "a10", "b11", "c11", "a11"]
    assert [step[0] for step in ran[::6]] == ["a", "b", "c", "a"]
    assert {name: len(found) for name, found in costs.items()} == {"a": 4, "b": 4, "c": 4}


def test_who_has_less_to_do_ends_earlier():
    parts: list[str] = []

    def work(name: str, num_parts: int, _: int) -> Work:
        for _ in range(num_parts):
            parts.append(name)
            yield 1

    take_turns({"short": partial(work, "short", 1), "long": partial(work, "long", 3)}, 1)
    assert parts == ["short", "long", "long", "long"]


def test_a_work_may_measure_itself():
    def remote(_: int) -> Work:
        burn(0.02)
        yield Part(5, 3.0)
        yield Part(5, 1.0)

    costs = take_turns({"remote": remote}, 1)["remote"]
    assert costs == [pytest.approx(0.4, abs=0.01)]


def test_costs_are_cpu_seconds_per_unit_and_sleep_costs_nothing():
    def work(_: int) -> Work:
        for _ in range(2):
            burn(0.05)
            yield 5

    def idle(_: int) -> Work:
        time.sleep(0.05)
        yield 5

    costs = take_turns({"work": work, "idle": idle}, 1)
    assert costs["work"][0] >= 0.01
    assert costs["idle"][0] < costs["work"][0]
    assert cpu_seconds() > 0


def burning(seconds: float) -> Work:
    burn(seconds)
    yield 1


def test_the_fastest_form_is_found():
    forms = {"slow": lambda: burning(0.06), "quick": lambda: burning(0.003), "middle": lambda: burning(0.02)}
    form, told = fastest(forms)
    assert form == "quick"
    assert told.startswith("quick (middle ")
    assert told.index("middle") < told.index("slow")


def test_a_single_form_is_run_once():
    ran = []

    def only() -> Work:
        ran.append(1)
        yield 1

    assert fastest({"only": only}) == ("only", "only")
    assert ran == [1]


def test_a_rate_is_that_of_the_median_round():
    race = Race("task", "file", "frames", {"ours": [0.1, 0.2, 4.0]})
    assert race.per_second("ours") == pytest.approx(5.0)


def test_the_mean_over_files_is_geometric_and_names_the_worst():
    races = [
        Race("t", "a", "frames", {"ours": [1.0, 1.0, 1.0], "peer": [2.0, 2.0, 2.0]}),
        Race("t", "b", "frames", {"ours": [1.0, 1.0, 1.0], "peer": [0.4, 0.5, 0.6]}),
        Race("t", "c", "frames", {"ours": [1.0]}),
    ]
    mean = mean_ratio(races, "peer")
    assert mean is not None
    assert mean.value == pytest.approx(1.0)
    assert (mean.worst, mean.worst_file) == (pytest.approx(0.5), "t b")
    # The bootstrap of file b draws medians from 0.4 to 0.6.
    assert mean.low == pytest.approx(np.sqrt(2 * 0.4))
    assert mean.high == pytest.approx(np.sqrt(2 * 0.6))


def test_ratios_are_paired_by_round():
    race = Race("t", "a", "frames", {"ours": [1.0, 10.0], "peer": [2.0, 20.0]})
    np.testing.assert_allclose(race.ratios("peer"), [2.0, 2.0])


def test_without_the_peer_there_is_no_mean():
    assert mean_ratio([Race("t", "a", "frames", {"ours": [1.0]})], "peer") is None


def test_ours_is_the_fastest_of_our_forms_and_is_named():
    costs = {"eager": [2.0, 9.0, 2.0], "compiled": [1.0, 1.0, 9.0], "peer": [0.5, 0.5, 0.5]}
    forms = ("eager", "compiled")
    assert with_fastest(costs, forms) == ({"ours": costs["compiled"], **costs}, "compiled")
    del costs["compiled"]
    assert with_fastest(costs, forms) == ({"ours": costs["eager"], **costs}, "eager")
