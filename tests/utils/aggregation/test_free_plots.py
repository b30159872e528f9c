"""What modes share, and figures of any metric: where, names, prefixes, points, lines, axes."""

import pandas as pd
import pytest
from helpers.curve_runs import Runs, table

from utils.aggregation import generic_plots
from utils.aggregation.curve_figures import plot_invariance_RD_curve
from utils.aggregation.generic_plots import plot_scatter_lines, plot_superpose
from utils.aggregation.metrics import summarize_metrics
from utils.configs.composing import ConfigError
from utils.plots import style
from utils.plots.invariance import invariance_plot
from utils.plots.superpose import superpose_plot

X, Y, Z = "test/comm/rate", "test/pred/loss", "test/pred/err"


@pytest.fixture
def frame():
    return table(
        {"dist": dist, "beta": f"{rate}", "seed": seed, X: rate * factor, Y: 4 / rate, Z: 2 - rate}
        for dist, factor in (("VIC", 1.0), ("VAE", 2.0))
        for seed in (0, 1)
        for rate in (1, 2, 4)
    )


@pytest.fixture
def figures(monkeypatch):
    """Name -> figure, of those that are saved."""
    found = {}
    monkeypatch.setattr(
        Runs, "save_figure", lambda self, figure, name: found.update({name: figure})
    )
    return found


def legend_of(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


# --- what all modes share


def test_a_global_where_restricts_all_modes(tmp_path, frame):
    experiment = Runs(tmp_path, frame, where={"dist": "VIC"})
    assert set(experiment.merged({"beta": [1, 2]}, "o")["dist"]) == {"VIC"}
    assert set(experiment.finished("featurizer", None, "o")["dist"]) == {"VIC"}
    with pytest.raises(ConfigError, match=r"aggregate\.where: there is no parameter 'dis'"):
        Runs(tmp_path, frame, where={"dis": "VIC"}).merged(None, "o")


def test_names_are_those_of_figures_and_readable_tables_but_not_of_numbers(
    tmp_path, frame, figures
):
    names = {"VIC": "ours", "dist": "method", X: "bits"}
    experiment = Runs(tmp_path, frame, names=names, prefix="mine_")
    ids = frame.assign(featurizer_id=frame["group"] + frame["seed"])
    summarize_metrics(Runs(tmp_path, ids, names=names, prefix="mine_"), {"loss": Y})
    text = (tmp_path / "mine_summary.md").read_text()
    assert "| method |" in text and "| ours " in text and "VIC" not in text
    assert {"dist", f"{Y}_mean", "n_seeds"} <= set(pd.read_csv(tmp_path / "mine_summary.csv"))
    plot_scatter_lines(experiment, X, Y)
    (axes,) = figures["scatter_lines_test_pred_loss_test_comm_rate"].axes
    assert axes.get_xlabel() == "bits" and legend_of(axes) == ["VC", "ours"]
    colours = [line.get_color() for line in axes.get_legend().get_lines()]
    assert colours == [style.METHOD_COLOURS["VC"], style.METHOD_COLOURS["VIC"]]


# --- any against any


def test_lines_join_means_of_a_method_and_points_are_runs(tmp_path, frame, figures):
    plot_scatter_lines(Runs(tmp_path, frame), "beta", Y, kind="lines", is_log_x=True)
    (axes,) = figures.pop("scatter_lines_test_pred_loss_beta").axes
    assert [c.lines[0].get_xydata().tolist() for c in axes.containers] == [
        [[1, 4], [2, 2], [4, 1]]
    ] * 2
    plot_scatter_lines(Runs(tmp_path, frame), X, Y, kind="points", style="beta", col="dist")
    vic, vae = figures.pop("scatter_lines_test_pred_loss_test_comm_rate").axes
    assert sum(len(c.get_offsets()) for c in vic.collections) == 6
    assert (vic.get_title(), vae.get_title()) == ("VIC", "VC")
    assert legend_of(vae) == ["VIC", "VC", "1", "2", "4"]


def test_a_regression_has_the_slope_of_a_line(tmp_path, frame, figures):
    frame = frame.assign(**{Z: 3 * frame[X] - 1})
    plot_scatter_lines(Runs(tmp_path, frame), X, Z, kind="regression", row="dist")
    for axes in figures["scatter_lines_test_pred_err_test_comm_rate"].axes:
        (line,) = axes.lines
        (x0, *_, x1), (y0, *_, y1) = line.get_data()
        assert (y1 - y0) / (x1 - x0) == pytest.approx(3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "bars"}, r"plot_scatter_lines\.kind: expected one of .*'points'.*'bars'"),
        ({"x": "a"}, r"the runs have no a: there are .*'dist'.*test/pred/loss"),
        ({"col": "a"}, "the runs have no a"),
        ({"x": "dist"}, "nothing to draw"),
    ],
)
def test_errors_of_scatter_plots_name_what_there_is(tmp_path, frame, options, message):
    with pytest.raises(ConfigError, match=message):
        plot_scatter_lines(Runs(tmp_path, frame), **{"x": X, "y": Y, "hue": []} | options)


# --- several metrics over one axis


def test_each_method_has_a_figure_with_two_axes(tmp_path, frame, figures):
    plot_superpose(Runs(tmp_path, frame), X, [Y, Z])
    assert list(figures) == ["superpose_VIC", "superpose_VAE"]
    left, right = figures["superpose_VAE"].axes
    assert left.containers[0].lines[0].get_xydata().tolist() == [[2, 4], [4, 2], [8, 1]]
    assert right.containers[0].lines[0].get_xydata().tolist() == [[2, 1], [4, 0], [8, -2]]
    assert (left.get_ylabel(), right.get_ylabel()) == ("loss", "error")


def test_normalised_metrics_go_from_0_to_1(tmp_path, frame, figures):
    plot_superpose(Runs(tmp_path, frame), X, [Y, Z], scale="normalised", where={"dist": "VIC"})
    (axes,) = figures["superpose_VIC"].axes
    heights = [container.lines[0].get_ydata().tolist() for container in axes.containers]
    assert heights[0] == pytest.approx([1, 1 / 3, 0]) and heights[1] == pytest.approx([1, 2 / 3, 0])
    assert legend_of(axes) == ["loss", "error"]


def test_curves_that_are_not_one_are_named_not_averaged(tmp_path, frame):
    message = r"differ in more than the seed, in dist: VIC, VAE.*where='\{dist: VIC\}'"
    with pytest.raises(ConfigError, match=message):
        plot_superpose(Runs(tmp_path, frame), X, [Y, Z], by=None)


def test_two_axes_are_for_two_metrics(tmp_path, frame):
    with pytest.raises(ConfigError, match="two axes are for two metrics, found 1"):
        plot_superpose(Runs(tmp_path, frame), X, [Y])
    with pytest.raises(ConfigError, match=r"scale: expected one of .*'twin'"):
        plot_superpose(Runs(tmp_path, frame), X, [Y, Z], scale="both")


def test_a_constant_has_no_scale(tmp_path, frame):
    summary = Runs(tmp_path, frame.assign(**{Y: 3.0})).summary(frame.assign(**{Y: 3.0}))
    one = summary[summary["dist"] == "VIC"]
    (axes,) = superpose_plot(one, X, [Y, Z], scale="normalised").axes
    assert set(axes.containers[0].lines[0].get_ydata()) == {0}


# --- what tasks lose


def test_a_curve_is_marked_where_it_is_near_lossless(tmp_path, frame, figures):
    plot_invariance_RD_curve(Runs(tmp_path, frame), X, Y, tolerance=0.5)
    (axes,) = figures["invariance_RD_curve"].axes
    # the level, 1.5, is half way from 2 to 1
    assert sorted(legend_of(axes)) == ["VC: 6 bits", "VIC: 3 bits"]
    assert [t.get_text() for t in axes.texts] == ["near lossless (lowest + 0.5)"]


def test_what_is_never_near_lossless_says_so(tmp_path, frame, figures):
    uncompressed = table([{"dist": "none", "beta": "none", "seed": 0, X: 99.0, Y: 0.5, Z: 0.0}])
    runs = pd.concat([frame, uncompressed], ignore_index=True)
    reference = {"dist": "none"}
    plot_invariance_RD_curve(Runs(tmp_path, runs), X, Y, reference=reference, is_log_x=True)
    (axes,) = figures["invariance_RD_curve"].axes
    assert "VIC: not reached" in legend_of(axes) and axes.get_xscale() == "log"
    assert axes.texts[0].get_text() == "near lossless (uncompressed + 0.01)"


def test_nothing_to_draw_is_an_error(tmp_path, frame):
    with pytest.raises(ConfigError, match="unknown metrics"):
        plot_invariance_RD_curve(Runs(tmp_path, frame), X, "test/pred/oops")
    with pytest.raises(ValueError, match="nothing to draw"):
        summary = Runs(tmp_path, frame).summary(frame).assign(**{f"{Y}_mean": float("nan")})
        invariance_plot(summary, X, Y, ["dist"], level=0, level_name="")


def test_choices_are_those_of_the_figures():
    assert generic_plots.Kind.__args__ == generic_plots.KINDS
    assert generic_plots.Scale.__args__ == generic_plots.SCALES
