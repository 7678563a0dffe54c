from pathlib import Path

import pytest

from streams.children import Failure
from tests.streams.ffmpeg import make_video
from tools.damage import Outcome
from tools.fuzz import MAX_LINES, main, report


def test_a_few_dozen_damaged_files_end_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for kind in ("constant", "matroska", "mpeg4_avi", "vp9", "transport"):
        make_video(kind, tmp_path / kind)
    assert main([str(tmp_path), "--num-files=30", "--seed=3", "--limits.seconds_limit=120"]) == 0
    lines = {line[:13].strip(): line[14:] for line in capsys.readouterr().out.splitlines()}
    assert lines["damaged files"] == "30 with seed 3"
    assert lines["by hash"] == "refused 30"
    assert lines["ended"] == "0"
    counts = {part.rpartition(" ")[0]: int(part.rpartition(" ")[2]) for part in lines["scanned"].split(", ")}
    assert sum(counts.values()) == 30
    assert counts["refused"] > 5


def test_what_ended_a_process_is_reported_by_its_number():
    good = Outcome("cut", True, "refused", "nothing to read", "error", 3 << 20)
    lines = report({3: good, 9: Failure("the decoder crashed (SIGSEGV)"), 4: Failure("the decoder hung")}, 7)
    assert lines[0] == "damaged files 3 with seed 7"
    assert "ended         the decoder hung 1, the decoder crashed (SIGSEGV) 1" in lines
    assert "peak memory   3 MiB" in lines
    assert lines[-2:] == ["  number 4: the decoder hung", "  number 9: the decoder crashed (SIGSEGV)"]
    many: dict[int, Outcome | Failure] = {number: Failure("the decoder hung") for number in range(MAX_LINES + 5)}
    assert len(report(many, 0)) == len(lines) - 2 + MAX_LINES


def test_no_usable_video_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "a.mp4").write_text("no video")
    assert main([str(tmp_path)]) == 1
    assert "error: none of 1 videos can be used; give a folder with good ones" in capsys.readouterr().err
    assert main([str(tmp_path / "gone")]) == 1
    assert "no such file or folder" in capsys.readouterr().err
