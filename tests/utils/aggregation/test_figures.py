"""Figures of tables: curves, fronts, invariance, points, regressions, several axes."""

import numpy as np
import pandas as pd
import pytest
from helpers.curve_runs import Runs, legend_of, table

from utils.aggregation.curve_figures import (
    plot_all_RD_curves,
    plot_invariance_RD_curve,
    plot_pareto_front,
)
from utils.aggregation.generic_plots import plot_scatter_lines, plot_superpose
from utils.configs.checks import ConfigError
from utils.plots import style

X, Y, Z = "test/comm/rate", "test/pred/loss", "test/pred/err"
VC, VIC = style.METHOD_COLOURS["VC"], style.METHOD_COLOURS["VIC"]


@pytest.fixture
def frame():
    return table(
        {"dist": dist, "beta": f"{rate}", "seed": seed, X: rate * factor, Y: 4 / rate, Z: 2 - rate}
        for dist, factor in (("VIC", 1.0), ("VAE", 2.0))
        for seed in (0, 1)
        for rate in (1, 2, 4)
    )


def curves_of(axes):
    """Colour and points of each curve."""
    lines = [container.lines[0] for container in axes.containers]
    return [(line.get_color(), line.get_xydata().tolist()) for line in lines]


def test_curves_have_the_colour_of_their_method_and_are_sorted_by_x(tmp_path, frame, figures):
    experiment = Runs(tmp_path, frame.sample(frac=1, random_state=0), names={"VIC": "ours"})
    plot_all_RD_curves(experiment, X, Y, is_log_x=True)
    (axes,) = figures["all_RD_curves_test_comm_rate"].axes
    assert dict(curves_of(axes)) == {
        VC: [[2, 4], [4, 2], [8, 1]],
        VIC: [[1, 4], [2, 2], [4, 1]],
    }
    assert legend_of(axes) == ["VC", "ours"] and axes.get_xscale() == "log"


def test_colours_curves_and_panels_of_several_parameters(tmp_path, frame, figures):
    wide = frame.assign(rate=["H_hyper" if d == "VIC" else "none" for d in frame["dist"]])
    wide = pd.concat([wide, wide.assign(rate="H_factorized", group=wide["group"] + "f")])
    plot_all_RD_curves(Runs(tmp_path, wide), X, Y, hue=["dist", "rate"])
    (axes,) = figures.pop("all_RD_curves_test_comm_rate").axes
    assert set(legend_of(axes)) == {"VIC H_hyper", "VIC H_factorized", "VC", "VC H_factorized"}
    assert len({colour for colour, _ in curves_of(axes)}) == 4
    # runs that differ in more than their place on a curve are not joined
    plot_all_RD_curves(Runs(tmp_path, wide), X, Y)
    (axes,) = figures.pop("all_RD_curves_test_comm_rate").axes
    assert len(curves_of(axes)) == 4 and legend_of(axes) == ["VC", "VIC"]
    plot_all_RD_curves(Runs(tmp_path, frame), X, Y, col="dist")
    vc, vic = figures.pop("all_RD_curves_test_comm_rate").axes
    assert (vc.get_title(), vic.get_title()) == ("VC", "VIC")
    assert [colour for colour, _ in curves_of(vic)] == [VIC] and vc.get_xlim() == vic.get_xlim()


def test_error_bars_are_standard_errors_and_runs_without_a_metric_are_left_out(tmp_path, figures):
    runs = [{"dist": "VIC", "beta": "1", "seed": s, X: 1 + s / 5, Y: 2.0} for s in (0, 1)]
    runs.append({"dist": "VAE", "beta": "1", "seed": 0, X: np.nan, Y: 2.0})
    plot_all_RD_curves(Runs(tmp_path, table(runs)), X, Y)
    (axes,) = figures.popitem()[1].axes
    horizontal, _ = axes.containers[0].lines[2]
    assert np.allclose(horizontal.get_segments()[0], [[1.0, 2], [1.2, 2]])
    assert legend_of(axes) == ["VIC"]
    with pytest.raises(ValueError, match="no run has"):
        plot_all_RD_curves(Runs(tmp_path, table(runs[2:])), X, Y)


def test_fronts_join_the_runs_that_no_other_run_of_their_colour_dominates(tmp_path, figures):
    points = [(3, 1.0), (1, 4), (2, 5), (4, np.nan)]
    runs = [{"dist": "VIC", "beta": str(x), "seed": 0, X: x, Y: y} for x, y in points]
    runs.append({"dist": "VAE", "beta": "0", "seed": 0, X: 0, Y: 0})
    plot_pareto_front(Runs(tmp_path, table(runs)), X, Y, select=[X, Y])
    (axes,) = figures["pareto_front_test_pred_loss_test_comm_rate"].axes
    fronts = {line.get_color(): line.get_xydata().tolist() for line in axes.lines}
    assert fronts == {VIC: [[1, 4], [3, 1]], VC: [[0, 0]]}
    assert sum(len(c.get_offsets()) for c in axes.collections) == 4


def test_fronts_are_selected_on_validation_data(tmp_path, figures):
    columns = {
        X.replace("test", "val"): [1, 2, 3, 3, 4],
        Y.replace("test", "val"): [4, 2, 1, 5, np.nan],
        X: [2, 1, 3, 0, 4],
        Y: [1, 2, 3, 0, 0],
    }
    runs = pd.DataFrame(columns).assign(dist="VIC", beta=list("abcde"), seed=0)
    plot_pareto_front(Runs(tmp_path, table(runs.to_dict("records"))), X, Y)
    (axes,) = figures["pareto_front_test_pred_loss_test_comm_rate"].axes
    assert axes.lines[0].get_xydata().tolist() == [[1, 2], [2, 1], [3, 3]]  # in the order of x


def test_invariance_curves_are_marked_where_they_are_near_lossless(tmp_path, frame, figures):
    plot_invariance_RD_curve(Runs(tmp_path, frame), X, Y, tolerance=0.5)
    (axes,) = figures["invariance_RD_curve"].axes
    assert sorted(legend_of(axes)) == ["VC: 6 bits", "VIC: 3 bits"]  # 1.5 is half way from 2 to 1
    uncompressed = table([{"dist": "none", "beta": "none", "seed": 0, X: 99.0, Y: 0.5, Z: 0.0}])
    runs = Runs(tmp_path, pd.concat([frame, uncompressed], ignore_index=True))
    plot_invariance_RD_curve(runs, X, Y, reference={"dist": "none"}, is_log_x=True)
    (axes,) = figures["invariance_RD_curve"].axes
    assert "VIC: not reached" in legend_of(axes) and axes.get_xscale() == "log"


def test_lines_join_means_and_each_point_is_a_run(tmp_path, frame, figures):
    plot_scatter_lines(Runs(tmp_path, frame), "beta", Y, kind="lines", is_log_x=True)
    (axes,) = figures.pop("scatter_lines_test_pred_loss_beta").axes
    assert [points for _, points in curves_of(axes)] == [[[1, 4], [2, 2], [4, 1]]] * 2
    plot_scatter_lines(Runs(tmp_path, frame), X, Y, kind="points", style="beta", col="dist")
    vic, vae = figures.pop("scatter_lines_test_pred_loss_test_comm_rate").axes
    assert sum(len(c.get_offsets()) for c in vic.collections) == 6
    assert (vic.get_title(), vae.get_title()) == ("VIC", "VC")
    assert legend_of(vae) == ["VIC", "VC", "1", "2", "4"]


def test_regression_of_a_line_has_its_slope(tmp_path, frame, figures):
    frame = frame.assign(**{Z: 3 * frame[X] - 1})
    plot_scatter_lines(Runs(tmp_path, frame), X, Z, kind="regression", row="dist")
    for axes in figures["scatter_lines_test_pred_err_test_comm_rate"].axes:
        (x0, *_, x1), (y0, *_, y1) = axes.lines[0].get_data()
        assert (y1 - y0) / (x1 - x0) == pytest.approx(3) and axes.get_ylabel() == "error"


def test_superposed_metrics_have_two_axes_in_a_figure_for_each_method(tmp_path, frame, figures):
    plot_superpose(Runs(tmp_path, frame), X, [Y, Z])
    assert list(figures) == ["superpose_VIC", "superpose_VAE"]
    left, right = figures["superpose_VAE"].axes
    assert curves_of(left)[0][1] == [[2, 4], [4, 2], [8, 1]]
    assert curves_of(right)[0][1] == [[2, 1], [4, 0], [8, -2]]
    assert (left.get_ylabel(), right.get_ylabel()) == ("loss", "error")


def test_normalised_metrics_range_from_0_to_1(tmp_path, frame, figures):
    flat = "test/pred/acc"
    runs = Runs(tmp_path, frame.assign(**{flat: 3.0}), mode_where={"dist": "VIC"})
    plot_superpose(runs, X, [Y, Z, flat], scale="normalised")
    (axes,) = figures["superpose_VIC"].axes
    heights = [container.lines[0].get_ydata().tolist() for container in axes.containers]
    expected = [1, 1 / 3, 0], [1, 2 / 3, 0], [0, 0, 0]
    assert all(h == pytest.approx(e) for h, e in zip(heights, expected, strict=True))
    assert legend_of(axes) == ["loss", "error", "accuracy"]


@pytest.mark.parametrize(
    ("mode", "options", "message"),
    [
        (plot_scatter_lines, {"kind": "bars"}, r"o\.kind: .*bars.*points"),
        (plot_scatter_lines, {"x": "a"}, "'a'.*test/pred/loss.*'dist'"),
        (plot_scatter_lines, {"col": "a"}, "'a'"),
        (plot_superpose, {"y": [Y, Z], "by": None}, r"dist: VIC, VAE.*where='\{dist: VIC\}'"),
        (plot_superpose, {"y": [Y]}, "twin"),
        (plot_superpose, {"y": [Y, Z], "scale": "both"}, "scale: .*both.*twin"),
        (plot_pareto_front, {"select": [Y]}, "select: .*two"),
    ],
)
def test_invalid_options_are_errors(tmp_path, frame, mode, options, message):
    with pytest.raises(ConfigError, match=message):
        mode(Runs(tmp_path, frame, option="o"), **{"x": X, "y": Y} | options)
