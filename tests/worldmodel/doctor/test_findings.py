import json
from pathlib import Path

from worldmodel.doctor.findings import Finding, judge, table, write_json

FOUND = [Finding("ranks", "pass", "2 of 2", "each once"), Finding("clocks", "FAIL", "9 s", "below 1 s", "set the time")]


def test_the_table_has_a_line_for_each_check_and_a_remedy_where_one_is_needed():
    assert table(FOUND) == [
        "check   verdict  found   expected",
        "ranks   pass     2 of 2  each once",
        "clocks  FAIL     9 s     below 1 s",
        "        -> set the time",
    ]


def test_what_passes_needs_no_remedy_and_a_failure_outweighs_a_warning():
    assert judge("a", False, "b", "c", "d") == Finding("a", "pass", "b", "c")
    assert judge("a", False, "b", "c", "d", warned=True) == Finding("a", "warn", "b", "c", "d")
    assert judge("a", True, "b", "c", "d", warned=True) == Finding("a", "FAIL", "b", "c", "d")


def test_machines_read_the_same(tmp_path: Path):
    write_json(FOUND, tmp_path / "doctor.json")
    assert [Finding(**entry) for entry in json.loads((tmp_path / "doctor.json").read_text())] == FOUND
    assert [path.name for path in tmp_path.iterdir()] == ["doctor.json"]
