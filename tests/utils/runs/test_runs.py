"""What a run is: its identity, its folder, its status, its results, its lock."""

import errno
import json
import math
import multiprocessing
import os
import time
from pathlib import Path

import pytest
import yaml
from helpers.tiny import CLASSICAL, DIGITS, ROOT, compose
from helpers.tiny import run as run_all
from omegaconf import DictConfig, OmegaConf

from utils.runs import signals
from utils.runs.files import is_locked, write_text
from utils.runs.identity import CLASS, STAGES, identity, run_hash
from utils.runs.run import LOCK, Run, find_run, read_status
from utils.runs.status_file import write_state


@pytest.fixture(scope="module")
def resolved(tmp_path_factory):
    """Builds resolved configs."""
    folder = tmp_path_factory.mktemp("runs")

    def build(*overrides: str, base: list[str] = DIGITS) -> DictConfig:
        cfg = compose(folder, *overrides, base=base)
        OmegaConf.resolve(cfg)
        return cfg

    return build


@pytest.fixture
def new_run(resolved, tmp_path) -> Run:
    cfg = resolved()
    cfg.paths.results, cfg.paths.pretrained = str(tmp_path / "r"), str(tmp_path / "p")
    return find_run(cfg, "featurizer")


def changed(cfg: DictConfig, key: str, value: object) -> DictConfig:
    cfg = cfg.copy()
    OmegaConf.update(cfg, key, value, force_add=True)
    return cfg


def hashes(cfg: DictConfig) -> list[str]:
    return [run_hash(cfg, stage) for stage in STAGES]


# --- identity


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("paths.results", "elsewhere"),
        ("paths.data", "elsewhere"),
        ("trainer.accelerator", "gpu"),
        ("trainer.devices", 8),
        ("trainer.num_nodes", 2),
        ("trainer.log_every_n_steps", 7),
        ("logger.name", "other"),
        ("parallel_jobs", 8),
        ("timeout_min", 1),
        ("job_id", "x"),
        ("goal", "x"),
        ("on_failed", "resume"),
        ("is_only_feat", True),
        ("monitor_return", "val/pred/loss"),
        ("figures.every_n_epochs", 3),
        ("export.encoder", "x.pt"),
    ],
)
def test_where_and_how_fast_a_run_runs_is_not_its_identity(resolved, key, value):
    assert hashes(changed(resolved(), key, value)) == hashes(resolved())


def test_how_many_processes_read_the_data_is_not_their_identity(resolved):
    keys = [f"{place}.kwargs.n_workers" for place in ("data_feat", "data_pred")]
    few, many = (resolved().copy() for _ in range(2))
    for cfg, n_workers in ((few, 2), (many, 16)):
        for key in keys:
            OmegaConf.update(cfg, key, n_workers, force_add=True)
    assert hashes(few) == hashes(many)


def moved(node: object) -> object:
    """The same config, had all classes been put into another module."""
    if isinstance(node, dict):
        return {
            key: f"elsewhere.{value.rpartition('.')[2]}" if key == CLASS else moved(value)
            for key, value in node.items()
        }
    return [moved(item) for item in node] if isinstance(node, list) else node


@pytest.mark.parametrize("tower", ["none", "torchvision"])
def test_where_code_lies_is_not_its_identity(resolved, tower):
    cfg = OmegaConf.to_container(resolved(f"tower={tower}", base=CLASSICAL), resolve=True)
    assert moved(cfg) != cfg and hashes(moved(cfg)) == hashes(cfg)


@pytest.mark.parametrize("group", ["data", "tower", "architecture", "optimizer", "scheduler"])
def test_the_name_of_an_option_tells_its_class(group):
    """Nodes of these groups count by their names, and without their classes."""
    names = [yaml.safe_load(file.read_text()).get("name") for file in options_of(group)]
    assert len(set(names)) == len(names)


def options_of(group: str) -> list[Path]:
    return sorted((ROOT / "conf" / group).glob("*.yaml"))


@pytest.mark.parametrize(
    ("key", "one", "other", "is_same"),
    [
        ("featurizer.loss.beta", 1, 1.0, True),
        ("trainer.precision", 32, "32-true", True),
        ("trainer.precision", "bf16", "bf16-mixed", True),
        ("trainer.precision", 16, 32, False),
        ("trainer.limit_train_batches", 1, 1.0, False),
        ("encoder.kwargs", {"hid_dim": 8}, {"hid_dim": 8, "more": {}}, True),
    ],
)
def test_values_count_and_not_how_they_are_written(resolved, key, one, other, is_same):
    first, second = (hashes(changed(resolved(), key, value)) for value in (one, other))
    assert (first == second) is is_same


FEATURIZER_SETTINGS = [
    "seed=4",
    "results_version=2",
    "featurizer.loss.beta=0.7",
    "featurizer.loss.beta_anneal=constant",
    "optimizer_feat.kwargs.lr=0.5",
    "optimizer_feat.max_grad_norm=1",
    "optimizer_online.kwargs.lr=0.5",
    "scheduler@scheduler_feat=cosine",
    "trainer.max_epochs=9",
    "trainer.check_val_every_n_epoch=2",
    "trainer.limit_train_batches=0.5",
    "trainer.precision=16-mixed",
    "data_feat.kwargs.batch_size=32",
    "data_feat.kwargs.p_augment=0.5",
    "encoder.z_dim=6",
    "encoder.kwargs.hid_dim=9",
    "decoder.kwargs.hid_dim=9",
    "architecture@online=mlp_small",
    "distortion=VAE",
    "distortion.factor_beta=2",
    "rate=H_factorized",
    "rate.kwargs.warmup_k_epoch=1",
    "featurizer=neural_rec",
    "finetune=freezer",
    "finetune.init=other/encoder.pt",
    "checkpoint@checkpoint_feat=bestTrainLoss",
    "add_feat=again",
    "mode=debug",
]


@pytest.mark.parametrize("override", FEATURIZER_SETTINGS)
def test_whatever_changes_the_featurizer_changes_all_stages(resolved, override):
    pairs = zip(hashes(resolved(override)), hashes(resolved()), strict=True)
    assert all(new != old for new, old in pairs)


@pytest.mark.parametrize("override", ["communication.n_copies=3", "communication.chunk_size=64"])
def test_communication_settings_leave_the_featurizer_alone(resolved, override):
    new, old = hashes(resolved(override)), hashes(resolved())
    assert new[0] == old[0] and new[1] != old[1] and new[2] != old[2]


@pytest.mark.parametrize(
    "override",
    [
        "architecture@predictor=mlp_small",
        "optimizer_pred.kwargs.lr=0.5",
        "scheduler@scheduler_pred=cosine",
        "trainer_pred.max_epochs=1",
        "checkpoint@checkpoint_pred=bestTrainLoss",
        "add_pred=again",
    ],
)
def test_predictor_settings_leave_the_stages_before_alone(resolved, override):
    new, old = hashes(resolved(override)), hashes(resolved())
    assert new[:2] == old[:2] and new[2] != old[2]


def test_training_settings_do_not_split_codecs_that_do_not_learn(resolved):
    old = resolved("featurizer=png", base=CLASSICAL)
    new = resolved("featurizer=png", "trainer.max_epochs=7", base=CLASSICAL)
    assert hashes(new)[:2] == hashes(old)[:2] and hashes(new)[2] != hashes(old)[2]


def test_runs_that_differ_in_anything_never_share_a_folder(resolved):
    configs = [resolved(), *(resolved(override) for override in FEATURIZER_SETTINGS)]
    folders = {find_run(cfg, stage).results for cfg in configs for stage in STAGES}
    assert len(folders) == len(configs) * len(STAGES)


def test_the_saved_config_has_the_same_identity(resolved, tmp_path):
    odd = ["add_feat='1e-3'", "add_pred='on'", "goal='12:30'", "optimizer_feat.kwargs.lr=1.0e-5"]
    cfg = resolved(*odd)
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(cfg, sort_keys=True))
    saved = yaml.load((tmp_path / "config.yaml").read_text(), yaml.CSafeLoader)
    for stage in STAGES:
        assert identity(saved, stage) == identity(cfg, stage)
        assert run_hash(saved, stage) == run_hash(cfg, stage)


# --- paths


def test_paths_are_those_that_users_know(resolved):
    groups = ["data@data_pred=banana_rot", "scheduler@scheduler_feat=cosine"]
    cfg = resolved("experiment=test", "mode=debug", "encoder.z_dim=3", base=groups)
    root = cfg.paths.results
    found = [find_run(cfg, stage) for stage in STAGES]
    feat = (
        f"{root}/exp_debug_test/datafeat_digits/feat_neural_feat/dist_VIC/enc_cnn/rate_H_hyper/"
        f"optfeat_{cfg.optimizer_feat.name}/schedfeat_cosine/zdim_3/zs_1/"
        f"beta_{cfg.featurizer.loss.beta:.1e}/seed_123/addfeat_none"
    )
    comm = f"{feat}/datapred_banana_rot"
    names = cfg.optimizer_pred.name, cfg.scheduler_pred.name
    pred = f"{comm}/optpred_{names[0]}/schedpred_{names[1]}/addpred_none"
    for run, folder in zip(found, (feat, comm, pred), strict=True):
        assert str(run.csv) == f"{folder}/run_{run.id}/results_{run.stage}.csv"
        assert run.status_file.parent == run.results
        assert run.work.name == run.results.name
        assert str(run.work).startswith(cfg.paths.pretrained)


def test_codecs_without_learning_have_the_same_levels(resolved):
    run = find_run(resolved("featurizer=png", base=CLASSICAL), "featurizer")
    learned = find_run(resolved(), "featurizer")
    levels = [[p.split("_")[0] for p in r.results.parts] for r in (run, learned)]
    assert levels[0][:-1] == levels[1][:-1]
    assert "dist_none" in run.results.parts and "zs_1" in run.results.parts


# --- status and results


def test_status_goes_from_new_over_running_to_done(new_run):
    assert new_run.status() == {"state": "new"}
    new_run.start(None)
    assert new_run.status()["state"] == "running" and new_run.status()["stage"] == "featurizer"
    assert OmegaConf.load(new_run.results / "config.yaml") == new_run.cfg
    new_run.finish({"test/feat/rate": 1.0})
    status = new_run.status()
    assert status["state"] == "done" and {"started", "finished", "pid", "host"} <= set(status)


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (ValueError("a\nb"), "failed"),
        (MemoryError(), "failed"),
        (KeyboardInterrupt(), "interrupted"),
        (SystemExit(1), "interrupted"),
        (signals.Requeued(144), "interrupted"),
        (signals.OutOfTime("no time left"), "interrupted"),
    ],
)
def test_status_tells_failures_from_interruptions(new_run, error, state):
    new_run.start(None)
    new_run.stop(error)
    status = new_run.status()
    assert status["state"] == state
    assert status["error"] == signals.in_words(error)
    assert type(error).__name__ in status["traceback"]


def test_a_new_start_forgets_the_failure(new_run):
    new_run.start(None)
    new_run.stop(ValueError("x"))
    new_run.start(None)
    assert not {"error", "traceback"} & set(new_run.status())


def test_a_run_without_results_on_disk_is_not_done(new_run):
    new_run.start(None)
    new_run.finish({"a/b/c": 1.0})
    new_run.csv.unlink()
    assert new_run.status()["state"] == "new"


def test_metrics_survive_the_csv_to_the_last_bit(new_run):
    values = [1 / 3, math.pi * 1e-300, -0.0, 5e-324, 1e308, 2.0**53 + 1, math.inf]
    metrics = {f"test/feat/m{i}": value for i, value in enumerate(values)}
    new_run.start(None)
    new_run.finish(metrics)
    found = new_run.metrics()
    assert found == metrics and list(found) == list(metrics)
    assert math.copysign(1, found["test/feat/m2"]) == -1
    new_run.finish({"test/feat/nan": math.nan})
    assert math.isnan(new_run.metrics()["test/feat/nan"])


def test_a_file_is_complete_or_not_there(tmp_path, monkeypatch):
    write_text(tmp_path / "file", "first")

    def fail(descriptor):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError):
        write_text(tmp_path / "file", "second")
    assert (tmp_path / "file").read_text() == "first"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_file_is_on_disk_before_it_takes_its_name(tmp_path, monkeypatch):
    calls, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (calls.append("fsync"), fsync(file)))
    monkeypatch.setattr(os, "replace", lambda *names: (calls.append("replace"), replace(*names)))
    write_text(tmp_path / "file", "text")
    assert calls[:2] == ["fsync", "replace"]


DAMAGED = [b"", b"\0" * 100, b'{"state": "runn', b"[]", b"{}", b"\xff"]


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_status_is_that_of_a_lost_run(new_run, content):
    new_run.start(None)
    new_run.status_file.write_bytes(content)
    assert new_run.status()["state"] == "lost"
    found = read_status(new_run.results, new_run.work)
    assert found["state"] == "lost" and f"{new_run.status_file} cannot be read" in found["error"]
    new_run.start(None)
    assert new_run.status()["state"] == "running" and "error" not in new_run.status()


@pytest.mark.parametrize("stage", STAGES)
def test_a_damaged_status_has_the_stage_of_its_folder(resolved, tmp_path, stage):
    cfg = resolved()
    cfg.paths.results, cfg.paths.pretrained = str(tmp_path / "r"), str(tmp_path / "p")
    run = find_run(cfg, stage)
    run.results.mkdir(parents=True)
    run.status_file.touch()
    assert read_status(run.results, run.work)["stage"] == stage


def test_a_run_goes_on_whose_status_is_damaged(tmp_path):
    done = run_all(tmp_path, base=CLASSICAL)
    cfg = compose(tmp_path, base=CLASSICAL)
    for stage in STAGES:
        find_run(cfg, stage).status_file.write_bytes(b"")
    again = run_all(tmp_path, base=CLASSICAL)
    assert all(find_run(cfg, stage).status()["state"] == "done" for stage in STAGES)
    assert set(again) == set(done)


# --- a full disk


@pytest.fixture
def full_disk(monkeypatch):
    """From the call on there is no space for new files."""

    def refuse(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    return lambda: monkeypatch.setattr(os, "fsync", refuse)


@pytest.mark.parametrize("message", ["short", "long" * 5000])
def test_a_run_says_how_it_ended_when_the_disk_is_full(new_run, full_disk, message):
    new_run.start(None)
    started = new_run.status()
    full_disk()
    new_run.stop(ValueError(message))
    status = new_run.status()
    assert status["state"] == "failed" and status["started"] == started["started"]
    assert status["error"].startswith(f"ValueError: {message[:100]}")


def test_results_that_do_not_fit_on_the_disk_are_a_failure(new_run, full_disk):
    new_run.start(None)
    full_disk()
    with pytest.raises(OSError, match="No space left"):
        new_run.finish({"a": 1.0})
    assert new_run.status()["state"] == "failed"
    assert "No space left on device" in new_run.status()["error"]
    assert [file.name for file in new_run.results.iterdir() if file.suffix == ".tmp"] == []


def test_a_status_that_cannot_be_replaced_stays_as_it_is(new_run, full_disk):
    new_run.start(None)
    new_run.stop(ValueError("x"))
    before = new_run.status_file.read_bytes()
    full_disk()
    with pytest.raises(OSError, match="No space left"):
        write_state(new_run.status_file, {"state": "running", "more": "x" * 5000})
    assert new_run.status_file.read_bytes() == before


# --- facts and signals


def test_facts_are_noted_while_a_run_is_under_way(new_run):
    new_run.note(epoch=1)
    assert new_run.status() == {"state": "new"}
    new_run.start(None)
    new_run.note(epoch=2)
    assert new_run.status()["epoch"] == 2 and new_run.status()["state"] == "running"
    new_run.finish({"a": 1.0})
    new_run.note(epoch=3)
    assert new_run.status()["epoch"] == 2 and new_run.status()["state"] == "done"


def test_what_fails_after_a_sigterm_was_interrupted(new_run):
    new_run.start(None)
    new_run.note(signal=signals.TERMINATED)
    new_run.stop(ValueError("a worker is gone"))
    assert new_run.status()["state"] == "interrupted"
    assert new_run.status()["error"] == f"{signals.TERMINATED}; then ValueError: a worker is gone"


def test_the_status_names_the_job_of_the_scheduler(new_run, monkeypatch):
    new_run.start(None)
    assert new_run.status()["scheduler_job"] is None and new_run.status()["restarts"] == 0
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    for name, value in (("JOB_ID", 89), ("ARRAY_JOB_ID", 87), ("ARRAY_TASK_ID", 3)):
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    new_run.start(None)
    assert new_run.status()["scheduler_job"] == "87_3" and new_run.status()["restarts"] == 2


# --- lock


def _hold(run: Run, path: str, seconds: float) -> None:
    with run.locked(), open(path, "a", buffering=1) as file:
        file.write("in\n")
        time.sleep(seconds)
        file.write("out\n")


def test_a_second_process_waits(new_run, tmp_path, capfd):
    log = tmp_path / "log"
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_hold, args=(new_run, str(log), 0.3)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(20)
    assert log.read_text().split() == ["in", "out", "in", "out"]
    assert "Waiting for another process" in capfd.readouterr().out


def test_others_see_whether_a_run_is_held(new_run, tmp_path):
    lock = new_run.work / LOCK
    assert not is_locked(lock)
    context = multiprocessing.get_context("fork")
    process = context.Process(target=_hold, args=(new_run, str(tmp_path / "log"), 30))
    process.start()
    while not (tmp_path / "log").exists():
        time.sleep(0.01)
    assert is_locked(lock)
    process.kill()
    process.join(20)
    assert not is_locked(lock)
    with new_run.locked():
        assert is_locked(lock)
    assert not is_locked(lock)


def test_the_lock_is_free_after_an_error(new_run):
    with pytest.raises(ValueError), new_run.locked():
        raise ValueError
    with new_run.locked():
        pass


def test_status_files_are_json(new_run):
    new_run.start(None)
    assert json.loads(new_run.status_file.read_text())["state"] == "running"
