"""`aggregate.py` turns finished runs on disk into tables and figures."""

import inspect

import pandas as pd
import pytest
from helpers.curve_runs import Runs, legend_of, table
from helpers.tiny import CLASSICAL, DIGITS, paths, run

import aggregate
from utils.aggregation import MODES, SHARED, tables
from utils.aggregation.metrics import gather_figures
from utils.aggregation.selection import restrict
from utils.aggregation.tables import NoRunsError, with_settings
from utils.configs.checks import ConfigError
from utils.configs.composing import compose_config
from utils.fault_drill.jobs import full_disk


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Results of an experiment with two methods and two seeds."""
    tmp = tmp_path_factory.mktemp("aggregation")
    for seed in (1, 2):
        for distortion in ("VAE", "VIC"):
            figures = ["figures.names=[codebook_plot]"] if seed == 1 else []
            run(tmp, f"distortion={distortion}", f"seed={seed}", *figures)
    return tmp


def draw(tmp, *overrides):
    aggregate.main(["experiment=none", "logger=none", *paths(tmp), *overrides])
    return tmp / "results/exp_none"


def test_tables_average_seeds_and_figures_are_gathered(folder, capsys):
    results = draw(folder)
    text, output = (results / "summary.md").read_text(), capsys.readouterr().out
    assert text in output and "VAE" in text and "VIC" in text and "±" in text
    assert "12 done" in output
    for name in tables.TABLES:
        summary = pd.read_csv(results / f"summarized_metrics_{name}.csv")
        assert len(summary) == 2 and (summary["n_seeds"] == 2).all()
    assert {"test/feat/rate_mean", "test/comm/n_bits_sem", "test/pred/loss_mean"} <= set(summary)
    names = {file.name for file in (results / "figures").iterdir()}
    assert names == {"quantization_VAE.png", "quantization_VIC.png"}


def test_summaries_have_a_metric_of_predictors_by_default(folder):
    """Accuracy or, for regression, loss, unless another metric is selected."""
    column = "+aggregate.summarize_metrics.columns.err=val/pred/loss"
    for options, expected in (([], "loss"), ([column], "err")):
        table = (draw(folder, *options) / "summary.md").read_text().splitlines()[0]
        assert table.split(" | ")[-2].strip() == expected


@pytest.mark.parametrize("value", ["a/b c", "../" + "x" * 300])
def test_file_names_of_figures_are_safe(tmp_path, value):
    """Slashes and spaces are replaced, and long names are cut."""
    for name in ("VAE", value):
        run = f"{len(name)}/run_0"
        (tmp_path / run).mkdir(parents=True)
        (tmp_path / run / "max. inv.png").write_text(name)
    runs = table({"dist": name, "beta": "1", "seed": 1} for name in ("VAE", value))
    experiment = Runs(tmp_path, runs)
    folders = [str(tmp_path / f"{len(name)}/run_0") for name in runs["dist"]]
    experiment.__dict__["_collected"][0]["featurizer"]["folder"] = folders
    gather_figures(experiment)
    assert len(list((tmp_path / "figures").iterdir())) == 2


def test_a_selection_of_runs_has_its_own_folder(folder):
    results = draw(folder)
    before = {file: file.read_bytes() for file in results.rglob("*.*") if file.is_file()}
    draw(folder, "aggregate.where={dist: VIC}")
    assert all(file.read_bytes() == content for file, content in before.items())
    text = (results / "only_dist=VIC" / "summary.md").read_text()
    assert "dist=VIC" in text and "VAE" not in text
    assert (results / "only_dist=VIC" / "figures" / "quantization.png").is_file()


def test_keys_of_the_summary_and_expected_seeds(folder):
    keys = "aggregate.summarize_metrics.keys=[dist,optimizer_feat.kwargs.lr]"
    results = draw(folder, keys, "seed=1,2,5")
    summary = pd.read_csv(results / "summary.csv")
    assert list(summary)[:2] == ["dist", "optimizer_feat.kwargs.lr"]
    assert (summary["n_missing"] == 1).all()


def test_classical_codecs_have_curves_over_quality_without_distortion(tmp_path, figures):
    run(tmp_path, "featurizer.loss.beta=0.5", base=DIGITS)
    for quality in (10, 90):
        run(tmp_path, "featurizer=jpeg", f"featurizer.kwargs.quality={quality}", base=CLASSICAL)
    results = draw(
        tmp_path,
        "aggregate.modes=[summarize_metrics,plot_all_RD_curves,plot_pareto_front,summarize_RD_curves]",
        "aggregate.plot_all_RD_curves.x=[test/feat/distortion,test/pred/err]",
        "aggregate.plot_all_RD_curves.y=test/comm/n_bits",
        "aggregate.plot_all_RD_curves.hue=feat",
        "aggregate.summarize_RD_curves.x=test/pred/err",
        "aggregate.summarize_RD_curves.y=test/comm/n_bits",
    )
    (axes,) = figures["all_RD_curves_test_feat_distortion"].axes
    assert legend_of(axes) == ["neural_feat"]
    (axes,) = figures["all_RD_curves_test_pred_err"].axes
    lengths = sorted(len(c.lines[0].get_xdata()) for c in axes.containers)
    assert set(legend_of(axes)) == {"jpeg", "neural_feat"} and lengths == [1, 2]
    assert " accuracy " in (results / "summary.md").read_text()
    summary = pd.read_csv(results / "summarized_RD_curves_merged.csv").set_index("feat")
    assert dict(summary["n_runs_mean"]) == {"jpeg": 2, "neural_feat": 1}


def test_where_compares_numbers_by_value_and_takes_lists_and_settings(folder):
    frame = tables.collect(folder / "results/exp_none")[0]["featurizer"]
    assert len(restrict(frame, {"beta": 1, "seed": [1, "2"]}, "o")) == 4
    assert len(restrict(frame, {"encoder.kwargs.hid_dim": 8, "dist": "VIC"}, "o")) == 2
    assert restrict(frame, {}, "o") is frame
    with pytest.raises(ConfigError, match="o: .*'bet'.*beta"):
        restrict(frame, {"bet": 0.1}, "o")
    with pytest.raises(NoRunsError, match=r"o: .*beta=1.001.*1.0e\+00"):
        restrict(frame, {"beta": 1.001}, "o")  # "beta" shows two digits


def test_settings_are_read_from_the_saved_configs(folder):
    frame = tables.collect(folder / "results/exp_none")[0]["featurizer"]
    names = ["encoder.kwargs.hid_dim", "dist", "encoder", "no.such", "optimizer_pred.kwargs.lr"]
    found = with_settings(frame, names)
    assert set(found["encoder.kwargs.hid_dim"]) == {"8"}
    assert set(found) - set(frame) == {names[0], names[-1]}
    # settings that do not determine the stage are left out
    assert set(with_settings(frame, names, "featurizer")) - set(frame) == {names[0]}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("aggregate.modes=[summarise]", "summarize_metrics"),
        ("aggregate.summarize_metrics.table=all", "merged"),
        ("+aggregate.summarize_metrics.columns.x=test/feat/bits", "test/feat/rate"),
        ("aggregate.summarize_metrics.keys=[dist,betta]", "betta"),
        ("aggregat.modes=[]", "aggregate"),
        ("experiment=nope", "banana_viz_VIC"),
        ("mode=debug", "exp_debug_none"),
    ],
)
def test_invalid_options_are_errors(folder, override, message):
    with pytest.raises(SystemExit) as error:
        draw(folder, *override.split())
    assert "Error: " in str(error.value) and message in str(error.value)


def test_a_full_disk_is_an_error_that_names_the_file(folder):
    with pytest.raises(SystemExit, match="Error: .*summarized_metrics"), full_disk(100):
        draw(folder)


def test_experiments_of_featurizers_have_a_summary(tmp_path):
    run(tmp_path, "is_only_feat=true")
    text = (draw(tmp_path) / "summary.md").read_text()
    assert "test/feat/rate" in text and "test/comm" not in text


def test_every_mode_has_its_options_in_the_config(capsys):
    config = compose_config().aggregate
    assert set(SHARED) <= set(config)
    for name, mode in MODES.items():
        known = inspect.signature(mode).parameters
        assert "options" in known or {*config[name]} - {"where"} <= {*known}, name
    aggregate.main(["--help"])
    assert "aggregate.py experiment=" in capsys.readouterr().out
