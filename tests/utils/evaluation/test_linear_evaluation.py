"""Linear evaluation follows the paper's protocol, without leakage, deterministically."""

import numpy as np
import pytest
import torch
from helpers.tiny import DIGITS, compose, paths, run, untimed
from hydra.utils import instantiate
from omegaconf import OmegaConf
from sklearn.model_selection import ParameterSampler, StratifiedKFold, cross_val_score
from sklearn.svm import LinearSVC

from utils.cluster import sweep
from utils.configs import resolvers
from utils.configs.checks import ConfigError, is_network
from utils.configs.overrides import CONF_DIR
from utils.evaluation.linear import LinearSVMEvaluation, LogisticEvaluation, in_span
from utils.runs.run import find_run
from utils.training import jobs

N_CLASSES = 3
FEW = LinearSVMEvaluation(n_draws=4)
FILES = {file.stem: OmegaConf.load(file) for file in CONF_DIR.glob("architecture/*.yaml")}
EVALUATIONS = sorted(name for name, config in FILES.items() if not is_network(config))
of_every_classifier = pytest.mark.parametrize(
    "evaluation", [instantiate(FILES[n].kwargs, n_draws=4) for n in EVALUATIONS], ids=EVALUATIONS
)


def gaussians(n, *, dim=8, n_classes=N_CLASSES, distance=2.0, seed=0):
    """n points [n, dim] around the corners of a simplex, and their classes."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % n_classes
    centres = distance * torch.eye(n_classes, dim)
    return centres[y] + torch.randn(n, dim, generator=generator), y


def splits_of(**options):
    sizes = {"train": 120, "val": 45, "test": 90}
    return {name: gaussians(n, seed=i, **options) for i, (name, n) in enumerate(sizes.items())}


def evaluate(splits, evaluation=FEW, *, seed=0, **options):
    return evaluation.evaluate(splits, task="classification", seed=seed, **options)


@of_every_classifier
def test_validation_and_test_have_the_same_metrics(evaluation):
    metrics = evaluate(splits_of(), evaluation)
    names = [f"{prefix}{name}" for prefix in ("", "balanced_") for name in ("loss", "acc", "err")]
    assert set(metrics) == {f"{split}/pred/{name}" for split in ("val", "test") for name in names}
    for split in ("val", "test"):
        assert metrics[f"{split}/pred/acc"] + metrics[f"{split}/pred/err"] == 1
        assert 0.7 < metrics[f"{split}/pred/acc"] <= 1
        for name in ("loss", "acc", "err"):  # all classes have the same number of examples
            balanced = metrics[f"{split}/pred/balanced_{name}"]
            assert balanced == pytest.approx(metrics[f"{split}/pred/{name}"])
        assert metrics[f"{split}/pred/loss"] > 0


def test_the_loss_of_linear_svc_is_the_multiclass_hinge_loss():
    x, y = (t.numpy() for t in gaussians(60))
    clf = FEW.make(0).fit(x, y)
    scores = clf.decision_function(x)
    rows = np.arange(len(y))
    others = scores.copy()
    others[rows, y] = -np.inf
    missing = np.maximum(0, 1 - (scores[rows, y] - others.max(1))).mean()
    assert FEW.loss(clf, x, y) == pytest.approx(missing)


def test_the_loss_of_logistic_regression_is_the_cross_entropy_in_nats():
    x, y = (t.numpy() for t in gaussians(60))
    clf = LogisticEvaluation().make(0).fit(x, y)
    logits = torch.from_numpy(clf.decision_function(x))
    expected = torch.nn.functional.cross_entropy(logits, torch.from_numpy(y))
    assert LogisticEvaluation().loss(clf, x, y) == pytest.approx(expected.item())


@of_every_classifier
def test_classes_of_different_sizes_count_equally_in_balanced_metrics(evaluation):
    """Duplicating the examples of a class does not change the metrics."""
    splits = splits_of(distance=1.0)
    once = evaluate(splits, evaluation)
    is_doubled = splits["test"][1] == 0
    splits["test"] = tuple(torch.cat([t, t[is_doubled]]) for t in splits["test"])
    twice = evaluate(splits, evaluation)
    for name in ("loss", "acc", "err"):
        balanced = f"test/pred/balanced_{name}"
        assert twice[balanced] == pytest.approx(once[balanced])
        assert twice[f"test/pred/{name}"] != pytest.approx(once[f"test/pred/{name}"])


def test_metrics_depend_only_on_data_and_seed():
    splits = splits_of(distance=1.0, n_classes=2)
    first = evaluate(splits)
    np.random.seed(5)
    torch.manual_seed(5)
    assert evaluate(splits) == evaluate(splits, n_jobs=2) == first != evaluate(splits, seed=1)


def test_linear_svc_follows_the_protocol_of_the_paper():
    """5-fold cross-validation on train + val, then a fit to both, without rescaling features."""
    splits = {name: (3 * x, y) for name, (x, y) in splits_of(dim=60, distance=1.0).items()}
    (x, y), test = (
        tuple(torch.cat(parts).double().numpy() for parts in zip(*chosen, strict=True))
        for chosen in ((splits["train"], splits["val"]), (splits["test"],))
    )
    classifiers = [
        LinearSVC(dual=False, random_state=0, **draw)
        for draw in ParameterSampler(LinearSVMEvaluation.space, 16, random_state=0)
    ]
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    scores = [cross_val_score(clf, x, y, cv=folds).mean() for clf in classifiers]
    best = classifiers[int(np.argmax(scores))].fit(x, y)
    metrics = evaluate(splits, LinearSVMEvaluation())
    assert metrics["test/pred/acc"] == pytest.approx(best.score(*test))
    hinge = LinearSVMEvaluation().loss(best, *test)
    assert metrics["test/pred/loss"] == pytest.approx(hinge, rel=1e-3)


# --- representations of any scale and rank


def embedded(splits, *, dim=400):
    """Embed the points, as float32, in a space of `dim` dimensions."""
    old = splits["train"][0].shape[1]
    generator = torch.Generator().manual_seed(3)
    axes = torch.linalg.qr(torch.randn(dim, old, generator=generator)).Q.T
    return {name: (x @ axes, y) for name, (x, y) in splits.items()}


@of_every_classifier
def test_a_low_dimensional_span_is_fitted_in_its_own_coordinates(evaluation):
    few = splits_of(distance=1.0)
    many = embedded(few)
    assert evaluate(many, evaluation) == pytest.approx(evaluate(few, evaluation), abs=1e-3)
    inside = in_span(*(FEW._to_numpy(*many[name]) for name in many))
    assert [x.shape for x, _ in inside] == [(120, 8), (45, 8), (90, 8)]


@of_every_classifier
def test_constant_representations_give_chance_accuracy(evaluation):
    for value in (0.0, 3.0):
        splits = {name: (torch.full_like(x, value), y) for name, (x, y) in splits_of().items()}
        assert evaluate(splits, evaluation)["test/pred/acc"] == pytest.approx(1 / N_CLASSES)


@of_every_classifier
def test_a_solver_that_does_not_converge_is_reported_once_per_split(
    evaluation, capfd, monkeypatch, recwarn
):
    make = type(evaluation).make
    monkeypatch.setattr(
        type(evaluation), "make", lambda self, seed: make(self, seed).set_params(max_iter=1)
    )
    evaluate(splits_of(), evaluation)
    out, err = capfd.readouterr()
    lines = [line for line in out.splitlines() if "no convergence in 1 iterations" in line]
    assert ["val/pred" in line for line in lines] == [True, False] and "test/pred" in lines[1]
    assert "Liblinear" not in err and not recwarn.list


# --- cross-validation or the validation split


def folds(n, n_train, **limits):
    y = np.arange(n) % 4
    return LinearSVMEvaluation(**limits)._folds(y, n_train=n_train, seed=0)


def test_small_sets_are_cross_validated_and_large_ones_compared_on_the_validation_split():
    found = folds(50_000, 47_500)
    assert len(found) == 5
    assert sorted(np.concatenate([held_out for _, held_out in found])) == list(range(50_000))
    for rows, held_out in found:
        assert sorted([*rows, *held_out]) == list(range(50_000))
        assert (np.bincount(held_out % 4) == 2500).all()
    for n, limits in ((50_001, {}), (40, {"n_folds": 11})):  # many examples, or small classes
        ((rows, held_out),) = folds(n, n - 10, **limits)
        assert list(rows) == list(range(n - 10)) and list(held_out) == list(range(n - 10, n))
    ((rows, held_out),) = folds(1000, 800, max_cv_examples=100, max_search_examples=200)
    assert len(set(rows)) == 200 and rows.max() < 800 and list(held_out) == list(range(800, 1000))
    assert (np.bincount(rows % 4) == 50).all()  # a stratified subset


@pytest.mark.parametrize("limits", [{}, {"max_cv_examples": 100}], ids=["folds", "hold-out"])
def test_the_test_split_does_not_influence_the_choice(limits, capsys):
    splits, evaluation = splits_of(distance=1.0), LinearSVMEvaluation(n_draws=4, **limits)
    metrics, chosen = evaluate(splits, evaluation), capsys.readouterr().out
    x, y = splits["test"]
    splits["test"] = -x, y.flip(0)
    other = evaluate(splits, evaluation)
    assert capsys.readouterr().out == chosen and "C" in chosen
    assert other["test/pred/acc"] != metrics["test/pred/acc"]
    assert other["val/pred/acc"] == metrics["val/pred/acc"]


# --- errors


def test_only_classes_of_vectors_can_be_predicted():
    splits = splits_of()
    with pytest.raises(ValueError, match=r"linear SVM.*regression.*mlp_probe"):
        FEW.evaluate(splits, task="regression", seed=0)
    images = {name: (x.view(-1, 1, 2, 4), y) for name, (x, y) in splits.items()}
    with pytest.raises(ValueError, match=r"\[1, 2, 4\].*featurizer"):
        evaluate(images)


# --- as the third stage of a job


def with_predictor(name, *overrides):
    other = [o for o in DIGITS if "@predictor" not in o]
    return [*other, f"architecture@predictor={name}", "predictor.kwargs.n_draws=2", *overrides]


def test_all_stages_end_with_a_linear_classifier(tmp_path, monkeypatch):
    monkeypatch.setattr(resolvers, "n_cpus", lambda: 1)  # starts no processes
    base = with_predictor("linear_svc")
    metrics = run(tmp_path, base=base)
    found = find_run(compose(tmp_path, base=base), "predictor")
    assert found.csv.name == "results_predictor.csv" and found.status()["state"] == "done"
    assert found.metrics().items() <= metrics.items()
    assert 0 < metrics["test/pred/balanced_acc"] < 1
    assert untimed(run(tmp_path, base=base)) == untimed(metrics)  # from disk


# --- choices on the command line


def test_an_evaluation_in_place_of_a_network_is_an_error_of_the_command_line(tmp_path):
    with pytest.raises(ConfigError, match="architecture@encoder=linear_svc"):
        sweep.check_command_line([*paths(tmp_path), "architecture@encoder=linear_svc"])
    assert not list(tmp_path.iterdir())


def test_unknown_predictors_are_an_error_before_the_first_stage(tmp_path):
    base = [o for o in DIGITS if "@predictor" not in o]
    cfg = compose(tmp_path, "architecture@predictor=linear_svc", base=base)
    cfg.predictor.kwargs = {"_target_": "sklearn.svm.LinearSVC"}
    with (
        pytest.raises(ConfigError, match="LinearSVC.*linear.Evaluation"),
        jobs.prepared(cfg),
    ):
        pytest.fail("a stage was started")
