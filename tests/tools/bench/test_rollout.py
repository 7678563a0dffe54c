import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch

from tools.bench.__main__ import main
from tools.bench.rollout import ROLLERS, going_on
from tools.bench.settings import RolloutBenchSettings
from tools.bench.untrained import build_model, random_codes

TINY = [
    "--codes=[21]",
    "--dim=32",
    "--depth=1",
    "--context_frames=2",
    "--horizon=4",
    "--rounds=1",
    "--late_frame=12",
    "--compile=false",
]


def test_a_run_prints_tables_and_writes_all_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["rollout", *TINY, f"--folder={tmp_path}", f"--output={tmp_path / 'numbers.json'}"]) == 0
    printed = capsys.readouterr().out
    for name in ("processor:", "rollout / cached decode code by code", "cost of frame 1000 / frame 10", "numbers.json"):
        assert name in printed
    numbers = json.loads((tmp_path / "numbers.json").read_text(encoding="utf-8"))
    assert set(numbers["races"][0]["costs"]) == {"ours", "uncached", "states anew", "raster"}
    tasks = [finding["task"] for finding in numbers["findings"]]
    assert tasks == ["rollout: same codes", "rollout: flat cost", "rollout: flat memory"]


@torch.inference_mode()
def test_a_compiled_rollout_and_light_ones_go_on_beside_one_that_is_neither(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch, "compile", lambda advance, **_: advance)
    settings = RolloutBenchSettings(context_frames=2, horizon=4, rounds=2, window_frames=4)
    race, [seconds] = going_on(build_model(21, 32, 1, window_frames=4), settings)
    assert set(race.costs) == {"ours", "ours as it is", "bf16", "int8", "fp8"}
    assert len(race.costs["ours"]) == 2
    assert race.forms == {"ours": "compiled"}
    assert "of whose codes 0 differ" in seconds.note
    race, none = going_on(build_model(21, 32, 1, window_frames=4), replace(settings, compile=False, weights=["bf16"]))
    assert (set(race.costs), race.forms, none) == ({"ours", "bf16"}, {"ours": "ours as it is"}, [])


@torch.no_grad()
def test_all_but_the_decode_code_by_code_imagine_the_same():
    model, prompt = build_model(21, 32, 2), random_codes(1, 3, 21)
    frames = {
        name: torch.stack(list(islice(roll(model, prompt, torch.Generator().manual_seed(1)), 5)), 1)
        for name, roll in ROLLERS.items()
    }
    assert torch.equal(frames["ours"], frames["uncached"])
    assert torch.equal(frames["ours"], frames["states anew"])
    assert frames["raster"].shape == frames["ours"].shape
