import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch._C._autograd import DeviceType

from tools.bench.__main__ import main
from tools.bench.trace import dearest, print_trace

CPU = torch.device("cpu")


def test_a_trace_is_events_in_json_and_a_table_that_names_the_dearest_operation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    one = torch.ones(256, 256)
    print_trace(lambda: torch.mm(one, one), str(tmp_path / "new" / "trace.json"), CPU, "one product")
    events = json.loads((tmp_path / "new" / "trace.json").read_text(encoding="utf-8"))["traceEvents"]
    assert "aten::mm" in {event.get("name") for event in events}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["trace.json"]
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "one product, under torch's profiler:"
    assert "aten::mm 1" in [" ".join(line.split()[:2]) for line in printed]
    assert printed[-2] == f"trace: {tmp_path / 'new' / 'trace.json'}"


def event(name: str, kind: DeviceType, cpu: float, device: float, annotation: bool = False) -> SimpleNamespace:
    return SimpleNamespace(
        is_user_annotation=annotation,
        key=name,
        count=2,
        device_type=kind,
        self_cpu_time_total=cpu,
        self_device_time_total=device,
    )


def test_shares_are_of_all_operations_and_ten_are_shown():
    events = [event(f"small{number}", DeviceType.CPU, 10.0, 0.0) for number in range(20)]
    lines = dearest([*events, event("large", DeviceType.CPU, 200.0, 0.0)], CPU).splitlines()
    assert lines[2].split() == ["large", "2", "0.20", "50.0%"]
    assert len(lines) == 2 + 10


def test_on_a_gpu_only_kernels_count():
    # The profiler tells an operation of the CPU how long the kernels took that it started, and a named stretch too.
    events = [
        event("aten::mm", DeviceType.CPU, 900.0, 30.0),
        event("Optimizer.step", DeviceType.CUDA, 0.0, 30.0, annotation=True),
        event("sgemm", DeviceType.CUDA, 0.0, 30.0),
    ]
    assert dearest(events, torch.device("cuda")).splitlines()[2:] == ["sgemm      2      0.03  100.0%"]


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["train", "--codes=[21]", "--num_frames=4", "--steps=1", "--compile=false"], "one step of ours as it is"),
        (["rollout", "--codes=[21]", "--context_frames=2", "--horizon=4", "--late_frame=12"], "one frame of ours"),
    ],
)
def test_a_benchmark_traces_ours(arguments: list[str], what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    trace = tmp_path / "trace.json"
    tiny = ["--dim=32", "--depth=1", "--rounds=1", f"--folder={tmp_path}", f"--trace={trace}"]
    assert main([*arguments, *tiny]) == 0
    assert what in capsys.readouterr().out
    names = {event.get("name") for event in json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]}
    assert "aten::mm" in names
    assert any(str(name).startswith("aten::") and "backward" in str(name) for name in names) == ("step" in what)
