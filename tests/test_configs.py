"""Every file in configs/ is read as the settings its folder says, and states only differences from the defaults."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tools.study.settings import StudySettings
from worldmodel.codecs.picture import PictureVQ
from worldmodel.codecs.sound import SoundVQ
from worldmodel.codecs.store import build_codec
from worldmodel.config import parse
from worldmodel.run import build_objective
from worldmodel.settings import TokenizerSettings, TrainSettings

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
FILES = sorted(CONFIGS.rglob("*.yaml"))
RUNS = [path for path in FILES if path.parent.name != "studies"]
# For each folder of configs/: the class, and values for the keys that have no default (a file may state them as well).
KINDS: dict[str, tuple[type, list[str]]] = {
    "tokenizer": (TokenizerSettings, ["--videos=nowhere", "--run=nowhere"]),
    "train": (TrainSettings, ["--cache=nowhere", "--codecs=[nowhere]", "--run=nowhere"]),
    "studies": (StudySettings, ["--videos=nowhere", "--out=nowhere"]),  # planned in tests/tools/study/test_plan.py
}


def read(path: Path) -> Any:
    settings_class, required = KINDS[path.parent.name]
    return parse(settings_class, [*required, "--config", str(path)])


def leaves(mapping: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of a nested mapping by their dotted keys."""
    found = {}
    for key, value in mapping.items():
        found |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def test_every_config_lies_in_a_folder_that_says_what_it_configures():
    assert not [str(path) for path in FILES if path.parent.parent != CONFIGS or path.parent.name not in KINDS]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_config_is_read_as_settings(path: Path):
    assert isinstance(read(path), KINDS[path.parent.name][0])


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_config_states_only_differences_from_the_defaults(path: Path):
    settings_class, required = KINDS[path.parent.name]
    defaults = leaves(dataclasses.asdict(parse(settings_class, required)))
    resolved = leaves(dataclasses.asdict(read(path)))
    stated = leaves(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    same = {key for key in stated if key in defaults and resolved[key] == defaults[key]}
    assert not same, f"{path} states what is the default anyway: {sorted(same)}"


def codec_of(kind: str, world: str) -> Any:
    """The codec that a world's config is made for: of its own name, or the one for all."""
    own = CONFIGS / "tokenizer" / f"{world}_{kind}.yaml"
    settings = read(own if own.is_file() else CONFIGS / "tokenizer" / f"{kind}.yaml")
    return build_codec(settings.kind, settings.codec, settings.clips)


@pytest.mark.parametrize("path", RUNS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_a_config_describes_can_be_built(path: Path):
    settings = read(path)
    with torch.device("meta"):
        if path.parent.name == "tokenizer":
            codec = build_codec(settings.kind, settings.codec, settings.clips)
            assert codec.pyramid.num_codes > 0
            assert settings.kind in path.name
        else:
            picture, sound = codec_of("picture", path.stem), codec_of("sound", path.stem)
            assert isinstance(picture, PictureVQ)
            assert isinstance(sound, SoundVQ)
            objective = build_objective(settings, picture, sound)
            assert sum(weight.numel() for weight in objective.parameters()) > 10**5
            assert set(objective.heads) == {"flow", "speed", "arrow_of_time", "correspondence"}


@pytest.mark.parametrize(("name", "millions"), [("small", 8), ("medium", 45), ("large", 320), ("huge", 1350)])
def test_the_sizes_of_one_dial_are_as_large_as_they_say(name: str, millions: int):
    settings = read(CONFIGS / "train" / f"{name}.yaml")
    with torch.device("meta"):
        objective = build_objective(settings, codec_of("picture", name), codec_of("sound", name))
    count = sum(parameter.numel() for parameter in objective.parameters() if parameter.requires_grad)
    assert count / 1e6 == pytest.approx(millions, rel=0.1)
