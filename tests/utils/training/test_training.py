"""Errors for unlabelled data where labels are needed; loading of trained models."""

import pytest
import torch
from helpers.tiny import CLASSICAL, DIGITS, compose, run

from lossyless.predictors import Predictor
from utils.data.banana import BananaDataModule
from utils.data.sources.digits import digits
from utils.evaluation import communication
from utils.runs.run import find_run
from utils.training import building, fitting, jobs, stages


class UnlabelledBanana(BananaDataModule):
    """Points whose training split has no targets."""

    is_labelled = False


def unlabelled_digits(**kwargs):
    """Images whose training split has no targets."""
    data = digits(**kwargs)
    data.is_labelled = False
    return data


def unlabelled(place: str, data: type = UnlabelledBanana) -> str:
    return f"{place}.kwargs._target_={__name__}.{data.__name__}"


# --- data without labels


def test_probes_and_supervised_distortions_need_labels(tmp_path):
    with pytest.raises(ValueError, match="data_feat=banana_rot.*featurizer.kwargs.online=null"):
        run(tmp_path, unlabelled("data_feat"))
    assert not (find_run(compose(tmp_path, unlabelled("data_feat")), "featurizer").csv).exists()
    overrides = ["distortion=supervised", "featurizer.kwargs.online=null"]
    with pytest.raises(ValueError, match="data_feat=digits .*labels.* dist"):
        run(tmp_path, unlabelled("data_feat", unlabelled_digits), *overrides, base=DIGITS)


def test_a_compressor_without_a_probe_trains_on_unlabelled_data(tmp_path):
    """Predictors can then use other data."""
    overrides = ["distortion=BINCE", "featurizer.kwargs.online=null"]
    metrics = run(tmp_path, unlabelled("data_feat"), *overrides)
    assert metrics["test/feat/rate"] > 0 and metrics["test/pred/loss"] > 0
    assert not [name for name in metrics if "online" in name]


def test_predictors_need_labels_before_anything_is_sent(tmp_path, monkeypatch):
    monkeypatch.setattr(communication, "send_splits", lambda *a, **k: pytest.fail("was sent"))
    with pytest.raises(ValueError, match="data_pred=banana_rot .*labels"):
        run(tmp_path, unlabelled("data_pred"))
    cfg = compose(tmp_path, unlabelled("data_pred"))
    assert find_run(cfg, "featurizer").status()["state"] == "done"
    assert find_run(cfg, "communication").status()["state"] == "failed"


# --- loading


CASES = {
    "representations": (DIGITS, ["distortion=BINCE", "is_eval_train=true"]),
    "codec": (CLASSICAL, ["featurizer=jpeg", "featurizer.kwargs.quality=50"]),
}


@pytest.mark.parametrize("case", CASES)
def test_a_loaded_predictor_equals_the_trained_one(case, tmp_path, monkeypatch):
    """If requested, it is also evaluated on the training split, with the same metric names."""
    base, overrides = CASES[case]
    evaluated = {}
    evaluate = fitting.evaluate

    def keep(trainer, module, data, *args):
        metrics = evaluate(trainer, module, data, *args)
        if isinstance(module, Predictor):
            evaluated["module"] = module
            evaluated["batch"] = next(iter(data.loader("test")))
        return metrics

    monkeypatch.setattr(fitting, "evaluate", keep)
    metrics = run(tmp_path, *overrides, base=base)
    torch.manual_seed(5)  # weights come from the checkpoint, not from the seed
    with jobs.prepared(compose(tmp_path, *overrides, base=base)) as cfg:
        compressor = building.load_compressor(cfg)
        predictor = building.load_predictor(cfg, compressor)
    x, y, _ = evaluated["batch"]
    predicted = predictor(x)
    assert torch.equal(predicted, evaluated["module"].eval()(x))
    assert not predictor.training and not predicted.requires_grad
    losses, _ = predictor.head.losses(x, y)  # over the whole split, which is one batch
    assert losses.mean().item() == pytest.approx(metrics["test/pred/loss"], rel=1e-5)

    names = {name.removeprefix("train/") for name in metrics if name.startswith("train/")}
    if not cfg.is_eval_train:
        assert not names
        return
    assert names == {
        name.removeprefix("test/")
        for name in metrics
        if name.startswith(("test/feat", "test/pred")) and not name.endswith("_time")
    }
    with jobs.prepared(cfg):
        received = stages._received_kind(compressor, cfg)
        x, y = stages._decoded_splits(compressor, cfg, received)["train"]
    losses, _ = predictor.head.losses(x, y)  # without dropout
    assert metrics["train/pred/loss"] == pytest.approx(losses.mean().item(), rel=1e-5)
    # a run without these metrics is another run
    other = compose(tmp_path, *overrides, "is_eval_train=false", base=base)
    assert not find_run(other, "featurizer").results.exists()
