"""A job: setup, status file, signals, and return value for a search."""

import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import time

import pytest
import torch
from helpers.interruptions import wait_until
from helpers.tiny import ROOT, compose, main_command, run, untimed
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from pytorch_lightning.utilities.exceptions import SIGTERMException
from submitit.core.utils import UncompletedJobError

from utils.configs import resolvers
from utils.configs.checks import ConfigError
from utils.runs import signals
from utils.runs.identity import STAGES
from utils.runs.run import LAST, find_run
from utils.runs.status_file import format_error
from utils.training import jobs, stages


@pytest.fixture
def inside_hydra(monkeypatch, tmp_path):
    """Act as job 3 of a sweep; yield its status file."""
    content = {
        "runtime": {"output_dir": str(tmp_path)},
        "job": {"num": 3},
        "overrides": {"task": ["seed=1"]},
    }
    monkeypatch.setattr(HydraConfig, "initialized", lambda: True)
    monkeypatch.setattr(HydraConfig, "get", lambda: OmegaConf.create(content))
    return tmp_path / "job.json"


def test_the_config_is_resolved_in_a_copy(tmp_path):
    cfg = compose(tmp_path)
    before = OmegaConf.to_container(cfg)
    with jobs.prepared(cfg) as resolved:
        assert "${" not in str(OmegaConf.to_container(resolved))
        assert resolved.featurizer.kwargs.rate.z_dim == cfg.encoder.z_dim
    assert OmegaConf.to_container(cfg) == before


def test_parallel_jobs_share_the_cores(tmp_path, monkeypatch):
    monkeypatch.setattr(resolvers, "n_cpus", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for n_jobs, n_threads in ((1, 8), (3, 2), (8, 1), (20, 1)):
        with jobs.prepared(compose(tmp_path, f"parallel_jobs={n_jobs}")):
            assert torch.get_num_threads() == n_threads
    torch.set_num_threads(1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with jobs.prepared(compose(tmp_path, "parallel_jobs=1")):
        assert torch.get_num_threads() == 1  # the user's choice


@pytest.mark.parametrize(
    ("device", "is_compiled", "precision"),
    [("cuda", False, "high"), ("cuda", True, "highest"), ("cpu", False, "highest")],
)
def test_tf32_is_for_uncompiled_jobs_on_a_gpu(
    tmp_path, monkeypatch, device, is_compiled, precision
):
    monkeypatch.setattr(jobs.building, "pick_device", lambda cfg: torch.device(device))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with jobs.prepared(compose(tmp_path, f"trainer.compile={is_compiled}")):
            assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)


def by_lightning(error: KeyboardInterrupt) -> SystemExit:
    """The error that Lightning raises in place of this one."""
    end = SystemExit(1)
    end.__context__ = error
    return end


@pytest.mark.parametrize(
    ("error", "state", "message"),
    [
        (None, "done", None),
        (ValueError("no luck"), "failed", "ValueError: no luck"),
        (KeyboardInterrupt(), "interrupted", "Ctrl-C"),
        (by_lightning(KeyboardInterrupt()), "interrupted", "Ctrl-C"),
    ],
)
def test_the_status_file_records_the_end_of_the_job(inside_hydra, tmp_path, error, state, message):
    with contextlib.suppress(type(error)), jobs.prepared(compose(tmp_path)) as cfg:
        status = json.loads(inside_hydra.read_text())
        assert status["state"] == "running" and status["num"] == 3
        assert list(status["runs"]) == list(STAGES)
        assert status["runs"]["predictor"] == str(find_run(cfg, "predictor").results)
        if error is not None:
            raise error
    status = json.loads(inside_hydra.read_text())
    assert status["state"] == state and status["overrides"] == ["seed=1"]
    assert status.get("error") == message


def test_an_error_in_the_config_is_recorded(inside_hydra, tmp_path):
    cfg = compose(tmp_path)
    cfg.goal = "${per_distortion.VIC.z_dim}"
    with pytest.raises(Exception, match="per_distortion"), jobs.prepared(cfg):
        pass
    assert json.loads(inside_hydra.read_text())["state"] == "failed"


def test_a_job_returns_the_monitored_metrics(tmp_path):
    metrics = {"val/pred/loss": 1.5, "val/comm/rate": 2.5}
    cfg = compose(tmp_path)
    assert jobs.finished(cfg, metrics) is None
    cfg.monitor_return = "val/pred/loss"
    assert jobs.finished(cfg, metrics) == 1.5
    cfg.monitor_return = ["val/comm/rate", "val/pred/loss"]
    assert jobs.finished(cfg, metrics) == (2.5, 1.5)
    cfg.monitor_return = ["val/comm/rate", "val/pred/lost"]
    with pytest.raises(ValueError, match=r"val/pred/lost.*val/pred/loss"):
        jobs.finished(cfg, metrics)


def test_sizes_of_zero_are_errors_before_a_job_starts(tmp_path):
    limits = [f"trainer.limit_{split}_batches" for split in ("train", "val", "test")]
    counts = ["trainer.max_epochs", "communication.n_copies", "data_pred.kwargs.eval_batch_size"]
    counts += ["communication.n_single", "communication.chunk_size"]
    for key in [*limits, *counts, "trainer_pred.max_epochs", "trainer.check_val_every_n_epoch"]:
        with (
            pytest.raises(ConfigError, match=rf"^{key}\b.* 0\b"),
            jobs.prepared(compose(tmp_path, f"{key}=0")),
        ):
            pass
    cfg = compose(tmp_path)
    OmegaConf.update(cfg, "trainer_pred.max_steps", 0, force_add=True)
    with pytest.raises(ConfigError, match="trainer_pred.max_steps .*0"), jobs.prepared(cfg):
        pass


def test_a_training_that_ends_before_its_first_evaluation_is_an_error(tmp_path):
    cfg = compose(tmp_path)
    OmegaConf.update(cfg, "trainer.max_steps", 3, force_add=True)
    with pytest.raises(ValueError, match="first evaluation"), jobs.prepared(cfg) as cfg:
        stages.featurizer(cfg)


# --- signals


@pytest.fixture
def in_scheduler(monkeypatch):
    """Act as if submitit had started this process; set the USR2 handler."""
    env = {"EXECUTOR": "local", "LOCAL_JOB_ID": "87", "LOCAL_GLOBALID": "0"}
    for name, value in env.items():
        monkeypatch.setenv(f"SUBMITIT_{name}", value)
    usual = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2)}
    yield lambda answer: signal.signal(signal.SIGUSR2, answer)
    for number, handler in usual.items():
        signal.signal(number, handler)


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


def test_a_job_continues_after_sigterm_and_later_errors_are_interruptions(
    in_scheduler, inside_hydra, tmp_path, capfd
):
    for error in (None, RuntimeError("a worker is gone")):
        with contextlib.suppress(RuntimeError), jobs.prepared(compose(tmp_path)):
            send(signal.SIGTERM)
            assert json.loads(inside_hydra.read_text())["scheduler_job"] == "87"
            if error is not None:
                raise error
        status = json.loads(inside_hydra.read_text())
        assert status["state"] == ("done" if error is None else "interrupted")
        assert signals.TERMINATED in capfd.readouterr().err
    assert signals.TERMINATED in status["error"] and "a worker is gone" in status["error"]
    with contextlib.suppress(RuntimeError), jobs.prepared(compose(tmp_path)):
        raise error
    assert json.loads(inside_hydra.read_text())["state"] == "failed"  # no signal this time


def test_sigterm_ends_forked_workers(in_scheduler):
    context = multiprocessing.get_context("fork")
    began = context.Event()
    with signals.handled():
        process = context.Process(target=lambda: began.set() or time.sleep(60))
        process.start()
        assert began.wait(10)
        process.terminate()
        process.join(10)
        assert process.exitcode == -signal.SIGTERM


def test_a_requeued_job_is_interrupted_once(in_scheduler, inside_hydra, tmp_path):
    calls = []

    def requeue(number, frame):
        calls.append(number)
        send(signal.SIGUSR2)
        raise SystemExit(144)

    in_scheduler(requeue)
    with pytest.raises(SystemExit) as error, jobs.prepared(compose(tmp_path)) as cfg:
        run = find_run(cfg, "featurizer")
        run.start(None)
        with run.status_file.recording():
            send(signal.SIGUSR2)
    assert error.value.code == 144 and calls == [signal.SIGUSR2]
    assert signal.getsignal(signal.SIGUSR2) is requeue
    for found in (json.loads(inside_hydra.read_text()), run.status()):
        assert found["state"] == "interrupted"
        assert found["error"] == "preempted or out of time (signal USR2): requeued"


def test_the_last_time_limit_is_an_interruption(in_scheduler, inside_hydra, tmp_path):
    def give_up(number, frame):
        raise UncompletedJobError("Job not requeued because: timed-out too many times.")

    in_scheduler(give_up)
    # an Exception: submitit reports no other errors to the launcher
    with pytest.raises(Exception, match="again with -c"), jobs.prepared(compose(tmp_path)):
        send(signal.SIGUSR2)
    status = json.loads(inside_hydra.read_text())
    assert status["state"] == "interrupted" and "timed-out too many times" in status["error"]


def test_signal_handlers_are_unchanged_outside_schedulers(tmp_path):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGUSR2)
    with jobs.prepared(compose(tmp_path)):
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGUSR2)) == before
    assert not list(tmp_path.rglob("job.json"))  # outside of Hydra


def test_the_signal_that_ends_a_job_is_recorded(inside_hydra, tmp_path):
    for number in (signal.SIGTERM, signal.SIGHUP):
        before = signal.signal(number, signal.SIG_DFL)  # nohup ignores SIGHUP
        with pytest.raises(SystemExit) as error, signals.raised(), jobs.prepared(compose(tmp_path)):
            send(number)
        assert error.value.code == 128 + number
        status = json.loads(inside_hydra.read_text())
        assert (status["state"], status["error"]) == ("interrupted", f"terminated by {number.name}")
        assert signal.signal(number, before) is signal.SIG_DFL
    assert format_error(SIGTERMException()) == "terminated by SIGTERM"


@pytest.mark.slow
def test_a_preempted_job_resumes_exactly(tmp_path):
    """SIGTERM and two USR2 are sent to a job that submitit's local executor started.

    SIGTERM does not end it, but what follows may, so its epochs are written from then on.
    """
    overrides = ["trainer.max_epochs=40", "is_only_feat=true"]
    uninterrupted = run(tmp_path / "a", *overrides)
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [*main_command(tmp_path / "b", *overrides), "slurm=local"]
    stage = find_run(compose(tmp_path / "b", *overrides), "featurizer")
    with subprocess.Popen(command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL) as process:
        wait_until(lambda: stage.status().get("epoch", 0) > 1)
        first = stage.status()
        assert not (stage.work / LAST).exists()
        os.kill(first["pid"], signal.SIGTERM)
        wait_until((stage.work / LAST).is_file)
        (log,) = (tmp_path / "b/outputs").rglob("*_log.err")
        wait_until(lambda: signals.TERMINATED in log.read_text())
        assert stage.status()["state"] == "running"
        for _ in range(2):
            os.kill(first["pid"], signal.SIGUSR2)
        wait_until(lambda: stage.status()["state"] == "interrupted")
        assert "signal USR2" in stage.status()["error"]
        assert process.wait(200) == 0
    status = stage.status()
    assert status["state"] == "done" and status["pid"] != first["pid"]
    assert status["scheduler_job"] == first["scheduler_job"] is not None
    assert untimed(stage.metrics()) == untimed(uninterrupted)
