import json
from pathlib import Path

import pytest
import torch

from tools.bench.__main__ import main
from tools.bench.settings import SizesSettings
from tools.bench.sizes import RULES, coordinates, moving_codes, slope

SMALL = SizesSettings(depths=[1, 2, 4], codes=5, num_frames=3, batch=2, check_steps=3, seeds=[0])


def test_a_quick_run_prints_both_tables_and_writes_numbers_and_a_plot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    output = tmp_path / "numbers.json"
    assert main(["sizes", "--quick", f"--folder={tmp_path}", f"--output={output}"]) == 0
    printed = capsys.readouterr().out
    for name in ("moved after 1 steps", "bits per frame in the last quarter of 4 steps", "depth 2", "exponent"):
        assert name in printed
    numbers = json.loads(output.read_text(encoding="utf-8"))
    assert numbers["rates"].keys() == numbers["coordinates"].keys() == RULES.keys()
    assert (tmp_path / "numbers.png").read_bytes().startswith(b"\x89PNG")


def test_codes_move_round_the_grid_and_are_the_same_for_the_same_step():
    codes = moving_codes(SMALL, 0, 4)
    assert codes.shape == (2, 3, 5)
    assert torch.equal(codes, moving_codes(SMALL, 0, 4))
    assert not torch.equal(codes, moving_codes(SMALL, 0, 5))
    for clip in codes:
        one, two, three = clip[:, 1:].reshape(3, 2, 2)
        shifts = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
        steps = [torch.equal(one.roll(s, (0, 1)), two) and torch.equal(two.roll(s, (0, 1)), three) for s in shifts]
        assert any(steps)
        assert (clip[:, 0] == clip[0, 0]).all()


def test_a_slope_is_the_exponent_of_the_width():
    assert slope([64, 128, 256], [2.0, 4.0, 8.0]) == pytest.approx(1)
    assert slope([64, 128, 256], [3.0, 3.0, 3.0]) == pytest.approx(0)


def test_by_the_rule_layers_move_as_far_at_every_width_and_without_it_farther():
    widths = [64, 128, 256]
    exponents = {rule: slope(widths, coordinates(objective, SMALL)["trunk 1"]) for rule, objective in RULES.items()}
    assert abs(exponents["by width"]) < 0.35
    assert exponents["the same for all"] > exponents["by width"] + 0.3
