from dataclasses import replace
from pathlib import Path

import pytest

from tools.scaling import report
from tools.scaling.__main__ import main
from tools.scaling.efficiency import MODELS
from tools.scaling.measured import Beside
from tools.scaling.settings import Machine, Work

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "scaling.md"


def test_the_command_prints_the_tables_of_the_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    plot = tmp_path / "scaling.png"
    assert main(["--plot", str(plot)]) == 0
    assert plot.read_bytes().startswith(b"\x89PNG")
    printed, document = capsys.readouterr().out.splitlines(), DOCUMENT.read_text("utf-8").splitlines()
    assert len([line for line in printed if line.startswith("|")]) > 70
    assert [line for line in printed if line.strip() and line not in document] == []


def test_another_machine_gives_other_figures(capsys: pytest.CaptureFixture[str]):
    assert main(["--machine.mfu", "0.2"]) == 0
    document = DOCUMENT.read_text("utf-8").splitlines()
    assert [line for line in capsys.readouterr().out.splitlines() if line not in document]


def test_a_misspelt_setting_is_one_line(capsys: pytest.CaptureFixture[str]):
    assert main(["--machine.mfuu", "0.2"]) == 1
    assert "did you mean machine.mfu" in capsys.readouterr().err


def test_longer_clips_fit_more_gpus_that_share_them():
    lengths = [report.longest_clip(MODELS[0], 1, 64, Work(), Machine(), size) for size in (1, 2, 4)]
    assert lengths[0] > 100
    assert lengths[1] == pytest.approx(2 * lengths[0], rel=0.05)
    assert lengths[2] == pytest.approx(4 * lengths[0], rel=0.05)
    assert report.longest_clip(MODELS[2], 0, 64, Work(), Machine(), 1) == 0


def test_memory_that_a_gpu_does_not_have_is_marked():
    lines = list(report.stage_tables(replace(Machine(), device_gigabytes=20), Work()))
    assert any("(too much)" in line for line in lines)
    assert not all("(too much)" in line for line in lines if line.startswith("| 8"))


def test_counts_stand_beside_the_arithmetic():
    one = Beside("a case", {"all_reduce": 2e6, "all_gather": 0.0}, {"all_reduce": 1e6, "all_gather": 0.0}, 4e6, 5e6)
    lines = report.measured_table([one])[2:]
    assert lines == [
        "| a case | all-reduce | 2.000 | 1.000 | 0.5000 |",
        "| a case | sent by a process | 4.000 | 5.000 | 1.2500 |",
    ]
