"""Statistics of rate-distortion curves over the seeds of an experiment."""

import pandas as pd
import pytest
from helpers.curve_runs import Runs, table

from utils.aggregation.curve_numbers import summarize_RD_curves

X, Y = "test/feat/rate", "test/pred/loss"


def saved(folder, key="dist"):
    return pd.read_csv(folder / "summarized_RD_curves_merged.csv").set_index(key)


def caption(folder):
    """The line below the table."""
    return (folder / "summarized_RD_curves_merged.md").read_text().splitlines()[-1]


@pytest.fixture
def exponential():
    """VIC's losses are 4 / 2 ** rate + seed at rates 0, 1, 2, 3; VC needs twice the bits."""
    return table(
        {"dist": dist, "beta": f"{rate}", "seed": seed, X: factor * rate, Y: 4 / 2**rate + seed}
        for dist, factor in (("VIC", 1), ("VAE", 2))
        for seed in (0, 2)
        for rate in (0, 1, 2, 3)
    )


def test_areas_and_minima_over_seeds(tmp_path, exponential, capsys):
    summarize_RD_curves(Runs(tmp_path, exponential), Y, X)
    found = saved(tmp_path)
    assert (found["n_seeds"] == 2).all() and (found["n_runs_mean"] == 4).all()
    # trapezoids with rates 3 to 0 over losses 1/2, 1, 2, 4; seeds shift the losses
    area = 2.5 / 2 + 1.5 * 1 + 0.5 * 2
    assert found["AURD_mean"].to_dict() == {"VIC": area, "VAE": 2 * area}
    assert (found["AURD_sem"] == 0).all()
    assert found["min_mean"].tolist() == [1.5, 1.5]
    assert "gain_mean" not in found and "| VIC " in capsys.readouterr().out


def test_area_of_squared_errors_is_that_of_shannons_line_in_any_unit(tmp_path):
    """For a Gaussian of variance 1, R = log2(1 / MSE) / 2, from 0 to 3 bits, bounds a triangle."""
    runs = table(
        {"dist": dist, "beta": f"{bits}", "seed": seed, X: bits, Y: unit * 4.0**-bits}
        for dist, unit in (("VIC", 1), ("VAE", 10))
        for seed in (0, 2)
        for bits in (3, 0, 1, 2)
    )
    summarize_RD_curves(Runs(tmp_path, runs), Y, X, mse_cols=[Y])
    found = saved(tmp_path)
    assert found["AURD_mean"].to_dict() == pytest.approx({"VIC": 4.5, "VAE": 4.5})
    assert found["min_mean"]["VIC"] == 4.0**-3


def test_rates_near_the_lowest_distortion_are_pooled_over_seeds(tmp_path):
    losses = {"VIC": [(8, 0.5), (5, 0.509), (2, 0.511)], "VAE": [(9, 0.505), (7, 0.514), (3, 0.9)]}
    runs = table(
        {"dist": dist, "beta": f"{i}", "seed": seed, X: rate + seed, Y: loss}
        for dist, points in losses.items()
        for seed in (0, 2)
        for i, (rate, loss) in enumerate(points)
    )
    summarize_RD_curves(Runs(tmp_path, runs), Y, X)
    found = saved(tmp_path)
    current, everyone = "rate_val_mindist_curr", "rate_val_mindist_all"
    assert found[f"{current}_mean"].to_dict() == {"VIC": 6.5 + 1, "VAE": 8 + 1}
    assert found[f"{everyone}_mean"].to_dict() == {"VIC": 6.5 + 1, "VAE": 9 + 1}
    expected = pd.Series([8, 10, 5, 7]).sem()
    assert found.loc["VIC", [f"{current}_sem", f"{everyone}_sem"]].tolist() == [expected] * 2


def test_half_the_bits_are_twice_the_gain(tmp_path, exponential, capsys):
    other = "test/pred/err"  # a second distortion, below the first in the table
    runs = exponential.assign(**{other: exponential[Y] / 2})
    runs = runs[runs["beta"] != "0"]  # 0 bits have no logarithm
    summarize_RD_curves(Runs(tmp_path, runs), [Y, other], X, baseline="VAE", tolerance=0.1)
    both = saved(tmp_path, ["distortion", "dist"])
    assert (both.loc[other, "AURD_mean"] == both.loc[Y, "AURD_mean"] / 2).all()
    found = both.loc[Y]
    assert found["gain_mean"].to_dict() == pytest.approx({"VIC": 2, "VAE": 1})
    assert found["bd_rate_mean"].to_dict() == pytest.approx({"VIC": -50, "VAE": 0})
    # 0.1 above 1/2: a fifth of the way back from 3 bits to 2
    assert found["rate_near_lossless_mean"].to_dict() == pytest.approx({"VIC": 2.8, "VAE": 5.6})
    assert "relative to dist = VAE" in (tmp_path / "summarized_RD_curves_merged.tex").read_text()
    summarize_RD_curves(Runs(tmp_path, runs), Y, X, baseline="BINCE")
    assert "dist=BINCE" in capsys.readouterr().err and "gain_mean" not in saved(tmp_path)


def test_runs_without_compression_define_near_lossless_and_have_no_area(tmp_path, exponential):
    others = [{"dist": "codec", "beta": "none", "seed": s, X: 90.0, Y: 0.1} for s in (0, 2)]
    others += [
        {"dist": "none", "beta": beta, "seed": 0, X: rate, Y: loss}
        for beta, rate, loss in (("0", 80.0, 1.5), ("1", 90.0, 1.3))
    ]
    runs = pd.concat([exponential[exponential["seed"] == "0"], table(others)])
    summarize_RD_curves(Runs(tmp_path, runs), Y, X, reference={"dist": "none"}, tolerance=0.1)
    found = saved(tmp_path)
    assert found["near_lossless_mean"].tolist() == pytest.approx([1.5] * 4)  # 0.1 above the mean
    near_lossless = found["rate_near_lossless_mean"]
    assert near_lossless[["VIC", "VAE"]].to_dict() == pytest.approx({"VIC": 1.5, "VAE": 3})
    is_missing = {"VAE": False, "VIC": False, "codec": True, "none": True}
    assert found["AURD_mean"].isna().to_dict() == is_missing
    assert "near lossless: up to 1.5 (runs" in caption(tmp_path)


def test_numbers_that_one_seed_lacks_are_missing(tmp_path, exponential):
    is_bad = (exponential["dist"] == "VAE") & (exponential["seed"] == "2")
    runs = exponential.assign(**{Y: exponential[Y] + 9 * is_bad})
    summarize_RD_curves(Runs(tmp_path, runs), Y, X, baseline="VIC")
    found = saved(tmp_path)
    assert found.loc["VAE", ["rate_near_lossless_mean", "gain_mean", "bd_rate_mean"]].isna().all()
    assert found.loc["VIC", "gain_mean"] == 1


def test_baselines_agree_with_a_curve_in_the_parameters_that_distinguish_baselines(tmp_path):
    runs = table(
        {"dist": dist, "rate": rate, "zdim": len(dist), "seed": 1, "beta": f"{bits}"}
        | {X: bits * factor, Y: 10.0 - bits}
        for dist, rate, factor in (
            ("VAE", "H_factorized", 4),
            ("VAE", "H_hyper", 2),
            ("BINCE", "H_factorized", 1),
            ("BINCE", "MI", 1),
        )
        for bits in (1, 2, 3)
    )
    summarize_RD_curves(Runs(tmp_path, runs), Y, X, baseline="VAE")
    gains = saved(tmp_path, ["dist", "rate"])["gain_mean"]
    assert gains["BINCE", "H_factorized"] == pytest.approx(4)
    assert gains["VAE", "H_hyper"] == 1 and pd.isna(gains["BINCE", "MI"])


def test_failed_runs_of_a_curve_are_counted(tmp_path, exponential):
    is_failed = (exponential["dist"] == "VIC") & (exponential["beta"] == "1")
    runs = exponential.assign(state=["failed" if failed else "done" for failed in is_failed])
    runs.loc[is_failed, [X, Y]] = float("nan")
    summarize_RD_curves(Runs(tmp_path, runs, seeds=[0, 2, 3]), Y, X)
    found = saved(tmp_path)
    assert found["n_failed"].to_dict() == {"VAE": 0, "VIC": 2}
    assert found["n_missing"].to_dict() == {"VAE": 4, "VIC": 4}  # seed 3 of each beta
    assert found["n_runs_mean"].to_dict() == {"VAE": 4, "VIC": 3}
