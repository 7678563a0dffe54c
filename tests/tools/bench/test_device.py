import json
from pathlib import Path

import pytest
import torch

from tools.bench import device, untrained
from tools.bench.__main__ import main
from tools.bench.device import BOUNDS, RACES, judge, requirement, resolved, why_not_judged
from tools.bench.race import Finding, Race
from tools.bench.settings import DeviceBenchSettings

GPU = torch.device("cuda")
QUICK = ["device", "--quick", "--device=cpu", "--compile=false"]


def test_a_quick_run_prints_tables_traces_and_writes_all_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    numbers, trace = tmp_path / "numbers.json", tmp_path / "trace.json"
    assert main([*QUICK, f"--folder={tmp_path}", f"--output={numbers}", f"--trace={trace}"]) == 0
    printed = capsys.readouterr().out
    for part in (
        "peaks: ",
        "device: MFU, tiny",
        "frames per second",
        "one imagined frame of ours, tiny",
        "not judged: ",
    ):
        assert part in printed
    found = json.loads(numbers.read_text(encoding="utf-8"))
    assert {race["clock"] for race in found["races"]} == {"second"}
    values = {finding["task"]: finding["value"] for finding in found["findings"]}
    assert 0 < values["device: MFU, tiny"] <= 100
    assert found["table"] == []  # nothing is asked of the tiny one
    for path in (trace, tmp_path / "trace_frame.json"):
        assert len(json.loads(path.read_text(encoding="utf-8"))["traceEvents"]) > 100


def test_without_a_gpu_all_rows_are_printed_and_none_is_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "huge.yaml").write_text("model: {depth: 1}", encoding="utf-8")
    monkeypatch.setattr(untrained, "CONFIGS", tmp_path)
    few = ["--num_codes=21", "--num_frames=3", "--batch=1", "--rollout_batch=2", "--horizon=2", "--steps=1"]
    arguments = ["device", "--device=cpu", "--sizes=[huge]", "--rounds=1", "--compile=false", *few]
    assert main([*arguments, f"--folder={tmp_path}", f"--output={tmp_path / 'numbers.json'}"]) == 0
    printed = capsys.readouterr().out
    assert "not judged: what must be shown is asked of a GPU, and this ran on cpu" in printed
    table = json.loads((tmp_path / "numbers.json").read_text(encoding="utf-8"))["table"]
    assert [row["mark"] for row in table] == ["not judged"] * len(BOUNDS)
    assert all(row["value"] > 0 for row in table)


def test_on_a_gpu_rows_are_judged_by_what_is_asked_of_their_size():
    findings = [Finding(f"device: MFU, {size}", size, "ours", 44.0, "%") for size in ("medium", "large", "huge")]
    costs = {"ours": [1.0], "raster": [41.0]}
    races = [Race("device rollout, huge", "huge", "frames", costs, clock="second")]
    sizes = ["medium", "large", "huge", "small"]
    marks = [verdict.mark for verdict in judge(races, findings, sizes, judged=True)]
    assert marks == ["pass", "MISS", "MISS", "aim"]
    assert {verdict.mark for verdict in judge(races, findings, sizes, judged=False)} == {"not judged"}


def test_what_is_asked_of_a_gpu_is_asked_of_these_sizes_alone():
    assert why_not_judged(DeviceBenchSettings(), GPU) == ""
    assert "341 codes, 16 frames and 32 rollouts" in why_not_judged(DeviceBenchSettings(num_codes=85), GPU)
    assert "asked of a GPU, and this ran on cpu" in why_not_judged(DeviceBenchSettings(), torch.device("cpu"))


@pytest.mark.parametrize("row", BOUNDS)
def test_aims_are_not_below_what_must_be(row: str):
    for size in BOUNDS[row]:
        asked = requirement(row, size)
        assert asked.aim >= asked.must
        assert bool(asked.peer) == (row in RACES)


def test_a_gpu_computes_in_bf16_with_flex_unless_something_else_is_named():
    chosen = resolved(DeviceBenchSettings(), GPU)
    assert (chosen.precision, chosen.attention) == ("bf16", "flex")
    chosen = resolved(DeviceBenchSettings(precision="fp32", attention="xformers"), GPU)
    assert (chosen.precision, chosen.attention) == ("fp32", "xformers")
    chosen = resolved(DeviceBenchSettings(), torch.device("cpu"))
    assert (chosen.precision, chosen.attention) == ("fp32", "sdpa")


def test_a_size_that_does_not_fit_is_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def no_room(*_: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(device, "measure_training", no_room)
    assert main([*QUICK, f"--folder={tmp_path}"]) == 0
    captured = capsys.readouterr()
    assert "train, tiny does not fit the memory of cpu: passed over" in captured.err
    assert "device: latents, tiny" in captured.out


def test_an_unknown_size_is_one_line_and_a_status(capsys: pytest.CaptureFixture[str]):
    assert main(["device", "--device=cpu", "--sizes=[enormous]"]) == 1
    assert capsys.readouterr().err.startswith("error: sizes=enormous: no such model; give from_videos, huge, large, ")
