"""Trained bottlenecks are saved to files that the hub can load."""

import shutil

import pytest
import torch
from helpers.tiny import SMALL, compose, paths, run
from pandas import DataFrame

from lossyless.hub.weights import load_bottleneck
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
    rates = {"H_factorized": 0.052, "H_factorized_klt": 0.05, "H_hyper": 0.05}
    for rate, beta in rates.items():
        run(tmp_path, f"featurizer.loss.beta={beta}", base=[*BOTTLENECK, f"rate={rate}"])
    command = ["experiment=none", *paths(tmp_path)]
    with pytest.raises(SystemExit, match="Not saved: 1\n.*HHyper"):  # the others are saved
        save_hub.main(command)
    hub = tmp_path / "pretrained/exp_none/hub"
    folders = ["beta5.2e-02_rate_H_factorized", "beta5e-02_rate_H_factorized_klt"]
    assert sorted(path.name for path in hub.iterdir()) == folders
    assert len(list(hub.rglob("*"))) == 4  # no temporary files
    for folder, (rate, beta) in zip(folders, rates.items(), strict=False):
        overrides = [*BOTTLENECK, f"rate={rate}"]
        cfg = compose(tmp_path, f"featurizer.loss.beta={beta}", base=overrides)
        trained = building.load_compressor(cfg).rate
        loaded = load_bottleneck(hub / folder / "factorized_rate.pt")
        z = torch.randn(20, 64)
        assert loaded.fingerprint() == trained.fingerprint()
        assert loaded.compress(z) == trained.compress(z)
        assert torch.equal(loaded.decompress(loaded.compress(z), 20), trained(z, None)[0])
    shutil.rmtree(hub)
    save_hub.main([*command, "load.where={rate: H_factorized_klt}"])
    assert len(list(hub.rglob("*.pt"))) == 1
    with pytest.raises(SystemExit, match="rate=H_spatial"):
        save_hub.main([*command, "load.where={rate: H_spatial}"])


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
    with pytest.raises(ConfigError, match="beta5e-02.*a-b: run_0 .*run_1"):
        save_hub.name_runs(clash)
    with pytest.raises(ConfigError, match="finished runs"):
        save_hub.name_runs(runs(beta=["none"]))
