"""What all modes share: selection of runs, display names, and byte-identical files."""

import pandas as pd
import pytest
from helpers.curve_runs import Runs, table
from PIL import Image

from utils.aggregation.experiment import Experiment, number
from utils.aggregation.metrics import summarize_metrics
from utils.configs.checks import ConfigError
from utils.plots import style

TABLE = pd.DataFrame({"a_b": ["50 %", "x|1"], "value": [1 / 3, float("nan")], "n": [1, 2]})
LOSS = "test/pred/loss"


@pytest.fixture
def frame():
    runs = table(
        {"dist": dist, "beta": beta, "seed": seed, LOSS: 1.0}
        for dist in ("VIC", "VAE")
        for beta in "12"
        for seed in (0, 1)
    )
    return runs.assign(featurizer_id=runs["group"] + runs["seed"])


def test_global_where_restricts_all_modes(tmp_path, frame):
    experiment = Runs(tmp_path, frame, where={"dist": "VIC"})
    assert set(experiment.merged({"beta": [1, 2]})["dist"]) == {"VIC"}
    assert set(experiment.finished("featurizer")["dist"]) == {"VIC"}
    with pytest.raises(ConfigError, match=r"aggregate\.where: .*'dis'"):
        Runs(tmp_path, frame, where={"dis": "VIC"}).merged()


def test_the_where_of_a_mode_restricts_all_runs_but_those_of_its_other_options(tmp_path, frame):
    where = {"where": {"dist": ["VIC", "VAE"]}, "mode_where": {"dist": "VIC", "beta": 1}}
    experiment = Runs(tmp_path, frame, **where, option="aggregate.mode")
    for runs in (experiment.merged(), experiment.finished("featurizer"), experiment.columns([])):
        assert set(runs["dist"] + runs["beta"]) == {"VIC1"}
    assert len(experiment.stages()["featurizer"]) == 2
    assert set(experiment.merged({"dist": "VAE"}, "reference")["beta"]) == {"1", "2"}
    with pytest.raises(ConfigError, match=r"aggregate\.mode\.reference: .*'dis'"):
        experiment.merged({"dis": "VAE"}, "reference")


def test_display_names_and_prefix_of_files(tmp_path, frame):
    names = {"VIC": "ours", "dist": "method"}
    summarize_metrics(Runs(tmp_path, frame, names=names, prefix="mine_"), {"loss": LOSS})
    text = (tmp_path / "mine_summary.md").read_text()
    assert "| method |" in text and "| ours " in text and "VIC" not in text
    assert {"dist", f"{LOSS}_mean", "n_seeds"} <= set(pd.read_csv(tmp_path / "mine_summary.csv"))


def test_csv_has_all_digits_and_other_formats_have_four(tmp_path):
    Experiment(tmp_path).save_table(TABLE, "t", caption="Of runs & seeds")
    assert (tmp_path / "t.csv").read_text() == TABLE.to_csv(index=False)
    lines = (tmp_path / "t.md").read_text().splitlines()
    assert lines[2:4] == ["| 50 % | 0.3333 | 1 |", r"| x\|1 | -      | 2 |"]
    assert lines[-1].startswith("Of runs & seeds")
    latex = (tmp_path / "t.tex").read_text()
    assert all(rule in latex for rule in (r"\toprule", r"\midrule", r"\bottomrule"))
    assert r"\caption{Of runs \& seeds" in latex and r"a\_b & value & n \\" in latex
    assert r"50 \% & 0.3333 & 1 \\" in latex
    shown = pd.DataFrame({"value": [number(1 / 3, 0.05)]})  # different content for human readers
    Experiment(tmp_path).save_table(TABLE, "t", shown=shown)
    assert r"0.3333 $\pm$ 0.05" in (tmp_path / "t.tex").read_text()
    assert "a_b" in (tmp_path / "t.csv").read_text()
    assert "a_b" not in (tmp_path / "t.md").read_text()


def make_figure():
    figure, axes = style.make_figure()
    axes.plot([0, 1], [1, 0], label="a")
    return figure


def test_equal_figures_have_equal_bytes_and_the_chosen_resolution(tmp_path, monkeypatch):
    for name, epoch in (("a", "1"), ("b", "1000000000")):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)  # the date that the files would contain
        Experiment(tmp_path / name).save_figure(make_figure(), "beta_0.5")
    found, again = (
        {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in "ab"
    )
    assert set(found) == {"beta_0.5.png", "beta_0.5.pdf"} and found == again
    assert b"/Type3" not in found["beta_0.5.pdf"]
    Experiment(tmp_path, dpi=320).save_figure(make_figure(), "fine")
    sizes = [Image.open(tmp_path / name).size for name in ("a/beta_0.5.png", "fine.png")]
    assert sizes == [(5 * dpi, 3.6 * dpi) for dpi in (style.DPI, 320)]
