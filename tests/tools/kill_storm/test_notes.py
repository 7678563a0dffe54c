import json
from pathlib import Path
from typing import Any

import pytest

from tools.kill_storm.notes import Notes, differences

RANKS, SHARE = 2, 2


def batch(start: int, rank: int, step: int, **changed: Any) -> dict[str, Any]:
    first = (step - 1) * RANKS * SHARE + rank * SHARE
    values = {"first": first, "stop": first + SHARE, "crc": 10 * step + rank, "own": "0x1p+0", "loss": f"0x{step}p+0"}
    return {"what": "batch", "start": start, "rank": rank, "at": 10.0 * start + step, "step": step} | values | changed


def saved(start: int, step: int) -> dict[str, Any]:
    return {"what": "saved", "start": start, "rank": 0, "at": 10.0 * start + step, "step": step}


def notes_of(folder: Path, name: str, lines: list[dict[str, Any]]) -> Notes:
    path = folder / name
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    notes = Notes(path)
    notes.more()
    return notes


def steps(start: int, first: int, last: int) -> list[dict[str, Any]]:
    return [batch(start, rank, step) for step in range(first, last + 1) for rank in range(RANKS)]


CALM = [*steps(1, 1, 6)]
STORM = [*steps(1, 1, 3), saved(1, 2), *steps(2, 3, 6)]


def test_a_run_that_repeats_what_was_not_saved_is_the_same(tmp_path: Path):
    storm, calm = notes_of(tmp_path, "storm", STORM), notes_of(tmp_path, "calm", CALM)
    assert differences(storm, calm, RANKS) == []
    assert storm.last_step == 6
    assert [line["step"] for line in storm.of("batch", since=24.0)] == [5, 5, 6, 6]


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([line for line in STORM if line.get("step") != 5], "rank 0 has not read step 5"),
        ([line for line in STORM if line["start"] != 2 or line["step"] != 3], "start 2, rank 0: step 4 comes after"),
        ([*STORM[:-1], batch(2, 1, 6, crc=0)], "rank 1, step 6, start 2: Read(first=22"),
        ([*STORM[:-1], batch(2, 1, 6, loss="0x0p+0")], "loss='0x0p+0') instead of"),
        ([*steps(1, 1, 2), batch(1, 0, 3, own="0x3p+0"), batch(1, 1, 3), *STORM[6:]], "step 3, start 1: Read("),
        ([*STORM[:-1], batch(2, 1, 6, first=20, stop=22)], "rank 1, step 6 begins at position 20, not 22"),
        ([*steps(1, 1, 3), saved(1, 3), *steps(2, 3, 6)], "start 2 goes on from step 2, though 3 was saved"),
        (STORM[:-2], "rank 0, step 6 was done by one run alone"),
    ],
)
def test_what_differs_is_told(tmp_path: Path, lines: list[dict[str, Any]], told: str):
    if "comes after" in told:
        lines = [*steps(1, 1, 3), saved(1, 2), *steps(2, 3, 3), *steps(2, 5, 6), *steps(3, 3, 6)]
        told = "start 2, rank 0: step 5 comes after 3"
    found = differences(notes_of(tmp_path, "storm", lines), notes_of(tmp_path, "calm", CALM), RANKS)
    assert [line for line in found if told in line], found


def test_a_note_that_is_still_being_written_is_read_later(tmp_path: Path):
    path = tmp_path / "notes"
    notes = Notes(path)
    assert notes.more() == []
    line = json.dumps(batch(1, 0, 1)) + "\n"
    path.write_text(line + line[:10])
    assert len(notes.more()) == 1
    path.write_text(line + line)
    assert len(notes.more()) == 1
    assert len(notes.lines) == 2
