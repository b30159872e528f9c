"""The CSV log: one tidy file per run, which a resumed run continues."""

import csv

import pytest
import torch
from helpers.interruptions import interrupt
from helpers.tiny import BANANA, compose, run, untimed

from utils.runs.run import find_run
from utils.training.loggers import TidyCSVLogger

WITH_CSV = [*(override for override in BANANA if override != "logger=none"), "logger=csv"]


def rows_of(path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def log_epochs(path, epochs, start_only=None) -> None:
    """Log as in training with 4 steps per epoch; the epoch `start_only` does not end."""
    logger = TidyCSVLogger(path)
    for epoch in epochs:
        logger.log_metrics({"lr": 0.1 / (1 + epoch)}, step=4 * epoch)
        logger.log_metrics({"val/loss": 2.0 + epoch, "epoch": epoch}, step=4 * epoch + 3)
        logger.log_metrics({"train/loss": torch.tensor(1.0), "epoch": epoch}, step=4 * epoch + 3)
        logger.save()
    if start_only is not None:
        logger.log_metrics({"lr": 0.0}, step=4 * start_only)
        logger.log_metrics({"speed": 1.0, "epoch": start_only}, step=4 * start_only + 1)
    logger.finalize("success")


def test_an_epoch_is_a_row_with_step_and_epoch_first(tmp_path):
    path = tmp_path / "logs" / "log.csv"
    log_epochs(path, range(2))
    assert path.read_text().splitlines() == [
        "step,epoch,lr,val/loss,train/loss",
        "3,0,0.1,2.0,1.0",
        "7,1,0.05,3.0,1.0",
    ]


def test_a_resumed_run_replaces_the_interrupted_epoch(tmp_path):
    whole, parts = tmp_path / "whole.csv", tmp_path / "parts.csv"
    log_epochs(whole, range(4))
    log_epochs(parts, range(2), start_only=2)
    assert [row["step"] for row in rows_of(parts)] == ["3", "7", "9"]
    log_epochs(parts, range(2, 4))
    found = [{k: v for k, v in row.items() if k != "speed"} for row in rows_of(parts)]
    assert found == rows_of(whole)


def test_a_restarted_run_replaces_the_file(tmp_path):
    path = tmp_path / "log.csv"
    log_epochs(path, range(3))
    log_epochs(path, range(1))  # a run that restarts
    assert [row["epoch"] for row in rows_of(path)] == ["0"]
    before = path.read_bytes()
    TidyCSVLogger(path).finalize("success")  # logged nothing
    assert path.read_bytes() == before
    path.write_text("time,loss\n1,2\n")
    with pytest.raises(ValueError, match=str(path)):
        log_epochs(path, range(2, 4))


def logs_of(folder) -> dict[str, list[dict[str, str]]]:
    files = sorted((folder / "logs").rglob("*"))
    return {path.name: rows_of(path) for path in files if path.is_file()}


def test_the_log_of_a_resumed_training_equals_an_uninterrupted_one(tmp_path, monkeypatch, capsys):
    settings = ["trainer.max_epochs=3", "is_only_feat=true"]
    logged = run(tmp_path / "whole", *settings, base=WITH_CSV)
    assert untimed(logged) == untimed(run(tmp_path / "none", *settings))
    assert not (tmp_path / "none" / "logs").exists()
    with monkeypatch.context() as patch, pytest.raises((SystemExit, KeyboardInterrupt)):
        interrupt(patch, KeyboardInterrupt(), epoch=2)
        run(tmp_path / "parts", *settings, base=WITH_CSV)
    cut = logs_of(tmp_path / "parts")
    assert [len(rows) for rows in cut.values()] == [2]
    run(tmp_path / "parts", *settings, base=WITH_CSV)
    assert logs_of(tmp_path / "parts") == logs_of(tmp_path / "whole")

    cfg = compose(tmp_path / "parts", *settings, base=WITH_CSV)
    ((name, rows),) = logs_of(tmp_path / "parts").items()
    assert name == f"featurizer_{find_run(cfg, 'featurizer').id}.csv"
    assert f"{tmp_path}/parts/logs/none/{name}" in capsys.readouterr().out
    assert [row["epoch"] for row in rows] == ["0", "1", "2", "3"]
    assert all(row["train/feat/loss"] for row in rows[:3])
    assert rows[-1]["test/feat/loss"]  # of the best epoch
