"""From a trained bottleneck to a file that the hub takes."""

import shutil

import pytest
import torch
from helpers.tiny import SMALL, compose, paths, run
from pandas import DataFrame

from lossyless.hub.weights import load_bottleneck
from lossyless.rates import HFactorized, HHyper
from utils import save_hub
from utils.configs.checks import ConfigError
from utils.training import building

BOTTLENECK = [
    *(o for o in SMALL if "@encoder" not in o),
    "data@data_feat=digits",
    "featurizer=bottleneck_lossyZ",
    "featurizer.kwargs.online=null",
    "tower=torchvision",
    "tower.z_dim=64",
    "tower.kwargs.model=resnet18",
    "tower.kwargs.layer=layer1",
    "tower.kwargs.weights=random",
    "tower.kwargs.side=16",
    "is_only_feat=true",
]


def test_the_hub_loads_trained_bottlenecks_exactly(tmp_path):
    rates = ("H_factorized", "H_factorized_klt", "H_hyper")
    for rate in rates:
        run(tmp_path, "featurizer.loss.beta=0.05", base=[*BOTTLENECK, f"rate={rate}"])
    run(tmp_path, "featurizer.loss.beta=0.052", base=[*BOTTLENECK, f"rate={rates[0]}"])
    command = ["experiment=none", *paths(tmp_path)]
    with pytest.raises(SystemExit, match="Not saved: 1\n.*HHyper"):  # the others are saved
        save_hub.main(command)
    hub = tmp_path / "pretrained/exp_none/hub"
    expected = {f"beta5e-02_rate_{rate}" for rate in rates[:2]} | {f"beta5.2e-02_rate_{rates[0]}"}
    assert {path.parent.name for path in hub.rglob("*.pt")} == expected
    for rate in rates[:2]:
        cfg = compose(tmp_path, "featurizer.loss.beta=0.05", base=[*BOTTLENECK, f"rate={rate}"])
        trained = building.load_compressor(cfg).rate
        loaded = load_bottleneck(hub / f"beta5e-02_rate_{rate}" / "factorized_rate.pt")
        z = torch.randn(20, 64)
        assert loaded.fingerprint() == trained.fingerprint()
        assert loaded.compress(z) == trained.compress(z)
        assert torch.equal(loaded.decompress(loaded.compress(z), 20), trained(z, None)[0])
    shutil.rmtree(hub)
    save_hub.main([*command, "load.where={rate: H_factorized_klt}"])
    assert len(list(hub.rglob("*.pt"))) == 1
    with pytest.raises(SystemExit, match="no finished run has rate=H_spatial"):
        save_hub.main([*command, "load.where={rate: H_spatial}"])


def test_every_transform_is_saved(tmp_path):
    torch.manual_seed(0)
    z = torch.randn(100, 8)
    for transform in ("none", "klt"):
        path, rate = (
            tmp_path / transform / "factorized_rate.pt",
            HFactorized(8, transform=transform),
        )
        rate.fit_transform(z)
        rate.update()
        save_hub.save_bottleneck(rate, path)
        loaded = load_bottleneck(path)
        assert loaded.transform_name == transform
        assert torch.equal(loaded.decompress(rate.compress(z), 100), rate.eval()(z, None)[0])
        assert list(path.parent.iterdir()) == [path]
    with pytest.raises(ConfigError, match="HHyper.* rate=H_factorized"):
        save_hub.save_bottleneck(HHyper(8), tmp_path / "factorized_rate.pt")
    assert not (tmp_path / "factorized_rate.pt").exists()


# --- names of folders


def runs(**parameters: list[str]) -> DataFrame:
    """A table of runs as `utils.aggregation.tables.collect` returns it."""
    n = len(next(iter(parameters.values())))
    frame = {"group": range(n), "folder": [f"run_{i}" for i in range(n)], "seed": ["123"] * n}
    return DataFrame(frame | parameters | {"test/feat/rate": range(n)})


@pytest.mark.parametrize(
    "parameters, names",
    [
        ({"beta": ["1.0e-02", "5.0e-02"]}, ["beta1e-02", "beta5e-02"]),
        (
            {"beta": ["5.0e-02"] * 2, "featurizer.loss.beta": ["0.05", "0.0501"]},
            ["beta5e-02_featurizer.loss.beta_0.05", "beta5e-02_featurizer.loss.beta_0.0501"],
        ),
        (
            {"beta": ["5.0e-02"] * 2, "tower.kwargs.model": ["a/b", "c d"]},
            ["beta5e-02_tower.kwargs.model_a-b", "beta5e-02_tower.kwargs.model_c-d"],
        ),
        ({"beta": ["5.0e-02"] * 2, "seed": ["123", "7"]}, ["beta5e-02", "beta5e-02_seed_7"]),
        ({"beta": ["none", "5.0e-02"], "rate": ["none", "H_factorized"]}, ["beta5e-02"]),
    ],
)
def test_file_names_include_all_settings_that_differ(parameters, names):
    assert list(save_hub.name_runs(runs(**parameters))) == names


def test_two_runs_never_share_a_file():
    clash = runs(beta=["5.0e-02"] * 2, **{"tower.kwargs.model": ["a/b", "a:b"]})
    with pytest.raises(ConfigError, match="saved as beta5e-02.*a-b: run_0 and run_1"):
        save_hub.name_runs(clash)
    with pytest.raises(ConfigError, match="none of the finished runs"):
        save_hub.name_runs(runs(beta=["none"]))


def test_without_runs_there_is_an_error(tmp_path):
    with pytest.raises(SystemExit, match="no finished runs"):
        save_hub.main(["experiment=none", *paths(tmp_path)])
