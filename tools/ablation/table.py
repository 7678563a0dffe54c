"""The table of an ablation, and its picture: a line for each candidate."""

from pathlib import Path
from typing import Any

import numpy as np

from worldmodel.evaluation.metrics import bootstrap_interval
from worldmodel.evaluation.plots import plot_candidates

Measures = dict[str, Any]


def table(candidates: dict[str, Measures]) -> list[str]:
    """The measures of candidates as lines of markdown; bits are compared with those of the first, clip by clip."""
    first = next(iter(candidates.values()))
    horizons = list(first["copy_psnr"])
    heads = ["candidate", "parameters", "steps", "bits per frame", "more than the first (95 %)", "of codes that change"]
    heads += ["sampling", *(f"PSNR at {each}" for each in horizons), "codes that change"]
    lines = [_row(heads), _row(["---"] * len(heads))]
    copies = [f"{value:.2f}" for value in first["copy_psnr"].values()]
    lines.append(_row(["copy of the last frame", *[""] * 6, *copies, "0.0%"]))
    lines.append(_row(["truth", *[""] * (6 + len(horizons)), f"{first['true_changes']:.1%}"]))
    for name, found in candidates.items():
        cells = [name, f"{found['parameters'] / 1e6:.2f} M", str(found["steps"]), f"{found['bits']:.1f}"]
        more = "" if found is first else "{:+.1f} … {:+.1f}".format(*more_bits(found, first))
        cells += [more, f"{found['changed_bits']:.1f}"]
        for sampling, rollout in found["rollouts"].items():
            values = [f"{rollout['psnr'][each]:.2f}" for each in horizons]
            lines.append(_row([*cells, sampling, *values, f"{rollout['changes']:.1%}"]))
            cells = [""] * len(cells)
    return lines


def more_bits(found: Measures, first: Measures) -> tuple[float, float]:
    """95 % interval of how many bits per frame more than another a candidate needs for the same clips."""
    return bootstrap_interval(np.subtract(found["clip_bits"], first["clip_bits"]), np.random.default_rng(0))


def draw(candidates: dict[str, Measures], path: Path) -> None:
    """Bits of all candidates, and their PSNR over the horizon in the way of drawing that each does best with."""
    intervals = {
        name: bootstrap_interval(np.array(found["clip_bits"]), np.random.default_rng(0))
        for name, found in candidates.items()
    }
    bits = {name: (found["bits"], *intervals[name]) for name, found in candidates.items()}
    psnr = {"copy of the last frame": _by_horizon(next(iter(candidates.values()))["copy_psnr"])}
    for name, found in candidates.items():
        best = max((rollout["psnr"] for rollout in found["rollouts"].values()), key=lambda each: sum(each.values()))
        psnr[name] = _by_horizon(best)
    plot_candidates(bits, psnr, path)


def _by_horizon(values: dict[str, float]) -> dict[int, float]:
    return {int(horizon): value for horizon, value in values.items()}


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
