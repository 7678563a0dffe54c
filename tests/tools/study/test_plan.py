import json
from pathlib import Path

import pytest
import yaml

from tools.study.__main__ import named
from tools.study.plan import MADE_OF, options, plans_of
from tools.study.settings import Overrides, StudySettings
from worldmodel.config import parse
from worldmodel.errors import SettingsError

STUDIES = sorted((Path(__file__).resolve().parents[3] / "configs" / "studies").glob("*.yaml"))


def study(out: Path, **variants: Overrides) -> StudySettings:
    base = Overrides(tokenizer={"training.steps": 7}, train={"model.trunk": {"dim": 32}, "num_frames": 8})
    return StudySettings("VIDEOS", str(out), base, variants)


def test_what_a_variant_says_stands_above_the_base(tmp_path: Path):
    made = plans_of(study(tmp_path, a=Overrides(), b=Overrides({"training.steps": 9}, train={"num_frames": 12})))
    assert [plan.tokenizer.training.steps for plan in made] == [7, 9]
    assert [plan.train.num_frames for plan in made] == [8, 12]
    assert {plan.train.model.trunk.dim for plan in made} == {32}


def test_variants_with_equal_codecs_and_caches_share_them(tmp_path: Path):
    noisy = Overrides(train={"model.context_noise": 0.1})
    first, second, third = plans_of(study(tmp_path, a=Overrides(), b=noisy, c=Overrides(cache={"heldout": 0.3})))
    assert first.tokenizer.run == second.tokenizer.run == third.tokenizer.run == str(tmp_path / "a" / "picture")
    assert first.cache.out == second.cache.out == second.train.cache == str(tmp_path / "a" / "latents.zarr")
    assert third.train.cache == str(tmp_path / "c" / "latents.zarr")
    assert [plan.train.run for plan in (first, second)] == [str(tmp_path / name / "world") for name in "ab"]
    assert second.evaluate.run == second.train.run
    assert third.train.codecs == [first.tokenizer.run]


def test_options_become_a_command_line():
    given = {"picture_loss.sticky": False, "model.trunk": {"dim": 8}, "training.optimizer": "muon", "cache": None}
    assert options(given) == [
        "--picture_loss.sticky=false",
        '--model.trunk={"dim": 8}',
        "--training.optimizer=muon",
        "--cache=null",
    ]


def test_wrong_options_are_refused_before_anything_runs_and_name_the_variant(tmp_path: Path):
    with pytest.raises(SettingsError, match=r"variant b: unknown setting 'model\.own_contxt'"):
        plans_of(study(tmp_path, a=Overrides(), b=Overrides(train={"model.own_contxt": 0.5})))
    with pytest.raises(SettingsError, match="no variants"):
        plans_of(study(tmp_path))
    with pytest.raises(SettingsError, match="compare names 'c', expected one of a"):
        plans_of(StudySettings("VIDEOS", "out", variants={"a": Overrides()}, compare={"a": ["c"]}))


def test_results_of_other_settings_are_not_taken_for_these(tmp_path: Path):
    (plan,) = plans_of(study(tmp_path, a=Overrides()))
    plan.folder.mkdir()
    (plan.folder / MADE_OF).write_text(json.dumps(plan.made_of), encoding="utf-8")
    plans_of(study(tmp_path, a=Overrides()))
    with pytest.raises(SettingsError, match="holds variant a of other settings or videos"):
        plans_of(study(tmp_path, a=Overrides(train={"num_frames": 9})))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.name)
def test_every_study_of_the_repository_can_be_planned(path: Path, tmp_path: Path):
    settings = parse(StudySettings, named([str(path), "--videos=VIDEOS", f"--out={tmp_path}"]))
    assert [plan.name for plan in plans_of(settings)] == list(yaml.safe_load(path.read_text())["variants"])
