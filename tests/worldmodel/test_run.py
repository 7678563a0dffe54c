import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from tests.worldmodel.tiny import MODEL
from tests.worldmodel.whole_run import TRAINING, WholeRun
from worldmodel.codecs.store import fingerprint_of, load_codec
from worldmodel.config import read_settings
from worldmodel.errors import CacheError, CheckpointError, SettingsError
from worldmodel.run import (
    SETTINGS,
    begin_run,
    build_objective,
    describe_run,
    load_codecs,
    load_run,
)
from worldmodel.settings import TrainSettings
from worldmodel.training import checkpoint


def test_a_run_is_loaded_as_it_was_trained(whole_run: WholeRun):
    run = load_run(whole_run.world)
    assert run.step == TRAINING.steps
    assert run.settings == whole_run.settings
    weights, _ = checkpoint.load_weights(whole_run.world)
    loaded = run.objective.state_dict()
    assert loaded.keys() == weights.keys()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in loaded.items())
    assert not run.objective.training
    assert not any(weight.requires_grad for weight in run.objective.parameters())
    assert run.fingerprint == f"{fingerprint_of(whole_run.picture)}-{fingerprint_of(whole_run.sound)}"
    assert run.model is run.objective.model


def test_a_run_is_loaded_with_light_weights_in_its_blocks_alone(whole_run: WholeRun):
    run, whole = load_run(whole_run.world, weights="int8"), load_run(whole_run.world)
    matrices = [weight for block in run.objective.blocks for weight in block.parameters() if weight.ndim == 2]
    assert {weight.dtype for weight in matrices} == {torch.int8}
    assert not any(weight.requires_grad for weight in run.objective.parameters())
    others = {name for name in whole.objective.state_dict() if ".blocks." not in name}
    for name in others:
        assert torch.equal(run.objective.state_dict()[name], whole.objective.state_dict()[name]), name


def test_the_quantizers_of_a_loaded_run_are_those_of_its_codecs(whole_run: WholeRun):
    run = load_run(whole_run.world)
    assert run.sound is not None
    for quantizer, codec in zip(run.model.quantizers, (run.picture, run.sound), strict=True):
        for name, tensor in codec.quantizer.state_dict().items():
            assert torch.equal(quantizer.state_dict()[name], tensor), name


def test_a_run_is_complete_by_itself(whole_run: WholeRun, tmp_path: Path):
    shutil.copytree(whole_run.world, tmp_path / "moved")
    assert load_run(str(tmp_path / "moved")).fingerprint == load_run(whole_run.world).fingerprint
    assert sorted(path.name for path in (tmp_path / "moved" / "codec").iterdir()) == ["picture", "sound"]


def test_the_order_of_the_codecs_does_not_matter(whole_run: WholeRun):
    one = load_codecs([whole_run.picture, whole_run.sound])
    other = load_codecs([whole_run.sound, whole_run.picture])
    assert [codec.fingerprint for codec in one if codec] == [codec.fingerprint for codec in other if codec]
    assert load_codecs([whole_run.picture])[1] is None


def test_codecs_that_do_not_make_a_run_are_refused(whole_run: WholeRun, tmp_path: Path):
    with pytest.raises(SettingsError, match="second picture codec"):
        load_codecs([whole_run.picture, whole_run.picture])
    with pytest.raises(SettingsError, match="no picture codec among"):
        load_codecs([whole_run.sound])
    with pytest.raises(SettingsError, match="no picture codec among"):
        load_codecs([])
    with pytest.raises(CheckpointError, match="holds no codec"):
        load_codecs([tmp_path])


def test_a_beginning_run_writes_settings_and_copies_and_the_same_weights_for_the_same_seed(
    whole_run: WholeRun, tmp_path: Path
):
    settings = replace(whole_run.settings, run=str(tmp_path / "new"))
    objective, picture, sound = begin_run(settings)
    assert read_settings(TrainSettings, tmp_path / "new" / SETTINGS) == settings
    for codec in (picture, sound):
        assert codec is not None
        assert load_codec(tmp_path / "new" / "codec" / codec.kind).fingerprint == codec.fingerprint
    again, *_ = begin_run(settings)
    torch.testing.assert_close(again.state_dict(), objective.state_dict(), rtol=0, atol=0)
    other = build_objective(replace(settings, training=replace(TRAINING, seed=1)), picture, sound)
    assert not torch.equal(
        other.heads["speed"].readout.layers[0].weight,  # type: ignore[union-attr,index]
        objective.heads["speed"].readout.layers[0].weight,  # type: ignore[union-attr,index]
    )


def test_a_resumed_run_takes_its_own_copies_though_the_codecs_are_gone(whole_run: WholeRun, tmp_path: Path):
    settings = replace(whole_run.settings, run=str(tmp_path / "new"))
    begin_run(settings)
    _, picture, _ = begin_run(replace(settings, codecs=[str(tmp_path / "gone")]))
    assert picture.fingerprint == fingerprint_of(whole_run.picture)


def test_codecs_that_did_not_make_the_cache_are_refused_and_nothing_is_written(whole_run: WholeRun, tmp_path: Path):
    settings = replace(whole_run.settings, codecs=[str(whole_run.picture)], run=str(tmp_path / "new"))
    with pytest.raises(CacheError, match="made with sound codec .* but codec none was given"):
        begin_run(settings)
    assert not (tmp_path / "new").exists()


def test_the_description_names_model_and_codecs(whole_run: WholeRun):
    run = load_run(whole_run.world)
    description = describe_run(run.settings, run.picture, run.sound)
    assert description.identity["codecs"] == {"picture": run.picture.fingerprint, "sound": run.sound.fingerprint}  # type: ignore[union-attr]
    assert description.identity["model"]["trunk"]["dim"] == MODEL.trunk.dim
    json.dumps(description.settings)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, whole_run: WholeRun):
    with pytest.raises(CheckpointError, match=r"is not a run .settings.yaml is missing.: give a folder"):
        load_run(tmp_path)
    shutil.copy(whole_run.world / SETTINGS, tmp_path / SETTINGS)
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        load_run(tmp_path)


def test_weights_of_another_model_are_refused_in_one_line(whole_run: WholeRun, tmp_path: Path):
    shutil.copytree(whole_run.world, tmp_path / "run")
    path = tmp_path / "run" / SETTINGS
    path.write_text(path.read_text().replace("depth: 2", "depth: 3"))
    with pytest.raises(CheckpointError, match=r"are of another model than its settings\.yaml") as caught:
        load_run(tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_settings_of_a_run_from_before_there_were_videos_are_read(whole_run: WholeRun, tmp_path: Path):
    old = yaml.safe_load((whole_run.world / SETTINGS).read_text())
    old = {"cache": old.pop("cache")} | {name: old[name] for name in old if name not in ("videos", "encoding")}
    (tmp_path / SETTINGS).write_text(yaml.safe_dump(old, sort_keys=False))
    assert read_settings(TrainSettings, tmp_path / SETTINGS) == whole_run.settings


def test_the_run_of_a_codec_is_told_from_that_of_a_world(whole_run: WholeRun):
    with pytest.raises(CheckpointError, match="is the run of a codec: give a folder that `worldmodel train` made"):
        load_run(whole_run.picture)
