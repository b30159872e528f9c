"""From the runs of an experiment to a submission for the Kaggle competition of its data."""

import math
from collections.abc import Mapping
from pathlib import Path

from omegaconf import DictConfig
from pandas import Series

from utils.aggregation import tables
from utils.aggregation.experiment import Experiment
from utils.aggregation.saved import config_here, named_errors
from utils.configs.composing import ConfigError
from utils.data import kaggle
from utils.data.galaxy import ANSWERS, COMPETITION, ID, GalaxyDataModule
from utils.training import building, fitting

OPTION = "aggregate.kaggle_submission"
LOSS = "val/pred/loss"  # never that of the test split


def kaggle_submission(
    experiment: Experiment,
    paths: Mapping[str, str],
    accelerator: str,
    where: Mapping[str, object] | None = None,
    submit: bool = False,
) -> None:
    """Predict Kaggle's test images with the run that is best on validation data.

    The images are compressed into bytes and predicted from what is decoded from these. Writes
    `<experiment>/submission.csv`; prints the run and its root mean squared error, which is what
    Kaggle scores.

    Parameters
    ----------
    experiment : whose runs are candidates.
    paths : where results, checkpoints and data are now, as in conf/main.yaml.
    accelerator : where to compute, as `trainer.accelerator`.
    where : parameter -> value or values: which runs are candidates; None: all.
    submit : whether the file is also sent to Kaggle; needs an account.

    Raises
    ------
    ConfigError
        If the best run's data are of no competition, or its checkpoints or Kaggle's images are
        missing, or Kaggle refuses the file.
    NoRunsError
        If no predictor is finished.
    """
    run = _best(experiment, where)
    config = config_here(run, paths, accelerator)
    with named_errors(OPTION):
        data = _data(config)
        title = f"{fitting.describe(config)}, run_{run['predictor_id']}"
        score = math.sqrt(run[LOSS])
        print(f"Best on validation data: {title}, score (RMSE) {score:.5f}: {run[tables.FOLDER]}")
        path = experiment.folder / "submission.csv"
        _write(path, config, data)
        print(f"Submission: {path}")
        if submit:
            print(kaggle.submit(path, COMPETITION, f"{title}, validation {score:.5f}"))


def _best(experiment: Experiment, where: Mapping[str, object] | None) -> Series:
    """The finished predictor with the lowest loss on validation data."""
    runs = experiment.finished("predictor", where, OPTION)
    if runs.empty:
        raise tables.NoRunsError(
            f"{OPTION}: no predictor of {experiment.folder} is finished: run the experiment "
            "without is_only_feat"
        )
    return runs.loc[runs[LOSS].idxmin()]


def _data(config: DictConfig) -> GalaxyDataModule:
    """What the run predicts, if that is a competition."""
    data = building.build_data(config, "data_pred", "none")
    if not isinstance(data, GalaxyDataModule):
        raise ConfigError(
            f"{OPTION}: the best run predicts data_pred={config.data_pred.name}, which is no "
            f"Kaggle competition: choose runs on Galaxy Zoo by {OPTION}.where"
        )
    return data


def _write(path: Path, config: DictConfig, data: GalaxyDataModule) -> None:
    """The predictions of a run for Kaggle's test images."""
    compressor = building.load_compressor(config)
    predictor = building.load_predictor(config, compressor)
    device = building.pick_device(config)
    ids, predictions = kaggle.predict_submission(compressor, predictor, data, device)
    kaggle.write_submission(path, ids, predictions, columns=(ID, *ANSWERS))
