from pathlib import Path

import pytest

from tests.fake_codecs import make_videos
from tests.worldmodel.tiny import PICTURE
from tests.worldmodel.tiny_run import CLIPS
from tools.dct import main
from worldmodel.codecs.dct import PictureDCT
from worldmodel.codecs.picture import PictureVQ
from worldmodel.codecs.store import save_codec
from worldmodel.settings import DctSettings


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    make_videos(folder)
    return folder


def test_the_table_has_a_line_for_every_frequency_and_one_for_all(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    save_codec(tmp_path, PictureDCT(DctSettings(block=4), CLIPS))
    assert main([str(tmp_path), str(videos), "--num_clips", "4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines[2:-1]]
    assert [row[:3] for row in rows[:2]] == [["0", "luma", "0"], ["0", "luma", "1"]]
    assert [row[1] for row in rows] == ["luma"] * 16 + ["chroma"] * 16 + ["luma", "chroma"]
    assert {row[2] for row in rows[-2:]} == {"all"}
    for row in rows:
        assert float(row[3].rstrip("%")) <= 100
        assert float(row[5]) >= float(row[4]) - 1e-9  # the cross-entropy is never below the entropy
    assert lines[-1].startswith("as JPEG codes them: ")


def test_what_has_no_coefficients_or_no_clips_is_an_error(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    save_codec(tmp_path / "vq", PictureVQ(PICTURE, CLIPS))
    assert main([str(tmp_path / "vq"), str(videos)]) == 1
    assert "is a codec of family vq: give one of family dct" in capsys.readouterr().err
    save_codec(tmp_path / "dct", PictureDCT(DctSettings(), CLIPS))
    assert main([str(tmp_path / "dct"), str(videos), "--num_clips", "1"]) == 1
    assert "two are needed" in capsys.readouterr().err
