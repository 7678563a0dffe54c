import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.worldmodel.training.toy import train_toy
from tools.kill_storm.plan import Kill
from tools.kill_storm.settings import KillStormSettings
from tools.kill_storm.storm import Outcome, Storm, StormError

KILL = Kill(1, "step", "SIGKILL", "rank", 0, 2, 0.5)


@pytest.fixture
def storm(tmp_path: Path) -> Storm:
    return Storm(tmp_path / "out", tmp_path / "train.yaml", KillStormSettings(patience_seconds=0.05))


def test_a_job_that_is_under_way_has_its_start_behind_it(storm: Storm):
    kills = [replace(KILL, number=number, moment=moment) for number, moment in ((1, "start"), (2, "save"), (3, "end"))]
    assert storm.next_of(kills, under_way=False) == kills[0]
    assert storm.next_of(kills, under_way=True) == kills[1]
    assert storm.next_of([kills[0], kills[2]], under_way=True) == replace(kills[0], moment="step")
    assert storm.next_of([kills[2]], under_way=True) == kills[2]


def test_kills_that_cannot_come_are_counted(storm: Storm):
    kills = [replace(KILL, number=number) for number in range(5)]
    assert storm.without(kills, kills[:2]) == kills[:2]
    assert storm.num_missed == 3


def test_what_does_not_come_is_named(storm: Storm):
    with pytest.raises(StormError, match=r"the end of the world did not come in 0.05 s: see .*log.txt"):
        storm.wait(lambda: False, "the end of the world")


def test_what_was_lost_is_read_from_the_notes(storm: Storm):
    def batch(start: int, step: int, at: float) -> dict[str, Any]:
        return {"what": "batch", "start": start, "rank": 0, "at": at, "step": step}

    lines = [batch(1, 1, 1.0), batch(1, 2, 2.0), batch(1, 3, 3.0), batch(2, 2, 10.0), batch(2, 3, 11.0)]
    (storm.out / "notes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    storm.notes.more()
    killed = Outcome(KILL, 1, 3.5, 3, 1, went_on=False)
    by_itself = Outcome(KILL, 1, 1.5, 1, 0, went_on=True)
    at_the_end = Outcome(KILL, 2, 11.5, 3, 3, went_on=False)
    found = storm.measured([killed, by_itself, at_the_end], ended=20.0)
    assert [(each.seconds, each.repeated) for each in found] == [(6.5, 2), (0.5, 0), (8.5, 0)]


def test_a_disk_with_whole_checkpoints_and_one_that_was_begun_is_as_it_should_be(storm: Storm):
    storm.look_at_disk("before")
    train_toy(storm.run, steps=2, checkpoint_every=1)
    (storm.run / "checkpoints" / ".step_00000003.partial").mkdir()
    storm.look_at_disk("after start 1")
    assert storm.faults == []


def test_a_disk_with_anything_else_is_told(storm: Storm):
    train_toy(storm.run, steps=2, checkpoint_every=1)
    folder = storm.run / "checkpoints"
    os.truncate(folder / "step_00000001" / "weights.safetensors", 10)
    (folder / "latest").write_text("step_00000009\n")
    (folder / "odd").touch()
    for number in range(3):
        (folder / f".step_{number:08d}.partial").mkdir()
    storm.look_at_disk("after start 7")
    assert len(storm.faults) == 4
    for part in (
        "odd is there",
        "has 10 bytes instead of",
        "are left over",
        "latest names step_00000009, which is not",
    ):
        assert [fault for fault in storm.faults if part in fault and fault.startswith("after start 7: ")], part
