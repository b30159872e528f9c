"""W&B runs with the real client: logged offline, resumed, and uploaded to a local server."""

import json
import os
import shutil
import sys

import pytest
from helpers.tiny import BANANA, ROOT, call, resolved
from helpers.wandb_server import KEY, wandb_server

from utils.runs.run import find_run

WITH_WANDB = [*(o for o in BANANA if o != "logger=none"), "logger=wandb", "goal='Show it.'"]
# Each task runs in its own process, because the client keeps its settings.
PROCESS = """
import os, signal, sys, time
from pathlib import Path
from matplotlib.figure import Figure
from helpers.tiny import resolved
from utils.training import loggers, wandb_runs
from utils.runs.run import find_run

folder, task = Path(sys.argv[1]), sys.argv[2]
cfg = resolved(folder, base=sys.argv[3:])

def train(stage, epochs):
    run = find_run(cfg, stage)
    logger = loggers.build_logger(run)
    for epoch in epochs:
        logger.log_metrics({"train/loss": 1.0 + epoch, "epoch": epoch}, step=4 * epoch + 3)
    return run, logger

if task == "is killed":
    train("featurizer", range(2))
    time.sleep(1)
    os.kill(os.getpid(), signal.SIGKILL)
if task == "ends":
    run, logger = train("featurizer", range(2, 4))
    loggers.log_figure(logger, "codebook_plot", Figure())
    loggers.log_results(run, {"test/feat/loss": 0.5})
    loggers.close()
    loggers.log_results(find_run(cfg, "communication"), {"test/comm/n_bits": 2.5})
    loggers.close()
if task == "aggregates":
    results = folder / "results"
    results.mkdir()
    (results / "summary.csv").write_text("dist,rate\\nVIC,1.5\\nVAE,\\n1,2\\n")
    Figure().savefig(results / "curve.png")
    wandb_runs.upload_tables(cfg, results)
"""


@pytest.fixture
def env(tmp_path):
    """Environment without credentials, not even in the home folder."""
    found = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    found.pop("NETRC", None)
    path = f"{ROOT}:{ROOT / 'tests'}"
    return found | {"HOME": str(tmp_path), "OMP_NUM_THREADS": "1", "PYTHONPATH": path}


def log(folder, task, env) -> str:
    """Log in a separate process; return its output."""
    done = call(sys.executable, "-c", PROCESS, str(folder), task, *WITH_WANDB, env=env, timeout=120)
    assert done.returncode == (-9 if task == "is killed" else 0), done.stderr
    return done.stdout


def sync(project, env, *arguments):
    """Run `bin/sync_wandb.sh` in a copy of the project that contains only logs."""
    (project / "bin").mkdir(exist_ok=True)
    shutil.copy(ROOT / "bin/sync_wandb.sh", project / "bin")
    env = env | {"PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"}
    return call(str(project / "bin/sync_wandb.sh"), *arguments, env=env, timeout=120)


def id_of(folder, stage) -> str:
    return f"{stage}-{find_run(resolved(folder, base=WITH_WANDB), stage).id}"


@pytest.mark.slow
def test_a_job_that_is_killed_and_requeued_is_one_run_whose_history_has_no_gap(tmp_path, env):
    assert "W&B logs offline" in log(tmp_path, "is killed", env)
    assert log(tmp_path, "ends", env).count("bin/sync_wandb.sh none") == 1
    with wandb_server() as server:
        there = env | {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY}
        done = sync(tmp_path, there, "none")
        assert done.returncode == 0, done.stderr
        uploaded = dict(server.runs)
        again = sync(tmp_path, there)
        assert again.returncode == 0 and "No runs to sync" in again.stderr
    assert set(uploaded) == {id_of(tmp_path, stage) for stage in ("featurizer", "communication")}

    run = uploaded[id_of(tmp_path, "featurizer")]
    assert run.column("_step")[:4] == [0, 1, 2, 3]
    assert run.column("trainer/global_step")[:4] == [3, 7, 11, 15]
    assert run.column("train/loss")[:4] == [1, 2, 3, 4]
    assert any("codebook_plot" in row for row in run.history.values())
    assert run.summary["test/feat/loss"] == 0.5
    assert run.about["groupName"] == "none" and run.about["jobType"] == "featurizer"
    assert run.about["tags"] == ["none", "featurizer"] and run.about["notes"] == "Show it."
    assert json.loads(run.about["config"])["seed"]["value"] == 123
    # stages without training also log their results
    assert uploaded[id_of(tmp_path, "communication")].summary["test/comm/n_bits"] == 2.5


@pytest.mark.slow
def test_a_job_that_is_killed_and_requeued_is_one_online_run(tmp_path, env):
    with wandb_server() as server:
        there = env | {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY}
        assert "offline" not in log(tmp_path, "is killed", there) + log(tmp_path, "ends", there)
        run = server.runs[id_of(tmp_path, "featurizer")]
    assert run.column("trainer/global_step")[-3:-1] == [11, 15]
    assert run.column("_step") == list(range(len(run.history)))
    assert not list(tmp_path.glob("logs/none/wandb/offline-*"))


@pytest.mark.slow
def test_tables_and_figures_of_an_experiment_are_a_run(tmp_path, env):
    (tmp_path / "logs/none/wandb").mkdir(parents=True)  # as after a run
    log(tmp_path, "aggregates", env)
    (folder,) = tmp_path.glob("logs/none/wandb/offline-run-*-aggregate-none")
    (table,) = folder.rglob("*.table.json")
    content = json.loads(table.read_text())
    assert content["columns"] == ["dist", "rate"] and len(content["data"]) == 3
    assert table.parent.name == "tables" and list(folder.rglob("figures/curve*.png"))


@pytest.mark.slow
def test_wandb_mode_disabled_logs_nothing(tmp_path, env):
    assert "W&B" not in log(tmp_path, "ends", env | {"WANDB_MODE": "disabled"})
    assert not [path for path in (tmp_path / "logs").rglob("*") if path.is_file()]


# --- bin/sync_wandb.sh


def test_uploading_without_credentials_says_what_to_do(tmp_path, env):
    run = tmp_path / "logs/none/wandb/offline-run-20260101_000000-x"
    run.mkdir(parents=True)
    (run / "run-x.wandb").touch()
    done = sync(tmp_path, env)
    assert done.returncode == 1 and "set WANDB_API_KEY or run wandb login" in done.stderr


def test_arguments_of_the_upload_are_checked(tmp_path, env):
    done = sync(tmp_path, env)
    assert done.returncode == 0 and "No W&B runs" in done.stdout
    for name in ("a", "b"):
        (tmp_path / "logs" / name / "wandb").mkdir(parents=True)
    done = sync(tmp_path, env, "c")
    assert done.returncode == 2 and "'c'" in done.stderr and ": a b" in done.stderr
    assert sync(tmp_path, env, "-x").returncode == 2
    assert sync(tmp_path, env, "a", "b").returncode == 2
    assert "EXPERIMENT" in sync(tmp_path, env, "-h").stdout
