"""Every command's --help answers at once: it lists all options and imports nothing heavy."""

import dataclasses
import json
import subprocess
import sys
import typing
from collections.abc import Iterator

import docstring_parser
import pytest

from streams.settings import PhysicsSettings, ScanSettings
from tools.bench.settings import (
    DeviceBenchSettings,
    LatentsSettings,
    RolloutBenchSettings,
    StreamsSettings,
    TrainBenchSettings,
)
from tools.checkpoint_time import CheckpointTimeSettings
from tools.kill_storm.settings import KillStormSettings
from worldmodel.settings import (
    DemoSettings,
    DoctorSettings,
    EvaluateCodecSettings,
    EvaluateSettings,
    RolloutSettings,
    TokenizerSettings,
    TrainSettings,
    WatchSettings,
)

HEAVY = [
    "torch",
    "deepspeed",
    "zarr",
    "av",
    "decord",
    "torchaudio",
    "kornia",
    "xformers",
    "matplotlib",
    "safetensors",
    "pyarrow",
    "aiohttp",
]
PROGRAM = f"""
import contextlib, importlib, io, json, sys
found = {{}}
for module, arguments in json.loads(sys.argv[1]):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        try:
            code = importlib.import_module(module).main(arguments)
        except SystemExit as end:
            code = end.code
    found[" ".join([module, *arguments])] = [code or 0, printed.getvalue()]
print(json.dumps([found, sorted(set({HEAVY!r}) & sys.modules.keys())]))
"""
CLASSES = {
    "worldmodel.cli demo --help": (DemoSettings, ""),
    "worldmodel.cli tokenizer --help": (TokenizerSettings, ""),
    "worldmodel.cli train --help": (TrainSettings, ""),
    "worldmodel.cli rollout --help": (RolloutSettings, ""),
    "worldmodel.cli evaluate --help": (EvaluateSettings, ""),
    "worldmodel.cli evaluate codec --help": (EvaluateCodecSettings, ""),
    "worldmodel.cli watch --help": (WatchSettings, ""),
    "worldmodel.cli doctor --help": (DoctorSettings, ""),
    "tools.videos physics --help": (PhysicsSettings, "world."),
    "tools.bench.__main__ streams --help": (StreamsSettings, ""),
    "tools.bench.__main__ latents --help": (LatentsSettings, ""),
    "tools.bench.__main__ train --help": (TrainBenchSettings, ""),
    "tools.bench.__main__ rollout --help": (RolloutBenchSettings, ""),
    "tools.bench.__main__ device --help": (DeviceBenchSettings, ""),
    "tools.videos scan --help": (ScanSettings, ""),
    "tools.kill_storm.__main__ --help": (KillStormSettings, ""),
    "tools.checkpoint_time --help": (CheckpointTimeSettings, ""),
}
OTHERS = {
    "worldmodel.cli --help": [
        "demo",
        "tokenizer",
        "train",
        "rollout",
        "evaluate",
        "watch",
        "doctor",
        "tools.latents",
        "tools.videos",
    ],
    "tools.latents --help": ["build", "merge", "info", "verify", "sample", "export"],
    "tools.latents build --help": [
        *("--codec", "--clips.num_frames", "--heldout", "--batch", "--overwrite", "--threads"),
        *("--workers", "--part", "--archive"),
    ],
    "tools.latents merge --help": ["cache", "--out", "--archive"],
    "tools.latents info --help": ["cache"],
    "tools.latents verify --help": ["--codec", "--num_clips"],
    "tools.latents sample --help": ["cache", "out", "--codec", "--num_clips"],
    "tools.latents export --help": ["cache", "folder", "--format", "--split", "--shard_clips"],
    "tools.videos --help": ["physics", "scan"],
    "tools.dct --help": ["run", "videos", "--num_clips"],
    "tools.fuzz --help": ["--num-files", "--seed", "--first", "--workers", "--limits.seconds_limit"],
    "tools.watch --help": ["address", "--clips.num_frames", "--live.buffer_seconds", "--out", "--seconds"],
    "tools.bench.__main__ --help": ["streams", "latents", "train", "rollout", "device"],
    "tools.scaling.__main__ --help": ["--measure", "--plot", "--machine.overlap", "--work.frames"],
    "tools.study.__main__ --help": ["--videos", "--out", "--base.tokenizer", "--variants", "--compare"],
}
RESUMED = ["worldmodel.cli tokenizer --help", "worldmodel.cli train --help"]


def options_of(settings_class: typing.Any, prefix: str) -> Iterator[str]:
    """The dotted option of every plain setting."""
    hints = typing.get_type_hints(settings_class)
    for field in dataclasses.fields(settings_class):
        if dataclasses.is_dataclass(hints[field.name]):
            yield from options_of(hints[field.name], f"{prefix}{field.name}.")
        else:
            yield f"--{prefix}{field.name}"


@pytest.fixture(scope="module")
def helps() -> tuple[dict[str, tuple[int, str]], list[str]]:
    """Exit status and text of every command's help, and what heavy was imported for all of them together."""
    commands = [(line.split()[0], line.split()[1:]) for line in [*CLASSES, *OTHERS]]
    program = [sys.executable, "-c", PROGRAM, json.dumps(commands)]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    found, heavy = json.loads(done.stdout)
    return found, heavy


def test_no_help_imports_anything_heavy(helps: tuple[dict, list[str]]):
    assert helps[1] == []


@pytest.mark.parametrize("command", [*CLASSES, *OTHERS])
def test_help_is_a_success(command: str, helps: tuple[dict, list[str]]):
    code, text = helps[0][command]
    assert code == 0
    assert text.startswith("usage: ")


@pytest.mark.parametrize("command", CLASSES)
def test_help_lists_every_option(command: str, helps: tuple[dict, list[str]]):
    settings_class, prefix = CLASSES[command]
    options = set(options_of(settings_class, prefix))
    assert len(options) >= 2
    words = set(helps[0][command][1].replace(",", " ").replace("[", " ").replace("]", " ").split())
    assert not options - words


@pytest.mark.parametrize("command", OTHERS)
def test_help_names_what_there_is(command: str, helps: tuple[dict, list[str]]):
    assert not [word for word in OTHERS[command] if word not in helps[0][command][1]]


@pytest.mark.parametrize("command", RESUMED)
def test_help_tells_how_a_run_is_resumed(command: str, helps: tuple[dict, list[str]]):
    assert "[--resume RUN]" in helps[0][command][1]


def unexplained(settings_class: typing.Any) -> Iterator[str]:
    """Plain settings that the docstring of their class does not explain."""
    hints = typing.get_type_hints(settings_class)
    explained = {entry.arg_name for entry in docstring_parser.parse(settings_class.__doc__ or "").params}
    for field in dataclasses.fields(settings_class):
        if dataclasses.is_dataclass(hints[field.name]):
            yield from unexplained(hints[field.name])
        elif field.name not in explained:
            yield f"{settings_class.__name__}.{field.name}"


@pytest.mark.parametrize("command", CLASSES)
def test_every_option_is_explained(command: str):
    assert list(unexplained(CLASSES[command][0])) == []


def test_help_shows_the_explanations(helps: tuple[dict, list[str]]):
    text = " ".join(helps[0]["worldmodel.cli rollout --help"][1].split())
    assert "--horizon HORIZON frames to imagine. (type: int, default: 32)" in text
    assert "--continue" in text
