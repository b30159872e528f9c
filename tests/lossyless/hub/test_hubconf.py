"""`torch.hub` finds and loads the compressors from any directory."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from helpers.tiny import ROOT
from helpers.tiny_clip import SIDE

import hubconf
from lossyless.hub import RELEASED
from lossyless.weights import WeightsError

ENTRIES = ["clip_compressor_b001", "clip_compressor_b005", "clip_compressor_b01"]

# Runs in a user's folder that has its own modules `utils`, `conf` and `main`.
SCRIPT = """
import json, os, sys, torch
from PIL import Image
from torch.utils.data import DataLoader, StackDataset, TensorDataset

class Mine(torch.utils.data.Dataset):
    def __init__(self, compressor, file):
        self.transform, self.codec, self.file = compressor.transform, compressor.rate, file
    def __len__(self):
        return len(self.file)
    def __getitem__(self, i):
        image = self.transform(Image.new("RGB", (40, 30)))
        z = self.file[i]
        return z, self.codec.dequantise(self.codec.quantise(z[None]))[0], image

def main():
    sys.path.append({root!r})
    from lossyless.hub import clip_compressor
    assert not {{"compressai", "scipy"}} & {{*sys.modules}}, "the import must stay fast"
    sys.path.remove({root!r})

    def load(entry):
        return torch.hub.load({root!r}, entry, source="local", **{weights})

    compressor, transform = load("clip_compressor_b005")
    again, _ = load("clip_compressor_b01")
    assert {root!r} not in sys.path
    import utils, conf, main
    assert utils.MINE and conf.MINE and main.MINE

    x = torch.randn(2, 3, {side}, {side})
    compressor.compress_dataset(TensorDataset(x), "Z.bin", kwargs_dataloader=dict(num_workers=1))
    assert (compressor.decompress_dataset("Z.bin") == again(x).numpy()).all()
    print(json.dumps(sorted(sys.modules)))

    # workers that do not fork, without the package installed
    compressor.compress_features(torch.randn(9, 512), "Z.bin", range(9), is_info=False)
    from lossyless.files import FeatureDataset, FeatureFile
    mine = Mine(compressor, FeatureFile("Z.bin", compressor.rate))
    data = StackDataset(FeatureDataset("Z.bin", compressor.rate, labels=True), mine)
    os.environ["PYTHONWARNINGS"] = "ignore"  # in the worker, where unpickling imports CLIP
    loader = DataLoader(data, 9, num_workers=1, multiprocessing_context="spawn", timeout=100)
    [((z, y), (again, coded, images))] = loader
    expected = torch.from_numpy(compressor.decompress_dataset("Z.bin", is_info=False))
    assert torch.equal(z, expected) and torch.equal(again, expected) and y.tolist() == [*range(9)]
    assert torch.equal(images[0], transform(Image.new("RGB", (40, 30))))

if __name__ == "__main__":
    main()
"""


@pytest.fixture(scope="module")
def github(tmp_path_factory) -> Iterator[str]:
    """A name under which torch.hub finds this repository, as if it were on GitHub."""
    folder = tmp_path_factory.mktemp("hub")
    (folder / "me_lossyless_main").symlink_to(ROOT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.hub, "get_dir", lambda: str(folder))
        yield "me/lossyless:main"


def test_entries_and_their_help_match_the_table(github):
    entries = torch.hub.list(github, skip_validation=True, trust_repo=True, verbose=False)
    assert entries == ENTRIES == [f"clip_compressor_{model}" for model in RELEASED]
    for model, released in RELEASED.items():
        text = torch.hub.help(
            github, f"clip_compressor_{model}", skip_validation=True, trust_repo=True
        )
        assert f"{released.n_bits} bits" in text and not {"{", "}"} & set(text)


def test_packages_with_the_same_names_and_workers_that_do_not_fork(weights, tmp_path):
    for name in ("utils", "conf"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("MINE = True")
    (tmp_path / "main.py").write_text("MINE = True")
    arguments = {"device": "cpu"} | {name: str(path) for name, path in weights.items()}
    code = SCRIPT.format(root=str(ROOT), weights=arguments, side=SIDE)
    (tmp_path / "script.py").write_text(code)
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "script.py"]
    done = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    packages = {name.split(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}
    unwanted = {"pytorch_lightning", "hydra", "omegaconf", "wandb", "sklearn", "torchmetrics"}
    assert packages & unwanted == set()
    assert set(hubconf.dependencies) <= packages


WITHOUT_COMPRESSAI = """
import sys, torch

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "compressai":
            raise ModuleNotFoundError("No module named 'compressai'", name="compressai")

sys.meta_path.insert(0, NotInstalled())
try:
    torch.hub.load(sys.argv[1], "clip_compressor_b005", source="local")
except ModuleNotFoundError as error:
    print(error)

from lossyless.hub.__main__ import main

sys.exit(main(["compress", sys.argv[1], "z.bin"]))
"""


def test_without_compressai_the_error_says_how_to_install_it(tmp_path):
    """`pip install .` omits it on Python 3.13 and later, for which it has no wheels."""
    command = [sys.executable, "-W", "ignore", "-c", WITHOUT_COMPRESSAI, str(ROOT)]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 1
    for line in (*done.stdout.splitlines(), *done.stderr.splitlines()):
        assert "pip install" in line and "compressai" in line
    assert len(done.stdout.splitlines()) == len(done.stderr.splitlines()) == 1


def test_without_a_network_the_error_names_the_file_and_its_path(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("socket.getaddrinfo", offline)
    with pytest.raises(WeightsError, match="factorized_rate.pt") as caught:
        hubconf.clip_compressor_b005()
    assert RELEASED["b005"].url in str(caught.value) and str(tmp_path) in str(caught.value)
    assert "pretrained_path=" in str(caught.value)
    assert caught.value.__suppress_context__  # no urllib traceback precedes it
