"""What the README tells a stranger is true: its commands parse, its files exist, the two commands come first."""

import re
import shlex
from pathlib import Path

import pytest

from worldmodel.cli import _positional, _short
from worldmodel.config import parse
from worldmodel.settings import EvaluateSettings, RolloutSettings, TokenizerSettings, TrainSettings

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
    if command in ("rollout", "evaluate"):
        arguments = _short(_positional(arguments, "run"))
    assert parse(SETTINGS[command], arguments)
