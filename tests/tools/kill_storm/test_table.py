from pathlib import Path

from tools.kill_storm.plan import Kill
from tools.kill_storm.storm import Outcome
from tools.kill_storm.table import HEADER, aligned, row_of, summary, write_csv

KILLS = [
    Outcome(Kill(1, "step", "SIGKILL", "rank", 1, 2, 0.5), 1, 100.0, 7, 4, False, 1.25, 9.0, 3),
    Outcome(Kill(2, "save", "SIGKILL", "rank", 0, 2, 0.5), 2, 200.0, 8, 8, False, 2.0, 11.0, 0),
    Outcome(Kill(3, "start", "SIGUSR1", "launcher", 0, 2, 0.5), 3, 300.0, 8, 8, True, 0.0, 0.5, 0),
]


def test_every_kill_is_a_row():
    assert row_of(KILLS[0]) == ("1", "step", "rank 1", "KILL", "7", "4", "restart", "3", "1.2", "9.0")
    assert row_of(KILLS[2]) == ("3", "start", "launcher", "USR1", "8", "8", "itself", "0", "0.0", "0.5")


def test_kills_of_a_kind_are_summed():
    assert summary(KILLS) == [
        ("rank", "SIGKILL", "2", "2", "3 (3)", "10.0", "11.0"),
        ("launcher", "SIGUSR1", "1", "0", "0 (0)", "0.5", "0.5"),
        ("all", "", "3", "2", "3 (3)", "9.0", "11.0"),
    ]


def test_columns_stand_below_each_other():
    assert aligned([("a", "bc"), ("def", "g")]) == ["| a   | bc |", "|-----|----|", "| def | g  |"]


def test_the_kills_are_written_as_csv(tmp_path: Path):
    write_csv(KILLS, tmp_path / "kills.csv")
    lines = (tmp_path / "kills.csv").read_text().splitlines()
    assert lines[0] == ",".join(HEADER)
    assert lines[1].startswith("1,step,rank 1,KILL,7,4,restart")
    assert [path.name for path in tmp_path.iterdir()] == ["kills.csv"]
