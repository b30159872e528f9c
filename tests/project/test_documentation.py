"""The code and commands of the README files are valid."""

import functools
import re
import shlex
from urllib.error import URLError

import numpy as np
import pytest
import torch
from helpers.originals import make_stl10
from helpers.tiny import ROOT
from helpers.tiny_clip import save_bottleneck, save_clip

from utils.configs.composing import compose_config, expand

READMES = sorted(
    [*ROOT.glob("*.md"), *(p for d in ("bin", "conf", "results") for p in ROOT.glob(f"{d}/*.md"))]
)
SIZES = {"train": 40, "test": 20}  # written by `make_stl10`


def blocks(readme: str, language: str) -> list[str]:
    text = (ROOT / readme).read_text(encoding="utf-8")
    return re.findall(rf"^ *```{language}\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE)


def commands(readme: str, program: str) -> list[list[str]]:
    """The arguments of each `python PROGRAM` command in a file's shell blocks."""
    text = "\n".join(blocks(readme, "bash")).replace("\\\n", " ")
    lines = [shlex.split(line, comments=True) for line in text.splitlines()]
    return [line[2:] for line in lines if line[:2] == ["python", program]]


def offline(*args: object, **kwargs: object) -> None:
    raise URLError("no network in tests")


def test_the_stl10_example_of_the_readme(tmp_path, monkeypatch, capsys):
    """Use a random CLIP and noise in STL10's format; `torch.hub` finds this clone."""
    weights = {
        "clip_path": save_clip(tmp_path / "clip.pt"),
        "pretrained_path": save_bottleneck(tmp_path / "bottleneck.pt"),
    }
    (tmp_path / "data").mkdir()
    make_stl10(tmp_path / "data", monkeypatch)
    (tmp_path / "OWNER_lossyless_main").symlink_to(ROOT)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "urlopen", offline)
    monkeypatch.setattr(torch.hub, "_check_repo_is_trusted", lambda *args, **kwargs: None)
    monkeypatch.setattr(torch.hub, "load", functools.partial(torch.hub.load, **weights))
    monkeypatch.chdir(tmp_path)
    (example,) = [code for code in blocks("README.md", "python") if "STL10(" in code]
    found = {}
    exec(example, found)
    assert 0 <= float(capsys.readouterr().out.split()[-1]) <= 1
    for split, n in SIZES.items():
        assert found[f"Z_{split}"].shape == (n, 512)
        assert found[f"Y_{split}"].tolist() == [i % 10 for i in range(n)]
    expected = found["compressor"](torch.stack([x for x, _ in found["test"]]))
    assert np.array_equal(found["Z_test"], expected.numpy())


def test_the_estimator_of_the_readme(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (example,) = [code for code in blocks("README.md", "python") if "Z_new" in code]
    z = np.random.default_rng(0).standard_normal((600, 64)).astype(np.float32)
    found = {"Z": z[:500], "Z_new": z[500:]}
    exec(example, found)
    assert found["Z_hat"].shape == (100, 64) and found["Z_hat"].dtype == np.float32
    assert np.square(found["Z_hat"] - found["Z_new"]).mean() < 0.2
    loaded = type(found["compressor"]).load("compressor.bin")
    assert np.array_equal(loaded.decompress(found["payload"]), found["Z_hat"])


@pytest.mark.parametrize("readme", READMES)
def test_commands_of_the_readmes_compose(readme):
    for program in ("main.py", "aggregate.py"):
        for arguments in commands(readme, program):
            options = [o for o in arguments if o not in ("--help", "--cfg", "job")]
            if "distortion=VIC_laplace" not in options:  # a distortion that the reader writes
                assert "trainer" in compose_config(expand(options))
