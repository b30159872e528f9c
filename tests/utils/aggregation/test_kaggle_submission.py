"""Finished runs on a small Galaxy Zoo yield a Kaggle submission."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.kaggle_client import Client
from helpers.originals import make_galaxy
from helpers.tiny import DIGITS, SMALL, compose, paths, run

import aggregate
from utils.aggregation.kaggle_submission import write_submission
from utils.data import kaggle
from utils.data.sources import galaxy
from utils.data.sources.galaxy import ANSWERS, COMPETITION, ID
from utils.runs.run import find_run

OPTION = "aggregate.kaggle_submission"
GALAXY = [
    *SMALL,
    "data@data_feat=galaxy",
    "distortion=VIC",
    "rate=H_factorized",
    "featurizer.kwargs.online=null",
    "encoder.kwargs.hid_dim=4",
    "decoder.kwargs.hid_dim=4",
    "encoder.z_dim=4",
    # predictions must lie in [0, 1]: a submission is clipped, but metrics are not
    "optimizer_pred.kwargs.lr=1e-2",
    "trainer_pred.max_epochs=20",
    *(
        f"{place}.{setting}"
        for place in ("data_feat", "data_pred")
        for setting in (
            "length=18",
            "kwargs.side=16",
            "kwargs.n_workers=0",
            "kwargs.batch_size=8",
            "kwargs.equivalence=[]",
        )
    ),
]
CODEC = [o for o in GALAXY if not o.startswith(("featurizer", "encoder", "decoder"))]
RUNS = {
    "jpeg": [*CODEC, "featurizer=jpeg", "featurizer.kwargs.quality=50"],
    "neural_feat": [*GALAXY, "featurizer=neural_feat", "optimizer_pred.kwargs.lr=5e-2"],
}


@pytest.fixture(scope="module", autouse=True)
def _small():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(galaxy, "SIZES", {"train": 20})
        patch.setattr(galaxy, "N_KAGGLE_TEST", 20)
        yield patch


@pytest.fixture(scope="module")
def original(tmp_path_factory, _small):
    """Finished runs whose folders have been moved. Kaggle's test images are the labelled images."""
    before, after = (tmp_path_factory.mktemp(name) for name in ("before", "after"))
    make_galaxy(before / "data", _small)
    images = before / "data" / "galaxyzoo"
    shutil.rmtree(images / galaxy.KAGGLE_IMAGES)
    shutil.copytree(images / galaxy.IMAGES, images / galaxy.KAGGLE_IMAGES)
    for settings in RUNS.values():
        run(before, base=settings)
    for name in ("data", "results", "pretrained"):
        shutil.move(before / name, after / name)
    return after


@pytest.fixture
def folder(original, tmp_path):
    """A copy whose metrics tests can change; checkpoints and data are symbolic links."""
    shutil.copytree(original / "results", tmp_path / "results")
    for name in ("data", "pretrained"):
        (tmp_path / name).symlink_to(original / name)
    return tmp_path


def submit(folder: Path, *overrides: str) -> pd.DataFrame:
    """The submission that `aggregate.py` writes, indexed by image id."""
    settings = [
        *paths(folder),
        "trainer.accelerator=cpu",
        "logger=none",
        "aggregate.modes=[kaggle_submission]",
    ]
    aggregate.main(["experiment=none", *settings, *overrides])
    return pd.read_csv(folder / "results/exp_none/submission.csv").set_index(ID)


def finished(folder: Path, feat: str):
    return find_run(compose(folder, base=RUNS[feat]), "predictor")


@pytest.mark.parametrize("feat", RUNS)
def test_the_score_of_a_submission_is_that_of_the_run(feat, folder, capsys):
    """If Kaggle's images were those of a split, the score would be the root of its loss."""
    found = submit(folder, f"{OPTION}.where={{feat: {feat}}}")
    assert list(found.columns) == list(ANSWERS)
    assert found.index.tolist() == list(range(20))
    metrics = finished(folder, feat).metrics()
    data = galaxy.galaxy(side=16, data_dir=str(folder / "data"), val_fraction=0.1)
    solutions = pd.read_csv(folder / "data/galaxyzoo" / galaxy.SOLUTIONS).set_index(ID)
    for split in ("val", "test"):
        examples = data.splits[split]
        ids = [int(Path(examples.images.name(i)).stem) for i in examples.members.tolist()]
        predictions = found.loc[ids].to_numpy()
        assert predictions.min() > 0 and predictions.max() < 1, "clipped: change the settings"
        score = np.sqrt(np.mean((predictions - solutions.loc[ids].to_numpy()) ** 2))
        assert score == pytest.approx(np.sqrt(metrics[f"{split}/pred/loss"]), abs=2e-6)
    output = capsys.readouterr().out
    assert f"{np.sqrt(metrics['val/pred/loss']):.5f}" in output
    assert f"run_{finished(folder, feat).id}" in output


def test_best_run_is_selected_on_validation_data(folder, capsys):
    for feat, val, test in (("jpeg", 0.2, 0.3), ("neural_feat", 0.1, 0.4)):
        file = finished(folder, feat).csv
        table = pd.read_csv(file)
        table[["val/pred/loss", "test/pred/loss"]] = val, test
        table.to_csv(file, index=False)
    submit(folder)
    output = capsys.readouterr().out
    assert f"run_{finished(folder, 'neural_feat').id}" in output and "0.31623" in output


@pytest.fixture
def client(monkeypatch):
    client = Client()
    monkeypatch.setattr(kaggle, "connect", lambda: client)
    return client


def test_nothing_is_uploaded_by_default(folder, client, capsys):
    where = f"{OPTION}.where={{feat: jpeg}}"
    submit(folder, where)
    assert client.calls == []
    submit(folder, where, f"{OPTION}.submit=true")
    ((path, message, competition),) = client.calls
    assert path == f"{folder}/results/exp_none/submission.csv" and competition == COMPETITION
    assert f"run_{finished(folder, 'jpeg').id}" in message and "validation 0." in message
    assert "Successfully submitted" in capsys.readouterr().out


# --- errors


def test_missing_files_and_rejected_uploads_are_errors(folder, client):
    jpeg = f"{OPTION}.where={{feat: jpeg}}"
    client.answer = "Could not submit to competition"
    with pytest.raises(SystemExit, match="submission.csv .*Could not submit"):
        submit(folder, f"{OPTION}.submit=true", jpeg)
    (folder / "results/exp_none/submission.csv").unlink()  # kept despite the error
    data = (folder / "data").resolve()
    (folder / "data").unlink()
    (folder / "data/galaxyzoo").mkdir(parents=True)
    for name in ("images_training_rev1", "training_solutions_rev1.csv"):
        (folder / "data/galaxyzoo" / name).symlink_to(data / "galaxyzoo" / name)
    client.error = OSError("403")
    with pytest.raises(SystemExit, match=f"{OPTION}: .*403"):
        submit(folder, jpeg)
    (folder / "pretrained").unlink()
    with pytest.raises(SystemExit, match=f"{OPTION}: .*best.ckpt is missing"):
        submit(folder, f"{OPTION}.where={{feat: neural_feat}}")
    assert not (folder / "results/exp_none/submission.csv").exists()


def test_only_predictors_of_a_competition_can_submit(tmp_path):
    for overrides, message in ((["is_only_feat=true"], "no predictor"), ([], "data_pred=digits")):
        run(tmp_path, *overrides, base=DIGITS)
        with pytest.raises(SystemExit, match=message):
            submit(tmp_path)


def test_submissions_have_a_line_for_each_example_sorted_by_id(tmp_path):
    path = tmp_path / "submission.csv"
    predictions = torch.tensor([[1.0, 0.0, 0.25], [0.1234567, 1e-9, 1.0]])
    write_submission(path, torch.tensor([100023, 99]), predictions, ("id", "a", "b", "c"))
    assert path.read_text() == (
        "id,a,b,c\n99,0.123457,0.000000,1.000000\n100023,1.000000,0.000000,0.250000\n"
    )
    with pytest.raises(ValueError, match="NaN"):
        write_submission(tmp_path / "s", torch.arange(2), predictions * torch.nan, "iabc")
    assert list(tmp_path.iterdir()) == [path]
