"""Figures of trained compressors."""

import inspect
import json
import shutil

import pytest
from helpers.tiny import BANANA, CLASSICAL, paths, run

from utils import load_pretrained
from utils.configs.composing import compose_config
from utils.plots.figures import FIGURES

POINTS = ["load.codebook_plot.n_pts=200", "load.codebook_plot.n_grid=20"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """An experiment without figures, with three finished featurizers, one of them classical."""
    folder = tmp_path_factory.mktemp("trained")
    run(folder, "is_only_feat=true", "distortion=VIC")
    run(folder, "is_only_feat=true", "distortion=BINCE")
    run(folder, "is_only_feat=true", "featurizer=png", base=CLASSICAL)
    return folder


@pytest.fixture
def folder(trained, tmp_path):
    """A copy of the experiment."""
    return shutil.copytree(trained, tmp_path / "copy")


def draw(folder, *overrides) -> None:
    load_pretrained.main(["experiment=none", *paths(folder), *POINTS, *overrides])


def figures_of(folder) -> list[tuple[str, str]]:
    """Distortion and name of all figures."""
    found = (folder / "results").rglob("*.png")
    return sorted((next(p for p in f.parts if p.startswith("dist_"))[5:], f.name) for f in found)


def names(*figures) -> str:
    return f"figures.names=[{','.join(figures)}]"


# --- the command


def test_figures_are_saved_in_the_folders_of_the_runs(folder, capsys):
    draw(folder, names("codebook_plot", "maxinv_distribution_plot"), "load.where={dist: VIC}")
    expected = ["max. inv. rotation.png", "quantization.png"]
    assert figures_of(folder) == [("VIC", name) for name in expected]
    said = capsys.readouterr().out
    assert all(name in said for name in expected)
    (drawn,) = (folder / "results").glob("**/dist_VIC/**/figures.json")
    assert json.loads(drawn.read_text())["codebook_plot"] == "quantization.png"
    options = ["load.where={dist: [BINCE], seed: 123}", "load.codebook_plot.filename=x.png"]
    draw(folder, names("codebook_plot"), *options)
    assert figures_of(folder)[0] == ("BINCE", "x.png")


def test_runs_that_cannot_be_drawn_are_listed_and_the_others_drawn(folder):
    with pytest.raises(SystemExit, match="Not drawn: 1\n.*ClassicalCompressor"):
        draw(folder, names("codebook_plot"))
    assert {dist for dist, _ in figures_of(folder)} == {"VIC", "BINCE"}
    (checkpoint,) = (folder / "pretrained").glob("**/dist_VIC/**/best.ckpt")
    where = "load.where={dist: [VIC, BINCE]}"
    checkpoint.write_bytes(b"nonsense")
    with pytest.raises(SystemExit, match="Not drawn: 1\n.*dist_VIC"):
        draw(folder, names("codebook_plot"), where)
    checkpoint.unlink()
    with pytest.raises(SystemExit, match="Not drawn: 1\n.*dist_VIC.*best.ckpt is missing"):
        draw(folder, names("codebook_plot"), where)
    (status,) = (folder / "results").glob("**/dist_VIC/**/status.json")
    status.write_text(json.dumps(json.loads(status.read_text()) | {"state": "interrupted"}))
    with pytest.raises(SystemExit, match="Not drawn: 1\n.*dist_VIC.*interrupted"):
        draw(folder, names("codebook_plot"), where)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (names("codebok_plot"), "'codebok_plot'.* codebook_plot, maxinv"),
        (names(), "figures.names .*codebook_plot"),
        ("load.where={dits: VIC}", "'dits'"),
        ("load.where={dist: VAE}", "dist=VAE"),
        ("load.codebook_plot.npts=3", "npts.* n_pts"),
    ],
)
def test_invalid_settings_raise_errors_before_anything_is_drawn(folder, override, message):
    with pytest.raises(SystemExit, match=message):
        draw(folder, *([] if "figures" in override else [names("codebook_plot")]), override)
    assert figures_of(folder) == []


def test_settings_state_all_options_of_all_figures_and_their_defaults():
    options = compose_config([], "load_pretrained").load
    assert set(options) == {"where", *FIGURES}
    for name, spec in FIGURES.items():
        parameters = inspect.signature(spec.function).parameters.values()
        defaults = {p.name: p.default for p in parameters if p.kind == p.KEYWORD_ONLY}
        stated = {k: tuple(v) if k == "window" else v for k, v in options[name].items()}
        assert stated == defaults | {"filename": None}


# --- in Python


def test_runs_are_loaded_lazily(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    found = list(load_pretrained.load_runs("copy/results/exp_none", {"dist": ["VIC", "BINCE"]}))
    assert {row["dist"] for row, _, _ in found} == {"VIC", "BINCE"}
    for row, compressor, data in found:
        assert row["test/feat/rate"] > 0
        assert not compressor.training
        assert not any(p.requires_grad for p in compressor.parameters())
        x = next(iter(data.loader("test"))).x.to(compressor.device)
        assert compressor.p_ZlX(x).mean.shape == (len(x), 2)


def test_relative_paths_of_runs_are_found_from_other_folders(tmp_path, monkeypatch):
    """Notebooks in another folder therefore find the checkpoints."""
    monkeypatch.chdir(tmp_path)
    relative = [f"paths.{name}={name}" for name in ("results", "pretrained", "logs", "outputs")]
    run(tmp_path, "is_only_feat=true", *relative, base=BANANA)
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    ((row, _, _),) = load_pretrained.load_runs("../results/exp_none")
    assert row["dist"] == "VIC"
