"""Reconstructions by standard and invariant compressors: selected runs, bits and images."""

import shutil

import numpy as np
import pytest
import torch
from helpers.tiny import DIGITS, compose, paths

import aggregate
from utils.aggregation import reconstructions, tables
from utils.data.sources import digits as digits_set
from utils.plots import images
from utils.training import jobs, stages

BASE = [*DIGITS, "trainer.max_epochs=1", "distortion=VAE"]
MODE = "aggregate.compare_reconstructions"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An experiment whose folders have been moved: VC with two seeds, VIC with two betas."""
    before = tmp_path_factory.mktemp("before")
    for settings in ("seed=2", "seed=10", "distortion=VIC seed=2", "distortion=VIC seed=3 beta"):
        settings = settings.replace("beta", "featurizer.loss.beta=0.25").split()
        cfg = compose(before, "architecture@decoder=mlp_small", *settings, base=BASE)
        with jobs.prepared(cfg) as cfg:
            stages.featurizer(cfg)
            stages.communicate(cfg)
    after = tmp_path_factory.mktemp("after")
    for name in ("results", "pretrained"):
        shutil.move(before / name, after / name)
    return after


def of(tmp, *overrides):
    """Overrides for `aggregate.py`."""
    here = [
        *paths(tmp),
        "trainer.accelerator=cpu",
        "logger=none",
        "aggregate.modes=[compare_reconstructions]",
    ]
    return ["experiment=none", *here, *overrides]


def where(values, option="where"):
    return f"{MODE}.{option}={{{values}}}"


@pytest.fixture
def drawn(monkeypatch):
    """Arguments with which drawing functions were called: name -> (compressors, data)."""
    calls = {}

    def noting(function):
        return lambda *args: calls.update({function.__name__: args[:2]}) or function(*args)

    for function in (reconstructions.single_row, reconstructions.multi_row):
        monkeypatch.setattr(reconstructions, function.__name__, noting(function))
    return calls


def table(folder, **values):
    runs = tables.collect(folder / "results/exp_none")[0]["communication"]
    for key, value in values.items():
        runs = runs[runs[key] == value]
    (row,) = runs.to_dict("records")
    return row


def test_both_figures_have_the_bits_of_the_table_and_the_first_seed(folder, drawn):
    aggregate.main(of(folder, where("beta: 1")))
    for name in ("single", "multi"):
        path = folder / f"results/exp_none/figures/rec_imgs_allin1_{name}_row.png"
        assert path.stat().st_size > 1000
    vc = table(folder, dist="VAE", seed="2")["test/comm/n_bits"]
    vic = table(folder, dist="VIC", seed="2")["test/comm/n_bits"]
    single, _ = drawn["single_row"]
    assert list(single) == [
        f"standard (VC)\n{vc:.1f} bits",
        f"invariant (VIC)\n{vic:.1f} bits",
    ]
    multi, _ = drawn["multi_row"]
    for label, method, bits in zip(multi, ("VC", "VIC"), (vc, vic), strict=True):
        name, value, unit = label.split()
        assert (name, unit) == (f"{method}:", "bits")
        assert float(value) == pytest.approx(bits, rel=5e-3)


def test_methods_are_selected_separately(folder, drawn):
    aggregate.main(of(folder, f"+{MODE}.invariant.beta=0.25", where("beta: 1.0")))
    (_, vic), (_, data) = drawn["single_row"][0].values(), drawn["single_row"]
    assert vic.beta == 0.25 and data.seed == 3


@pytest.mark.parametrize(
    ("overrides", "messages"),
    [
        ([where("bet: 1")], ["'bet'", "beta"]),
        ([f"{MODE}.bits=test/comm/bits"], ["test/comm/n_bits"]),
        ([f"{MODE}.bits=n_bits"], ["<split>/comm/<name>"]),
        ([where("beta: 1"), f"{MODE}.image=400"], ["no test image 400", "400 images"]),
    ],
)
def test_invalid_options_are_errors(folder, overrides, messages):
    with pytest.raises(SystemExit) as error:
        aggregate.main(of(folder, *overrides))
    assert all(message in str(error.value) for message in ["Error: ", *messages])


@pytest.mark.parametrize(
    ("override", "messages"),
    [
        (where("dist: BINCE", "standard"), ["distortion=BINCE", "VAE, VIC"]),
        (where("beta: 0.25"), ["distortion=VAE", "beta=0.25"]),
        ("seed=1", ["several invariant", "beta: 1.0e+00, 2.5e-01", f"{MODE}.where='{{beta:"]),
    ],
)
def test_missing_and_ambiguous_runs_are_named(folder, override, messages, drawn, capsys):
    aggregate.main(of(folder, override))
    error = capsys.readouterr().err
    assert not drawn and all(message in error for message in messages)


@pytest.fixture
def methods(make_compressor):
    return {
        f"{method} title": make_compressor((1, 16, 16), method, kind="bw_image").eval()
        for method in ("VC", "VIC")
    }


@pytest.fixture(scope="module")
def digits():
    return digits_set.digits(auxiliary="input", equivalence=["rotation"])


def test_rows_show_source_augmented_and_reconstructed_images(methods, digits):
    data = digits_set.digits(auxiliary="representative", equivalence=["rotation"])
    batch = next(iter(data.loader("test")))
    decoded = [images.reconstruct(compressor, batch.x[:4]) for compressor in methods.values()]
    single = reconstructions.single_row(methods, digits, image=3).axes[0]
    expected = torch.cat([x[3:, 0] for x in (batch.x[:4], *decoded)], dim=-1)
    assert labels(single.get_xticklabels()) == ["augmented", "VC title", "VIC title"]
    assert not labels(single.get_yticklabels())
    assert np.allclose(without_gaps(single), expected[0], atol=1e-6)
    multi = reconstructions.multi_row(methods, digits, n_images=4).axes[0]
    columns = [torch.cat(list(x[:4, 0]), dim=-1) for x in (batch.aux, batch.x, *decoded)]
    assert labels(multi.get_yticklabels()) == ["source", "augmented", "VC title", "VIC title"]
    assert np.allclose(without_gaps(multi), torch.cat(columns), atol=1e-6)


def without_gaps(axes):
    """Remove the one-pixel gaps between 16-pixel images on a canvas."""
    canvas = axes.images[0].get_array()[..., 0]
    rows, columns = (np.arange(n) % 17 < 16 for n in canvas.shape)
    return canvas[rows][:, columns]


def labels(ticks):
    return [tick.get_text() for tick in ticks]
