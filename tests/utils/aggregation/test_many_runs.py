"""Aggregating many runs takes seconds."""

import json
import time

import pytest
from helpers.tiny import DIGITS, compose, paths
from omegaconf import OmegaConf

import aggregate
from utils.runs.identity import STAGES

METRICS = {"featurizer": "feat", "communication": "comm", "predictor": "pred"}
MODES = "[summarize_metrics,summarize_RD_curves,plot_all_RD_curves,plot_pareto_front]"


def write_runs(tmp_path, betas, seeds):
    """Write finished jobs of all stages with real configs and 60 metrics each."""
    cfg = compose(tmp_path, "seed=7654321", "featurizer.loss.beta=0.1234567", base=DIGITS)
    OmegaConf.resolve(cfg)
    text = OmegaConf.to_yaml(cfg, sort_keys=True)
    for seed in range(seeds):
        for beta in range(1, betas + 1):
            job = tmp_path / "results/exp_none" / f"beta_{beta}" / f"seed_{seed}"
            config = text.replace("7654321", str(seed)).replace("0.1234567", str(beta / 100))
            for stage in STAGES:
                folder = job / stage / "run_0"
                folder.mkdir(parents=True)
                (folder / "config.yaml").write_text(config)
                (folder / "status.json").write_text(json.dumps({"stage": stage, "state": "done"}))
                short = METRICS[stage]
                metrics = {
                    f"{split}/{short}/m{i}": i for split in ("val", "test") for i in range(27)
                }
                for split in ("val", "test"):
                    metrics |= {f"{split}/{short}/{name}": 1 / beta + seed / 50 for name in NAMES}
                    metrics[f"{split}/{short}/rate"] = 10 - beta / 10 + seed / 50
                lines = [",".join(metrics), ",".join(map(repr, metrics.values()))]
                (folder / f"results_{stage}.csv").write_text("\n".join(lines) + "\n")


NAMES = ("distortion", "loss", "err", "n_bits", "n_bits_single")


def draw(tmp_path):
    """Draw; return the CPU seconds that this took."""
    settings = [f"aggregate.modes={MODES}", "aggregate.plot_all_RD_curves.x=[test/pred/loss]"]
    begin = time.process_time()
    aggregate.main(["experiment=none", "logger=none", *paths(tmp_path), *settings])
    return time.process_time() - begin


@pytest.mark.slow
def test_a_thousand_jobs_take_less_than_half_a_minute(tmp_path):
    write_runs(tmp_path, betas=100, seeds=10)
    assert draw(tmp_path) < 30
