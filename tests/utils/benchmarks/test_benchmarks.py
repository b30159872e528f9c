"""The benchmark's verdicts and table; the measurements themselves are not tested."""

import math
from itertools import islice

import numpy as np
import pandas as pd
import pytest
import torch
from compressai.entropy_models import EntropyModel
from helpers.tiny import NARROW
from omegaconf import OmegaConf
from scipy.stats import entropy

from lossyless.coding.tables import TOTAL_MASS
from utils.benchmarks import __main__ as benchmarks
from utils.benchmarks import experiments, gpu, tables
from utils.benchmarks.bottleneck import CompressAI, make_bottleneck, make_hyperprior
from utils.benchmarks.comparison import Comparison, compare_speed
from utils.benchmarks.steps import Step, count_kernels, measure
from utils.benchmarks.training import BareLoop, banana_config, images_config, short_trainer
from utils.configs.composing import compose_config
from utils.training import building, fitting

FACTS = dict.fromkeys(tables.CIRCUMSTANCES, "here")


def comparison(ours, reference, **goal) -> Comparison:
    return Comparison("speed", "something slow", "/s", ours, reference, **(goal or {"low": 10}))


@pytest.mark.parametrize(
    "goal, met, missed, text",
    [
        ({"low": 100}, [100, math.inf], [99.9, -1], ">= 100"),
        ({"high": 1.15}, [1.15, 0], [1.16, math.inf], "<= 1.15"),
        ({"low": 0.98, "high": 1.02}, [0.98, 1, 1.02], [0.97, 1.03], "0.98 to 1.02"),
    ],
)
def test_goals_include_their_bounds_and_exclude_nan(goal, met, missed, text):
    assert all(comparison([ratio], [1], **goal).is_met for ratio in met)
    assert not any(comparison([ratio], [1], **goal).is_met for ratio in [*missed, math.nan])
    assert comparison([1], [1], **goal).goal == text


def test_the_ratio_is_the_median_of_pairs_and_not_the_ratio_of_medians():
    """If the machine is five times slower for a while, both sides of a pair slow down."""
    row = comparison([20, 100, 40], [2, 10, 2])
    assert row.ratio == 10 and row.is_met
    with pytest.raises(ValueError):
        _ = comparison([1, 2], [1]).ratio


def test_the_spread_is_the_median_deviation_and_ignores_single_outliers():
    assert comparison([8, 10, 13], [1, 1, 1]).spread == pytest.approx(0.2)
    assert comparison([9, 10, 10, 11, 1000], [1] * 5).spread == pytest.approx(0.1)
    assert comparison([7], [2]).spread == 0


def test_tables_are_written_and_read_back(tmp_path):
    rows = [comparison([5e6], [1e3]), comparison([0.0052], [0.002], high=math.inf)]
    table = tables.table_of("coding", rows, **FACTS)
    tables.write(table, tmp_path)
    assert tables.read(tmp_path).equals(tables.read(tmp_path / "coding.csv"))
    again = tables.read(tmp_path)[list(table)]
    pd.testing.assert_frame_equal(again, table, check_dtype=False, rtol=1e-3)
    ok, plain = (tmp_path / "README.md").read_text().splitlines()[-2:]
    assert all(text in ok for text in ("| 5 M/s", "| 1 k/s", "| >= 10", "| 5,000", "| ok"))
    assert all(text in plain for text in ("| 5.2 m/s", "| 2 m/s", "| 2.600", "0%"))


@pytest.mark.parametrize("unit", ["/s", "s"])
def test_only_ratios_that_get_worse_by_more_than_both_spreads_are_slower(unit):
    """Smaller ratios are worse for rates, larger ones for times. The scale may change."""

    def table(ratio, spread, scale=1.0):
        ours = [scale * ratio * (1 + d) for d in (-spread, 0, spread)]
        return tables.table_of("data", [Comparison("a", "b", unit, ours, [scale] * 3)], **FACTS)

    for ratio, is_worse in ((1.0, False), (1.31, False), (1.5, True), (0.7, False)):
        new = ratio if unit == "s" else 1 / ratio
        found = tables.slower(table(2, 0.1), table(2 * new, 0.05, scale=7))
        assert len(found) == is_worse
    both = pd.concat([table(1, 0.1), table(3, 0.1).assign(subject="other")])
    assert not len(tables.slower(both, both))
    with pytest.raises(SystemExit, match="no row"):
        tables.slower(table(1, 0.1), table(2, 0.1).assign(n="other"))


def test_compare_exits_with_1_if_a_row_is_slower(monkeypatch, capsys, tmp_path):
    speeds = {}
    monkeypatch.setattr(
        benchmarks, "SUBJECTS", {"first": lambda is_quick: [comparison([speeds["now"]], [1.0])]}
    )

    def run(speed, *arguments):
        speeds["now"] = speed
        return benchmarks.main(["--out", str(tmp_path), *map(str, arguments)])

    csv = tmp_path / "first.csv"
    assert run(20) == 0 and run(20, "--compare", tmp_path) == 0
    assert run(21, "--compare", csv) == 0 and run(19, "--compare", csv) == 1
    (tmp_path / "old").mkdir()
    old = csv.rename(tmp_path / "old" / csv.name)
    assert run(5) == 1 and run(5, "--compare", csv) == 1
    assert "missed goals: 1 rows" in capsys.readouterr().out
    assert benchmarks.main(["--compare", str(old), str(csv)]) == 1  # runs nothing
    assert benchmarks.main(["--compare", str(csv), str(old)]) == 0
    assert "something slow" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="CSV"):
        benchmarks.main(["--compare", str(tmp_path / "missing")])


def test_no_row_means_skipped(monkeypatch, tmp_path):
    monkeypatch.setattr(
        benchmarks, "SUBJECTS", {"a": lambda _: [], "b": lambda _: [comparison([20], [1])]}
    )
    assert benchmarks.main(["--out", str(tmp_path)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "b.csv"]
    with pytest.raises(SystemExit, match="measured"):
        benchmarks.main(["--out", str(tmp_path), "--only", "a"])


def test_runs_alternate_after_a_warm_up():
    calls = []
    functions = (lambda: calls.append("o"), lambda: calls.append("r"))
    row = compare_speed("a", "b", *functions, sizes=(20, 10), n_repeats=3, low=1)
    assert calls == ["o", "r"] * 4 and len(row.ours) == len(row.reference) == 3


SMALL_IMAGES = ["encoder.z_dim=16", "data_feat.kwargs.side=16", "data_feat.kwargs.batch_size=8"]
SMALL_IMAGES += ["decoder.kwargs.hid_dim=8", "online.kwargs.hid_dim=64"]


@pytest.fixture(params=["banana", "images"])
def small_config(request, tmp_path):
    if request.param == "banana":
        return banana_config(tmp_path, *NARROW, "data_feat.kwargs.n_train=2048")
    return images_config(tmp_path, *SMALL_IMAGES)


def without_randomness(compressor):
    """Deterministic training steps: no dropout, no noise."""
    for module in compressor.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(module, EntropyModel):
            module.quantize = lambda values, mode, means=None: values
    return compressor


def test_the_bare_loop_makes_the_same_updates_as_the_trainer(small_config):
    """Data, losses and updates are the same, so that times are comparable."""
    fitting.quiet()
    compressor = without_randomness(building.build_compressor(small_config))
    compressor.annealer.mode = "constant"
    data = building.build_data(small_config, "data_feat", compressor.distortion.needs)
    loop = BareLoop(compressor)
    before = {name: p.clone() for name, p in compressor.named_parameters()}
    short_trainer(small_config, 2).fit(compressor, datamodule=data)
    for batch in islice(data.loader("train", epoch=0), 2):
        loop.step(batch)
    ours = dict(compressor.named_parameters())
    assert all(not torch.equal(before[name], p) for name, p in ours.items() if p.requires_grad)
    for name, theirs in loop.model.named_parameters():
        if name.endswith("quantiles"):
            continue
        torch.testing.assert_close(theirs, ours[name], rtol=1e-4, atol=1e-5, msg=name)


def test_drawn_vectors_have_the_entropy_of_the_model():
    """Otherwise the entropy would not be a reference for file sizes."""
    bottleneck = make_bottleneck(8)
    rate, z = bottleneck.rate, bottleneck.draw(20_000)
    tables, symbols = rate.tables["z"], rate.quantise(z)
    assert torch.equal(rate.dequantise(symbols), z)
    assert (symbols >= tables.offsets).all()
    assert (symbols < tables.offsets + tables.escapes).all()
    masses = [
        np.diff(cdf[:length]) / TOTAL_MASS
        for cdf, length in zip(tables.cdfs, tables.lengths, strict=True)
    ]
    information = rate.coder().information(symbols).mean(0)
    np.testing.assert_allclose(information, [entropy(m, base=2) for m in masses], rtol=0.02)
    assert bottleneck.cross_entropy(z) == pytest.approx(len(z) * information.sum(), rel=0.002)


@pytest.mark.parametrize("is_batched", [False, True])
@pytest.mark.parametrize("bottleneck", [make_bottleneck(8), make_hyperprior(8, n_steps=2)])
def test_references_decode_the_same_vectors_up_to_neighbouring_cells(bottleneck, is_batched):
    z, rate = 3 * bottleneck.draw(100), bottleneck.rate
    coder = CompressAI(rate, is_batched=is_batched)
    streams = coder.encode(z)
    assert {len(group) for group in streams} == {1 if is_batched else 100}
    ours, theirs = rate.decompress(rate.compress(z), 100), coder.decode(streams, 100)
    if len(streams) == 1:  # factorized
        assert torch.equal(ours, theirs)
    assert (ours - z).abs().max() * 1.1 > (theirs - z).abs().max() > 0


@pytest.mark.parametrize(
    "name",
    [
        *("data", "augmentation", "coding", "files", "access", "growth"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("hub", "memory", "startup")),
    ],
)
def test_subjects_give_finite_ratios(name):
    for row in benchmarks.SUBJECTS[name](True):
        assert all(map(math.isfinite, row.ratios))


def test_a_training_is_profiled(capsys):
    findings = gpu.measure(
        "featurizer", [*gpu.BANANA, *NARROW, *gpu.SMALL_BATCHES], gpu.SMOKE_TEST, is_noise=False
    )
    steps, waits = findings
    assert "ms a step" in steps and "busy" in steps and "checkpoint of" in waits


@pytest.mark.slow
def test_the_launches_of_a_compiled_step_do_not_depend_on_the_depth_of_networks(tmp_path):
    def count(is_compiled: bool, depth: int) -> int:
        deep = [f"encoder.kwargs.n_hidden_layers={depth}", f"trainer.compile={is_compiled}"]
        return count_kernels(Step.of(banana_config(tmp_path, *NARROW, *deep), "featurizer"))

    assert count(True, depth=1) == count(True, depth=3) < 40
    assert 40 < count(False, depth=1) < count(False, depth=3)


# 1,024,000 points in batches of 1024; 106,458 COCO images in batches of 64, and once in batches of
# 256 for each of 4 crops; 4750 STL-10 images in batches of 45, the geometric mean of 32 and 64
@pytest.mark.parametrize(
    ("overrides", "jobs", "steps"),
    [
        (["experiment=banana_viz_VIC"], 2, {"featurizer": 2 * 100_000, "predictor": 2 * 100_000}),
        (
            ["experiment=banana_viz_VIC", "+trainer_pred.limit_train_batches=10"],
            2,
            {"featurizer": 2 * 100_000, "predictor": 2 * 100 * 10},
        ),
        (
            ["experiment=clip_bottleneck_mlp_eval", "data@data_pred=stl10"],
            10,
            {"featurizer": 30 * 1664, "predictor": 10 * 100 * 106, "tower": 1664 + 19},
        ),
    ],
)
def test_steps_are_epochs_times_batches_and_a_shared_compressor_counts_once(overrides, jobs, steps):
    trained = set()
    found, again = experiments.plan(overrides, trained), experiments.plan(overrides, trained)
    assert found[experiments.JOBS] == again[experiments.JOBS] == jobs
    first, second = (
        {step.stage: n for step, n in work.items() if isinstance(step, Step)}
        for work in (found, again)
    )
    assert first == steps and second == {"predictor": steps["predictor"]}


def test_every_experiment_that_trains_is_launched_by_a_script():
    launched = {
        overrides[0].partition("=")[2]: script for script, overrides in experiments.launches()
    }
    assert [e for e, script in launched.items() if script == "python main.py"] == ["test_mnist"]
    assert launched["STL10_dist_variation_recpred_classical"].endswith("_recpred.sh")
    assert launched["ssl_towers_mlp_eval"] == "bin/ssl/towers.sh"


def test_the_flops_of_a_step_are_those_of_its_matrix_products():
    cfg = compose_config(["experiment=digits_viz_VIC", "architecture@predictor=linear"])
    before = OmegaConf.to_yaml(cfg)
    cost = measure(Step.of(cfg, "predictor"))  # linear: the forward pass and the weights' gradient
    assert cost.flops == 2 * (2 * 128 * 16 * 10) and cost.seconds > 0
    assert OmegaConf.to_yaml(cfg) == before


def test_the_table_of_experiments_has_a_row_for_each_script(capsys):
    assert benchmarks.main(["--only", "experiments", "--match", "bin/test.sh"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| `")]
    assert len(rows) == 1 and rows[0].startswith("| `bin/test.sh` | `test` | 2 | 20 | 20 |")
