"""From runs on disk to the table, curves and figures that people look at."""

from pathlib import Path

import pandas as pd
import pytest
from helpers.tiny import CLASSICAL, DIGITS, compose, paths, run
from matplotlib.figure import Figure

import aggregate
from utils.aggregation import curve_figures, modes, selection, tables
from utils.aggregation.experiment import Experiment
from utils.aggregation.tables import NoRunsError
from utils.cluster.sweep import ConfigError
from utils.runs.identity import experiment_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder of an experiment: two methods, two seeds."""
    tmp = tmp_path_factory.mktemp("aggregation")
    for seed in (1, 2):
        for distortion in ("VAE", "VIC"):
            figures = ["figures.names=[codebook_plot]"] if seed == 1 else []
            run(tmp, f"distortion={distortion}", f"seed={seed}", *figures)
    return tmp


def of(tmp, *overrides):
    """What `aggregate.py` is called with for the experiment in a folder."""
    return ["experiment=none", "logger=none", *paths(tmp), *overrides]


def test_the_table_has_a_row_for_each_method(folder, capsys):
    aggregate.main(of(folder))
    output = capsys.readouterr().out
    results = folder / "results" / "exp_none"
    text = (results / "summary.md").read_text()
    assert text in output and "VAE" in text and "VIC" in text and "±" in text
    assert "12 done" in output
    for table in ("featurizer", "communication", "predictor", "merged"):
        summary = pd.read_csv(results / f"summarized_metrics_{table}.csv")
        assert len(summary) == 2 and (summary["n_seeds"] == 2).all()
    assert {"test/feat/rate_mean", "test/comm/n_bits_sem", "test/pred/loss_mean"} <= set(summary)


def test_the_printed_table_shows_the_settings_that_were_asked_for(folder):
    keys = "aggregate.summarize_metrics.keys=[dist,optimizer_feat.kwargs.lr]"
    aggregate.main(of(folder, keys))
    summary = pd.read_csv(folder / "results/exp_none/summary.csv")
    assert list(summary)[:2] == ["dist", "optimizer_feat.kwargs.lr"]


def test_figures_lie_side_by_side(folder):
    aggregate.main(of(folder, "aggregate.modes=[gather_figures]"))
    names = {file.name for file in (folder / "results/exp_none/figures").iterdir()}
    assert names == {"quantization_VAE.png", "quantization_VIC.png"}


def test_curves_are_drawn_for_each_metric(folder):
    modes = "aggregate.modes=[plot_all_RD_curves]"
    aggregate.main(of(folder, modes, "aggregate.plot_all_RD_curves.x=[test/pred/loss]"))
    assert (folder / "results/exp_none/all_RD_curves_test_pred_loss.png").stat().st_size > 1000


def test_options_choose_the_curves(folder, monkeypatch):
    frames = {}

    def spy(frame, x, y, hue, **options):
        frames[x] = frame, hue, options
        return Figure()

    monkeypatch.setattr(curve_figures, "curve_plot", spy)
    mode = "aggregate.plot_all_RD_curves"
    aggregate.main(
        of(
            folder,
            "aggregate.modes=[plot_all_RD_curves]",
            f"{mode}.x=[test/pred/loss,test/feat/distortion]",
            f"{mode}.y=test/comm/n_bits",
            f"{mode}.hue=[dist,rate]",
            f"{mode}.where={{dist: VIC}}",
        )
    )
    assert list(frames) == ["test/pred/loss", "test/feat/distortion"]
    for frame, hue, options in frames.values():
        assert list(frame["dist"]) == ["VIC"] and hue == ["dist", "rate"]
        logs = {"is_log_x": False, "is_log_y": False}
        assert options == {"col": None, "curve": [], **logs, "names": {}}


def test_classical_codecs_and_qualities_in_curves_and_fronts(tmp_path):
    """They have no distortion, and their coded bits for a rate."""
    run(tmp_path, "featurizer.loss.beta=0.5", base=DIGITS)
    for quality in (10, 90):
        run(tmp_path, "featurizer=jpeg", f"featurizer.kwargs.quality={quality}", base=CLASSICAL)
    modes = "aggregate.modes=[plot_all_RD_curves,plot_pareto_front,summarize_RD_curves]"
    metrics = "[test/feat/distortion,test/pred/err]"
    aggregate.main(
        of(
            tmp_path,
            modes,
            f"aggregate.plot_all_RD_curves.x={metrics}",
            "aggregate.plot_all_RD_curves.y=test/comm/n_bits",
            "aggregate.plot_all_RD_curves.hue=[feat,dist]",
            "aggregate.summarize_RD_curves.x=test/pred/err",
            "aggregate.summarize_RD_curves.y=test/comm/n_bits",
        )
    )
    results = tmp_path / "results/exp_none"
    assert (results / "all_RD_curves_test_feat_distortion.png").stat().st_size > 1000
    assert (results / "pareto_front_test_comm_rate_test_pred_err.png").stat().st_size > 1000
    summary = pd.read_csv(results / "summarized_RD_curves_merged.csv").set_index("feat")
    n_runs = summary["n_runs_mean"]
    assert dict(n_runs) == {"jpeg": 2, "neural_feat": 1}


# --- choosing rows


def write_configs(folder, n):
    """Folders of runs whose configs are empty."""
    folders = [folder / f"run_{i}" for i in range(n)]
    for path in folders:
        path.mkdir()
        (path / "config.yaml").write_text("{}")
    return list(map(str, folders))


def test_where_compares_numbers_as_such_and_takes_lists(tmp_path):
    frame = pd.DataFrame({"dist": ["VIC", "VAE", "VIC"], "beta": ["1.0e-01", "1.0e-01", "none"]})
    frame["folder"] = write_configs(tmp_path, 3)
    assert list(selection.restrict(frame, {"beta": 0.1}, "o").index) == [0, 1]
    assert list(selection.restrict(frame, {"beta": ["none", 0.1], "dist": "VIC"}, "o").index) == [
        0,
        2,
    ]
    assert selection.restrict(frame, {}, "o") is frame
    with pytest.raises(ConfigError, match=r"o: there is no parameter 'bet'; .*'dist', 'beta'"):
        selection.restrict(frame, {"bet": 0.1}, "o")
    with pytest.raises(NoRunsError, match="o: no finished run has beta=3; runs have 1.0e-01, none"):
        selection.restrict(frame, {"beta": 3}, "o")


def test_settings_that_the_table_does_not_show_come_from_the_saved_configs(folder, monkeypatch):
    frame = tables.collect(folder / "results/exp_none")[0]["featurizer"]
    assert "encoder.kwargs.hid_dim" not in frame
    found = selection.with_settings(frame, ["encoder.kwargs.hid_dim", "dist", "encoder", "no.such"])
    assert set(found["encoder.kwargs.hid_dim"]) == {"8"}
    assert set(found) - set(frame) == {"encoder.kwargs.hid_dim"}
    assert len(selection.restrict(frame, {"encoder.kwargs.hid_dim": 8, "seed": 2}, "o")) == 2


@pytest.mark.parametrize("mode", ["plot_all_RD_curves", "plot_pareto_front"])
def test_colours_may_stand_for_any_setting(folder, monkeypatch, mode):
    figures = []
    monkeypatch.setattr(Experiment, "save_figure", lambda self, figure, _: figures.append(figure))
    options = {"x": "test/comm/n_bits", "y": "test/pred/loss", "hue": "encoder.kwargs.hid_dim"}
    settings = [f"aggregate.{mode}.{key}={value}" for key, value in options.items()]
    aggregate.main(of(folder, f"aggregate.modes=[{mode}]", *settings))
    (figure,) = figures
    assert [t.get_text() for t in figure.axes[0].get_legend().get_texts()] == ["8"]


def test_fronts_are_chosen_on_validation_data_unless_told_otherwise(folder, monkeypatch):
    chosen_by = []
    monkeypatch.setattr(
        curve_figures,
        "pareto_plot",
        lambda *args, select, **options: chosen_by.append(select) or Figure(),
    )
    mode = ["aggregate.modes=[plot_pareto_front]", "aggregate.plot_pareto_front.x=test/pred/loss"]
    aggregate.main(of(folder, *mode))
    select = "aggregate.plot_pareto_front.select"
    aggregate.main(of(folder, *mode, f"{select}=[val/comm/n_bits,val/pred/loss]"))
    assert chosen_by == [("val/pred/loss", "val/comm/rate"), ("val/comm/n_bits", "val/pred/loss")]
    with pytest.raises(SystemExit) as error:
        aggregate.main(of(folder, *mode, f"{select}=[val/pred/loss]"))
    assert f"{select}: expected two metrics" in str(error.value)


def test_what_tells_curves_apart_is_neither_seed_nor_beta():
    frame = pd.DataFrame({"seed": ["1", "2"], "beta": ["1", "2"], "dist": ["a", "b"], "zs": "1"})
    frame["test/feat/rate"] = [1.0, 2.0]
    assert selection.differences(frame) == {"beta": ["1", "2"], "dist": ["a", "b"]}
    assert selection.curve_keys(frame) == ["dist"]


@pytest.mark.parametrize("name", ["quality", "n_components"])
def test_settings_of_codecs_move_them_along_a_curve(name):
    frame = pd.DataFrame({"seed": "1", "feat": "codec", f"featurizer.kwargs.{name}": ["16", "64"]})
    assert selection.curve_keys(frame) == []


# --- errors


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("aggregate.modes=[plot_all_RD_curves] aggregate.plot_all_RD_curves.x=a", "no column 'a_"),
        ("aggregate.modes=[plot_all_RD_curves] aggregate.plot_all_RD_curves.col=a", "'dist'"),
        ("aggregate.modes=[plot_pareto_front] aggregate.plot_pareto_front.x=a", "test/pred/loss"),
        ("aggregate.modes=[summarize_RD_curves] aggregate.summarize_RD_curves.x=a", "test/pred"),
    ],
)
def test_errors_of_curves_name_what_there_is(folder, override, message):
    with pytest.raises(SystemExit) as error:
        aggregate.main(of(folder, *override.split()))
    assert "Error: aggregate." in str(error.value) and message in str(error.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("aggregate.modes=[summarise]", "summarize_metrics"),
        ("aggregate.summarize_metrics.table=all", "merged"),
        ("+aggregate.summarize_metrics.columns.x=test/feat/bits", "test/feat/rate"),
        ("aggregate.summarize_metrics.keys=[dist,betta]", "betta"),
        ("aggregat.modes=[]", "aggregate"),
        ("experiment=nope", "banana_viz_VIC"),
        ("mode", "KEY=VALUE"),
        ("mode=debug", "exp_debug_none"),
    ],
)
def test_errors_name_what_there_is(folder, override, message):
    with pytest.raises(SystemExit) as error:
        aggregate.main(of(folder, override))
    assert "Error" in str(error.value) and message in str(error.value)


def test_featurizers_alone_make_a_table(tmp_path, capsys):
    run(tmp_path, "is_only_feat=true")
    aggregate.main(of(tmp_path))
    text = (tmp_path / "results/exp_none/summary.md").read_text()
    assert "test/feat/rate" in text and "test/comm" not in text


def test_help_is_no_error(capsys):
    aggregate.main(["--help"])
    assert "aggregate.py experiment=" in capsys.readouterr().out


def test_every_mode_has_its_options_in_the_config():
    cfg = compose(Path("x"))
    assert set(modes.MODES) <= set(cfg.aggregate) and set(modes.SHARED) <= set(cfg.aggregate)
    assert experiment_folder(cfg) == "exp_none"
    with pytest.raises(ConfigError, match="there is no 'x'"):
        cfg.aggregate.modes = ["x"]
        modes.run_modes(cfg.aggregate, Path("x"))


def test_a_part_of_the_runs_is_drawn_beside_all_of_them(folder):
    aggregate.main(of(folder))
    results = folder / "results/exp_none"
    before = {file: file.read_bytes() for file in results.rglob("*.*") if file.is_file()}
    aggregate.main(of(folder, "aggregate.where={dist: VIC}"))
    assert all(file.read_bytes() == content for file, content in before.items())
    text = (results / "only_dist=VIC" / "summary.md").read_text()
    assert "only those of dist=VIC" in text and "VAE" not in text
    assert (results / "only_dist=VIC" / "figures" / "quantization.png").is_file()


def test_seeds_that_were_asked_for_and_are_not_there_are_counted(folder):
    aggregate.main(of(folder, "seed=1,2,5"))
    results = folder / "results/exp_none"
    summary = pd.read_csv(results / "summarized_metrics_merged.csv")
    assert (summary["n_missing"] == 1).all()
    aggregate.main(of(folder, "seed=1"))
    assert (pd.read_csv(results / "summarized_metrics_merged.csv")["n_missing"] == 0).all()
