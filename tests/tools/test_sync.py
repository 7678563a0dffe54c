from pathlib import Path

import pytest

from tests.streams.ffmpeg import ffmpeg, make_video
from tests.streams.pyav.sounds import AAC, encode
from tools.sync import main, sync_report


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sync")
    plain = encode(folder / "a.mp4", AAC, seconds=3.0)
    ffmpeg("-i", plain, "-itsoffset", "0.5", "-i", plain, "-map", "0:v", "-map", "1:a", "-c", "copy", folder / "b.mkv")
    (folder / "c\nd.mp4").write_text("no video")
    make_video("constant", folder / "e")
    encode(folder / "f.mp4", AAC, ",volume=0,atrim=0:2", seconds=3.0)
    return folder


def test_every_file_has_a_line(folder: Path):
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = sync_report(paths)
    assert len(lines) == 2 + 5 + 1
    assert lines[2].split()[:2] == ["0.0", "0.0"]
    assert lines[2].endswith("a.mp4")
    assert lines[3].endswith("b.mkv (late sound)")
    assert 470 < float(lines[3].split()[0]) < 505
    assert "not measured" in lines[4]
    assert r"c\nd.mp4" in lines[4]
    assert "no sound" in lines[5]
    assert lines[6].endswith("f.mp4 (silent, short sound)")
    assert lines[7] == "5 files: 1 late sound, 1 not measured, 1 short sound, 1 silent, 1 without sound"


def test_the_command_takes_folders_and_files(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(folder), str(folder / "a.mp4")]) == 0
    assert "6 files: " in capsys.readouterr().out


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err.startswith("error: ")
