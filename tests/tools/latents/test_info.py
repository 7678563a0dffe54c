from pathlib import Path

import pytest

from tests.fake_codecs import CLIPS, make_videos
from tools.latents import main
from worldmodel.codecs.dct import PictureDCT
from worldmodel.codecs.store import save_codec
from worldmodel.settings import DctSettings


def test_info_prints_what_is_in_a_cache(built: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["info", str(built)]) == 0
    info = capsys.readouterr().out
    for expected in ("clips         9 of 8 frames", "videos        3,", "picture fake-picture-1", "sound fake-sound-1"):
        assert expected in info
    assert "finest codes change in still patches" in info
    assert "skipped       0" in info
    assert "heldout 0.3, batch_size 32" in info
    assert "MiB, mapped" in info


def test_a_scale_of_several_planes_is_printed_with_their_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    make_videos(tmp_path / "videos")
    save_codec(tmp_path / "dct", PictureDCT(DctSettings(), CLIPS))
    arguments = [str(tmp_path / "videos"), str(tmp_path / "OUT.zarr"), "--codec", str(tmp_path / "dct")]
    assert main(["build", *arguments, "--clips.num_frames", "8"]) == 0
    grids = [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("picture ")]
    assert grids == ["2x1x1", "2x2", "10x1x1", "5x2x2", "18x1x1", "9x2x2", "98x1x1", "49x2x2"]
