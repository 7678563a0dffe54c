import pytest

from tools.bench.race import Finding, Race
from tools.bench.report import (
    REQUIREMENTS,
    Requirement,
    Verdict,
    align,
    finding_table,
    judge,
    race_table,
    verdict_table,
)


def race(task: str, footage: str, ratio: float, peer: str = "torchcodec") -> Race:
    return Race(task, footage, "frames", {"ours": [0.01] * 3, peer: [0.01 * ratio] * 3}, {peer: "some form"})


@pytest.mark.parametrize(("value", "mark"), [(1.2, "MISS"), (1.35, "pass"), (1.59, "pass"), (1.6, "aim"), (2.0, "aim")])
def test_marks_follow_from_the_value(value: float, mark: str):
    row = Requirement("files in order", "in_order", 1.35, 1.6, "torchcodec")
    assert Verdict(row, value, (value, value), value, "a", 1).mark == mark


@pytest.mark.parametrize(
    ("value", "mark"), [(0.5, "aim"), (1.0, "aim"), (3.0, "pass"), (5.1, "MISS"), (float("nan"), "MISS")]
)
def test_marks_where_less_is_better(value: float, mark: str):
    row = Requirement("sound against picture", "sync", 5, 1, unit="ms", lower=True)
    assert Verdict(row, value, (value, value), value, "a", 1).mark == mark


def test_each_requirement_takes_its_own_races():
    races = [
        race("in_order", "256p GOP 12", 2.0),
        race("in_order", "256p GOP 250", 0.5),
        race("random, stride 1", "256p GOP 12", 1.5),
        race("random, stride 4", "256p GOP 12", 1.5, "decord"),
        race("training, stride 1", "256p GOP 12", 1.7),
        race("training, stride 1", "256p GOP 250", 3.0),
    ]
    found = {
        verdict.requirement.tasks + verdict.requirement.peer + str(verdict.requirement.gop): verdict
        for verdict in judge(races, [])
    }
    values = {name: round(verdict.value, 6) for name, verdict in found.items()}
    assert values == {
        "in_ordertorchcodec0": 1.0,
        "randomtorchcodec0": 1.5,
        "randomdecord0": 1.5,
        "trainingtorchcodec12": 1.7,
        "trainingtorchcodec250": 3.0,
    }
    assert found["in_ordertorchcodec0"].worst_of == "in_order 256p GOP 250"


def test_wrong_frames_are_summed_and_peers_do_not_count():
    findings = [
        Finding("wrong_frames", "a", "ours", 0, "frames"),
        Finding("wrong_frames", "b", "ours", 3, "frames"),
        Finding("wrong_frames", "c", "ours", 2, "frames"),
        Finding("wrong_frames", "a", "decord", 47, "frames"),
    ]
    [verdict] = judge([], findings)
    assert (verdict.value, verdict.worst, verdict.worst_of, verdict.mark) == (5, 3, "b", "MISS")


def test_a_file_that_cannot_be_judged_is_the_worst():
    findings = [Finding("sync", "a", "ours", 0.1, "ms"), Finding("sync", "b", "ours", float("nan"), "ms")]
    [verdict] = judge([], findings)
    assert (verdict.worst_of, verdict.mark) == ("b", "MISS")


def test_quality_is_that_of_the_worst_file():
    findings = [Finding("quality", "a", "ours", 58.0, "dB"), Finding("quality", "b", "ours", 51.0, "dB")]
    [verdict] = judge([], findings)
    assert (verdict.value, verdict.mark) == (51.0, "pass")


def test_nothing_measured_gives_no_verdict():
    assert judge([], []) == []


def test_tables_show_values_bounds_and_marks():
    races = [race("in_order", "256p GOP 12", 1.5)]
    text = verdict_table(judge(races, []))
    row = next(line for line in text.splitlines() if line.startswith("files in order"))
    assert row.split()[-7:] == ["x", "1.6", "x", "pass", "1.50", "in_order", "256p", "GOP", "12"][-7:]
    assert "1.50 x" in row
    assert "1.35 x" in row
    assert "1.50 (1.50 to 1.50)" in race_table(races)
    assert "some form" in race_table(races)
    assert "12.50 ms" in finding_table([Finding("sync", "a", "ours", 12.5, "ms", "note")])


def test_what_is_not_judged_has_a_value_and_no_mark():
    row = Requirement("training", "train", 2, 3)
    verdict = Verdict(row, 5.0, (5.0, 5.0), 5.0, "a", 1, judged=False)
    assert verdict.mark == "not judged"
    assert "5.00 x" in verdict_table([verdict])


def test_rates_are_told_in_the_clock_of_their_race():
    slow = Race("rollout", "huge", "frames", {"ours": [2.0]}, clock="second")
    lines = race_table([slow]).splitlines()
    assert "per second" in lines[0]
    assert "0.50 frames" in lines[2]
    assert "per CPU-second" in race_table([race("in_order", "a", 1.0)])


def test_columns_are_aligned():
    assert align([("a", "bb"), ("ccc", "d")]) == "a    bb\n---  --\nccc  d"


def test_aims_are_not_below_what_must_be():
    for row in REQUIREMENTS:
        assert row.aim <= row.must if row.lower else row.aim >= row.must
