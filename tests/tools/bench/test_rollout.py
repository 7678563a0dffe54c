import json
from functools import partial
from itertools import islice
from pathlib import Path

import pytest
import torch

from tools.bench.__main__ import main
from tools.bench.rollout import COMPILED, PLAIN, ROLLERS, cached, compile_time, race_of
from tools.bench.settings import RolloutBenchSettings
from tools.bench.untrained import build_model, random_codes
from worldmodel.rollouts import repeated
from worldmodel.rollouts.repeated import Repeat

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
    for name in (
        "processor:",
        "eager or compiled / cached decode",
        "cost of frame 1000 / frame 10",
        "numbers.json",
    ):
        assert name in printed
    numbers = json.loads((tmp_path / "numbers.json").read_text(encoding="utf-8"))
    assert set(numbers["races"][0]["costs"]) == {"ours", *ROLLERS, "bf16", "int8", "fp8"}
    tasks = [finding["task"] for finding in numbers["findings"]]
    assert tasks == ["rollout: same codes", "rollout: flat cost", "rollout: flat memory"]


@torch.inference_mode()
def test_compiled_frames_and_light_weights_are_in_the_race(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(repeated, "compiled_advance", lambda on_cpu: repeated.advance)
    settings = RolloutBenchSettings(context_frames=2, horizon=4, rounds=2, window_frames=4)
    model, compiled = build_model(21, 32, 1, window_frames=4), partial(cached, how=Repeat(compiled=True))
    assert "with 12 frames, of whose codes 0 differ" in compile_time(compiled, model, settings).note
    race = race_of(model, {PLAIN: cached, COMPILED: compiled}, settings)
    assert set(race.costs) == {"ours", PLAIN, COMPILED, "bf16", "int8", "fp8"}
    assert race.costs["ours"] == race.costs[race.forms["ours"]]
    assert race.forms["ours"] in (PLAIN, COMPILED)


@torch.no_grad()
def test_all_but_the_decode_code_by_code_imagine_the_same():
    model, prompt = build_model(21, 32, 2), random_codes(1, 3, 21)
    frames = {
        name: torch.stack(list(islice(roll(model, prompt, torch.Generator().manual_seed(1)), 5)), 1)
        for name, roll in ROLLERS.items()
    }
    assert torch.equal(frames[PLAIN], frames["uncached"])
    assert torch.equal(frames[PLAIN], frames["states anew"])
    assert frames["raster"].shape == frames[PLAIN].shape
