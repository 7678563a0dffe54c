import errno
import shutil
from pathlib import Path

import pytest

from tests.fake_codecs import make_videos
from tests.tools.latents.conftest import runs_in
from tools.latents import main
from worldmodel.cache import writer
from worldmodel.cache.latents import LatentCache


def test_what_was_stopped_while_it_was_put_together_is_merged(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def full(folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    out = tmp_path / "OTHER.zarr"
    command = ["build", str(tmp_path / "videos"), str(out), "--codec", "picture", "--clips.num_frames=8", "--workers=1"]
    with monkeypatch.context() as patched:
        patched.setattr(writer, "sync_tree", full)
        assert main(command) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert not out.exists()
    assert main(["merge", str(out)]) == 0
    assert "clips         9 of 8 frames" in capsys.readouterr().out
    assert main(["merge", str(out)]) == 0


def test_a_cache_is_copied_as_an_archive(built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["merge", str(built), "--out", str(tmp_path / "small.zarr"), "--archive"]) == 0
    assert "MiB, archive" in capsys.readouterr().out
    assert LatentCache(tmp_path / "small.zarr").info == LatentCache(built).info


def test_there_must_be_something_to_merge(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["merge", str(tmp_path / "none.zarr")]) == 1
    assert "no build of" in capsys.readouterr().err


def test_caches_of_different_videos_become_one(built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "more").mkdir()
    shutil.move(make_videos(tmp_path / "others", 4)[3], tmp_path / "more" / "3.mp4")
    other, out = tmp_path / "B.zarr", tmp_path / "C.zarr"
    codecs = ["--codec", *map(str, runs_in(tmp_path))]
    options = ["--clips.num_frames=8", "--heldout=0.3"]
    assert main(["build", str(tmp_path / "more"), str(other), *codecs, *options]) == 0
    assert main(["merge", str(built), str(other)]) == 1
    assert "give --out" in capsys.readouterr().err
    assert main(["merge", str(built), str(other), "--out", str(out)]) == 0
    assert "videos        4," in capsys.readouterr().out
    assert LatentCache(out).num_clips == LatentCache(built).num_clips + LatentCache(other).num_clips
    assert main(["merge", str(built), str(built), "--out", str(tmp_path / "D.zarr")]) == 1
    assert "3 videos are in" in capsys.readouterr().err
