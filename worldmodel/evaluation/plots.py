"""Plots (the door of matplotlib)."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

mpl.use("agg")


def plot_horizons(
    psnr: dict[str, Float[np.ndarray, "clip horizon"]],
    divergence: dict[str, Float[np.ndarray, " horizon"]],
    frames_per_second: float,
    path: Path,
) -> None:
    """PSNR over the horizon, mean and 95 % interval of it (normal approximation), and drift of codes, as a PNG."""
    figure = Figure(figsize=(12, 4), layout="constrained")
    axes, drift = figure.subplots(1, 2)
    for name, values in psnr.items():
        mean, error = values.mean(0), 1.96 * values.std(0) / np.sqrt(len(values))
        horizons = np.arange(1, len(mean) + 1)
        axes.plot(horizons, mean, label=name)
        axes.fill_between(horizons, mean - error, mean + error, alpha=0.2)
    for name, values in divergence.items():
        drift.plot(np.arange(1, len(values) + 1), values, label=name)
    axes.set_ylabel("PSNR (dB)")
    axes.set_title(f"{len(next(iter(psnr.values())))} held-out clips")
    drift.set_ylabel("bits (Jensen-Shannon)")
    drift.set_title("how differently codes are used than in the truth")
    for each in (axes, drift):
        each.set_xlabel(f"horizon (frames at {frames_per_second:g} per second)")
        each.legend()
        each.grid(alpha=0.3)
    save(figure, path)


def plot_surprise(seconds: Sequence[float], bits: Sequence[float], path: Path) -> None:
    """Bits of every frame over time, as a PNG; the line is broken where a frame has none (nan)."""
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(seconds, bits, linewidth=1)
    axes.set_xlabel("time (s)")
    axes.set_ylabel("surprise (bits per frame)")
    axes.grid(alpha=0.3)
    save(figure, path)


def plot_mels(rows: dict[str, list[Float[np.ndarray, "mel slice"]]], seconds: float, path: Path) -> None:
    """Log-mel spectra, a row for each name and a column for each clip, as a PNG; loud is dark, one range for all."""
    columns = len(next(iter(rows.values())))
    figure = Figure(figsize=(1 + 4 * columns, 0.6 + 1.6 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False, sharex=True, sharey=True)
    every = [mel for row in rows.values() for mel in row]
    low, high = min(mel.min() for mel in every), max(mel.max() for mel in every)
    for row, (name, mels) in enumerate(rows.items()):
        for column, mel in enumerate(mels):
            place = axes[row, column]
            extent = (0.0, seconds, 0.0, float(len(mel)))
            place.imshow(mel, "gray_r", aspect="auto", origin="lower", vmin=low, vmax=high, extent=extent)
            place.set_yticks([])
        axes[row, 0].set_ylabel(name)
    for place in axes[-1]:
        place.set_xlabel("time (s)")
    save(figure, path)


def plot_tradeoff(points: dict[str, tuple[float, float]], curves: Sequence[Sequence[str]], path: Path) -> None:
    """Bits per frame against PSNR, a named point for each, as a PNG; the points of a curve are joined by a line."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for names in curves:
        axes.plot(*zip(*sorted(points[name] for name in names), strict=True), "--", color="grey")
    for name, (bits, psnr) in points.items():
        axes.plot([bits], [psnr], "o", label=name)
    axes.set_xlabel("bits per frame of the world model")
    axes.set_ylabel("PSNR of the codec (dB)")
    axes.legend()
    axes.grid(alpha=0.3)
    save(figure, path)


def plot_rates(panels: dict[str, dict[str, list[tuple[float, float]]]], quantity: str, path: Path) -> None:
    """A panel for each name, and in it a line of (learning rate, value) for each size, best rates marked; a PNG."""
    figure = Figure(figsize=(5 * len(panels), 4), layout="constrained")
    row = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axes, (title, lines) in zip(row, panels.items(), strict=True):
        for name, points in lines.items():
            (line,) = axes.plot(*zip(*points, strict=True), label=name)
            rate, value = min(points, key=lambda point: point[1])
            axes.plot([rate], [value], "o", color=line.get_color())
        axes.set_xscale("log")
        axes.set_xlabel("learning rate")
        axes.set_title(title)
        axes.grid(alpha=0.3)
    row[0].set_ylabel(quantity)
    row[0].legend()
    save(figure, path)


def plot_efficiencies(counts: Sequence[int], curves: dict[str, dict[str, list[float]]], path: Path) -> None:
    """Efficiency over the number of GPUs, a panel for each model and a line for each setting, as a PNG."""
    figure = Figure(figsize=(4 * len(curves), 3.5), layout="constrained")
    panels = figure.subplots(1, len(curves), squeeze=False, sharey=True)[0]
    for place, (model, lines) in zip(panels, curves.items(), strict=True):
        for name, values in lines.items():
            place.plot(counts, values, "o-", label=name, markersize=3)
        place.set_xscale("log", base=2)
        place.set_xticks(counts, [str(count) for count in counts])
        place.set_title(model)
        place.set_xlabel("GPUs")
        place.grid(alpha=0.3)
    panels[0].set_ylabel("efficiency")
    panels[0].set_ylim(0, 1)
    panels[-1].legend()
    save(figure, path)


def plot_candidates(bits: dict[str, tuple[float, float, float]], psnr: dict[str, dict[int, float]], path: Path) -> None:
    """Bits per frame as (mean, low, high) beside PSNR by horizon, a bar and a line for each name, as a PNG."""
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    bars, lines = figure.subplots(1, 2)
    for name, (mean, low, high) in reversed(bits.items()):
        bars.barh(name, mean, color="lightsteelblue")
        bars.plot([low, high], [name, name], color="black")
    bars.set_xlabel("bits per frame")
    for name, values in psnr.items():
        lines.plot(list(values), list(values.values()), "o-", label=name, markersize=3)
    lines.set_xlabel("frames imagined")
    lines.set_ylabel("PSNR (dB)")
    lines.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    lines.grid(alpha=0.3)
    save(figure, path)


def plot_kills(losses: Sequence[tuple[int, float]], kills: Sequence[tuple[int, str, str]], path: Path) -> None:
    """Losses as (step, loss), repeated steps too, with the kills as (step, target, signal) marked on them, as a PNG."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    by_step = dict(losses)
    steps = sorted(by_step)
    axes.plot(steps, [by_step[step] for step in steps], linewidth=1, color="grey", label="loss")
    colours = {"worker": "tab:green", "rank": "tab:orange", "launcher": "tab:blue"}
    shapes = {"SIGKILL": "x", "SIGTERM": "v", "SIGUSR1": "o"}
    for target, signal in sorted({kill[1:] for kill in kills}):
        hit = [step for step, *kind in kills if kind == [target, signal]]
        # What was killed before the first step stands at the first.
        heights = [by_step.get(max(step, steps[0]), float("nan")) for step in hit]
        axes.plot(hit, heights, shapes[signal], color=colours[target], markersize=6, label=f"{target}, {signal}")
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.legend(fontsize="small", ncols=2)
    axes.grid(alpha=0.3)
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Write a PNG that appears whole or not at all."""
    partial = path.with_suffix(".partial")
    figure.savefig(partial, format="png", dpi=120)
    partial.replace(path)
