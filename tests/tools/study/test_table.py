from typing import Any

import pytest

from tools.study.table import at_psnr, comparison, table


def measures(psnr: float, bits: float, changed: float | None = 0.1) -> dict[str, Any]:
    return {
        "model_bits": bits,
        "rollout_psnr": {"1": 25.0, "2": 23.0, "4": 21.0},
        "drift": {"1": 0.125, "2": 0.25, "4": 0.5},
        "codec": {
            "psnr": {"mean": psnr, "low": psnr - 1, "high": psnr + 1},
            "bits_per_frame": {"alone": 4 * bits, "in_time": 2 * bits},
            "still_finest_codes": {"num_still": 9, "changed": changed},
        },
    }


def test_a_table_has_a_line_for_each_variant_and_horizons_that_all_have():
    lines = table({"a": measures(27.0, 100.0), "b": measures(28.0, 240.0, None)}, {})
    assert len(lines) == 4
    assert {line.count("|") for line in lines} == {11}
    assert lines[0].endswith("| rollout PSNR at 4 | drift of codes at 1 (bits) | drift of codes at 4 (bits) |")
    assert lines[2] == "| a | 27.00 | 100.0 | 400.0 | 200.0 | 10.0% | 25.00 | 21.00 | 0.125 | 0.500 |"
    assert "none is still" in lines[3]


def test_bits_at_equal_psnr_lie_on_the_line_between_two_points():
    assert at_psnr([(28.0, 300.0), (26.0, 200.0)], 27.5) == pytest.approx(275.0)
    assert at_psnr([(26.0, 200.0), (28.0, 300.0)], 28.0) == 300.0
    assert at_psnr([(26.0, 200.0), (28.0, 300.0)], 28.1) is None
    assert at_psnr([(26.0, 200.0)], 25.9) is None


def test_a_comparison_says_what_others_cost_at_the_psnr_of_one():
    others = {"few": measures(26.0, 200.0), "many": measures(28.0, 300.0)}
    lines = comparison("sticky", measures(27.0, 125.0), others)
    assert lines[0] == "At the PSNR of sticky (27.00 dB), between few, many:"
    assert lines[1] == "- the world model: 250.0 bits per frame, sticky 125.0 (0.50)"
    assert lines[2:] == [
        "- the range coder, alone: 1000.0 bits per frame, sticky 500.0 (0.50)",
        "- the range coder, in time: 500.0 bits per frame, sticky 250.0 (0.50)",
    ]


def test_no_comparison_goes_beyond_what_was_measured():
    (line,) = comparison("sticky", measures(28.5, 125.0), {"a": measures(26.0, 1.0), "b": measures(28.0, 2.0)})
    assert "nothing can be said, they have 26.00, 28.00 dB" in line
