import json
import subprocess
import sys
from pathlib import Path

import pytest

from tools.bench.__main__ import build_parser, main
from tools.bench.footage import Footage
from tools.bench.settings import StreamsSettings
from tools.bench.streams import TASKS, chosen_tasks


def test_a_run_prints_a_table_and_writes_all_numbers(
    footage: list[Footage], settings: StreamsSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    output = tmp_path / "numbers.json"
    options = ["--heights=[64]", "--gops=[12]", "--seconds=3", "--rounds=1", "--round_seconds=0.02"]
    tasks = "--tasks=[in_order,random,quality]"
    assert main(["streams", tasks, *options, f"--folder={settings.folder}", f"--output={output}"]) == 0
    printed = capsys.readouterr().out
    for name in ("processor:", "load:", "files in order / TorchCodec exact", "quality", str(output)):
        assert name in printed
    numbers = json.loads(output.read_text(encoding="utf-8"))
    assert numbers["settings"]["rounds"] == 1
    tasks_run = {race["task"] for race in numbers["races"]} | {found["task"] for found in numbers["findings"]}
    assert tasks_run == {"in_order", "random, stride 1", "random, stride 4", "quality"}
    in_order = next(race for race in numbers["races"] if race["task"] == "in_order")
    assert {"ours", "torchcodec", "decord", "pyav"} == set(in_order["costs"])
    row = next(row for row in numbers["table"] if row["requirement"]["tasks"] == "in_order")
    ratio = in_order["costs"]["torchcodec"][0] / in_order["costs"]["ours"][0]
    assert row["value"] == pytest.approx(ratio)
    assert row["mark"] == ("aim" if ratio >= 1.6 else "pass" if ratio >= 1.35 else "MISS")
    assert [path.name for path in tmp_path.iterdir()] == ["numbers.json"]


def test_an_unknown_task_is_one_line_and_a_status(capsys: pytest.CaptureFixture[str]):
    assert main(["streams", "--tasks=[nonsense]"]) == 1
    assert capsys.readouterr().err.startswith("error: tasks nonsense: unknown; there are in_order, random, ")


def test_memory_is_measured_only_when_it_is_asked_for():
    assert chosen_tasks(StreamsSettings()) == [name for name in TASKS if name != "memory"]
    assert chosen_tasks(StreamsSettings(long=True)) == list(TASKS)
    assert chosen_tasks(StreamsSettings(tasks=["quality", "in_order"])) == ["in_order", "quality"]
    assert chosen_tasks(StreamsSettings(tasks=["memory"])) == ["memory"]


def test_flags_need_no_value():
    parsed = build_parser().parse_args(["streams", "--quick", "--long"])
    assert (parsed.streams.quick, parsed.streams.long) == (True, True)


def test_help_imports_nothing_heavy():
    program = "import sys; from tools.bench.__main__ import build_parser; build_parser(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
