"""A job: its set-up, the trace that it leaves, what it returns to a search."""

import json
import os

import pytest
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from tiny import compose

from utils import config, jobs


@pytest.fixture
def inside_hydra(monkeypatch, tmp_path):
    """As if in job 3 of a sweep; the file in which the job says how it stands."""
    content = {
        "runtime": {"output_dir": str(tmp_path)},
        "job": {"num": 3},
        "overrides": {"task": ["seed=1"]},
    }
    monkeypatch.setattr(HydraConfig, "initialized", lambda: True)
    monkeypatch.setattr(HydraConfig, "get", lambda: OmegaConf.create(content))
    return tmp_path / "job.json"


def test_the_config_is_resolved_and_the_original_left_alone(tmp_path):
    cfg = compose(tmp_path)
    before = OmegaConf.to_container(cfg)
    with jobs.prepared(cfg) as resolved:
        assert "${" not in str(OmegaConf.to_container(resolved))
        assert resolved.featurizer.kwargs.rate.z_dim == cfg.encoder.z_dim
    assert OmegaConf.to_container(cfg) == before


def test_the_cores_are_shared_by_the_jobs(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "n_cpus", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for n_jobs, n_threads in ((1, 8), (3, 2), (8, 1), (20, 1)):
        with jobs.prepared(compose(tmp_path, f"parallel_jobs={n_jobs}")):
            assert torch.get_num_threads() == n_threads
    torch.set_num_threads(1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with jobs.prepared(compose(tmp_path, "parallel_jobs=1")):
        assert torch.get_num_threads() == 1  # the user's choice


@pytest.mark.parametrize(
    ("error", "state"),
    [(None, "done"), (ValueError("no luck"), "failed"), (KeyboardInterrupt(), "interrupted")],
)
def test_the_trace_says_how_the_job_ended(inside_hydra, tmp_path, error, state):
    def job():
        with jobs.prepared(compose(tmp_path)) as cfg:
            trace = json.loads(inside_hydra.read_text())
            assert trace["state"] == "running" and trace["num"] == 3
            assert trace["results"].startswith(cfg.paths.results)
            if error is not None:
                raise error

    if error is None:
        job()
    else:
        with pytest.raises(type(error)):
            job()
    trace = json.loads(inside_hydra.read_text())
    assert trace["state"] == state and trace["overrides"] == ["seed=1"]
    assert error is None or type(error).__name__ in trace["error"]


def test_a_value_that_depends_on_nothing_is_an_error_in_the_trace(inside_hydra, tmp_path):
    cfg = compose(tmp_path)
    cfg.goal = "${per_distortion.VIC.z_dim}"
    with pytest.raises(Exception, match="per_distortion"), jobs.prepared(cfg):
        pass
    assert json.loads(inside_hydra.read_text())["state"] == "failed"


def test_outside_of_hydra_there_is_no_trace(tmp_path):
    with jobs.prepared(compose(tmp_path)):
        pass
    assert not list(tmp_path.rglob("job.json"))


def test_searches_get_the_metrics_they_asked_for(tmp_path):
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


def test_the_number_of_cpus_is_that_of_this_process():
    assert 1 <= config.n_cpus() <= (os.cpu_count() or 1)
