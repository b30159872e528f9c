"""The three stages: results, skipping, restarting, and exact resumption."""

import contextlib
import json
import math
import os
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.interruptions import in_training, interrupt, wait_until
from helpers.stored_features import n_bytes_without_labels
from helpers.tiny import (
    BANANA,
    CLASSICAL,
    DIGITS,
    ROOT,
    call,
    compose,
    main_command,
    run,
    untimed,
)

from lossyless.coding.payloads import CodingError
from lossyless.predictors import Predictor
from lossyless.tracking import NonFiniteLossError
from lossyless.weights import WeightsError
from utils.aggregation import tables
from utils.aggregation.metrics import select
from utils.data import examples
from utils.data.banana import BananaDataModule
from utils.evaluation import communication
from utils.runs.identity import STAGES
from utils.runs.run import BEST, LAST, find_run
from utils.training import building, callbacks, fitting, jobs, stages
from utils.training.callbacks import reseed

SPLITS = ("val", "test")
CASES = {
    "BINCE_hyper": (BANANA, ["distortion=BINCE", "rate=H_hyper"]),
    "VAE_hyper": (DIGITS, ["distortion=VAE", "rate=H_hyper"]),
    "VIC_lossless": (DIGITS, ["distortion=VIC", "rate=lossless", "featurizer=neural_rec"]),
    "none": (CLASSICAL, ["featurizer=none"]),
    "png": (CLASSICAL, ["featurizer=png"]),
    "jpeg": (CLASSICAL, ["featurizer=jpeg"]),
}


def check_results(cfg, metrics: dict[str, float]) -> None:
    """Check properties that hold for the results of any experiment."""
    feat, comm, pred = (find_run(cfg, stage) for stage in STAGES)
    for found in (feat, comm, pred):
        assert found.status()["state"] == "done"
        assert found.metrics().items() <= metrics.items()
    for split in SPLITS:
        names = [name for name in metrics if name.startswith(split)]
        # the PSNR is infinite without loss
        assert np.isfinite([metrics[n] for n in names if not n.endswith("/psnr")]).all()
        distortion = "feat/distortion" if cfg.featurizer.is_learned else "feat/mse"
        for name in ("feat/rate", distortion, "comm/rate", "comm/n_bits_single"):
            assert metrics[f"{split}/{name}"] >= 0
        for name in ("sender_time", "receiver_time", "encoder_time", "compress_time"):
            assert metrics[f"{split}/comm/{name}"] > 0
        n_examples = len(communication.read_targets(comm.work, split))
        measured = comm.work / "measured"  # if predictors get different inputs
        folder = measured if measured.is_dir() else comm.work
        n_bytes = n_bytes_without_labels(communication.data_file(folder, split))
        assert metrics[f"{split}/comm/n_bits"] == 8 * n_bytes / n_examples
        is_image = cfg.data_pred.kind != "vector"
        assert (f"{split}/comm/bpp" in metrics) == is_image
        assert metrics[f"{split}/pred/loss"] >= 0
        assert metrics[f"{split}/pred/inference_time"] > 0
        if cfg.data_pred.task == "classification":
            total = metrics[f"{split}/pred/acc"] + metrics[f"{split}/pred/err"]
            assert total == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_all_stages(case, tmp_path, monkeypatch):
    """Predictors standardise images with their mean and std, but do not change codes."""
    base, overrides = CASES[case]
    if base is not BANANA:
        overrides = [*overrides, "data_pred.mean=[0.25]", "data_pred.std=[0.5]"]
    heads = []
    monkeypatch.setattr(building, "Predictor", lambda h, o: heads.append(h) or Predictor(h, o))
    metrics = run(tmp_path, *overrides, base=base)
    check_results(compose(tmp_path, *overrides, base=base), metrics)
    if base is not BANANA:
        assert metrics["test/comm/bpp"] == pytest.approx(metrics["test/comm/n_bits"] / 64)
        (head,) = heads
        x = torch.rand(2, 4) if case == "VAE_hyper" else torch.rand(2, 1, 8, 8)
        expected = x if case == "VAE_hyper" else 2 * x - 0.5
        torch.testing.assert_close(head.standardize(x), expected)
    if base is CLASSICAL:
        check_codec(case, metrics)


def check_codec(codec: str, metrics: dict[str, float]) -> None:
    # images are quantised to 8 bits before coding
    assert (metrics["test/feat/mse"] < (0.5 / 255) ** 2) == (codec in ("none", "png"))
    for split in SPLITS:
        assert metrics[f"{split}/feat/rate"] == metrics[f"{split}/feat/n_bits"]
        assert metrics[f"{split}/feat/bpp"] == metrics[f"{split}/feat/n_bits"] / 64
        assert metrics[f"{split}/feat/n_bits"] < metrics[f"{split}/comm/n_bits"]  # minus a header
        assert metrics[f"{split}/feat/sender_time"] > 0 < metrics[f"{split}/feat/receiver_time"]
    assert (metrics["test/feat/n_bits"] == 8 * 64) == (codec == "none")


def test_an_infinite_psnr_survives_files_and_tables(tmp_path, recwarn):
    """The PSNR of a lossless codec is infinite, not missing."""
    overrides = ["featurizer=png", "data_feat.kwargs.is_augment_val=false", "is_only_feat=true"]
    for seed in (1, 2):
        first = run(tmp_path, *overrides, f"seed={seed}", base=CLASSICAL)
        assert first["test/feat/psnr"] == math.inf and first["test/feat/mse"] == 0
    assert run(tmp_path, *overrides, "seed=2", base=CLASSICAL) == first
    runs, _ = tables.collect(tmp_path / "results" / "exp_none")
    summary = tables.summarise(runs["featurizer"])
    (row,) = summary.to_dict("records")
    assert row["n_seeds"] == 2 and row["test/feat/psnr_mean"] == math.inf
    shown = select(summary, {"PSNR": "test/feat/psnr"})
    assert shown["PSNR"].tolist() == ["inf"]
    summary.to_csv(tmp_path / "summary.csv")
    assert pd.read_csv(tmp_path / "summary.csv")["test/feat/psnr_mean"].tolist() == [math.inf]
    assert not [w for w in recwarn if issubclass(w.category, RuntimeWarning)]


def test_the_predictor_may_have_its_own_data_in_several_copies(tmp_path):
    """Only the training set is copied; an epoch uses one copy, so that schedules do not change."""
    sizes = [f"{place}.kwargs.n_train=256" for place in ("data_feat", "data_pred")]
    overrides = ["data@data_pred=banana", "data_pred.kwargs.n_eval=32", *sizes]
    overrides += ["communication.n_copies=3", "trainer_pred.max_epochs=6"]
    overrides += ["scheduler@scheduler_pred=expdecay100"]
    metrics = run(tmp_path, *overrides)
    cfg = compose(tmp_path, *overrides)
    check_results(cfg, metrics)
    work = find_run(cfg, "communication").work
    targets = [communication.read_targets(work, split) for split in ("train", *SPLITS)]
    # without an equivalence the target is the point itself
    assert [y.shape for y in targets] == [(3 * 256, 2), (32, 2), (32, 2)]
    last = torch.load(find_run(cfg, "predictor").work / LAST, weights_only=True)
    assert last["global_step"] == 6 * 256 / 64
    (optimizer,) = last["optimizer_states"]
    rate = optimizer["predictor"]["param_groups"][0]["lr"]
    assert rate == pytest.approx(cfg.optimizer_pred.kwargs.lr / 100)


# --- predictors are trained on decoded data


def test_predictors_use_only_the_file_and_reject_damaged_or_foreign_files(tmp_path, monkeypatch):
    configs = []
    for seed in (5, 123):
        with jobs.prepared(compose(tmp_path, f"seed={seed}")) as cfg:
            stages.featurizer(cfg)
            stages.communicate(cfg)
            configs.append(cfg)
    foreign, work = (find_run(each, "communication").work for each in configs)
    train, val, test = (communication.data_file(work, split) for split in ("train", *SPLITS))
    damaged = bytearray(train.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    best = find_run(cfg, "featurizer").work / BEST
    for path, content, error, message in (
        (train, damaged, (CodingError, ValueError), "train.lossyless"),
        (test, communication.data_file(foreign, "test").read_bytes(), ValueError, "model"),
        (best, None, FileNotFoundError, BEST),
        (best, best.read_bytes()[:1000], WeightsError, f"{BEST}.*delete the folder"),
    ):
        intact = path.read_bytes()
        path.unlink() if content is None else path.write_bytes(content)
        with pytest.raises(error, match=message):
            stages.predict(cfg)
        path.write_bytes(intact)
    # without running the encoder
    test.write_bytes(val.read_bytes())
    monkeypatch.setattr("lossyless.distributions.CondDist.forward", None)
    monkeypatch.setattr(BananaDataModule, "make_batches", None)
    metrics = stages.predict(cfg)
    assert metrics["test/pred/loss"] == metrics["val/pred/loss"]


# --- skip, restart, resume


def test_stages_run_only_for_settings_that_they_depend_on(tmp_path, capsys, monkeypatch):
    only_feat = run(tmp_path, "is_only_feat=true")
    assert all("/feat/" in name for name in only_feat)
    states = [find_run(compose(tmp_path), stage).status()["state"] for stage in STAGES]
    assert states == ["done", "new", "new"]
    first = run(tmp_path)
    assert first.items() >= only_feat.items()
    same_seed, other_seed = (run(tmp_path, f"seed_pred={seed}") for seed in (123, 5))
    chunked = run(tmp_path, "communication.chunk_size=10")
    losses = [m["test/pred/loss"] for m in (first, same_seed, other_seed, chunked)]
    assert losses[0] == losses[1] == losses[3] != losses[2]
    assert first["test/comm/n_bits"] < chunked["test/comm/n_bits"]
    for stage, n in zip(STAGES, (1, 2, 4), strict=True):
        assert len([*tmp_path.glob(f"results/**/results_{stage}.csv")]) == n
    capsys.readouterr()
    monkeypatch.setattr(fitting, "fit", lambda *args, **kwargs: pytest.fail("trained again"))
    monkeypatch.setattr(communication, "send", lambda *args: pytest.fail("sent again"))
    assert run(tmp_path) == first
    output = capsys.readouterr().out
    for stage in STAGES:
        assert f"[{stage}] run_{find_run(compose(tmp_path), stage).id} is done" in output


LONGER = ["trainer.max_epochs=4"]
ONLY_FEAT = [*LONGER, "is_only_feat=true"]
EACH_EPOCH = "checkpoint.every_minutes=0"
RESUMED = {  # epoch of the interruption, settings
    "first": (0, ["rate=H_hyper", "featurizer.loss.beta_anneal=geometric"]),
    "last": (
        3,
        ["architecture@online=mlp_probe", "online.kwargs.hid_dim=8", "distortion=BINCE"]
        + ["scheduler@scheduler_feat=plateau_quick", "scheduler_feat.kwargs.patience=0"]
        + ["optimizer@optimizer_online=SGD_likeadam"],
    ),
    "rarely_evaluated": (
        2,
        ["checkpoint@checkpoint_feat=bestTrainLoss", "rate.kwargs.warmup_k_epoch=3"]
        + ["trainer.check_val_every_n_epoch=2"],
    ),
}


@pytest.mark.parametrize("case", RESUMED)
def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path, monkeypatch, case):
    """This holds even if its folder has moved."""
    epoch, settings = RESUMED[case]
    overrides = [*ONLY_FEAT, *settings]
    uninterrupted = run(tmp_path / "a", *overrides)
    with monkeypatch.context() as patch:
        interrupt(patch, KeyboardInterrupt(), epoch)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            run(tmp_path / "b", *overrides)
    moved = (tmp_path / "b").rename(tmp_path / "c")
    assert state_of(compose(moved, *overrides), "featurizer") == "interrupted"
    assert untimed(run(moved, *overrides)) == untimed(uninterrupted)


def test_later_stages_that_were_interrupted_equal_uninterrupted_ones(tmp_path, monkeypatch):
    """This includes decoded data that do not fit into memory."""
    overrides = [*LONGER, "architecture@predictor=mlp_probe", "predictor.kwargs.hid_dim=8"]
    uninterrupted = run(tmp_path / "a", *overrides)
    monkeypatch.setattr(examples, "MAX_RESIDENT_BYTES", 100)
    send = communication.send

    def send_but_one(compressor, loaders, path, chunk_size):
        if path.name.startswith("test"):
            raise KeyboardInterrupt
        return send(compressor, loaders, path, chunk_size)

    with jobs.prepared(compose(tmp_path / "b", *overrides)) as cfg:
        stages.featurizer(cfg)
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(communication, "send", send_but_one)
            stages.communicate(cfg)
        assert state_of(cfg, "communication") == "interrupted"
        stages.communicate(cfg)
        with monkeypatch.context() as patch, pytest.raises((KeyboardInterrupt, SystemExit)):
            interrupt(patch, KeyboardInterrupt())
            stages.predict(cfg)
        assert state_of(cfg, "predictor") == "interrupted"
    assert untimed(run(tmp_path / "b", *overrides)) == untimed(uninterrupted)


@pytest.fixture
def epochs(monkeypatch) -> list[int]:
    """The epochs that are trained."""
    trained: list[int] = []
    monkeypatch.setattr(callbacks, "reseed", lambda *p: trained.append(p[-1]) or reseed(*p))
    return trained


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> dict[str, float]:
    return untimed(run(tmp_path_factory.mktemp("whole"), *ONLY_FEAT))


def test_failures_restart_or_resume_if_asked_to(
    tmp_path, monkeypatch, capsys, epochs, uninterrupted
):
    for answer, trained in (("restart", [0, 1, 2, 3]), ("resume", [2, 3])):
        folder = tmp_path / answer
        with monkeypatch.context() as patch, pytest.raises(RuntimeError):
            interrupt(patch, RuntimeError("out of luck"), epoch=2)
            run(folder, *ONLY_FEAT)
        failed = find_run(compose(folder, *ONLY_FEAT), "featurizer")
        status = failed.status()
        assert status["state"] == "failed" and status["error"] == "RuntimeError: out of luck"
        assert "on_train_batch_start" in status["traceback"]
        epochs.clear()
        again = run(folder, *ONLY_FEAT, f"on_failed={answer}")
        assert epochs == trained and untimed(again) == uninterrupted
        output = capsys.readouterr().out
        expected = {"restart": "restarting", "resume": "resuming"}
        assert f"[featurizer] previously failed; {expected[answer]}" in output
        assert (failed.work / f"failed_{LAST}").is_file() == (answer == "restart")


def test_a_full_disk_leaves_the_earlier_checkpoints(tmp_path, monkeypatch):
    """TMPDIR, from where Lightning would copy over them, is not used."""
    overrides = [*ONLY_FEAT, "encoder.kwargs.hid_dim=64", EACH_EPOCH]
    uninterrupted = run(tmp_path / "a", *overrides)
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill_disk(module, batch):
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, usual[1]))  # less than a checkpoint

    with monkeypatch.context() as patch, pytest.raises(OSError, match=BEST):
        in_training(patch, 2, fill_disk)
        patch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
        try:
            run(tmp_path / "b", *overrides)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    ended = find_run(compose(tmp_path / "b", *overrides), "featurizer")
    assert ended.status()["state"] == "interrupted"
    assert torch.load(ended.work / LAST, weights_only=True)["epoch"] == 1
    again = run(tmp_path / "b", *overrides)
    assert untimed(again) == untimed(uninterrupted)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def overwrite(path: Path) -> None:
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[:middle] + bytes(2000) + content[middle + 2000 :])


def test_damaged_checkpoints_are_named_and_not_resumed_from(
    tmp_path, monkeypatch, capsys, epochs, uninterrupted
):
    with monkeypatch.context() as patch, pytest.raises((KeyboardInterrupt, SystemExit)):
        interrupt(patch, KeyboardInterrupt(), epoch=2)
        run(tmp_path / "cut", *ONLY_FEAT)
    for name, damage, resumed_epochs in (
        (LAST, truncate, [2, 3]),
        (LAST, overwrite, [2, 3]),
        (LAST, Path.unlink, [2, 3]),
        (BEST, truncate, [0, 1, 2, 3]),
        (BEST, Path.unlink, [0, 1, 2, 3]),
    ):
        folder = shutil.copytree(tmp_path / "cut", tmp_path / f"{name}_{damage.__name__}")
        path = find_run(compose(folder, *ONLY_FEAT), "featurizer").work / name
        damage(path)
        epochs.clear()
        capsys.readouterr()
        again = run(folder, *ONLY_FEAT)
        assert epochs == resumed_epochs and untimed(again) == uninterrupted
        assert (str(path) in capsys.readouterr().err) == ((name, damage) != (LAST, Path.unlink))


# --- non-finite losses


def test_nan_stops_the_training_and_keeps_the_last_good_checkpoint(tmp_path, monkeypatch):
    in_training(monkeypatch, 1, lambda module, batch: batch.x.fill_(math.nan))
    with pytest.raises(NonFiniteLossError, match=r"step 5: .*loss=nan"):
        run(tmp_path, *LONGER)
    failed = find_run(compose(tmp_path, *LONGER), "featurizer")
    assert failed.status()["state"] == "failed" and not failed.csv.exists()
    checkpoint = torch.load(failed.work / LAST, weights_only=True)
    assert checkpoint["epoch"] == 0
    weights = [t for name, t in checkpoint["state_dict"].items() if name.startswith("p_ZlX.")]
    assert weights and all(weight.isfinite().all() for weight in weights)


# --- processes that are killed; `make fault-drill` kills each stage at random moments


def state_of(cfg, stage: str) -> str:
    return find_run(cfg, stage).status()["state"]


@contextlib.contextmanager
def started(folder, *overrides):
    """Start main.py in a session of its own; yield the process, whose output is text."""
    with subprocess.Popen(
        main_command(folder, *overrides),
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored in scripts
    ) as process:
        yield process


@pytest.mark.slow
def test_workers_end_with_the_process_that_started_them(tmp_path):
    overrides = ["trainer.max_epochs=100000", "is_only_feat=true", "parallel_jobs=2"]
    cfg = compose(tmp_path, *overrides, "seed=1")
    with started(tmp_path, *overrides, "seed=1,2") as process:
        wait_until(lambda: state_of(cfg, "featurizer") != "new")
        worker = find_run(cfg, "featurizer").status()["pid"]
        assert worker in _alive(process.pid) - {process.pid}
        process.kill()  # the second worker may not have started its job yet
    wait_until(lambda: not _alive(process.pid), 40)
    assert find_run(cfg, "featurizer").status()["state"] == "interrupted"


def _alive(session: int) -> set[int]:
    """The processes of a session."""
    found = set()
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            state, _, _, its_session = file.read_text().rsplit(")", 1)[1].split()[:4]
            if int(its_session) == session and state != "Z":  # zombie
                found.add(int(file.parent.name))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "number, reason", [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "terminated by SIGTERM")]
)
def test_ctrl_c_and_sigterm_are_reported_and_can_be_resumed(tmp_path, number, reason):
    overrides = ["trainer.max_epochs=60", "is_only_feat=true"]
    run_b = find_run(compose(tmp_path / "b", *overrides), "featurizer")
    with started(tmp_path / "b", *overrides) as process:
        wait_until(lambda: run_b.status().get("epoch", 0) > 1)
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert reason in output and "run the same command again" in output
    assert run_b.status()["state"] == "interrupted"
    done = call(*main_command(tmp_path / "b", *overrides))
    assert done.returncode == 0 and "resuming" in done.stdout
    uninterrupted = run(tmp_path / "a", *overrides)
    assert untimed(run_b.metrics()) == untimed(uninterrupted)


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_a_terminal_or_a_service_manager_interrupts_all_jobs_of_a_sweep(tmp_path, number):
    """They send the signal to all processes, even to a worker that has no job."""
    overrides = ["trainer.max_epochs=1000", "is_only_feat=true", "parallel_jobs=3"]
    overrides.append("trainer.check_val_every_n_epoch=1")
    runs = [find_run(compose(tmp_path, *overrides, f"seed={i}"), "featurizer") for i in (1, 2)]
    with started(tmp_path, *overrides, "seed=1,2") as process:
        wait_until(lambda: all(run.status().get("epoch", 0) > 1 for run in runs), 100)
        for _ in range(2):  # as may happen with one press of Ctrl-C
            os.killpg(process.pid, number)
            time.sleep(0.1)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number, output
    for run_b in runs:
        assert run_b.status()["state"] == "interrupted"
        epoch = torch.load(run_b.work / LAST, weights_only=True)["epoch"]
        assert epoch + 1 >= run_b.status()["epoch"] - 1  # the signal may precede the last copy


@pytest.mark.slow
def test_two_processes_share_one_featurizer(tmp_path):
    with (
        started(tmp_path, "add_pred=0", *LONGER) as first,
        started(tmp_path, "add_pred=1", *LONGER) as second,
    ):
        outputs = [process.communicate(timeout=200)[0] for process in (first, second)]
    assert first.returncode == second.returncode == 0
    assert sum("its results are reused" in output for output in outputs) == 1


def test_a_whole_job_in_its_own_process(tmp_path):
    done = call(*main_command(tmp_path, "monitor_return=test/pred/loss"))
    assert done.returncode == 0, done.stderr
    assert "1 of 1 jobs done" in done.stdout
    (trace,) = tmp_path.glob("outputs/**/job.json")
    assert json.loads(trace.read_text())["state"] == "done"
    cfg = compose(tmp_path)
    assert all(state_of(cfg, stage) == "done" for stage in STAGES)
