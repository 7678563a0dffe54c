"""Plots (the door of matplotlib)."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

mpl.use("agg")


def plot_horizons(curves: dict[str, Float[np.ndarray, "clip horizon"]], frames_per_second: float, path: Path) -> None:
    """PSNR over the horizon, mean and 95 % interval of the mean (normal approximation), as a PNG."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, values in curves.items():
        horizons = np.arange(1, values.shape[1] + 1)
        mean, error = values.mean(0), 1.96 * values.std(0) / np.sqrt(len(values))
        axes.plot(horizons, mean, label=name)
        axes.fill_between(horizons, mean - error, mean + error, alpha=0.2)
    axes.set_xlabel(f"horizon (frames at {frames_per_second:g} per second)")
    axes.set_ylabel("PSNR (dB)")
    axes.set_title(f"{len(next(iter(curves.values())))} held-out clips")
    axes.legend()
    axes.grid(alpha=0.3)
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


def save(figure: Figure, path: Path) -> None:
    """Write a PNG that appears whole or not at all."""
    partial = path.with_suffix(".partial")
    figure.savefig(partial, format="png", dpi=120)
    partial.replace(path)
