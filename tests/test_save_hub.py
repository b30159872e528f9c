"""From a trained bottleneck to a file that the hub takes."""

import pytest
import torch
from tiny import SMALL, compose, paths, run

from lossyless.hub.bottlenecks import load_bottleneck
from lossyless.rates import HFactorized, HHyper
from utils import save_hub, training
from utils.config import ConfigError

BOTTLENECK = [
    *(o for o in SMALL if "@encoder" not in o),
    "data@data_feat=digits",
    "featurizer=bottleneck_lossyZ",
    "featurizer.kwargs.online=null",
    "rate=H_factorized",
    "tower=torchvision",
    "tower.z_dim=64",
    "tower.kwargs.model=resnet18",
    "tower.kwargs.layer=layer1",
    "tower.kwargs.weights=random",
    "tower.kwargs.side=16",
    "is_only_feat=true",
]


def test_a_trained_bottleneck_is_what_the_hub_loads(tmp_path):
    for beta in (0.05, 0.01):
        run(tmp_path, f"featurizer.loss.beta={beta}", base=BOTTLENECK)
    save_hub.main(["experiment=none", *paths(tmp_path)])
    files = sorted((tmp_path / "pretrained/exp_none/hub").glob("*/factorized_rate.pt"))
    assert [file.parent.name for file in files] == ["beta1e-02", "beta5e-02"]
    cfg = compose(tmp_path, "featurizer.loss.beta=0.05", base=BOTTLENECK)
    trained = training.load_compressor(cfg).rate
    loaded = load_bottleneck(files[1])
    z = torch.randn(20, 64)
    assert loaded.fingerprint() == trained.fingerprint()
    assert loaded.compress(z) == trained.compress(z)
    assert torch.equal(loaded.decompress(loaded.compress(z), 20), trained(z, None)[0])


def test_other_bottlenecks_are_refused(tmp_path):
    path = tmp_path / "hub" / "factorized_rate.pt"
    with pytest.raises(ConfigError, match=r"HHyper.*bottleneck_clip_lossyZ_factorized"):
        save_hub.save_bottleneck(HHyper(8), path)
    with pytest.raises(ConfigError, match="transform"):
        save_hub.save_bottleneck(HFactorized(8, transform="klt"), path)
    assert not path.exists()


def test_without_runs_there_is_an_error(tmp_path):
    with pytest.raises(SystemExit, match="no finished runs"):
        save_hub.main(["experiment=none", *paths(tmp_path)])
