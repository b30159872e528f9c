"""The three stages: their results; when they skip, resume and restart; exact resumption."""

import json
import math
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.stored_features import n_bytes_without_labels
from helpers.tiny import (
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
from utils.aggregation import tables
from utils.aggregation.metrics import select
from utils.data import examples
from utils.data.banana import BananaDataModule
from utils.evaluation import communication
from utils.runs.identity import STAGES
from utils.runs.run import BEST, LAST, find_run
from utils.training import building, callbacks, fitting, jobs, stages
from utils.training.callbacks import ReseedEveryEpoch, reseed

SPLITS = ("val", "test")
BANANA_CASES = {
    "VIC": ["distortion=VIC"],
    "BINCE_hyper": ["distortion=BINCE", "rate=H_hyper"],
    "lossy_Z": ["distortion=lossy_Z"],
    "VIC_rec": ["distortion=VIC", "featurizer=neural_rec"],
    "VAE_no_probe": ["distortion=VAE", "featurizer.kwargs.online=null"],
}
DIGITS_CASES = {
    "VAE_hyper": ["distortion=VAE", "rate=H_hyper"],
    "supervised": ["distortion=supervised"],
    "VAE_MI": ["distortion=VAE", "rate=MI_unitgaussian"],
    "VIC_lossless": ["distortion=VIC", "rate=lossless", "featurizer=neural_rec"],
}
CODECS = ("none", "png", "jpeg", "webp")


def check_results(cfg, metrics: dict[str, float]) -> None:
    """Check properties of the results of any experiment."""
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
        measured = comm.work / "measured"  # if predictors get other inputs
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


@pytest.mark.parametrize("case", BANANA_CASES)
def test_all_stages_on_the_banana(case, tmp_path):
    metrics = run(tmp_path, *BANANA_CASES[case])
    check_results(compose(tmp_path, *BANANA_CASES[case]), metrics)


@pytest.mark.parametrize("case", DIGITS_CASES)
def test_all_stages_on_the_digits(case, tmp_path):
    metrics = run(tmp_path, *DIGITS_CASES[case], base=DIGITS)
    check_results(compose(tmp_path, *DIGITS_CASES[case], base=DIGITS), metrics)
    assert metrics["test/comm/bpp"] == pytest.approx(metrics["test/comm/n_bits"] / 64)


@pytest.mark.parametrize("codec", CODECS)
def test_all_stages_of_a_classical_codec(codec, tmp_path):
    metrics = run(tmp_path, f"featurizer={codec}", base=CLASSICAL)
    check_results(compose(tmp_path, f"featurizer={codec}", base=CLASSICAL), metrics)
    # images are quantised to 8 bits before coding
    assert (metrics["test/feat/mse"] < (0.5 / 255) ** 2) == (codec in ("none", "png"))
    for split in SPLITS:
        assert metrics[f"{split}/feat/rate"] == metrics[f"{split}/feat/n_bits"]
        assert metrics[f"{split}/feat/bpp"] == metrics[f"{split}/feat/n_bits"] / 64
        assert metrics[f"{split}/feat/n_bits"] < metrics[f"{split}/comm/n_bits"]  # less a header
        assert metrics[f"{split}/feat/sender_time"] > 0 < metrics[f"{split}/feat/receiver_time"]
    assert (metrics["test/feat/n_bits"] == 8 * 64) == (codec == "none")


def test_an_infinite_psnr_survives_files_and_tables(tmp_path, recwarn):
    """The PSNR of a lossless codec is infinite, not missing."""
    overrides = ["featurizer=png", "data_feat.kwargs.is_augment_val=false"]
    for seed in (1, 2):
        first = run(tmp_path, *overrides, f"seed={seed}", "is_only_feat=true", base=CLASSICAL)
        again = run(tmp_path, *overrides, f"seed={seed}", "is_only_feat=true", base=CLASSICAL)
        assert first == again
        assert first["test/feat/psnr"] == math.inf and first["test/feat/mse"] == 0
    runs, _ = tables.collect(tmp_path / "results" / "exp_none")
    summary = tables.summarise(runs["featurizer"])
    (row,) = summary.to_dict("records")
    assert row["n_seeds"] == 2 and row["test/feat/psnr_mean"] == math.inf
    shown = select(summary, {"PSNR": "test/feat/psnr"})
    assert shown["PSNR"].tolist() == ["inf"]
    summary.to_csv(tmp_path / "summary.csv")
    assert pd.read_csv(tmp_path / "summary.csv")["test/feat/psnr_mean"].tolist() == [math.inf]
    assert not [w for w in recwarn if issubclass(w.category, RuntimeWarning)]


@pytest.mark.parametrize("featurizer", ["png", "neural_rec", "neural_feat"])
def test_predictors_standardise_images_and_nothing_else(featurizer, tmp_path, monkeypatch):
    """With mean and std of their own data set, even if the sender has another."""
    heads = []

    def noting(head, optimizer):
        heads.append(head)
        return Predictor(head, optimizer)

    monkeypatch.setattr(building, "Predictor", noting)
    base = CLASSICAL if featurizer == "png" else DIGITS
    overrides = [f"featurizer={featurizer}", "data_pred.mean=[0.25]", "data_pred.std=[0.5]"]
    run(tmp_path, *overrides, base=base)
    x, y = torch.rand(2, 1, 8, 8), torch.rand(2, 4)
    (standardize,) = (head.standardize for head in heads)
    if featurizer == "neural_feat":
        assert torch.equal(standardize(y), y)
    else:
        torch.testing.assert_close(standardize(x.to(standardize.mean)), 2 * x - 0.5)


def test_reconstructions_need_a_decoder(tmp_path):
    with pytest.raises(Exception, match="no decoder"):
        run(tmp_path, "distortion=BINCE", "featurizer=neural_rec")


def test_the_predictor_may_have_data_of_its_own(tmp_path):
    sizes = [f"{place}.kwargs.n_train=256" for place in ("data_feat", "data_pred")]
    overrides = ["data@data_pred=banana", "data_pred.kwargs.n_eval=32", *sizes]
    metrics = run(tmp_path, *overrides)
    cfg = compose(tmp_path, *overrides)
    check_results(cfg, metrics)
    targets = communication.read_targets(find_run(cfg, "communication").work, "test")
    assert targets.shape == (32, 2)  # without an equivalence the target is the point itself


def test_copies_are_sent_of_the_training_set_only(tmp_path):
    run(tmp_path, "communication.n_copies=3")
    work = find_run(compose(tmp_path, "communication.n_copies=3"), "communication").work
    lengths = [len(communication.read_targets(work, s)) for s in ("train", *SPLITS)]
    assert lengths == [3 * 256, 64, 64]


def test_an_epoch_of_the_predictor_is_one_copy(tmp_path):
    """So schedules count epochs as if the data were augmented anew in each."""
    overrides = ["communication.n_copies=3", "trainer_pred.max_epochs=6"]
    overrides += ["scheduler@scheduler_pred=expdecay100"]
    run(tmp_path, *overrides)
    cfg = compose(tmp_path, *overrides)
    last = torch.load(find_run(cfg, "predictor").work / LAST, weights_only=True)
    assert last["global_step"] == 6 * 256 / 64
    (optimizer,) = last["optimizer_states"]
    rate = optimizer["predictor"]["param_groups"][0]["lr"]
    assert rate == pytest.approx(cfg.optimizer_pred.kwargs.lr / 100)


def test_chunks_do_not_change_what_is_decoded(tmp_path):
    one, many = run(tmp_path), run(tmp_path, "communication.chunk_size=10")
    assert one["test/pred/loss"] == many["test/pred/loss"]
    assert one["test/comm/n_bits"] < many["test/comm/n_bits"]


def test_the_same_seed_gives_the_same_results_anywhere(tmp_path):
    one, other = run(tmp_path / "a"), run(tmp_path / "b")
    assert untimed(one) == untimed(other)
    assert untimed(run(tmp_path / "c", "seed=4")) != untimed(one)


# --- predictors learn from what is decoded


@pytest.fixture
def communicated(tmp_path):
    """Config of an experiment whose second stage is done."""
    with jobs.prepared(compose(tmp_path)) as cfg:
        stages.featurizer(cfg)
        stages.communicate(cfg)
        yield cfg


def test_predictors_notice_damaged_data(communicated):
    path = communication.data_file(find_run(communicated, "communication").work, "train")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises((CodingError, ValueError), match="train.lossyless"):
        stages.predict(communicated)


def test_predictors_learn_from_the_file_and_nothing_else(communicated, monkeypatch):
    """A predictor on other files differs, without running the encoder."""
    work = find_run(communicated, "communication").work
    val, test = (communication.data_file(work, split) for split in SPLITS)
    test.write_bytes(val.read_bytes())
    monkeypatch.setattr("lossyless.distributions.CondDist.forward", None)
    monkeypatch.setattr(BananaDataModule, "make_batches", None)
    metrics = stages.predict(communicated)
    assert metrics["test/pred/loss"] == metrics["val/pred/loss"]


def test_the_file_of_another_model_is_refused(communicated, tmp_path):
    with jobs.prepared(compose(tmp_path, "seed=5")) as other:
        stages.featurizer(other)
        stages.communicate(other)
    mine, theirs = (
        communication.data_file(find_run(cfg, "communication").work, "test")
        for cfg in (communicated, other)
    )
    mine.write_bytes(theirs.read_bytes())
    with pytest.raises(ValueError, match="fingerprint|model"):
        stages.predict(communicated)


def test_a_missing_checkpoint_is_named(communicated):
    (find_run(communicated, "featurizer").work / BEST).unlink()
    with pytest.raises(FileNotFoundError, match=BEST):
        stages.predict(communicated)


# --- skip, restart, resume


def test_finished_work_is_reused_without_training(tmp_path, capsys, monkeypatch):
    first = run(tmp_path)
    capsys.readouterr()
    monkeypatch.setattr(fitting, "fit", lambda *args, **kwargs: pytest.fail("trained again"))
    monkeypatch.setattr(communication, "send", lambda *args: pytest.fail("sent again"))
    assert run(tmp_path) == first
    output = capsys.readouterr().out
    for stage in STAGES:
        assert f"[{stage}] run_{find_run(compose(tmp_path), stage).id} is done" in output


def test_predictors_may_have_a_seed_of_their_own(tmp_path):
    metrics = [run(tmp_path, f"seed_pred={seed}") for seed in ("null", 123, 5)]
    losses = [found.pop("test/pred/loss") for found in metrics]
    assert losses[0] == losses[1] != losses[2]
    rates = [found["test/comm/rate"] for found in metrics]
    assert len(set(rates)) == 1
    finished = list((tmp_path / "results").glob("**/results_*.csv"))
    assert len(finished) == 2 + 3  # one compressor, one file of compressed data


def test_only_the_featurizer(tmp_path):
    metrics = run(tmp_path, "is_only_feat=true")
    assert all("/feat/" in name for name in metrics)
    states = [find_run(compose(tmp_path), stage).status()["state"] for stage in STAGES]
    assert states == ["done", "new", "new"]
    assert run(tmp_path).items() >= metrics.items()


class Stop(ReseedEveryEpoch):
    """Replaces the callback that reseeds; ends the training in the middle of an epoch."""

    error: BaseException = KeyboardInterrupt()
    stop_at = 1

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if trainer.current_epoch == self.stop_at and batch_idx == 0:
            raise self.error


def interrupt(monkeypatch, error: BaseException, epoch: int = 1):
    monkeypatch.setattr(Stop, "error", error)
    monkeypatch.setattr(Stop, "stop_at", epoch)
    monkeypatch.setattr(fitting, "ReseedEveryEpoch", Stop)


LONGER = ["trainer.max_epochs=4"]
RESUMED = {  # epoch of the interruption, settings
    "first": (0, ["rate=H_hyper", "featurizer.loss.beta_anneal=geometric"]),
    "last": (3, ["rate=MI_unitgaussian", "distortion=VAE"]),
    "dropout": (
        2,
        ["architecture@online=mlp_probe", "online.kwargs.hid_dim=8"]
        + ["scheduler@scheduler_feat=plateau_quick", "scheduler_feat.kwargs.patience=0"],
    ),
    "contrastive": (2, ["distortion=BINCE", "optimizer@optimizer_feat=SGD_likeadam"]),
    "rarely_evaluated": (
        2,
        ["checkpoint@checkpoint_feat=bestTrainLoss", "rate.kwargs.warmup_k_epoch=3"]
        + ["trainer.check_val_every_n_epoch=2"],
    ),
}


@pytest.mark.parametrize("case", RESUMED)
def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path, monkeypatch, case):
    epoch, settings = RESUMED[case]
    overrides = [*LONGER, *settings]
    uninterrupted = run(tmp_path / "a", *overrides)
    with monkeypatch.context() as patch:
        interrupt(patch, KeyboardInterrupt(), epoch)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            run(tmp_path / "b", *overrides)
    cfg = compose(tmp_path / "b", *overrides)
    assert find_run(cfg, "featurizer").status()["state"] == "interrupted"
    assert untimed(run(tmp_path / "b", *overrides)) == untimed(uninterrupted)


def test_a_resumed_predictor_equals_an_uninterrupted_one(tmp_path, monkeypatch):
    """Also with decoded data that do not fit into memory."""
    overrides = [*LONGER, "architecture@predictor=mlp_probe", "predictor.kwargs.hid_dim=8"]
    uninterrupted = run(tmp_path / "a", *overrides)
    monkeypatch.setattr(examples, "MAX_RESIDENT_BYTES", 100)
    with jobs.prepared(compose(tmp_path / "b", *overrides)) as cfg:
        stages.featurizer(cfg)
        stages.communicate(cfg)
        with monkeypatch.context() as patch:
            interrupt(patch, KeyboardInterrupt())
            with pytest.raises((KeyboardInterrupt, SystemExit)):
                stages.predict(cfg)
    assert find_run(cfg, "predictor").status()["state"] == "interrupted"
    assert untimed(run(tmp_path / "b", *overrides)) == untimed(uninterrupted)


def test_an_interrupted_communication_restarts(tmp_path, monkeypatch):
    uninterrupted = run(tmp_path / "a")
    send = communication.send

    def send_but_one(compressor, loaders, path, chunk_size):
        if path.name.startswith("test"):
            raise KeyboardInterrupt
        return send(compressor, loaders, path, chunk_size)

    with monkeypatch.context() as patch:
        patch.setattr(communication, "send", send_but_one)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "b")
    status = find_run(compose(tmp_path / "b"), "communication").status()
    assert status["state"] == "interrupted"
    assert untimed(run(tmp_path / "b")) == untimed(uninterrupted)


def test_failures_are_kept_and_restarted(tmp_path, monkeypatch, capsys):
    uninterrupted = run(tmp_path / "a", *LONGER)
    with monkeypatch.context() as patch:
        interrupt(patch, RuntimeError("out of luck"))
        with pytest.raises(RuntimeError):
            run(tmp_path / "b", *LONGER)
    failed = find_run(compose(tmp_path / "b", *LONGER), "featurizer")
    status = failed.status()
    assert status["state"] == "failed" and status["error"] == "RuntimeError: out of luck"
    assert "on_train_batch_end" in status["traceback"]
    assert untimed(run(tmp_path / "b", *LONGER)) == untimed(uninterrupted)
    assert "[featurizer] failed before, restarting" in capsys.readouterr().out
    assert (failed.work / f"failed_{LAST}").is_file()


def test_failures_resume_if_asked_to(tmp_path, monkeypatch, capsys):
    uninterrupted = run(tmp_path / "a", *LONGER)
    with monkeypatch.context() as patch:
        interrupt(patch, RuntimeError("out of luck"), epoch=2)
        with pytest.raises(RuntimeError):
            run(tmp_path / "b", *LONGER)
    epochs = []
    with monkeypatch.context() as patch:
        patch.setattr(callbacks, "reseed", lambda *p: epochs.append(p) or reseed(*p))
        resumed = run(tmp_path / "b", *LONGER, "on_failed=resume")
    assert [epoch for *_, epoch in epochs] == [2, 3, 0, 1, 2, 3]  # the predictor trains in full
    assert "[featurizer] was failed before, resuming" in capsys.readouterr().out
    assert untimed(resumed) == untimed(uninterrupted)


# --- non-finite losses


class PoisonedBanana(BananaDataModule):
    """A Banana with NaN in the second batch of its second epoch."""

    def loader(self, split, *, epoch=0, **kwargs):
        loader = super().loader(split, epoch=epoch, **kwargs)
        if split == "train" and epoch == 1:
            make_batches = loader.make_batches
            loader.make_batches = lambda generator: (
                batch._replace(x=batch.x * float("nan")) if i == 1 else batch
                for i, batch in enumerate(make_batches(generator))
            )
        return loader


def test_nan_stops_the_training_and_keeps_the_last_good_checkpoint(tmp_path):
    overrides = [*LONGER, f"data_feat.kwargs._target_={__name__}.PoisonedBanana"]
    with pytest.raises(NonFiniteLossError, match=r"step 5: .*loss=nan"):
        run(tmp_path, *overrides)
    failed = find_run(compose(tmp_path, *overrides), "featurizer")
    assert failed.status()["state"] == "failed" and not failed.csv.exists()
    checkpoint = torch.load(failed.work / LAST, weights_only=True)
    assert checkpoint["epoch"] == 0
    weights = [t for name, t in checkpoint["state_dict"].items() if name.startswith("p_ZlX.")]
    assert weights and all(weight.isfinite().all() for weight in weights)


def test_divergence_of_a_predictor_stops_it(tmp_path):
    with pytest.raises(NonFiniteLossError, match=r"step \d+: loss="):
        run(tmp_path, "optimizer_pred.kwargs.lr=1e30", "trainer.max_epochs=5")
    states = [
        find_run(compose(tmp_path, "optimizer_pred.kwargs.lr=1e30", "trainer.max_epochs=5"), s)
        for s in STAGES
    ]
    assert [r.status()["state"] for r in states] == ["done", "done", "failed"]


# --- processes that are killed


def state_of(cfg, stage: str) -> str:
    return find_run(cfg, stage).status()["state"]


def start_and_signal(tmp_path, overrides, stage, number) -> int:
    """Run main.py until a stage is under way, then send a signal; the exit status."""
    cfg = compose(tmp_path, *overrides)
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    command = main_command(tmp_path, *overrides)
    with subprocess.Popen(
        command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, start_new_session=True
    ) as process:
        deadline = time.monotonic() + 120
        while state_of(cfg, stage) == "new" and time.monotonic() < deadline:
            time.sleep(0.01)
        if stage != "communication":
            last = find_run(cfg, stage).work / LAST
            while not last.is_file() and time.monotonic() < deadline:
                time.sleep(0.01)
        process.send_signal(number)
        return process.wait(60)


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_process_resumes_exactly(tmp_path, stage):
    overrides = ["trainer.max_epochs=40", "trainer_pred.max_epochs=150"]
    if stage == "communication":  # takes a moment
        overrides[1] = "trainer_pred.max_epochs=1"
        overrides += ["communication.n_copies=300", "communication.chunk_size=50"]
    uninterrupted = run(tmp_path / "a", *overrides)
    assert start_and_signal(tmp_path / "b", overrides, stage, signal.SIGKILL) != 0
    assert state_of(compose(tmp_path / "b", *overrides), stage) == "running"
    done = call(*main_command(tmp_path / "b", *overrides))
    assert done.returncode == 0, done.stderr
    assert f"[{stage}] was running before, resuming" in done.stdout
    cfg = compose(tmp_path / "b", *overrides)
    found = {k: v for s in STAGES for k, v in find_run(cfg, s).metrics().items()}
    assert untimed(found) == untimed(uninterrupted)


@pytest.mark.slow
def test_workers_end_with_the_process_that_started_them(tmp_path):
    overrides = ["trainer.max_epochs=100000", "is_only_feat=true", "parallel_jobs=2", "seed=1,2"]
    one = [o for o in overrides if not o.startswith("seed")] + ["seed=1"]
    cfg = compose(tmp_path, *one)
    command = main_command(tmp_path, *overrides)
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while state_of(cfg, "featurizer") == "new" and time.monotonic() < deadline:
            time.sleep(0.1)
        worker = find_run(cfg, "featurizer").status()["pid"]
        assert worker != process.pid
        process.kill()
    deadline = time.monotonic() + 20
    while _is_alive(worker) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _is_alive(worker)


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # zombie


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_end_with_an_error_and_can_be_resumed(tmp_path, number):
    overrides = ["trainer.max_epochs=60", "is_only_feat=true"]
    assert start_and_signal(tmp_path / "b", overrides, "featurizer", number) != 0
    cfg = compose(tmp_path / "b", *overrides)
    assert state_of(cfg, "featurizer") in ("interrupted", "running")
    done = call(*main_command(tmp_path / "b", *overrides))
    assert done.returncode == 0 and "resuming" in done.stdout
    uninterrupted = run(tmp_path / "a", *overrides)
    assert untimed(find_run(cfg, "featurizer").metrics()) == untimed(uninterrupted)


@pytest.mark.slow
def test_two_processes_share_one_featurizer(tmp_path):
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    commands = [main_command(tmp_path, f"add_pred={i}", *LONGER) for i in range(2)]
    processes = [
        subprocess.Popen(c, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True) for c in commands
    ]
    outputs = [process.communicate(timeout=200)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sum("its results are reused" in output for output in outputs) == 1


def test_a_whole_job_in_its_own_process(tmp_path):
    done = call(*main_command(tmp_path, "monitor_return=test/pred/loss"))
    assert done.returncode == 0, done.stderr
    assert "1 of 1 jobs done" in done.stdout
    (trace,) = tmp_path.glob("outputs/**/job.json")
    assert json.loads(trace.read_text())["state"] == "done"
    cfg = compose(tmp_path)
    assert all(state_of(cfg, stage) == "done" for stage in STAGES)
