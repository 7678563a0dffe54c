from pathlib import Path

import pytest
from PIL import Image

from streams.settings import ClipSettings
from streams.videos import VideoSource
from tests.streams.live_servers import make_footage
from tools.watch import main

QUICK = ["--live.speed=2", "--clips.num_frames=4"]


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_footage(tmp_path_factory.mktemp("watch") / "a.ts")


def test_it_says_what_comes_and_keeps_the_last_frames(
    footage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "out"
    assert main([str(footage), *QUICK, "--out", str(out), "--keep-seconds", "1.5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for word in ("clips", "frames/s", "delay", "dropped   0", "dB"):
        assert word in lines[0]
    assert lines[-3:] == [
        "6 clips; frames 24, dropped_frames 0, left_over_frames 0, silent_frames 0, late_frames 0, damaged_frames 0, "
        "gaps 0, reconnects 0",
        f"{out}/last.mp4: the last 15 frames",
        f"{out}/last.png: contact sheet",
    ]
    (video,) = VideoSource([out / "last.mp4"], ClipSettings(num_frames=2)).videos
    assert video.num_frames == 15
    with Image.open(out / "last.png") as sheet:
        assert sheet.width > 300


def test_overlapping_clips_keep_every_frame_once(footage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    arguments = [str(footage), "--live.speed=20", "--clips.num_frames=4", "--stride-frames=1", "--out", str(tmp_path)]
    assert main(arguments) == 0
    assert "last.mp4: the last 24 frames" in capsys.readouterr().out


def test_it_ends_when_it_is_told(footage: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(footage), "--live.speed=20", "--clips.num_frames=4", "--seconds=1"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("3 clips; ")


def test_a_wrong_address_or_number_is_one_line_and_a_status(footage: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["/nowhere/a.ts"]) == 1
    assert capsys.readouterr().err.startswith("error: /nowhere/a.ts: no such device or file")
    assert main([str(footage), "--live.buffer_seconds=0.1"]) == 1
    assert capsys.readouterr().err.startswith("error: buffer_seconds=0.1 holds 1 frames at 10 per second")
