"""Mode `plot_optuna_hypopt`: figures and a table for each study of an experiment."""

from collections.abc import Sequence

import numpy as np
import optuna
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from optuna.importance import FanovaImportanceEvaluator
from optuna.study import StudyDirection
from optuna.trial import TrialState

from utils.aggregation.experiment import Experiment, in_file_name
from utils.configs.checks import check_known
from utils.plots import style
from utils.plots.axes import LINE, finish, metric_label
from utils.search import study as studies_of
from utils.search.study import best_trials, counted, objective_names

COMPLETE, FAILED, RUNNING = "complete", "failed", "running"
STATES = {
    TrialState.COMPLETE: COMPLETE,
    TrialState.FAIL: FAILED,
    TrialState.RUNNING: RUNNING,
}
MARKS = {FAILED: ("x", style.RED), RUNNING: ("o", style.ORANGE)}
POINTS = {"color": style.BLUE, "alpha": 0.4, "s": 20, "linewidths": 0}
# A legend that covers no data.
ABOVE = {"loc": "lower right", "bbox_to_anchor": (1, 1), "ncols": 4, "borderaxespad": 0}
MIN_TRIALS = 10  # complete trials needed to compute importances


def plot_optuna_hypopt(
    experiment: Experiment,
    studies: Sequence[str] | None = None,
    is_log_y: bool = False,
) -> None:
    """Draw `optuna_<study>_{history,importance,pareto}` and write `optuna_<study>.csv`.

    The history shows the value of each trial and the best value so far. Importances require 10
    complete trials whose values differ, and the Pareto front requires two objectives. Columns of
    the table: number, state, `is_best`, objectives, sampled settings, `seconds` that the job took,
    `run` (its results folder) and `error`. Trials that were retried are left out. If there is no
    study, a message is printed.
    """
    file = experiment.folder / studies_of.FILE
    found = studies_of.names(file)
    if not found:
        print(f"No search yet: there is no study in {file}")
    wanted = found if studies is None else list(map(str, studies))  # names may look like numbers
    check_known("aggregate.plot_optuna_hypopt.studies", wanted, found)
    for name in wanted:
        _draw(experiment, studies_of.load(file, name), is_log_y)


def _draw(experiment: Experiment, study: optuna.Study, is_log_y: bool) -> None:
    stem = f"optuna_{in_file_name(study.study_name)}"
    objectives, table = objective_names(study), trials_table(study)
    experiment.save_numbers(table, stem)
    print(f"Table: {experiment.folder / stem}.csv, {len(table)} trials")
    if not (table["state"] == COMPLETE).any():
        print(f"No trial of {study.study_name} is complete: nothing to draw")
        return
    experiment.save_figure(_history(table, study, is_log_y), f"{stem}_history")
    shares = pd.DataFrame({name: importances(study, i) for i, name in enumerate(objectives)})
    if len(shares):
        shares = shares.dropna(axis=1, how="all")
        shares = shares.rename(index={key: experiment.pretty(_short(key)) for key in shares.index})
        experiment.save_figure(_importance(shares), f"{stem}_importance")
    if len(objectives) == 2:
        experiment.save_figure(_pareto_front(table, *objectives, is_log_y), f"{stem}_pareto")


def trials_table(study: optuna.Study) -> pd.DataFrame:
    """Tabulate the trials that count (`counted`); `plot_optuna_hypopt` lists the columns."""
    objectives, trials = objective_names(study), counted(study)
    best = {trial.number for trial in best_trials(study)}
    rows = []
    for trial in trials:
        values = trial.values if trial.state == TrialState.COMPLETE else [None] * len(objectives)
        about = {key: trial.user_attrs.get(key) for key in ("seconds", "run", "error")}
        rows.append(
            {"number": trial.number, "state": STATES[trial.state], "is_best": trial.number in best}
            | dict(zip(objectives, values, strict=True))
            | trial.params
            | about
        )
    drawn = dict.fromkeys(key for trial in trials for key in trial.params)
    columns = ["number", "state", "is_best", *objectives, *drawn, "seconds", "run", "error"]
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(objectives, float))


def importances(study: optuna.Study, objective: int = 0) -> dict[str, float]:
    """Share of the variance of an objective that each sampled setting explains on its own.

    Computed with fANOVA (Hutter et al. 2014, http://proceedings.mlr.press/v32/hutter14.html). The
    shares are in descending order; the rest of the variance is due to interactions of settings.
    Settings whose range changed during the study are left out. Empty if fewer than `MIN_TRIALS`
    trials are complete, or if all values are equal.
    """
    complete = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    values = [trial.values[objective] for trial in complete]
    if len(values) < MIN_TRIALS or np.ptp(values) == 0:
        return {}
    # `get_param_importances` would divide the shares by their sum
    evaluator = FanovaImportanceEvaluator(seed=0)
    return evaluator.evaluate(study, target=lambda trial: trial.values[objective])


def _history(table: pd.DataFrame, study: optuna.Study, is_log_y: bool) -> Figure:
    """Draw a panel for each objective; trials without values are marked at the bottom."""
    objectives = objective_names(study)
    figure = Figure(figsize=(5.6, 2.6 * len(objectives) + 0.4), dpi=style.DPI, layout="constrained")
    grid = figure.subplots(len(objectives), 1, sharex=True, squeeze=False)[:, 0]
    done = table[table["state"] == COMPLETE].sort_values("number")
    for axes, objective, direction in zip(grid, objectives, study.directions, strict=True):
        is_minimised = direction == StudyDirection.MINIMIZE
        axes.scatter(done["number"], done[objective], **POINTS)
        best = (np.minimum if is_minimised else np.maximum).accumulate(done[objective].to_numpy())
        label = f"{'lowest' if is_minimised else 'highest'} so far"
        axes.step(done["number"], best, where="post", color=style.BLUE, lw=1.8, label=label)
        for state, (marker, colour) in MARKS.items():
            numbers = table.loc[table["state"] == state, "number"]
            if len(numbers):
                look = {"color": colour, "marker": marker, "s": 26, "zorder": 3, "clip_on": False}
                heights, transform = np.full(len(numbers), 0.03), axes.get_xaxis_transform()
                axes.scatter(numbers, heights, label=state, transform=transform, **look)
        _finish(axes, is_log_y, ylabel=_title(objective))
        style.add_legend(axes, **ABOVE)
    grid[-1].set_xlabel("trial", fontsize=style.LABEL_SIZE, color=style.TEXT)
    return figure


def _importance(shares: pd.DataFrame) -> Figure:
    """Draw bars of shares [setting, objective], with the most important setting at the top."""
    shares = shares.loc[shares.mean(axis=1).sort_values(kind="stable").index]
    width = 3.6 + 0.085 * max(map(len, shares.index))
    height = 1.2 + len(shares) * (0.14 + 0.16 * len(shares.columns))
    figure, axes = style.make_figure(width, height)
    reversed_ = shares[shares.columns[::-1]].rename(columns=_title)  # drawn from bottom to top
    colours = style.COLOURS[: len(shares.columns)][::-1]
    reversed_.plot.barh(ax=axes, width=0.8, color=colours, legend=False)
    finish(axes, xlabel="share of the variance")
    handles, _ = axes.get_legend_handles_labels()
    style.add_legend(axes, handles[::-1], **ABOVE)
    return figure


def _pareto_front(table: pd.DataFrame, x: str, y: str, is_log_y: bool) -> Figure:
    """Plot complete trials by their two objectives, and the Pareto front."""
    done, front = table[table["state"] == COMPLETE], table[table["is_best"]].sort_values(x)
    figure, axes = style.make_figure()
    axes.scatter(done[x], done[y], label="trials", **POINTS)
    axes.plot(front[x], front[y], color=style.ORANGE, label="Pareto front", **LINE)
    _finish(axes, is_log_y, xlabel=_title(x), ylabel=_title(y))
    if n_failed := int((table["state"] == FAILED).sum()):
        title = f"{n_failed} failed trial{'s' * (n_failed > 1)} not shown"
        axes.set_title(title, fontsize=style.TICK_SIZE, color=style.LINE, loc="right")
    style.add_legend(axes)
    return figure


def _finish(axes: Axes, is_log_y: bool, **labels: str) -> None:
    finish(axes, **labels)
    if is_log_y:
        axes.set_yscale("log")


def _title(objective: str) -> str:
    """Axis label of an objective, e.g. "val/comm/rate" -> "rate (bits), validation"."""
    label = metric_label(objective, {})
    return f"{label}, validation" if objective.startswith("val/") else label


def _short(key: str) -> str:
    """Shorten a setting, e.g. "optimizer_pred.kwargs.lr" -> "optimizer_pred.lr".

    A config group is shortened to its package, e.g. "optimizer@optimizer_pred" -> "optimizer_pred".
    """
    return key.split("@")[-1].replace(".kwargs.", ".")
