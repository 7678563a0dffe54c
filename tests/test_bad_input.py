"""What a user can get wrong ends in one line that says what to do, and leaves what was there before as it was."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.worldmodel.whole_run import WholeRun
from tools.latents import main as latents
from tools.videos import main as videos
from worldmodel.cli import main

Capture = pytest.CaptureFixture[str]


def snapshot(folder: Path) -> dict[str, str]:
    """Hash of every file but those of a run that is to begin."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "run" not in path.relative_to(folder).parts
    }


@pytest.fixture
def refused(capsys: Capture, kept_signals: None, tmp_path: Path) -> Callable[..., str]:
    """Runs a command that must be refused; returns what it says."""

    def run(*arguments: object, command: Callable[[list[str]], int] = main) -> str:
        before = snapshot(tmp_path)
        capsys.readouterr()
        assert command([str(argument) for argument in arguments]) in (1, 2)
        error = capsys.readouterr().err
        # A training may have said what it runs on, and a bar how far it was, before.
        lines = [line for line in error.splitlines() if line and "training on" not in line and "|" not in line]
        assert "Traceback" not in error
        assert len(lines) == 1, error
        assert lines[0].startswith("error: "), error
        assert snapshot(tmp_path) == before, "something was changed"
        return lines[0]

    return run


def tokenizer_options(whole: WholeRun, run: Path, kind: str = "picture") -> list[str]:
    """The command line of a codec's run of the fixture, for another folder."""
    return ["tokenizer", "--config", str(getattr(whole, kind) / "settings.yaml"), "--run", str(run)]


def train_options(whole: WholeRun, run: Path) -> list[str]:
    """The command line of the fixture's world, for another folder."""
    return ["train", "--config", str(whole.world / "settings.yaml"), "--run", str(run)]


def test_a_folder_that_is_not_there(refused: Callable[..., str], tmp_path: Path):
    gone = tmp_path / "gone"
    assert "no such file or folder" in refused("tokenizer", "--videos", gone, "--run", tmp_path / "run")
    assert "no such file or folder" in refused("scan", gone, command=videos)
    assert "holds no codec" in refused("evaluate", "codec", gone, "--videos", gone)
    assert "is not a run" in refused("evaluate", gone)
    assert "is not a run" in refused("rollout", gone, "--prompt", gone, "--out", tmp_path / "out.mp4")
    assert "there is nothing to resume" in refused("train", "--resume", gone)
    assert "there is no latent cache" in refused("info", gone, command=latents)
    assert "is not a file" in refused("train", "--config", gone)


def test_an_empty_folder(refused: Callable[..., str], tmp_path: Path):
    (tmp_path / "empty").mkdir()
    assert "no videos there" in refused("tokenizer", "--videos", tmp_path / "empty", "--run", tmp_path / "run")
    assert "no videos there" in refused("scan", tmp_path / "empty", command=videos)
    assert "is not a run" in refused("evaluate", tmp_path / "empty")
    assert "there is nothing to resume" in refused("tokenizer", "--resume", tmp_path / "empty")
    assert "there is no latent cache" in refused("verify", tmp_path / "empty", command=latents)


def test_a_text_that_calls_itself_a_video(refused: Callable[..., str], tmp_path: Path, whole_run: WholeRun):
    (tmp_path / "videos").mkdir()
    text = tmp_path / "videos" / "notes.mp4"
    text.write_text("nothing moves here\n" * 100)
    options = [*tokenizer_options(whole_run, tmp_path / "run"), "--videos", str(tmp_path / "videos")]
    assert "no clip can be read from 1 files" in refused(*options)
    out = ["--out", tmp_path / "out.mp4"]
    assert "notes.mp4" in refused("rollout", whole_run.world, "--prompt", text, *out)


def test_a_misspelt_setting(refused: Callable[..., str], tmp_path: Path, whole_run: WholeRun):
    config = tmp_path / "config.yaml"
    config.write_text("training: {step: 3}\n")
    options = train_options(whole_run, tmp_path / "run")
    assert "did you mean training.steps" in refused(*options, "--config", config)
    assert "did you mean training.steps" in refused(*options, "--steps", 3)
    assert "training.steps" in refused(*options, "--training.steps", "many")
    assert "videos" in refused("tokenizer", "--run", tmp_path / "run")
    assert "choose from demo, tokenizer" in refused("tokenise")
    assert "--resume needs the folder" in refused("train", "--resume")


def test_codecs_that_are_none_or_did_not_make_the_cache(
    refused: Callable[..., str], tmp_path: Path, whole_run: WholeRun
):
    options = train_options(whole_run, tmp_path / "run")
    (tmp_path / "run_of_nothing").mkdir()
    assert "holds no codec" in refused(*options, "--codecs", tmp_path / "run_of_nothing")
    assert "holds no codec" in refused(*options, "--codecs", whole_run.world)
    evaluate = ["evaluate", "codec", tmp_path / "run_of_nothing", "--videos", whole_run.videos]
    assert "holds no codec" in refused(*evaluate)
    assert "was made with sound codec" in refused(*options, "--codecs", whole_run.picture)
    shutil.copytree(whole_run.picture, tmp_path / "other")
    about = tmp_path / "other" / "codec.json"
    about.write_text(about.read_text().replace('"sticky_margin": 0.05', '"sticky_margin": 0.2'))
    assert "was made with picture codec" in refused(*options, "--codecs", tmp_path / "other", whole_run.sound)
    build = ["build", whole_run.videos, tmp_path / "out.zarr"]
    assert "holds no codec" in refused(*build, "--codec", tmp_path / "run_of_nothing", command=latents)
    assert "picture" in refused(*build, "--codec", whole_run.sound, command=latents)


def test_a_cache_that_cannot_be_used(refused: Callable[..., str], tmp_path: Path, whole_run: WholeRun):
    options = train_options(whole_run, tmp_path / "run")
    assert "there is no latent cache" in refused(*options, "--cache", tmp_path / "none.zarr")
    assert "num_frames 100 does not fit" in refused(*options, "--num_frames", 100)
    shutil.copytree(whole_run.cache, tmp_path / "broken.zarr")
    next(path for path in (tmp_path / "broken.zarr" / "picture" / "c").rglob("*") if path.is_file()).unlink()
    assert "broken.zarr" in refused(*options, "--cache", tmp_path / "broken.zarr")


def test_a_run_is_not_resumed_as_another_model(refused: Callable[..., str], tmp_path: Path, whole_run: WholeRun):
    shutil.copytree(whole_run.world, tmp_path / "world")
    wider = ["--model.trunk.dim", 64, "--model.decoder.dim", 64]
    error = refused("train", "--resume", tmp_path / "world", "--training.steps", 8, *wider)
    assert "is of another model: model.decoder.dim is 32 there and 64 here" in error
    shutil.copytree(whole_run.picture, tmp_path / "picture")
    error = refused("tokenizer", "--resume", tmp_path / "picture", "--training.steps", 8, "--picture.channels", 8)
    assert "is of another model: picture.channels is 16 there and 8 here" in error


def test_a_run_that_is_there_is_not_begun_again(refused: Callable[..., str], tmp_path: Path, whole_run: WholeRun):
    shutil.copytree(whole_run.world, tmp_path / "world")
    deeper = ["--model.trunk.depth", 1]
    assert "already has checkpoints" in refused(*train_options(whole_run, tmp_path / "world"), *deeper)
    shutil.copytree(whole_run.picture, tmp_path / "picture")
    options = tokenizer_options(whole_run, tmp_path / "picture")
    assert "already has checkpoints" in refused(*options, "--picture.channels", 8)
    error = refused("build", whole_run.videos, tmp_path / "picture", "--codec", whole_run.picture, command=latents)
    assert "exists already" in error


def test_a_checkpoint_of_another_model_or_a_damaged_one(
    refused: Callable[..., str], tmp_path: Path, whole_run: WholeRun
):
    shutil.copytree(whole_run.world, tmp_path / "world")
    settings = tmp_path / "world" / "settings.yaml"
    settings.write_text(settings.read_text().replace("depth: 2", "depth: 1"))
    assert "are of another model than its settings.yaml" in refused("evaluate", tmp_path / "world")
    for weights in (tmp_path / "world").rglob("weights.safetensors"):
        weights.write_bytes(weights.read_bytes()[:-8])
    assert "no complete checkpoint" in refused("evaluate", tmp_path / "world")
    assert "no complete checkpoint" in refused("train", "--resume", tmp_path / "world")
    about = next((tmp_path / "world").rglob("codec.json"))
    about.write_text(json.dumps({"format": 7}))
    assert "error" in refused("evaluate", tmp_path / "world")


@pytest.mark.parametrize(
    ("command", "options", "named"),
    [
        ("tokenizer", ["--clips.height", 48], "48x16"),
        ("tokenizer", ["--training.steps", 0], "steps"),
        ("tokenizer", ["--loader.batch_size", 0], "batch_size"),
        ("train", ["--model.patch", 3], "model.patch=3"),
        (
            "train",
            ["--model.depth", 2],
            "model.depth=2 makes model.trunk 128 wide and 2 deep, but its size is given too",
        ),
        ("train", ["--model.trunk.dim", 64], "model.trunk.dim=64"),
        ("train", ["--model.trunk.num_heads", 5, "--model.decoder.num_heads", 5], "num_heads"),
        ("train", ["--num_frames", 4], "num_frames"),  # too short for the heads, which skip the first two frames
        ("train", ["--model.trunk.attention", "xformers"], "attention=xformers needs a CUDA device"),
        ("evaluate", ["--horizon", 0], "horizon"),
        ("evaluate", ["--context_frames", 0], "context_frames"),
        ("evaluate", ["--num_clips", 0], "num_clips"),
    ],
)
def test_settings_that_contradict_each_other(
    command: str, options: list, named: str, refused: Callable[..., str], tmp_path: Path, whole_run: WholeRun
):
    begin = {
        "tokenizer": tokenizer_options(whole_run, tmp_path / "run"),
        "train": train_options(whole_run, tmp_path / "run"),
        "evaluate": ["evaluate", str(whole_run.world)],
    }[command]
    assert named in refused(*begin, *options)


def test_the_program_ends_with_one_line_and_a_status_and_no_traceback(tmp_path: Path):
    command = [sys.executable, "-m", "worldmodel", "tokenizer", "--videos", str(tmp_path / "gone"), "--run", "run"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert not list(tmp_path.iterdir())
