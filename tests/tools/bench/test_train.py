import copy
import json
from pathlib import Path

import pytest
import torch

from tools.bench import train
from tools.bench.__main__ import main
from tools.bench.train import (
    COMPILED,
    NO_HEADS,
    require_same,
    require_same_gradients,
    training_step,
)
from tools.bench.untrained import batch_of, build_model, random_codes, with_attention
from worldmodel.errors import SettingsError
from worldmodel.objective import WorldObjective

TINY = ["--codes=[21]", "--patches=[2]", "--dim=32", "--depth=1", "--num_frames=4", "--rounds=1", "--steps=1"]
PLAIN = [*TINY, "--compile=false"]


def test_a_run_prints_tables_and_writes_all_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["train", *PLAIN, f"--folder={tmp_path}", f"--output={tmp_path / 'numbers.json'}"]) == 0
    printed = capsys.readouterr().out
    for name in ("processor:", "21 codes in 4 tokens", "train: MFU", "numbers.json"):
        assert name in printed
    numbers = json.loads((tmp_path / "numbers.json").read_text(encoding="utf-8"))
    assert set(numbers["races"][0]["costs"]) == {"ours", "ours as it is", "dense mask"}
    found = {finding["task"]: finding["value"] for finding in numbers["findings"]}
    assert found["train: same outputs"] <= 1e-5
    assert 0 < found["train: MFU"] <= 100


def test_in_bf16_the_masked_call_runs_in_fp32_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["train", *PLAIN, "--bf16=true", f"--folder={tmp_path}", f"--output={tmp_path / 'numbers.json'}"]) == 0
    assert "train in bf16: 21 codes" in capsys.readouterr().out
    numbers = json.loads((tmp_path / "numbers.json").read_text(encoding="utf-8"))
    assert set(numbers["races"][0]["costs"]) == {"ours", "ours as it is", "dense mask", "dense mask in fp32"}


def test_a_step_in_bf16_learns_what_one_in_fp32_learns_but_for_its_rounding():
    model, batch = build_model(21, 32, 1), batch_of(random_codes(1, 4, 21))
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    moved = []
    for bf16 in (False, True):
        copied = copy.deepcopy(model)
        torch.manual_seed(0)  # of the frames that are drawn
        training_step(copied, batch, bf16)()
        moved.append(torch.cat([(now - before[name]).flatten() for name, now in copied.named_parameters()]))
    assert moved[0].abs().max() > 0
    assert not torch.equal(*moved)
    assert torch.cosine_similarity(*moved, dim=0) > 0.8  # AdamW's first step is the gradient's sign


def test_a_model_that_computes_something_else_is_not_in_the_race():
    model, batch = build_model(21, 32, 1), batch_of(random_codes(1, 4, 21))
    assert require_same(model, with_attention(model, "dense"), batch) <= 1e-5
    with pytest.raises(AssertionError, match="the outputs differ by"):
        require_same(model, build_model(21, 32, 1, window_frames=1), batch)


def test_a_number_of_codes_without_a_pyramid_is_one_line_and_a_status(capsys: pytest.CaptureFixture[str]):
    assert main(["train", "--codes=[50]"]) == 1
    assert capsys.readouterr().err.startswith("error: codes=50: no pyramid of squares")


def test_a_model_that_learns_something_else_is_not_in_the_race():
    batch = batch_of(random_codes(1, 4, 21))
    ours, same, other = (
        WorldObjective(build_model(21, 32, 1, window_frames=frames), NO_HEADS).train() for frames in (8, 8, 1)
    )
    assert require_same_gradients(ours, same, batch) == 0
    with pytest.raises(AssertionError, match="the gradients differ by"):
        require_same_gradients(ours, other, batch)


def test_without_a_compiler_ours_runs_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def nothing_there(device: object) -> None:
        raise SettingsError("no g++")

    monkeypatch.setattr(train, "require_compiler", nothing_there)
    assert main(["train", *TINY, f"--folder={tmp_path}"]) == 0
    printed = capsys.readouterr()
    assert "not compiled: no g++" in printed.err
    assert COMPILED not in printed.out
