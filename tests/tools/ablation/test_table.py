from pathlib import Path
from typing import Any

from PIL import Image

from tools.ablation.table import draw, table


def measures(bits: float, psnr: float) -> dict[str, Any]:
    return {
        "parameters": 1_500_000,
        "steps": 20,
        "bits": bits,
        "clip_bits": [bits - 1, bits, bits + 1],
        "changed_bits": bits / 2,
        "rollouts": {"drawn": {"psnr": {"1": psnr, "4": psnr - 1}, "changes": 0.25}},
        "copy_psnr": {"1": 20.0, "4": 17.5},
        "true_changes": 0.125,
    }


def test_every_candidate_has_a_line_below_the_copy_and_the_truth():
    lines = table({"one": measures(100.0, 21.0), "other": measures(90.0, 22.0)})
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert len({len(row) for row in cells}) == 1
    assert cells[0][-4:] == ["sampling", "PSNR at 1", "PSNR at 4", "codes that change"]
    assert cells[2][0] == "copy of the last frame"
    assert cells[2][-3:] == ["20.00", "17.50", "0.0%"]
    assert cells[3][-1] == "12.5%"
    assert cells[4] == [
        "one", "1.50 M", "20", "100.0", "", "50.0", "drawn", "21.00", "20.00", "25.0%"
    ]  # fmt: skip
    # Each clip of the other needs ten bits less, so the interval has no width.
    assert cells[5][:5] == ["other", "1.50 M", "20", "90.0", "-10.0 … -10.0"]


def test_the_picture_is_a_picture(tmp_path: Path):
    draw({"one": measures(100.0, 21.0), "other": measures(90.0, 22.0)}, tmp_path / "ablation.png")
    with Image.open(tmp_path / "ablation.png") as picture:
        assert picture.size[0] > picture.size[1] > 100
