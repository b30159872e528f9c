"""Compressors load weights strictly, under every naming scheme."""

import dataclasses
import hashlib
import warnings
from pathlib import Path

import pytest
import torch
from compressai.entropy_models import EntropyBottleneck
from helpers.tiny_clip import save_bottleneck, save_clip
from helpers.toy import digest_of

import hubconf
from lossyless.hub import RELEASED, clip_compressor
from lossyless.hub.weights import load_bottleneck
from lossyless.rates import HFactorized, HHyper
from lossyless.rates.transforms import TRANSFORMS
from lossyless.weights import WeightsError, check_sha256

Z_DIM = 5
REAL = Path(__file__).parents[4] / "shared" / "weights" / "beta5e-02" / "factorized_rate.pt"
LEGACY = {"matrices": "_matrix", "biases": "_bias", "factors": "_factor"}


def official_state(is_legacy: bool) -> dict[str, torch.Tensor]:
    """An official state dict, with names from CompressAI 1.1 (legacy) or later versions."""
    torch.manual_seed(0)
    bottleneck = EntropyBottleneck(Z_DIM)
    bottleneck.quantiles.data += torch.randn(Z_DIM, 1, 1)
    state = {"scaling": torch.randn(Z_DIM), "biasing": torch.randn(Z_DIM)}
    for name, tensor in bottleneck.state_dict().items():
        part, _, number = name.partition(".")
        legacy = is_legacy and part in LEGACY
        state["entropy_bottleneck." + (LEGACY[part] + number if legacy else name)] = tensor
    return state


def save(state, tmp_path) -> Path:
    path = tmp_path / "weights.pt"
    torch.save(state, path)
    return path


@pytest.mark.parametrize("is_legacy", [True, False])
def test_official_weights_load_completely_and_keep_their_centres(is_legacy, tmp_path):
    state = official_state(is_legacy)
    rate = load_bottleneck(save(state, tmp_path))
    assert not rate.training
    assert torch.equal(rate.scaling, state["scaling"])
    assert torch.equal(rate.biasing, state["biasing"])
    bottleneck = EntropyBottleneck(Z_DIM)
    current = official_state(is_legacy=False)
    names = bottleneck.state_dict().keys()
    bottleneck.load_state_dict({name: current[f"entropy_bottleneck.{name}"] for name in names})
    x = torch.randn(50, Z_DIM)
    ours, theirs = rate.prior(x), bottleneck.eval()(x)
    assert torch.equal(ours[0], theirs[0])
    torch.testing.assert_close(ours[1], theirs[1], rtol=0, atol=3e-7)
    widths = rate.get_extra_state()["cell_widths"]
    assert torch.equal(widths, (-state["scaling"].double()).exp().float())

    rate.update()
    assert torch.equal(rate.prior.quantiles, state["entropy_bottleneck.quantiles"])
    assert torch.equal(rate.decompress(rate.compress(x), 50), rate.dequantise(rate.quantise(x)))


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_all_transforms_load_with_their_tables_or_without(transform, tmp_path):
    torch.manual_seed(0)
    rate, z = HFactorized(Z_DIM, transform=transform), torch.randn(40, Z_DIM)
    rate.fit_transform(z)
    assert load_bottleneck(save(rate.state_dict(), tmp_path)).tables["z"].n_tables == Z_DIM
    rate.update()
    assert torch.equal(rate.decompress(rate.compress(z), 40), rate.eval()(z, None)[0])
    rate.prior.biases[0].data += 1e-3  # as if another machine had made the tables
    state = rate.state_dict()
    loaded = load_bottleneck(save(state, tmp_path))
    assert loaded.transform_name == transform
    assert loaded.fingerprint() == rate.fingerprint() and loaded.compress(z) == rate.compress(z)
    state["_extra_state"]["transform"] = "no such"
    with pytest.raises(WeightsError, match=r"weights.pt: .*no such"):
        load_bottleneck(save(state, tmp_path))


def test_missing_tensors_are_named(tmp_path):
    state = official_state(is_legacy=True)
    for name in state.keys() - {
        f"entropy_bottleneck._{derived}" for derived in ("offset", "quantized_cdf", "cdf_length")
    }:
        with pytest.raises(WeightsError, match=name.split(".")[-1].strip("_")[:4]):
            load_bottleneck(save({n: v for n, v in state.items() if n != name}, tmp_path))


@pytest.mark.parametrize(
    "state",
    [torch.zeros(3), {}, {"scaling": 3.0, "biasing": 3.0}, {1: torch.zeros(1)}, HHyper(Z_DIM)],
    ids=["tensor", "empty", "numbers", "unnamed", "another rate"],
)
def test_other_contents_are_rejected(state, tmp_path):
    state = state.state_dict() if isinstance(state, HHyper) else state
    with pytest.raises(WeightsError, match="weights.pt"):
        load_bottleneck(save(state, tmp_path))


def test_weights_that_diverged_are_rejected(tmp_path):
    state = official_state(is_legacy=True)
    state["entropy_bottleneck._bias1"][0] = torch.nan
    with pytest.raises(WeightsError, match="diverged"):
        load_bottleneck(save(state, tmp_path))


@pytest.mark.skipif(not REAL.exists(), reason="the released weights are not on this machine")
def test_the_tables_of_the_released_weights_are_the_same_on_every_machine():
    check_sha256(REAL, RELEASED["b005"].sha256)
    rate = load_bottleneck(REAL)
    tables, widths = rate.tables["z"], rate.get_extra_state()["cell_widths"]
    # files written with these tables would be unreadable with others
    assert digest_of(tables) == "b22db0fb9c9a4953ee9c94341da645ae"
    assert hashlib.sha256(widths.numpy().tobytes()).hexdigest()[:16] == "df8162868ef7153d"


# --- arguments


@pytest.mark.parametrize(
    ("argument", "error", "key"),
    [
        ({"clip_path": "/no/x.pt"}, WeightsError, "/no/x.pt.*clip_path="),
        ({"clip_path": "/"}, WeightsError, "/: .*clip_path="),
        ({"pretrained_path": "/no/x.pt"}, WeightsError, "/no/x.pt.*pretrained_path="),
        ({"device": "foo"}, ValueError, "device: 'foo'"),
        ({"device": "cuda:99"}, ValueError, "device: 'cuda:99'"),
        ({"model": "b5"}, ValueError, "b001, b005, b01.*'b5'"),
    ],
)
def test_wrong_arguments_are_rejected_before_anything_is_loaded(monkeypatch, argument, error, key):
    for name in ("fetch", "load_clip", "load_bottleneck"):
        monkeypatch.setattr(f"lossyless.hub.weights.{name}", None)
    with pytest.raises(error, match=key):
        clip_compressor(**argument)


def test_a_clip_with_other_features_is_rejected(weights, tmp_path):
    small = save_clip(tmp_path / "small.pt", z_dim=64)
    with pytest.raises(ValueError, match="512.*64"):
        clip_compressor(device="cpu", **(weights | {"clip_path": small}))


def test_released_weights_of_another_model_are_named(weights, tmp_path, monkeypatch):
    path = save_bottleneck(tmp_path / "bottleneck.pt")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(RELEASED, "b005", dataclasses.replace(RELEASED["b005"], sha256=sha256))
    arguments = {"device": "cpu"} | weights | {"pretrained_path": path}
    with pytest.warns(UserWarning, match="bottleneck.pt.*b005.*b01") as caught:
        hubconf.clip_compressor_b01(**arguments)
    assert caught[0].filename == hubconf.__file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hubconf.clip_compressor_b005(**arguments)
