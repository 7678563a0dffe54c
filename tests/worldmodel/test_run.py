import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from streams.settings import LoaderSettings
from tests.worldmodel.tiny import MODEL
from tests.worldmodel.whole_run import TRAINING, WholeRun
from worldmodel.codecs.store import fingerprint_of, load_codec
from worldmodel.config import read_settings
from worldmodel.errors import CacheError, CheckpointError, SettingsError
from worldmodel.run import (
    SETTINGS,
    begin_run,
    build_objective,
    check_sequence_parallel,
    check_tensor_parallel,
    check_training,
    describe_run,
    load_codecs,
    load_run,
)
from worldmodel.settings import TrainingSettings, TrainSettings
from worldmodel.training import checkpoint, cluster
from worldmodel.training.cluster import Ranks


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


@pytest.mark.parametrize(
    ("room", "values", "message"),
    [
        ("training", {"learning_rate": 0.0}, r"training.learning_rate=0.0 is out of range: it must be above 0"),
        ("training", {"muon_learning_rate": -1.0}, "training.muon_learning_rate=-1.0 is out of range"),
        (
            "training",
            {"offload": "optimizer", "zero_stage": 0},
            "training.zero_stage=0: DeepSpeed offloads it from stage 1",
        ),
        (
            "training",
            {"offload": "parameters", "zero_stage": 2},
            "training.zero_stage=2: DeepSpeed offloads it from stage",
        ),
        ("training", {"sequence_parallel": 0}, "training.sequence_parallel=0 is out of range: it must be 1 or more"),
        ("training", {"sequence_parallel": 2}, "sequence_parallel=2 does not divide the 1 processes: change one"),
        ("training", {"tensor_parallel": 0}, "training.tensor_parallel=0 is out of range: it must be 1 or more"),
        (
            "training",
            {"tensor_parallel": 2, "optimizer": "adamw"},
            "tensor_parallel=2 does not divide the 1 processes: change one",
        ),
        (
            "training",
            {"tensor_parallel": 2, "optimizer": "muon"},
            "tensor_parallel=2 with training.optimizer=muon: Muon needs whole matrices; use adamw",
        ),
        (
            "training",
            {"tensor_parallel": 2, "sequence_parallel": 2, "optimizer": "adamw"},
            "tensor_parallel=2 with training.sequence_parallel=2: leave one of them at 1",
        ),
        ("model", {"own_context": 1.5}, "model.own_context=1.5 is out of range: it must be from 0 to 1"),
        ("model", {"own_context_from": -0.1}, "model.own_context_from=-0.1 is out of range"),
        ("model", {"drop_past": -0.1}, "model.drop_past=-0.1 is out of range"),
        ("model", {"context_noise": 2.0}, "model.context_noise=2.0 is out of range"),
        ("heads", {"view_share": 1.1}, "heads.view_share=1.1 is out of range: it must be above 0 and at most 1"),
        ("heads", {"mismatched_share": 0.0}, "heads.mismatched_share=0.0 is out of range"),
    ],
)
def test_numbers_that_no_run_can_have_are_refused(
    room: str, values: dict[str, float | str], message: str, whole_run: WholeRun, tmp_path: Path
):
    settings = replace(whole_run.settings, run=str(tmp_path / "run"))
    with pytest.raises(SettingsError, match=message):
        begin_run(replace(settings, **{room: replace(getattr(settings, room), **values)}))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("num_ranks", "size", "decoded", "message"),
    [
        (4, 4, 4, "sequence_parallel=4 does not divide model.trunk.num_heads=2: change one of them"),
        (3, 3, 4, "sequence_parallel=3 does not divide model.trunk.num_heads=2"),
        (2, 2, 1, "model.decoded_frames=1 and num_frames=8: every process of a group decodes a frame, so give 2"),
    ],
)
def test_clips_that_do_not_divide_among_those_who_share_them_are_refused(
    num_ranks: int, size: int, decoded: int, message: str, whole_run: WholeRun, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cluster, "find_ranks", lambda: Ranks(num_ranks=num_ranks))
    settings = whole_run.settings
    model, training = replace(settings.model, decoded_frames=decoded), TrainingSettings(sequence_parallel=size)
    with pytest.raises(SettingsError, match=message):
        check_sequence_parallel(replace(settings, model=model, training=training))
    odd = replace(settings, num_frames=7, training=TrainingSettings(sequence_parallel=2))
    monkeypatch.setattr(cluster, "find_ranks", lambda: Ranks(num_ranks=2))
    with pytest.raises(SettingsError, match="sequence_parallel=2 does not divide num_frames=7"):
        check_sequence_parallel(odd)
    check_sequence_parallel(replace(odd, num_frames=8))


def test_heads_that_do_not_divide_among_those_who_share_matrices_are_refused(
    whole_run: WholeRun, monkeypatch: pytest.MonkeyPatch
):
    objective = load_run(whole_run.world).objective
    monkeypatch.setattr(cluster, "find_ranks", lambda: Ranks(num_ranks=4))
    check_tensor_parallel(TrainingSettings(tensor_parallel=2), objective)
    with pytest.raises(SettingsError, match="tensor_parallel=4 does not divide model.trunk.num_heads=2: change one"):
        check_tensor_parallel(TrainingSettings(tensor_parallel=4), objective)
    with pytest.raises(SettingsError, match="tensor_parallel=3 does not divide the 4 processes: change one"):
        check_tensor_parallel(TrainingSettings(tensor_parallel=3), objective)


def test_codecs_share_no_matrices():
    with pytest.raises(SettingsError, match="tensor_parallel=2 is for the world model's transformers: a codec needs 1"):
        check_training(TrainingSettings(tensor_parallel=2), LoaderSettings())


def test_codecs_share_no_clips():
    with pytest.raises(SettingsError, match="sequence_parallel=2 is for the world model's trunk: a codec needs 1"):
        check_training(TrainingSettings(sequence_parallel=2), LoaderSettings())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cache": None}, "codes come from a cache or from videos, but neither was given: give --cache CACHE or --vi"),
        ({"videos": "some"}, r"but cache=.*latents.zarr and videos=some was given: .* and null for the other where"),
    ],
)
def test_codes_come_from_one_place(changes: dict[str, str | None], message: str, whole_run: WholeRun, tmp_path: Path):
    settings = replace(whole_run.settings, run=str(tmp_path / "run"), **changes)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match=message):
        begin_run(settings)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("videos", "message"),
    [
        ({}, "videos is empty: give a folder, or several with a weight for each"),
        ({"a": 1.0, "b": 0.0}, "the weight 0 of videos b is out of range: it must be above 0; leave them out"),
        ({"a": float("nan")}, "the weight nan of videos a is out of range"),
    ],
)
def test_mixtures_without_shares_are_refused(
    videos: dict[str, float], message: str, whole_run: WholeRun, tmp_path: Path
):
    with pytest.raises(SettingsError, match=message):
        begin_run(replace(whole_run.settings_from_videos, run=str(tmp_path / "run"), videos=videos))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("name", "least"), [("clip_frames", 2), ("thumbnail", 1), ("chunk_clips", 1)])
def test_videos_that_cannot_be_encoded_so_are_refused(name: str, least: int, whole_run: WholeRun, tmp_path: Path):
    settings = replace(whole_run.settings_from_videos, run=str(tmp_path / "run"))
    encoding = replace(settings.encoding, **{name: least - 1})
    with pytest.raises(SettingsError, match=f"encoding.{name}={least - 1} is out of range: it must be {least} or more"):
        begin_run(replace(settings, encoding=encoding))
    assert not (tmp_path / "run").exists()


def test_settings_of_a_run_from_before_there_were_videos_are_read(whole_run: WholeRun, tmp_path: Path):
    old = yaml.safe_load((whole_run.world / SETTINGS).read_text())
    old = {"cache": old.pop("cache")} | {name: old[name] for name in old if name not in ("videos", "encoding")}
    (tmp_path / SETTINGS).write_text(yaml.safe_dump(old, sort_keys=False))
    assert read_settings(TrainSettings, tmp_path / SETTINGS) == whole_run.settings


def test_the_run_of_a_codec_is_told_from_that_of_a_world(whole_run: WholeRun):
    with pytest.raises(CheckpointError, match="is the run of a codec: give a folder that `worldmodel train` made"):
        load_run(whole_run.picture)
