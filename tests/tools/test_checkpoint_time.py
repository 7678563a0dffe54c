import re
from pathlib import Path

import pytest

from tools.checkpoint_time import main, report


def test_steps_and_checkpoints_are_measured_and_nothing_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    options = ["--dim", "32", "--depth", "2", "--num_steps", "1", "--num_saves", "1", "--folder", str(tmp_path)]
    assert main(options) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^\d+\.\d million parameters, \d+ MB in a checkpoint$", printed, re.MULTILINE)
    assert re.search(r"^a step \d+\.\d\d s, a checkpoint \d+\.\d\d s, as long as \d", printed, re.MULTILINE)
    assert list(tmp_path.iterdir()) == []


def test_shares_are_of_the_whole_time():
    lines = report(50_000_000, 600_000_000, [1.0, 2.0, 9.0], [1.0, 1.0], [4.0, 6.0])
    assert lines[0] == "50.0 million parameters, 600 MB in a checkpoint"
    assert lines[1].startswith("a step 2.00 s, a checkpoint 5.00 s, as long as 2.50 steps (medians of 3, 2; ")
    assert "1.00 s copy" in lines[2]
    assert "4.00 s write and verify" in lines[2]
    assert lines[3].endswith("every 100: 2.44%, every 500: 0.50%, every 1000: 0.25%")
