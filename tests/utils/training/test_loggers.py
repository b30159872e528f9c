"""Loggers never prompt or block, and do not change results."""

import os
import socket

import pytest
from helpers.tiny import BANANA, call, main_command, resolved, run, untimed

from utils.runs.identity import STAGES
from utils.runs.run import find_run
from utils.training import loggers, wandb_runs

WITHOUT_LOGGER = [override for override in BANANA if override != "logger=none"]


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """A home folder without credentials."""
    for name in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("NETRC", raising=False)
    return tmp_path


def test_the_reason_for_logging_offline_is_given(nowhere, monkeypatch):
    assert "WANDB_API_KEY" in wandb_runs.obstacle()
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)

    def unreachable(*args, **kwargs):
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(socket, "create_connection", unreachable)
    assert "cannot be reached" in wandb_runs.obstacle()
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert "WANDB_MODE" in wandb_runs.obstacle()
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_runs.obstacle() is None


def test_credentials_are_read_from_netrc(nowhere, monkeypatch):
    class Connection:
        def close(self):
            pass

    monkeypatch.setattr(socket, "create_connection", lambda *args, **kwargs: Connection())
    netrc = nowhere / ".netrc"
    netrc.write_text("machine api.wandb.ai\n  login user\n  password " + "x" * 40 + "\n")
    netrc.chmod(0o600)
    assert wandb_runs.obstacle() is None
    netrc.write_text("machine elsewhere login user password x\n")
    assert wandb_runs.obstacle() is not None
    netrc.write_text("nonsense here")
    assert wandb_runs.obstacle() is not None


def test_the_id_of_a_wandb_run_depends_only_on_stage_and_run(nowhere, tmp_path, capsys):
    """A requeued job therefore continues the same W&B run."""
    settings = ["logger=wandb", "goal='Show it.'", "mode=quick", "wandb_project=ours"]
    cfg = resolved(tmp_path, *settings, base=WITHOUT_LOGGER)
    assert cfg.logger.kwargs.project == "ours"
    options = wandb_runs.init_options(cfg, project="p", entity="me", kind="featurizer", number="1")
    assert options["id"] == "featurizer-1" and options["resume"] == "allow"
    assert options["group"] == "quick_none" and options["job_type"] == "featurizer"
    assert options["tags"] == ["quick", "featurizer"] and options["notes"] == "Show it."
    assert options["mode"] == "offline"
    assert "bin/sync_wandb.sh quick_none" in capsys.readouterr().out
    aggregate = wandb_runs.init_options(cfg, project="p", entity="me", kind="aggregate")
    assert aggregate["id"] == "aggregate-quick_none" and aggregate["group"] == "quick_none"


def test_other_loggers_do_not_use_wandb(nowhere, tmp_path):
    cfg = resolved(tmp_path, "logger=wandb", base=WITHOUT_LOGGER)
    wandb_runs.upload_tables(cfg, tmp_path)  # no runs to upload
    for logger in ("csv", "none"):
        cfg = resolved(tmp_path, f"logger={logger}", base=WITHOUT_LOGGER)
        loggers.log_results(find_run(cfg, "featurizer"), {"test/feat/loss": 1.0})
        wandb_runs.upload_tables(cfg, tmp_path)
        loggers.close()
    assert not (tmp_path / "logs").exists()


def offline_runs(folder) -> list[str]:
    return sorted(path.name for path in (folder / "logs" / "none" / "wandb").glob("offline-run-*"))


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
    # each stage of each job is a separate run
    names = offline_runs(tmp_path)
    for seed in (1, 2):
        cfg = resolved(tmp_path, f"seed={seed}")
        for stage in STAGES:
            assert sum(f"{stage}-{find_run(cfg, stage).id}" in name for name in names) == 1
    assert len(names) == 6
    metrics = {}
    for stage in STAGES:
        metrics |= find_run(cfg, stage).metrics()
    assert untimed(metrics) == untimed(run(tmp_path / "none", "seed=2"))
