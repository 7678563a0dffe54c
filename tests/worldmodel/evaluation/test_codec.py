import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.worldmodel.whole_run import WholeRun
from worldmodel.errors import MediaError, SettingsError, UserError
from worldmodel.evaluation.codec import evaluate_codecs
from worldmodel.settings import EvaluateCodecSettings


def settings_of(whole: WholeRun, out: Path, *runs: Path, **others: object) -> EvaluateCodecSettings:
    options = {"num_clips": 4, "num_frames": 6, "device": "cpu"} | others
    return EvaluateCodecSettings([str(run) for run in runs], str(whole.videos), str(out), **options)  # type: ignore[arg-type]


def test_codecs_of_pictures_and_sound_are_measured_on_the_same_clips(whole_run: WholeRun, tmp_path: Path):
    shutil.copytree(whole_run.picture, tmp_path / "second")
    runs = whole_run.picture, whole_run.sound, tmp_path / "second"
    lines = evaluate_codecs(settings_of(whole_run, tmp_path / "out", *runs))
    titles = [line for line in lines if line.endswith(":")]
    assert titles == [
        "pictures of 16x16 at 10 per second, 4 clips of 6 frames from 4 videos:",
        "sound at 8000 Hz in 10 frames per second, 4 clips of 6 frames from 4 videos:",
    ]
    report = json.loads((tmp_path / "out" / "codecs.json").read_text())
    pictures, sounds = report["groups"]
    first, second = pictures["codecs"]["picture"], pictures["codecs"]["second"]
    timed = ("encoded_frames_per_second", "decoded_frames_per_second", "run")
    assert {k: v for k, v in first.items() if k not in timed} == {k: v for k, v in second.items() if k not in timed}
    assert first["training_steps"] == 6
    assert first["videos_seen"] == 4  # the fixture's codecs were trained on these very videos
    assert sounds["codecs"]["sound"]["tokens_per_frame"] == 5
    assert pictures["videos"] == sounds["videos"]
    for name in ("codecs_picture_16x16_10fps.png", "codecs_sound_8000hz_10fps.png"):
        assert str(tmp_path / "out" / name) in lines
        with Image.open(tmp_path / "out" / name) as picture:
            assert picture.format == "PNG"
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_codecs_that_sample_differently_have_tables_of_their_own(whole_run: WholeRun, tmp_path: Path):
    shutil.copytree(whole_run.sound, tmp_path / "sound")
    about = tmp_path / "sound" / "codec.json"
    about.write_text(about.read_text().replace('"frames_per_second": 10.0', '"frames_per_second": 5.0'))
    (tmp_path / "sound" / "settings.yaml").unlink()
    shutil.rmtree(tmp_path / "sound" / "checkpoints")
    lines = evaluate_codecs(settings_of(whole_run, tmp_path, whole_run.sound, tmp_path / "sound"))
    assert len([line for line in lines if line.startswith("sound at 8000 Hz in")]) == 2
    report = json.loads((tmp_path / "codecs.json").read_text())
    # Two runs of one folder's name are called by their paths.
    (other,) = [each for group in report["groups"] for name, each in group["codecs"].items() if str(tmp_path) in name]
    assert other["training_steps"] is None
    assert other["videos_seen"] is None


def test_files_stand_beside_the_first_run_if_no_folder_is_given(whole_run: WholeRun, tmp_path: Path):
    shutil.copytree(whole_run.sound, tmp_path / "runs" / "ear")
    settings = EvaluateCodecSettings([str(tmp_path / "runs" / "ear")], str(whole_run.videos), None, 2, 4, "cpu")
    assert evaluate_codecs(settings)[-1] == str(tmp_path / "runs" / "codecs.json")


def test_what_cannot_be_measured_is_refused(whole_run: WholeRun, tmp_path: Path):
    def refused(*runs: Path, **others: object) -> None:
        evaluate_codecs(settings_of(whole_run, tmp_path / "out", *runs, **others))

    with pytest.raises(UserError, match="holds no codec"):
        refused(whole_run.world)
    with pytest.raises(SettingsError, match="no RUN was given"):
        refused()
    with pytest.raises(SettingsError, match="picture was given twice"):
        refused(whole_run.picture, whole_run.sound, whole_run.picture)
    with pytest.raises(SettingsError, match="num_clips=0 is out of range"):
        refused(whole_run.picture, num_clips=0)
    with pytest.raises(SettingsError, match="num_frames=1 is out of range"):
        refused(whole_run.picture, num_frames=1)
    with pytest.raises(SettingsError, match="device=tpu is not here"):
        refused(whole_run.picture, device="tpu")
    with pytest.raises(MediaError, match="no clip can be read"):
        refused(whole_run.picture, num_frames=1000)
    assert not (tmp_path / "out").exists()
