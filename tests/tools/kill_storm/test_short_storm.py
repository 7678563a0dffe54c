"""The storm of CI: six kills, of everybody, by every signal; `storm`, `job` and `noting` in earnest."""

import csv
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tools.kill_storm.__main__ import main


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder whose name leaves room for those of sockets, which pytest's does not."""
    with tempfile.TemporaryDirectory(prefix="storm-") as folder:
        yield Path(folder)


def test_a_training_that_is_killed_six_times_ends_as_if_nothing_had_been(
    short_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = short_path / "storm"
    assert main(["--kills", "6", "--seed", "133", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "6 kills in " in printed
    assert "to the bit those of the undisturbed run, and nothing is left behind" in printed.replace("\n", " ")
    with (out / "kills.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert {row["target"].split()[0] for row in rows} == {"worker", "rank", "launcher"}
    assert {row["signal"] for row in rows} == {"KILL", "TERM", "USR1"}
    assert {row["moment"] for row in rows} == {"start", "step", "save", "end"}
    with Image.open(out / "kills.png") as picture:
        assert picture.format == "PNG"


def test_a_folder_that_is_there_and_numbers_that_are_no_storm_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["--out", str(tmp_path)]) == 1
    assert "exists already: give a folder that is new" in capsys.readouterr().err
    assert main(["--out", str(tmp_path / ("long" * 20))]) == 1
    assert "the whole path must not have more than 65 characters" in capsys.readouterr().err
    assert main(["--kills", "0", "--out", str(tmp_path / "new")]) == 1
    assert "kills=0 is out of range: it must be 1 or more" in capsys.readouterr().err
