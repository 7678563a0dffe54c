import shutil
from pathlib import Path

import pytest

from tests.worldmodel.training.toy import Toy, train_toy
from tools.kill_storm.verdict import different_curves, different_ends, leftovers


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, the same one in two parts, and another."""
    folder = tmp_path_factory.mktemp("runs")
    for name, steps in (("whole", (6,)), ("parts", (3, 6))):
        for number in steps:
            train_toy(folder / name, steps=number, resume=number != steps[0], report_every=1, warmup_steps=0)
    train_toy(folder / "other", Toy(noise=0.3), report_every=1, warmup_steps=0)
    return folder


def test_the_same_run_is_the_same(runs: Path):
    assert different_ends(runs / "whole", runs / "whole") == []
    assert different_curves(runs / "whole", runs / "whole") == []
    assert leftovers(runs / "whole", runs / "whole") == []


def test_another_run_differs_in_its_last_checkpoint_and_its_curve(runs: Path):
    found = different_ends(runs / "other", runs / "whole")
    assert "weights.safetensors of step_00000006 differs" in found
    assert "optimizer_0000.safetensors of step_00000006 differs" in found
    assert different_curves(runs / "other", runs / "whole") == ["the curve of the loss differs in 12 points of 6"]


def test_a_last_checkpoint_that_is_missing_or_damaged_is_told(runs: Path, tmp_path: Path):
    run = tmp_path / "whole"
    shutil.copytree(runs / "whole", run)
    with (run / "checkpoints" / "step_00000006" / "random_0000.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")
    (told,) = different_ends(run, runs / "whole")
    assert told.startswith("the last whole checkpoints are None and ")


def test_what_is_left_over_is_named(runs: Path, tmp_path: Path):
    run = tmp_path / "whole"
    shutil.copytree(runs / "whole", run)
    (run / "checkpoints" / ".step_00000009.partial").mkdir()
    (run / "tensorboard" / "events.out.tfevents.another").touch()
    assert leftovers(run, runs / "whole") == ["checkpoints/.step_00000009.partial is left over"]
