"""Loggers: none asks or blocks, none changes results."""

import csv
import json
import os
import socket
import sys

import matplotlib.pyplot as plt
import pytest
from omegaconf import OmegaConf
from pytorch_lightning.loggers import CSVLogger
from tiny import BANANA, call, compose, main_command, paths, run, untimed

from utils import loggers, training
from utils.runs import STAGES, find_run

WITHOUT_LOGGER = [override for override in BANANA if override != "logger=none"]


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """No credentials, and a home without any."""
    for name in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("NETRC", raising=False)
    return tmp_path


def test_results_are_the_same_with_csv_and_without(tmp_path):
    none = run(tmp_path / "none")
    with_csv = run(tmp_path / "csv", "logger=csv", base=WITHOUT_LOGGER)
    assert untimed(with_csv) == untimed(none)


def test_csv_logs_every_epoch_of_every_stage_that_trains(tmp_path):
    run(tmp_path, "logger=csv", "trainer.max_epochs=3", base=WITHOUT_LOGGER)
    cfg = compose(tmp_path, "logger=csv", "trainer.max_epochs=3", base=WITHOUT_LOGGER)
    for stage, short in (("featurizer", "feat"), ("predictor", "pred")):
        folder = tmp_path / "logs" / "none" / stage / find_run(cfg, stage).id
        with (folder / "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))
        logged = [row for row in rows if row[f"train/{short}/loss"]]
        assert [int(row["epoch"]) for row in logged] == [0, 1, 2]
        assert (folder / "hparams.yaml").is_file()


def test_no_logger_writes_no_logs(tmp_path):
    run(tmp_path)
    assert not (tmp_path / "logs").exists()


def test_obstacles_to_uploading_are_named(nowhere, monkeypatch):
    assert "WANDB_API_KEY" in loggers.wandb_obstacle()
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)

    def unreachable(*args, **kwargs):
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(socket, "create_connection", unreachable)
    assert "cannot be reached" in loggers.wandb_obstacle()
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert "WANDB_MODE" in loggers.wandb_obstacle()


def test_credentials_may_be_in_a_netrc(nowhere, monkeypatch):
    class Connection:
        def close(self):
            pass

    monkeypatch.setattr(socket, "create_connection", lambda *args, **kwargs: Connection())
    netrc = nowhere / ".netrc"
    netrc.write_text("machine api.wandb.ai\n  login user\n  password " + "x" * 40 + "\n")
    netrc.chmod(0o600)
    assert loggers.wandb_obstacle() is None
    netrc.write_text("machine elsewhere login user password x\n")
    assert loggers.wandb_obstacle() is not None
    netrc.write_text("nonsense here")
    assert loggers.wandb_obstacle() is not None


def test_figures_go_to_loggers_that_take_pictures():
    logged = []

    class Pictures(loggers.WandbLogger):
        def __init__(self):
            pass

        def log_image(self, key, images):
            logged.append((key, images))

    figure = plt.figure()
    for logger in (None, CSVLogger("x"), Pictures()):
        loggers.log_figure(logger, "name", figure)
    plt.close(figure)
    assert logged == [("name", [figure])]


def test_the_logger_gets_the_config(tmp_path):
    cfg = compose(tmp_path, "logger=csv", base=WITHOUT_LOGGER)
    OmegaConf.resolve(cfg)
    logger = training.build_logger(find_run(cfg, "featurizer"))
    assert logger.hparams == OmegaConf.to_container(cfg) if hasattr(logger, "hparams") else logger


def wandb_runs(folder) -> list[str]:
    return sorted(path.name for path in (folder / "logs" / "wandb").glob("offline-run-*"))


@pytest.mark.slow
def test_wandb_without_credentials_logs_offline_and_says_so(nowhere, tmp_path):
    env = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    env |= {"HOME": str(nowhere), "OMP_NUM_THREADS": "1"}
    overrides = ["logger=wandb", "figures.names=[codebook_plot]", "seed=1,2"]
    command = main_command(tmp_path, *overrides, base=WITHOUT_LOGGER)
    done = call(*command, env=env, timeout=150)
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stdout.splitlines() if "W&B logs offline" in line]
    assert said and "wandb login" in said[0]
    # each stage that trains, of each job, is a run of its own
    names = wandb_runs(tmp_path)
    for seed in (1, 2):
        cfg = compose(tmp_path, f"seed={seed}")
        OmegaConf.resolve(cfg)
        for stage in ("featurizer", "predictor"):
            assert sum(f"{stage}-{find_run(cfg, stage).id}" in name for name in names) == 1
    assert len(names) == 4
    metrics = {}
    for stage in STAGES:
        metrics |= find_run(cfg, stage).metrics()
    assert untimed(metrics) == untimed(run(tmp_path / "none", "seed=2"))


@pytest.mark.slow
def test_wandb_without_network_does_not_block(nowhere, tmp_path):
    env = os.environ | {
        "HOME": str(nowhere),
        "WANDB_API_KEY": "x" * 40,
        "WANDB_BASE_URL": "http://127.0.0.1:9",
    }
    code = (
        "import socket; from utils import loggers\n"
        "def fail(*a, **k): raise OSError('no network')\n"
        "socket.create_connection = fail\n"
        "from tiny import *\n"
        f"run(__import__('pathlib').Path({str(tmp_path)!r}), 'logger=wandb', 'is_only_feat=true',"
        f" base={WITHOUT_LOGGER!r})"
    )
    env["PYTHONPATH"] = f"{paths.__globals__['ROOT']}:{paths.__globals__['ROOT']}/tests"
    done = call(sys.executable, "-c", code, env=env, timeout=100)
    assert done.returncode == 0, done.stderr
    assert "cannot be reached: no network" in done.stdout
    assert len(wandb_runs(tmp_path)) == 1
    cfg = compose(tmp_path)
    assert json.loads(find_run(cfg, "featurizer").status_file.read_text())["state"] == "done"
