"""Jobs with several processes compute the same as a single process, and end together."""

import os
import signal
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import submitit
import torch
import torch.distributed as dist
from helpers.interruptions import in_training, interrupt
from helpers.processes import in_processes
from helpers.tiny import BANANA, DIGITS, FUNCTIONS, ROOT, compose, paths, run, untimed
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from utils.cluster import sweep
from utils.configs.checks import ConfigError, check_peers
from utils.runs import signals
from utils.runs.identity import STAGES
from utils.runs.run import LAST, find_run
from utils.runs.signals import PeerLost
from utils.runs.status_file import read_job
from utils.training import distributed, jobs
from utils.training.callbacks import ReseedEveryEpoch

TWO = "trainer.devices=2"
# Without noise, results differ only in the order of sums. Adam would amplify gradients that are
# zero up to rounding, such as those of biases before batch normalisation.
EXACT = [
    "rate=lossless",
    "trainer.max_epochs=2",
    *(f"optimizer@optimizer_{part}=SGD_likeadam" for part in ("feat", "online", "pred")),
]


def job(folder, overrides=(TWO,), base=BANANA):
    """Run all stages in one of a job's processes."""
    with jobs.prepared(compose(folder, *overrides, base=base)) as cfg, distributed.joined(cfg):
        metrics = {}
        for stage in STAGES:
            metrics |= FUNCTIONS[stage](cfg)
        return metrics


def two(folder, *overrides, base=BANANA):
    """Run the job in two processes; return the result or traceback of each."""
    return in_processes(2, job, folder, (TWO, *overrides), base)


def tiny_run(folder, *overrides, stage="featurizer", base=BANANA):
    return find_run(compose(folder, *overrides, base=base), stage)


def weights(folder, *overrides, **options):
    path = tiny_run(folder, *overrides, **options).work / LAST
    state = torch.load(path, weights_only=True)["state_dict"]
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}


# --- the same results


def test_two_processes_train_the_same_model_as_one(tmp_path):
    """The distortion compares the examples of all processes, and there is batch normalisation."""
    # the last batch cannot be split equally
    base, overrides = DIGITS, [*EXACT, "distortion=BINCE", "trainer.limit_train_batches=2"]
    expected = run(tmp_path / "one", *overrides, base=base)
    for metrics in two(tmp_path / "two", *overrides, base=base):
        assert untimed(metrics) == pytest.approx(untimed(expected), rel=2e-2)  # coded bits vary
    for stage in ("featurizer", "predictor"):
        here, there = (
            weights(tmp_path / name, *overrides, stage=stage, base=base) for name in ("one", "two")
        )
        for name, value in here.items():
            torch.testing.assert_close(there[name], value, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.slow
def test_an_interrupted_job_of_two_resumes_exactly_and_is_reused(tmp_path, monkeypatch, capfd):
    first, second = map(untimed, two(tmp_path / "whole"))
    assert first == second
    with monkeypatch.context() as patch:
        interrupt(patch, KeyboardInterrupt())
        ends = two(tmp_path)
    assert "PeerLost" in ends[1]
    assert tiny_run(tmp_path).status()["state"] == "interrupted"
    assert list(map(untimed, two(tmp_path))) == [first, first]
    capfd.readouterr()
    assert list(map(untimed, two(tmp_path))) == [first, first]
    assert untimed(run(tmp_path)) == first  # the same run as with one device
    lines = capfd.readouterr().out
    assert lines.count("are reused") == 2 * len(STAGES) and "compresses" not in lines


def test_processes_draw_different_noise_and_evaluate_identically():
    noise, evaluation = [], []
    for rank in (0, 1):
        state = SimpleNamespace(fn="fit")
        trainer = SimpleNamespace(current_epoch=3, world_size=2, global_rank=rank, state=state)
        callback = ReseedEveryEpoch(1)
        callback.on_train_epoch_start(trainer, None)
        noise.append(torch.rand(4))
        callback.on_validation_start(trainer, None)
        evaluation.append(torch.rand(4))
    assert not torch.equal(*noise) and torch.equal(*evaluation)


# --- how they end


def test_an_error_in_any_process_is_recorded_for_the_run_and_the_job(tmp_path, monkeypatch):
    hydra = {"runtime": {"output_dir": str(tmp_path)}, "job": {}, "overrides": {"task": []}}
    monkeypatch.setattr(HydraConfig, "initialized", lambda: True)
    monkeypatch.setattr(HydraConfig, "get", lambda: OmegaConf.create(hydra))
    monkeypatch.setattr(signals, "rank", lambda: int(os.environ.get("RANK", 0)))
    interrupt(monkeypatch, ArithmeticError("something is wrong here"), rank=1)
    ends = two(tmp_path)
    for status in (tiny_run(tmp_path).status(), read_job(tmp_path)):
        assert status["state"] == "failed"
        assert status["error"] == "ArithmeticError: something is wrong here"
        assert "in on_train_batch_start" in status["traceback"]
    assert ends[1].endswith("ArithmeticError: something is wrong here\n")
    assert "PeerLost" in ends[0]


def test_a_job_with_a_killed_process_is_interrupted_and_resumes(tmp_path, monkeypatch, capfd):
    with monkeypatch.context() as patch:
        in_training(patch, 1, lambda *_: os.kill(os.getpid(), signal.SIGKILL), rank=1)
        ends = two(tmp_path)
    assert ends[1] == -signal.SIGKILL and "PeerLost" in ends[0]
    assert tiny_run(tmp_path).status()["state"] == "interrupted"
    capfd.readouterr()
    # processes may wait longer for rank 0 than for each other during training
    monkeypatch.setattr(distributed, "TRAIN_TIMEOUT", timedelta(seconds=2))
    first, second = in_processes(2, slow_job, tmp_path)
    assert untimed(first) == untimed(second)
    assert "; resuming" in capfd.readouterr().out


def slow_job(folder):
    """A job whose rank 0 is busy for a while."""
    with jobs.prepared(compose(folder, TWO)) as cfg, distributed.joined(cfg):
        if distributed.is_main():
            time.sleep(3)
        distributed.barrier()
        return job(folder)


@pytest.mark.slow
def test_submitit_starts_the_processes(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'tests'}:{Path(__file__).parent}")
    executor = submitit.AutoExecutor(tmp_path / "log", cluster="local")
    executor.update_parameters(tasks_per_node=2, timeout_min=5)
    submitted = executor.submit(_submitted, tmp_path)
    first, second = submitted.results()
    assert first == second == "done"


def _submitted(folder):
    job(folder)
    return tiny_run(folder, TWO, stage="predictor").status()["state"]


def test_only_errors_about_a_peer_are_interruptions():
    for error, expected in (
        (RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer"), PeerLost),
        (dist.DistBackendError("ncclRemoteError: a remote process exited prematurely"), PeerLost),
        (RuntimeError("[gloo/transport/tcp/pair.cc:446] op.preamble.length <= 4"), RuntimeError),
        (dist.DistBackendError("ncclInvalidUsage: duplicate GPU"), RuntimeError),
        (RuntimeError("the file is closed"), RuntimeError),
    ):
        with pytest.raises(expected) as caught, distributed.peer_errors():
            raise error
        assert isinstance(caught.value, PeerLost) == (expected is PeerLost)


# --- numbers of processes


def started(world_size, per_node):
    return {"WORLD_SIZE": str(world_size), "LOCAL_WORLD_SIZE": str(per_node)}


def test_jobs_that_do_not_match_their_processes_are_rejected(tmp_path, monkeypatch):
    for environment, overrides, message in (
        (started(2, 2), [], "1 processes, 1 on each node, .*2 .*2 on this"),
        (started(4, 4), [TWO, "trainer.num_nodes=2"], "4 processes, 2 on each node, .*4"),
        (started(3, 3), ["trainer.devices=3"], "data_feat.kwargs.batch_size=64.*multiple of 3"),
        (started(2, 2), [TWO], "RANK, LOCAL_RANK, MASTER_ADDR.*WORLD_SIZE"),
    ):
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            joined = distributed.joined(compose(tmp_path, *overrides))
            with pytest.raises(ValueError, match=message), joined:
                pass


def test_the_environment_of_another_job_is_an_error_before_a_job_starts(tmp_path, monkeypatch):
    cfg = compose(tmp_path)
    for name, value in (
        ("WORLD_SIZE", "4"),
        ("WORLD_SIZE", "x"),
        ("RANK", "3"),
        ("LOCAL_RANK", "1"),
    ):
        with monkeypatch.context() as patch, pytest.raises(ConfigError, match=f"unset {name}$"):
            patch.setenv(name, value)
            check_peers(cfg)
    monkeypatch.setenv("RANK", "0")
    check_peers(cfg)
    monkeypatch.setenv("WORLD_SIZE", "2")
    check_peers(compose(tmp_path, TWO))
    with pytest.raises(ConfigError, match="WORLD_SIZE=2"):
        sweep.check_command_line([*BANANA, *paths(tmp_path)])
    monkeypatch.delenv("WORLD_SIZE")
    with pytest.raises(ConfigError, match="2 processes, .*slurm=local"):
        sweep.check_command_line([*BANANA, *paths(tmp_path), TWO])
