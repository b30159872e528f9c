"""From runs on disk to the table, curves and figures that people look at."""

import pandas as pd
import pytest
from tiny import compose, paths, run

import aggregate
from utils import aggregation
from utils.config import ConfigError
from utils.runs import experiment_folder


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
    return ["experiment=none", *paths(tmp), *overrides]


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


def test_figures_lie_side_by_side(folder):
    aggregate.main(of(folder, "aggregate.modes=[gather_figures]"))
    names = {file.name for file in (folder / "results/exp_none/figures").iterdir()}
    assert names == {"quantization_VAE.png", "quantization_VIC.png"}


def test_curves_are_drawn_for_each_metric(folder):
    modes = "aggregate.modes=[plot_all_RD_curves]"
    aggregate.main(of(folder, modes, "aggregate.plot_all_RD_curves.y=[test/pred/loss]"))
    assert (folder / "results/exp_none/all_RD_curves_test_pred_loss.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("aggregate.modes=[summarise]", "summarize_metrics"),
        ("aggregate.summarize_metrics.table=all", "merged"),
        ("+aggregate.summarize_metrics.columns.x=test/feat/bits", "test/feat/rate"),
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
    cfg = compose(aggregation.Path("x"))
    assert set(aggregation.MODES) <= set(cfg.aggregate)
    assert experiment_folder(cfg) == "exp_none"
    with pytest.raises(ConfigError, match="there is no 'x'"):
        cfg.aggregate.modes = ["x"]
        aggregation.aggregate(cfg.aggregate, aggregation.Path("x"))
