"""The table of a study: a line for each variant, and what others would cost at the picture quality of one."""

from collections.abc import Sequence
from typing import Any

import numpy as np

Measures = dict[str, Any]
SHOWN_HORIZONS = ("1", "4", "8", "16")
BITS = {
    "the world model": lambda measures: measures["model_bits"],
    "the range coder, alone": lambda measures: measures["codec"]["bits_per_frame"]["alone"],
    "the range coder, in time": lambda measures: measures["codec"]["bits_per_frame"]["in_time"],
}


def psnr_of(measures: Measures) -> float:
    """Of the codec, in decibels."""
    return measures["codec"]["psnr"]["mean"]


def table(variants: dict[str, Measures], compare: dict[str, list[str]]) -> list[str]:
    """The measures of variants as lines of markdown, then the comparisons at equal PSNR.

    Args:
        variants: measures by name.
        compare: for a variant, the names of others.
    """
    horizons = [horizon for horizon in SHOWN_HORIZONS if all(horizon in m["rollout_psnr"] for m in variants.values())]
    heads = ["variant", "codec PSNR (dB)", *(f"bits per frame of {name}" for name in BITS), "still codes that change"]
    heads += [f"rollout PSNR at {horizon}" for horizon in horizons]
    heads += [f"drift of codes at {horizon} (bits)" for horizon in horizons]
    lines = [_row(heads), _row(["---"] * len(heads))]
    for name, measures in variants.items():
        changed = measures["codec"]["still_finest_codes"]["changed"]
        cells = [name, f"{psnr_of(measures):.2f}", *(f"{bits(measures):.1f}" for bits in BITS.values())]
        cells += ["none is still" if changed is None else f"{changed:.1%}"]
        cells += [f"{measures['rollout_psnr'][horizon]:.2f}" for horizon in horizons]
        lines.append(_row([*cells, *(f"{measures['drift'][horizon]:.3f}" for horizon in horizons)]))
    for name, others in compare.items():
        lines += ["", *comparison(name, variants[name], {other: variants[other] for other in others})]
    return lines


def comparison(name: str, measures: Measures, others: dict[str, Measures]) -> list[str]:
    """What the others would cost at the PSNR of one variant's codec, interpolated between them."""
    psnr = psnr_of(measures)
    lines = [f"At the PSNR of {name} ({psnr:.2f} dB), between {', '.join(others)}:"]
    for title, bits in BITS.items():
        cost = at_psnr([(psnr_of(each), bits(each)) for each in others.values()], psnr)
        if cost is None:
            reached = ", ".join(f"{psnr_of(each):.2f}" for each in others.values())
            return [f"{lines[0]} nothing can be said, they have {reached} dB"]
        lines.append(f"- {title}: {cost:.1f} bits per frame, {name} {bits(measures):.1f} ({bits(measures) / cost:.2f})")
    return lines


def at_psnr(points: Sequence[tuple[float, float]], psnr: float) -> float | None:
    """Bits at a PSNR, linearly interpolated between (PSNR, bits); None outside of them."""
    psnrs, bits = zip(*sorted(points), strict=True)
    if not psnrs[0] <= psnr <= psnrs[-1]:
        return None
    return float(np.interp(psnr, psnrs, bits))


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
