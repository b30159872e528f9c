"""Staggered training: encoders are exported, imported and frozen; stale ones are detected."""

import shutil

import pytest
import torch
from helpers.tiny import DIGITS, compose, run

from utils.runs.identity import STAGES, run_hash
from utils.runs.run import BEST, find_run
from utils.training import building, encoder_checkpoint, jobs

FILE = "step1/encoder.pt"
STEP1 = ["rate=lossless", "is_only_feat=true", f"export.encoder={FILE}"]
STEP2 = [
    "distortion=lossy_Z",
    "rate=H_hyper",
    "rate.kwargs.is_end_to_end=false",
    "finetune=freezer",
    f"finetune.init={FILE}",
]


def step1(folder, *overrides):
    return run(folder, *STEP1, *overrides, base=DIGITS)


def step2(folder, *overrides):
    return run(folder, *STEP2, *overrides, base=DIGITS)


def config(folder, *overrides):
    with jobs.prepared(compose(folder, *overrides, base=DIGITS)) as cfg:
        return cfg


def exported(folder) -> dict:
    return torch.load(folder / "pretrained" / FILE, weights_only=True)


def featurizer_weights(cfg) -> dict:
    work = find_run(cfg, "featurizer").work
    return torch.load(work / BEST, weights_only=True)["state_dict"]


@pytest.fixture(scope="module")
def both_steps(tmp_path_factory):
    """Folder of a finished staggered training, and the metrics of its second step."""
    folder = tmp_path_factory.mktemp("staggered")
    step1(folder)
    return folder, step2(folder)


def test_the_frozen_encoder_equals_the_exported_one_exactly(both_steps):
    """This includes its weights and the running statistics of batch normalisation."""
    folder, metrics = both_steps
    weights = featurizer_weights(config(folder, *STEP2))
    prefix = "p_ZlX.mapper."
    found = {n.removeprefix(prefix): w for n, w in weights.items() if n.startswith(prefix)}
    expected = exported(folder)["state_dict"]
    assert found.keys() == expected.keys() and any("running_mean" in name for name in found)
    assert all(torch.equal(found[name], expected[name]) for name in found)
    assert metrics["test/comm/n_bits"] > 0 and 0 <= metrics["test/pred/acc"] <= 1


def test_the_export_is_the_best_encoder_of_the_first_step(both_steps):
    folder, _ = both_steps
    weights = featurizer_weights(config(folder, *STEP1))
    for name, value in exported(folder)["state_dict"].items():
        assert torch.equal(value, weights[f"p_ZlX.mapper.{name}"])


def test_an_imported_encoder_can_be_trained_further(both_steps):
    folder, _ = both_steps
    overrides = ["distortion=VIC", f"finetune.init={FILE}", "is_only_feat=true"]
    overrides += ["optimizer_feat.kwargs.lr=0", "optimizer_feat.kwargs.weight_decay=0"]
    run(folder, *overrides, base=DIGITS)
    weights = featurizer_weights(config(folder, *overrides))
    old = exported(folder)["state_dict"]
    for name, value in old.items():
        is_statistic = "running_" in name
        assert torch.equal(weights[f"p_ZlX.mapper.{name}"], value) != is_statistic, name


# --- identity and staleness


def test_the_run_depends_on_the_imported_file_not_on_its_folder_or_exports(tmp_path):
    base, moved = config(tmp_path, *STEP2), config(tmp_path / "elsewhere", *STEP2)
    other = config(tmp_path, *STEP2, "finetune.init=step1/other.pt")
    for stage in STAGES:
        assert run_hash(base, stage) == run_hash(moved, stage) != run_hash(other, stage)
    silent = [o for o in STEP1 if not o.startswith("export")]
    hashes = [run_hash(config(tmp_path, *overrides), "featurizer") for overrides in (STEP1, silent)]
    assert hashes[0] == hashes[1]


def test_a_retrained_encoder_restarts_the_runs_that_import_it(both_steps, tmp_path, capsys):
    folder, first = both_steps
    tmp_path = shutil.copytree(folder, tmp_path / "copy")
    path = tmp_path / "pretrained" / FILE
    content, written = path.read_bytes(), path.stat().st_mtime_ns
    step1(tmp_path)
    assert path.stat().st_mtime_ns == written  # an identical encoder is not rewritten
    capsys.readouterr()
    assert step2(tmp_path) == first
    assert "restarting" not in capsys.readouterr().out
    step1(tmp_path, "seed=5")
    assert path.read_bytes() != content
    again = step2(tmp_path)
    output = capsys.readouterr().out
    for stage in STAGES:
        assert f"[{stage}] restarting" in output
    assert again["test/feat/distortion"] != first["test/feat/distortion"]
    path.unlink()
    with pytest.raises(FileNotFoundError, match=rf"finetune.init.*{FILE}"):
        step2(tmp_path)
    step1(tmp_path)  # the stage is done: only the file is rewritten
    assert path.read_bytes() == content


# --- errors


def test_incompatible_encoders_are_an_error(both_steps):
    folder, _ = both_steps
    for override, message in (
        ("encoder.z_dim=6", "z_dim: 4 .*6"),
        ("encoder.kwargs.hid_dim=6", "arch: .*'hid_dim': 4.*'hid_dim': 6"),
    ):
        with pytest.raises(ValueError, match=f"finetune.init.*{message}"):
            step2(folder, override)


def test_damaged_files_and_other_checkpoints_are_an_error(both_steps, tmp_path):
    whole = (both_steps[0] / "pretrained" / FILE).read_bytes()
    path = tmp_path / "pretrained" / FILE
    path.parent.mkdir(parents=True)
    cfg = config(tmp_path, *STEP2)
    encoder = building.build_compressor(cfg).p_ZlX
    torch.save({"state_dict": {}}, path)
    other = path.read_bytes()
    for content in (b"", b"no checkpoint", whole[: len(whole) // 2], other):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="finetune.init.*damaged"):
            encoder_checkpoint.import_encoder(encoder, cfg)


def test_encoder_files_must_be_relative_to_the_pretrained_folder(tmp_path):
    for setting in ("finetune.init=/tmp/x.pt", "export.encoder=/tmp/x.pt", "export.encoder=~/x.pt"):
        overrides = [setting, "is_only_feat=true"]
        with pytest.raises(ValueError, match=f"{setting} .*relative"):
            run(tmp_path, *overrides, base=DIGITS)
        # before training starts
        cfg = config(tmp_path, *overrides)
        assert find_run(cfg, "featurizer").status()["state"] == "new"
