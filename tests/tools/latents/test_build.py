from pathlib import Path

import pytest

from tools.latents import main
from worldmodel.cache.latents import LatentCache


def test_a_file_that_was_skipped_is_printed_with_its_reason(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "videos" / "broken.mp4").write_bytes(b"nothing")
    videos, options = str(tmp_path / "videos"), ["--codec", "picture", "--clips.num_frames=8", "--overwrite"]
    assert main(["build", videos, str(built), *options]) == 0
    printed = capsys.readouterr().out
    assert "skipped       1" in printed
    assert "broken.mp4: " in printed
    assert "sound" not in LatentCache(built).rows


def test_an_existing_cache_is_refused_in_one_line(built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    capsys.readouterr()
    assert main(["build", str(tmp_path / "videos"), str(built), "--codec", "picture", "--clips.num_frames=8"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "--overwrite" in error
    assert error.count("\n") == 1


def test_the_same_command_again_changes_nothing(built: Path, tmp_path: Path):
    before = (built / "zarr.json").read_bytes(), (built / "zarr.json").stat().st_mtime_ns
    codecs = [str(tmp_path / "runs" / name) for name in ("picture", "sound")]
    again = ["build", str(tmp_path / "videos"), str(built), "--codec", *codecs]
    assert main([*again, "--clips.num_frames=8", "--heldout=0.3"]) == 0
    assert ((built / "zarr.json").read_bytes(), (built / "zarr.json").stat().st_mtime_ns) == before


def test_parts_say_what_is_left_and_the_last_makes_the_cache(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "parts.zarr"
    command = ["build", str(tmp_path / "videos"), str(out), "--codec", "picture", "--clips.num_frames=8", "--batch=2"]
    capsys.readouterr()
    assert main([*command, "--part=1/2", "--workers=1"]) == 0
    assert f"{out}: part 1/2 is finished; 2 of 5 units of all parts are" in capsys.readouterr().out
    assert main(["info", str(out)]) == 1
    assert "is not finished: run the same `python -m tools.latents build` again" in capsys.readouterr().err
    assert main([*command, "--part=2/2", "--workers=1", "--archive"]) == 0
    assert "clips         9 of 8 frames" in capsys.readouterr().out
    assert LatentCache(out).profile == "archive"


@pytest.mark.parametrize(
    ("option", "named"),
    [("--part=3/2", "part '3/2' is not one: give a number"), ("--batch=0", "--batch 0: give 1 or more")],
)
def test_wrong_options_are_one_line(
    option: str, named: str, built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["build", str(tmp_path / "videos"), str(tmp_path / "o.zarr"), "--codec", "picture", option]) == 1
    assert capsys.readouterr().err.startswith(f"error: {named}")


def test_ctrl_c_says_how_to_go_on(built: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def stop(arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tools.latents.info.run", stop)
    assert main(["info", str(built)]) == 130
    assert "the same command goes on from there" in capsys.readouterr().err
