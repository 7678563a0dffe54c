"""What the README tells a stranger is true: its commands parse, its files exist, the two commands come first."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from streams.physics.world import write_clip
from streams.settings import PhysicsSettings
from worldmodel.cli import _positional, _short
from worldmodel.config import parse
from worldmodel.settings import EvaluateSettings, RolloutSettings, TokenizerSettings, TrainSettings, WatchSettings

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
LINES = [line for block in BLOCKS for line in block.replace("\\\n", " ").splitlines() if line.strip()]
COMMANDS = [line for line in LINES if line.startswith("worldmodel ")]
SETTINGS = {
    "tokenizer": TokenizerSettings,
    "train": TrainSettings,
    "rollout": RolloutSettings,
    "evaluate": EvaluateSettings,
    "watch": WatchSettings,
}


def test_the_two_commands_stand_before_line_twenty() -> None:
    head = "\n".join(README.splitlines()[:20])
    assert "make demo" in head
    assert "make test" in head


def test_the_first_line_after_the_title_is_one_sentence() -> None:
    paragraph = README.split("\n\n")[1]
    assert paragraph.count(". ") == 0
    assert paragraph.endswith(".")


def test_every_file_and_folder_it_links_to_exists() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README) + re.findall(r"(?:configs|slurm|docs)/[\w/]+\.\w+", README)
    assert len(links) > 5
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_room_of_the_map_exists() -> None:
    rooms = re.findall(r"^\| `([\w/]+)/` \|", README, re.MULTILINE)
    assert len(rooms) >= 8
    assert [room for room in rooms if not (ROOT / room).is_dir()] == []


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_is_understood(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    _, command, *arguments = shlex.split(line.partition("#")[0])
    if command in ("rollout", "evaluate", "watch"):
        arguments = _short(_positional(arguments, "run", *(["address"] if command == "watch" else [])))
    assert parse(SETTINGS[command], arguments)


# What makes the commands for one's own videos short: a few steps, and few clips.
FEW_STEPS = "--training.steps 2 --training.preview_every 0 --loader.batch_size 2 --loader.num_workers 0"
SHORTER = {
    "tokenizer": FEW_STEPS,
    "train": FEW_STEPS,
    "evaluate": "--num_clips 2 --horizon 2",
    "rollout": "--horizon 2",
}


def test_the_commands_for_own_videos_run_as_they_stand(tmp_path: Path) -> None:
    (tmp_path / "VIDEOS").mkdir()
    for seed in range(3):
        write_clip(tmp_path / "VIDEOS", PhysicsSettings(seconds=5.0, max_discs=1), seed)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "VIDEO").symlink_to(tmp_path / "VIDEOS" / "physics_0000000.mp4")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"}
    (scan,) = [block for block in BLOCKS if "tools.videos scan" in block]
    (block,) = [block for block in BLOCKS if "tokenizer" in block]
    lines = [line for line in (scan + block).splitlines() if line and not line.startswith("source ")]
    assert len(lines) >= 8
    for line in lines:
        program, *arguments = shlex.split(line)
        if program == "worldmodel":
            arguments = ["-m", program, *arguments, *shlex.split(SHORTER[arguments[0]])]
        done = subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        beaten = 3 if " evaluate " in line else 0  # two steps beat no baseline
        assert done.returncode in (0, beaten), f"{line}\n{done.stdout}\n{done.stderr}"
    assert (tmp_path / "videos.parquet").is_file()
    assert (tmp_path / "videos.png").is_file()
    assert (tmp_path / "out.mp4").is_file()
    assert (tmp_path / "longer.mp4").is_file()
