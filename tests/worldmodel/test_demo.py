import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tools.latents import build_parser as latents_parser
from tools.videos import build_parser as videos_parser
from worldmodel import demo
from worldmodel.cli import _positional, _short
from worldmodel.config import parse
from worldmodel.demo import NUM_QUICK_VIDEOS, NUM_VIDEOS, ending, run_demo, stages
from worldmodel.errors import SettingsError, UserError
from worldmodel.settings import DemoSettings, EvaluateSettings, RolloutSettings, TokenizerSettings, TrainSettings

CLASSES = {
    "tokenizer": TokenizerSettings,
    "train": TrainSettings,
    "rollout": RolloutSettings,
    "evaluate": EvaluateSettings,
}


def parsed(command: tuple[str, ...]) -> Any:
    """A command read by what really reads it."""
    if command[0] == "worldmodel":
        arguments = (
            _short(_positional(list(command[2:]), "run")) if command[1] in ("rollout", "evaluate") else command[2:]
        )
        return parse(CLASSES[command[1]], arguments)
    parser = {"tools.latents": latents_parser, "tools.videos": videos_parser}[command[2]]()
    return parser.parse_args(list(command[3:]))


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that were run; every one of them succeeds."""
    commands: list[list[str]] = []

    def run(command: list[str], **options: Any) -> SimpleNamespace:
        commands.append(command)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, "run", run)
    return commands


@pytest.mark.parametrize("quick", [True, False])
def test_every_stage_is_a_command_that_a_user_can_type(quick: bool, tmp_path: Path):
    found = [parsed(stage.command) for stage in stages(tmp_path, quick)]
    kinds = [setting.kind for setting in found if isinstance(setting, TokenizerSettings)]
    assert kinds == ["picture", "sound"]
    assert {type(setting) for setting in found} >= set(CLASSES.values())
    trainings = [setting.training for setting in found if isinstance(setting, TokenizerSettings | TrainSettings)]
    assert all((training.steps < 100) == quick for training in trainings)
    assert found[0].physics.num_videos == (NUM_QUICK_VIDEOS if quick else NUM_VIDEOS)


def test_each_stage_takes_what_the_stages_before_it_made(tmp_path: Path):
    found = [parsed(stage.command) for stage in stages(tmp_path, True)]
    picture, sound = [setting for setting in found if isinstance(setting, TokenizerSettings)]
    (world,) = [setting for setting in found if isinstance(setting, TrainSettings)]
    (build,) = [setting.build for setting in found if "build" in vars(setting)]
    assert picture.videos == sound.videos == build.videos == found[0].physics.folder
    assert world.codecs == build.codec == [picture.run, sound.run]
    assert world.cache == build.out
    assert world.num_frames <= build.clips.num_frames
    measured = [setting for setting in found if isinstance(setting, EvaluateSettings | RolloutSettings)]
    assert {setting.run for setting in measured} == {world.run}
    training, prompts = [setting.physics for setting in found if "physics" in vars(setting)]
    made = {
        f"{prompts.folder}/physics_{seed:07d}.mp4" for seed in range(prompts.seed, prompts.seed + prompts.num_videos)
    }
    assert {setting.prompt for setting in measured if isinstance(setting, RolloutSettings)} == made
    assert prompts.seed >= training.seed + NUM_VIDEOS  # prompts are of no video that was trained on


def test_all_stages_run_in_order_by_this_interpreter(ran: list, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run_demo(DemoSettings(str(tmp_path), quick=True)) == 0
    plan = list(stages(tmp_path, True))
    assert len(ran) == len(plan)
    for command, stage in zip(ran, plan, strict=True):
        assert command[:2] == [sys.executable, "-m"]
        start = 0 if stage.command[0] == "worldmodel" else 2
        assert tuple(command[2:]) == stage.command[start:]
    printed = capsys.readouterr().out
    assert f"[1/{len(plan)}]" in printed
    assert all(" ".join(stage.command) in printed for stage in plan)
    assert "nothing is promised about the quality" in printed


def test_what_an_earlier_demo_finished_is_kept_and_a_stopped_training_goes_on(
    ran: list, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "picture").mkdir()
    (tmp_path / "picture" / "codec.json").touch()
    (tmp_path / "sound" / "checkpoints").mkdir(parents=True)
    (tmp_path / "sound" / "checkpoints" / "latest").touch()
    run_demo(DemoSettings(str(tmp_path), quick=True))
    lines = [" ".join(command) for command in ran]
    assert not [line for line in lines if "physics_picture.yaml" in line]
    assert f"worldmodel tokenizer --resume {tmp_path / 'sound'}" in "\n".join(lines)
    assert f"kept from before: {tmp_path / 'picture' / 'codec.json'}" in capsys.readouterr().out
    assert [line for line in lines if "train/physics.yaml" in line]
    assert all(parsed(stage.command) for stage in stages(tmp_path, True) if "--resume" not in stage.command)


@pytest.mark.parametrize(("quick", "status"), [(True, 0), (False, 3)])
def test_a_table_that_is_not_passed_is_the_demos_status_unless_it_is_quick(
    quick: bool, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    commands = []

    def run(command: list[str], **options: Any) -> SimpleNamespace:
        commands.append(command)
        return SimpleNamespace(returncode=3 if "evaluate" in command else 0)

    monkeypatch.setattr(subprocess, "run", run)
    assert run_demo(DemoSettings(str(tmp_path), quick)) == status
    assert len(commands) == len(list(stages(tmp_path, quick)))  # the rollouts are made all the same
    assert ("not everything required was passed" in capsys.readouterr().out) != quick


@pytest.mark.parametrize("code", [1, 2, 3, 75, -9])
def test_a_stage_that_fails_ends_the_demo_with_its_number(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    commands = []
    plan = [stage.command[:2] for stage in stages(tmp_path, True)]
    number = 1 + plan.index(("worldmodel", "tokenizer"))

    def run(command: list[str], **options: Any) -> SimpleNamespace:
        commands.append(command)
        return SimpleNamespace(returncode=code if "tokenizer" in command else 0)

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(
        UserError, match=rf"stopped at stage {number} \(exit status {code}\); run it again to go on there"
    ):
        run_demo(DemoSettings(str(tmp_path), quick=True))
    assert len(commands) == number


def test_without_the_repository_there_is_no_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(demo, "CONFIGS", tmp_path / "configs")
    with pytest.raises(SettingsError, match="run the demo from a checkout"):
        run_demo(DemoSettings(str(tmp_path)))


def test_the_ending_says_what_came_of_it_and_what_to_type_next(tmp_path: Path):
    assert "everything required was passed" in ending(tmp_path, 540.0, False, 0)
    assert "9.0 minutes" in ending(tmp_path, 540.0, False, 0)
    assert "see the table" in ending(tmp_path, 60.0, False, 3)
    text = ending(tmp_path, 60.0, True, 0)
    assert f"{tmp_path}/rollout_0.mp4" in text
    commands = text.replace("\\\n", " ").splitlines()
    for line in (line.split() for line in commands if line.startswith(("  worldmodel", "  python"))):
        assert parsed(tuple(line))
