from dataclasses import replace
from pathlib import Path

import pytest

from streams.settings import LoaderSettings
from tests.worldmodel.whole_run import WholeRun
from worldmodel.checks import check_sequence_parallel, check_tensor_parallel, check_training
from worldmodel.errors import SettingsError
from worldmodel.run import (
    begin_run,
    load_run,
)
from worldmodel.settings import TrainingSettings
from worldmodel.training import cluster
from worldmodel.training.cluster import Ranks


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
