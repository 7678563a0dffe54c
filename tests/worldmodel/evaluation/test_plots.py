from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from worldmodel.evaluation.plots import (
    plot_efficiencies,
    plot_horizons,
    plot_kills,
    plot_mels,
    plot_rates,
    plot_surprise,
    plot_tradeoff,
)

CURVES = {"rollout": np.array([[30.0, 25.0, 20.0], [32.0, 27.0, 16.0]]), "copy": np.full((2, 3), 18.0)}


DRIFT = {"rollout": np.array([0.1, 0.2, 0.4])}


def test_a_plot_is_a_png_that_is_written_whole(tmp_path: Path):
    path = tmp_path / "evaluation.png"
    plot_horizons(CURVES, DRIFT, 10.0, path)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.size == (1440, 480)
        assert len(picture.convert("L").getcolors() or []) > 10
    assert [file.name for file in tmp_path.iterdir()] == ["evaluation.png"]
    plot_horizons(CURVES, DRIFT, 10.0, path)  # a second time replaces it


def test_kills_are_marked_where_the_loss_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **options: (drawn.append(self), path.touch()))
    losses = [(1, 5.0), (2, 4.0), (2, 4.0), (3, 3.0)]
    kills = [(2, "rank", "SIGKILL"), (0, "launcher", "SIGTERM"), (3, "rank", "SIGKILL")]
    plot_kills(losses, kills, tmp_path / "kills.png")
    lines = {line.get_label(): line for line in drawn[0].axes[0].get_lines()}
    assert lines["loss"].get_xydata().tolist() == [[1, 5], [2, 4], [3, 3]]
    assert lines["rank, SIGKILL"].get_xydata().tolist() == [[2, 4], [3, 3]]
    assert lines["launcher, SIGTERM"].get_xydata().tolist() == [[0, 5]]


def test_means_and_intervals_are_over_the_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **options: (drawn.append(self), path.touch()))
    plot_horizons(CURVES, DRIFT, 10.0, tmp_path / "evaluation.png")
    axes = drawn[0].axes[0]
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert lines.keys() == CURVES.keys()
    assert lines["rollout"].get_xdata().tolist() == [1, 2, 3]
    assert lines["rollout"].get_ydata().tolist() == [31.0, 26.0, 18.0]
    low = axes.collections[0].get_paths()[0].vertices[:, 1].min()
    assert low == pytest.approx(18.0 - 1.96 * 2.0 / np.sqrt(2))
    assert axes.get_xlabel() == "horizon (frames at 10 per second)"
    assert "dB" in axes.get_ylabel()
    assert axes.get_title() == "2 held-out clips"
    (drift,) = drawn[0].axes[1].get_lines()
    assert (drift.get_label(), drift.get_ydata().tolist()) == ("rollout", [0.1, 0.2, 0.4])


def test_no_screen_is_needed():
    assert mpl.get_backend().lower() == "agg"


def test_surprise_is_drawn_over_time_with_a_break_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "surprise.png"
    plot_surprise([0.0, 0.1, 0.2], [float("nan"), 7.0, 5.0], path)
    assert [file.name for file in tmp_path.iterdir()] == ["surprise.png"]
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **options: (drawn.append(self), path.touch()))
    plot_surprise([0.0, 0.1, 0.2], [float("nan"), 7.0, 5.0], path)
    (line,) = drawn[0].axes[0].get_lines()
    assert line.get_xdata().tolist() == [0.0, 0.1, 0.2]
    assert line.get_ydata().tolist()[1:] == [7.0, 5.0]
    assert "bits" in drawn[0].axes[0].get_ylabel()


def test_mel_spectra_share_one_range_and_stand_in_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    soft, loud = np.zeros((4, 10)), np.full((4, 10), 2.0)
    rows = {"truth": [soft, loud], "codec": [soft + 1, soft]}
    path = tmp_path / "mels.png"
    plot_mels(rows, 1.5, path)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **options: (drawn.append(self), path.touch()))
    plot_mels(rows, 1.5, path)
    axes = drawn[0].axes
    assert len(axes) == 4
    assert [place.get_ylabel() for place in axes] == ["truth", "", "codec", ""]
    assert {place.images[0].get_clim() for place in axes} == {(0.0, 2.0)}
    np.testing.assert_array_equal(axes[1].images[0].get_array(), loud)
    assert axes[0].get_xlim() == (0.0, 1.5)


def test_a_tradeoff_has_a_named_point_for_each_and_a_line_through_a_curve_in_order_of_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    points = {"sticky": (100.0, 27.0), "many": (300.0, 28.0), "few": (200.0, 26.0)}
    path = tmp_path / "study.png"
    plot_tradeoff(points, [["many", "few"]], path)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **options: (drawn.append(self), path.touch()))
    plot_tradeoff(points, [["many", "few"]], path)
    curve, *named = drawn[0].axes[0].get_lines()
    assert curve.get_xdata().tolist() == [200.0, 300.0]
    assert curve.get_ydata().tolist() == [26.0, 28.0]
    assert {line.get_label(): (line.get_xdata()[0], line.get_ydata()[0]) for line in named} == points


def test_rates_have_a_panel_for_each_rule_and_the_best_one_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **options: (drawn.append(self), path.touch()))
    lines = {"small": [(1e-3, 5.0), (1e-2, 3.0), (1e-1, 4.0)]}
    plot_rates({"one": lines, "two": lines}, "bits", tmp_path / "rates.png")
    for axes, title in zip(drawn[0].axes, ("one", "two"), strict=True):
        line, best = axes.get_lines()
        assert line.get_ydata().tolist() == [5.0, 3.0, 4.0]
        assert (best.get_xdata().tolist(), best.get_ydata().tolist()) == ([1e-2], [3.0])
        assert (axes.get_title(), axes.get_xscale()) == (title, "log")


def test_efficiencies_have_a_panel_for_each_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **options: (drawn.append(self), path.touch()))
    curves = {"small": {"stage 0": [1.0, 0.5], "stage 1": [0.9, 0.4]}, "large": {"stage 0": [0.8, 0.3]}}
    plot_efficiencies((8, 64), curves, tmp_path / "scaling.png")
    small, large = drawn[0].axes
    assert [axes.get_title() for axes in (small, large)] == ["small", "large"]
    assert [line.get_label() for line in small.get_lines()] == ["stage 0", "stage 1"]
    (line,) = large.get_lines()
    assert (line.get_xdata().tolist(), line.get_ydata().tolist()) == ([8, 64], [0.8, 0.3])
