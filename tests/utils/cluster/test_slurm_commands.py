"""Checks before submission, and queries of job states, with fake Slurm commands."""

import pytest
from omegaconf import DictConfig

from utils.cluster import launcher, slurm_queries
from utils.configs.checks import ConfigError
from utils.configs.composing import compose_config
from utils.configs.resolvers import cpus_per_job


def options(*overrides: str) -> DictConfig:
    return compose_config([*overrides]).slurm


def test_jobs_are_submitted_with_the_options_that_were_checked(tmp_path, fake):
    fake("sbatch", f'[ "$1" = --test-only ] && cp "$2" {tmp_path}/script')
    launcher.check(options("slurm=vector", "trainer.devices=2", "trainer.num_nodes=3"))
    lines = (tmp_path / "script").read_text().splitlines()
    expected = {
        "partition": "t4v2",
        "qos": "normal",
        "time": "1440",
        "nodes": "3",
        "ntasks-per-node": "2",
        "gpus-per-node": "2",
        "cpus-per-task": "8",
        "mem": "32GB",
        "signal": "USR2@120",
        "export": "ALL",
    }
    assert {f"#SBATCH --{key}={value}" for key, value in expected.items()} <= set(lines)
    assert "#SBATCH --requeue" in lines
    assert "export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK" in lines
    assert any("--kill-on-bad-exit=1" in line for line in lines)


def test_jobs_whose_nodes_are_all_down_or_drained_can_be_queued(fake, capsys):
    fake("sbatch", f"echo 'allocation failure: {slurm_queries.UNAVAILABLE}' >&2", "exit 1")
    launcher.check(options("slurm=vector"))
    assert "sinfo" in capsys.readouterr().out


def test_jobs_that_cannot_be_submitted_are_one_line_of_error(fake, monkeypatch):
    for said, expected in {
        "invalid partition specified: t4v2": "t4v2; .*slurm.partition=",
        "Invalid account or account/partition combination specified": "account=",
        "Invalid qos specification": "slurm.qos=",
        "Requested time limit is invalid": "-t MINUTES",
        "More processors requested than permitted": "slurm.cpus_per_task",
        "Unable to contact slurm controller (connect failure)": "sinfo",
    }.items():
        fake("sbatch", f"echo 'sbatch: error: {said}' >&2", "exit 1")
        with pytest.raises(ConfigError, match=expected) as error:
            launcher.check(options("slurm=vector"))
        assert "\n" not in str(error.value) and str(error.value).startswith("slurm=vector: ")
    for overrides, message in (
        (["slurm=vector", "slurm.mem_gb=much"], "mem_gb.*much"),
        (["slurm=vector", "+slurm.constrain=a100"], "'constrain'"),
        (["slurm=local", "trainer.num_nodes=2"], "only one node"),
    ):
        with pytest.raises(ConfigError, match=message):
            launcher.check(options(*overrides))
    fake("sbatch", "exec sleep 5")
    monkeypatch.setattr(slurm_queries, "TIMEOUT", 0.1)
    with pytest.raises(ConfigError, match="slurm=vector: sbatch"):
        launcher.check(options("slurm=vector"))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="slurm=vector: .*srun.*slurm=local"):
        launcher.check(options("slurm=vector"))


def test_squeue_reports_the_states_of_jobs(fake, monkeypatch):
    others = 'case "$*" in *--user*) ;; *) echo "90|FAILED";; esac'
    fake("squeue", 'echo "87_3|PENDING"', others)
    assert slurm_queries.states() == {"87_3": "PENDING"}
    assert slurm_queries.states(is_of_all_users=True) == {"87_3": "PENDING", "90": "FAILED"}
    assert slurm_queries.queued_ids() == {"87_3"}
    fake("squeue", "exit 1")
    assert slurm_queries.queued_ids() is None
    monkeypatch.setenv("PATH", "")
    with pytest.raises(slurm_queries.SlurmUnavailableError, match="squeue"):
        slurm_queries.states()


def test_a_job_of_a_cluster_keeps_its_cores_to_itself(monkeypatch):
    monkeypatch.delenv("SUBMITIT_EXECUTOR", raising=False)
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "6")
    monkeypatch.setattr("utils.configs.resolvers.n_cpus", lambda: 8)
    assert cpus_per_job(4) == 2
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    assert cpus_per_job(4) == 6
