from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from streams.pyav.facts import small_frame
from streams.videos import VideoSource
from tests.fake_codecs import FakePictureCodec
from tools.latents import main
from worldmodel.cache.encoding import clip_settings


def test_a_sheet_and_a_video_with_sound_are_written(built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["sample", str(built), str(tmp_path / "seen" / "out.mp4"), "--num_clips", "3"]) == 0
    assert "3 of 9 clips" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "seen").iterdir()) == ["out.mp4", "out.png"]
    with Image.open(tmp_path / "seen" / "out.png") as sheet:
        pixels = np.asarray(sheet.convert("L"))
    assert pixels.std() > 10
    source = VideoSource([tmp_path / "seen" / "out.mp4"], clip_settings([FakePictureCodec()], 24))
    (clip,) = [source.read(index, np.random.default_rng(0)) for index in range(len(source))]
    assert clip.sound is not None
    assert float(clip.sound.abs().mean()) > 0.05
    assert small_frame(tmp_path / "seen" / "out.mp4", 0.0, 64).std() > 5


def test_without_its_codecs_nothing_is_decoded(built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for command in (["sample", str(built), str(tmp_path / "out.mp4")], ["export", str(built), str(tmp_path / "out")]):
        assert main([*command, "--codec", "picture"]) == 1
        assert "was made with sound codec fake-sound-1, but codec none was given" in capsys.readouterr().err
    (tmp_path / "runs" / "picture").rmdir()
    assert main(["sample", str(built), str(tmp_path / "out.mp4")]) == 1
    assert f"the runs of its codecs ({tmp_path}/runs/picture) are gone: give --codec" in capsys.readouterr().err
    assert main(["sample", str(built), str(tmp_path / "out.mp4"), "--num_clips=0"]) == 1
    assert "--num_clips 0: give 1 or more" in capsys.readouterr().err
    assert not (tmp_path / "out.mp4").exists()
