import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from worldmodel.config import parse, read_settings, write_settings
from worldmodel.errors import SettingsError
from worldmodel.settings import TokenizerSettings, TrainSettings

REQUIRED = ["--videos", "films", "--run", "runs/picture"]


def test_without_overrides_the_settings_are_the_defaults_of_the_class():
    assert parse(TokenizerSettings, REQUIRED) == TokenizerSettings(videos="films", run="runs/picture")
    mixed = parse(TokenizerSettings, ["--videos", '{"a": 3, "b c": 0.5}', "--run", "r"])
    assert mixed.videos == {"a": 3.0, "b c": 0.5}


def test_a_file_states_differences_and_an_override_wins_over_it(tmp_path: Path):
    file = tmp_path / "small.yaml"
    file.write_text("videos: films\nrun: runs/a\ntraining:\n  steps: 7\n  learning_rate: 1e-4\nclips:\n  height: 32\n")
    settings = parse(TokenizerSettings, ["--config", str(file), "--training.steps", "9"])
    assert (settings.training.steps, settings.training.learning_rate, settings.clips.height) == (9, 1e-4, 32)
    assert settings.clips.num_frames == TokenizerSettings("", "").clips.num_frames
    assert parse(TokenizerSettings, [f"--config={file}"]).training.steps == 7


def test_a_list_takes_several_values():
    required = ["--cache", "c.zarr", "--run", "r"]
    for given in (["--codecs", "a", "b"], ["--codecs", '["a", "b"]'], ['--codecs=["a", "b"]']):
        assert parse(TrainSettings, [*required, *given]).codecs == ["a", "b"]
    assert parse(TrainSettings, ["--codecs", "a", *required]).codecs == ["a"]


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("trainin.steps", "training.steps"),
        ("steps", "training.steps"),
        ("clips.hight", "clips.height"),
        ("vidoes", "videos"),
    ],
)
def test_an_unknown_key_is_refused_with_what_was_probably_meant(key: str, meant: str, tmp_path: Path):
    with pytest.raises(SettingsError, match=rf"unknown setting '{key}' on the command line: did you mean .*{meant}"):
        parse(TokenizerSettings, [*REQUIRED, f"--{key}", "3"])
    file = tmp_path / "wrong.yaml"
    nested: dict = {}
    *groups, last = key.split(".")
    inner = nested
    for group in groups:
        inner = inner.setdefault(group, {})
    inner[last] = 3
    file.write_text(yaml.safe_dump(nested))
    with pytest.raises(SettingsError, match=r"unknown setting .* in .*wrong.yaml: did you mean"):
        parse(TokenizerSettings, [*REQUIRED, "--config", str(file)])


def test_a_key_like_no_other_is_answered_with_all_keys():
    with pytest.raises(SettingsError, match="unknown setting 'qqqqqq' on the command line: known keys: videos, run"):
        parse(TokenizerSettings, [*REQUIRED, "--qqqqqq", "3"])


@pytest.mark.parametrize(
    ("argument", "named"),
    [("--training.steps=many", "training.steps"), ("--kind=film", "kind"), ("--clips=3", "clips"), ("stray", "stray")],
)
def test_a_value_of_a_wrong_type_is_refused_by_its_key(argument: str, named: str):
    with pytest.raises(SettingsError, match=named) as caught:
        parse(TokenizerSettings, [*REQUIRED, argument])
    assert "\n" not in str(caught.value)


def test_a_missing_setting_is_named():
    with pytest.raises(SettingsError, match="run"):
        parse(TokenizerSettings, ["--videos", "films"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is not a file"),
        ("a: [1", "is not valid YAML"),
        ("- 1", "holds list"),
        ("videos: !!python/name:os.system", "YAML"),
    ],
)
def test_a_file_that_is_no_file_of_settings_is_refused(content: str | None, message: str, tmp_path: Path):
    file = tmp_path / "bad.yaml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(SettingsError, match=message):
        parse(TokenizerSettings, [*REQUIRED, "--config", str(file)])


def test_written_settings_read_back_as_they_were(tmp_path: Path):
    settings = TrainSettings(cache="a cache.zarr", codecs=["one", "zwei ü"], run="r", num_frames=12)
    settings = dataclasses.replace(settings, heads=dataclasses.replace(settings.heads, flow=1e-7))
    write_settings(settings, tmp_path / "run" / "settings.yaml")
    assert read_settings(TrainSettings, tmp_path / "run" / "settings.yaml") == settings
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["settings.yaml"]


def test_grids_survive_being_written(tmp_path: Path):
    settings = TokenizerSettings(videos="v", run="r")
    write_settings(settings, tmp_path / "settings.yaml")
    assert read_settings(TokenizerSettings, tmp_path / "settings.yaml").picture.quantizer.grids == (
        (1, 1),
        (2, 2),
        (4, 4),
        (8, 8),
    )


def test_printed_settings_can_be_given_back_as_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        parse(TokenizerSettings, [*REQUIRED, "--training.steps=3", "--print_config"])
    assert caught.value.code == 0
    file = tmp_path / "printed.yaml"
    file.write_text(capsys.readouterr().out)
    assert read_settings(TokenizerSettings, file).training.steps == 3


def test_help_names_every_key_and_no_heavy_library_is_imported():
    program = (
        "import sys; from worldmodel.config import parse; from worldmodel.settings import TrainSettings\n"
        "try: parse(TrainSettings, ['--help'], prog='worldmodel train')\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert not {'torch', 'deepspeed', 'av', 'zarr', 'numpy'} & sys.modules.keys()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "worldmodel train" in done.stdout
    assert "--training.learning_rate" in done.stdout
