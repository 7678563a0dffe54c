"""A tiny ablation from cache to table, gone on with; `measure`, `settings`, `table` and `__main__` with it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from tests.worldmodel.tiny import MODEL
from tests.worldmodel.whole_run import LOADER, WINDOW_FRAMES, WholeRun, make_pictures
from tools.ablation import stages
from tools.ablation.__main__ import main
from tools.ablation.settings import AblationSettings
from worldmodel.config import write_settings
from worldmodel.settings import TrainingSettings


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory, whole_run: WholeRun) -> Path:
    """A cache without sound."""
    return make_pictures(whole_run, tmp_path_factory.mktemp("pictures") / "latents.zarr")


def settings_of(whole_run: WholeRun, pictures: Path, out: Path) -> AblationSettings:
    return AblationSettings(
        cache=str(pictures),
        codec=str(whole_run.picture),
        out=str(out),
        names=["coarse-to-fine", "one-stack"],
        num_frames=WINDOW_FRAMES,
        model=replace(MODEL, decoded_frames=2),
        loader=LOADER,
        training=TrainingSettings(steps=4, warmup_steps=1, preview_every=0, zero_stage=0, optimizer="muon"),
        context_frames=4,
        horizon=4,
        num_clips=4,
    )


def test_an_ablation_is_kept_gone_on_with_and_ends_with_a_table(
    tmp_path: Path,
    whole_run: WholeRun,
    pictures: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    out = tmp_path / "out"
    settings = settings_of(whole_run, pictures, out)
    write_settings(settings, tmp_path / "ablation.yaml")
    command = ["--config", str(tmp_path / "ablation.yaml")]
    assert main(command) == 0
    printed = capsys.readouterr().out
    found = {name: json.loads((out / name / "measures.json").read_text()) for name in settings.names}
    # One stack has more to compute in a step, so it has fewer of them.
    assert found["coarse-to-fine"]["steps"] == 4
    assert found["one-stack"]["step_gigaflops"] > found["coarse-to-fine"]["step_gigaflops"]
    assert found["one-stack"]["steps"] < 4
    for each in found.values():
        assert each["bits"] == pytest.approx(sum(each["clip_bits"]) / len(each["clip_bits"]))
        assert 0 < each["changed_bits"] <= each["bits"]
        assert set(each["rollouts"]) == {"drawn", "likeliest", "moved"}
        assert each["copy_psnr"] == found["coarse-to-fine"]["copy_psnr"]
    assert "| one-stack |" in printed
    with Image.open(out / "ablation.png") as picture:
        assert picture.format == "PNG"
    monkeypatch.setattr(stages, "train_candidate", lambda *_: pytest.fail("it was trained already"))
    assert main(command) == 0
    assert capsys.readouterr().out.splitlines()[-6:] == printed.splitlines()[-6:]
    assert main([*command, "--num_clips", "3"]) == 1
    assert "holds coarse-to-fine of other settings: give another --out, or remove it" in capsys.readouterr().err


def test_a_codec_of_another_family_is_refused(
    tmp_path: Path, whole_run: WholeRun, pictures: Path, capsys: pytest.CaptureFixture[str]
):
    settings = replace(settings_of(whole_run, pictures, tmp_path), codec=str(whole_run.sound))
    write_settings(settings, tmp_path / "ablation.yaml")
    assert main(["--config", str(tmp_path / "ablation.yaml")]) == 1
    assert "is of another family: give a picture codec of family vq" in capsys.readouterr().err
