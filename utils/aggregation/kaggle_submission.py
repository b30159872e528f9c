"""Mode `kaggle_submission`: predict the test images of a Kaggle competition."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from lossyless.base import Compressor
from utils.aggregation import tables
from utils.aggregation.experiment import Experiment
from utils.configs.checks import ConfigError
from utils.data import kaggle
from utils.data.decoded import from_pixels, to_pixels
from utils.data.images import ImageDataModule
from utils.data.module import DataError
from utils.data.sources.galaxy import ANSWERS, COMPETITION, ID, kaggle_test_batches
from utils.runs.files import write_text
from utils.runs.saved_runs import config_here
from utils.training import building, fitting

LOSS = "val/pred/loss"  # never select on the test split
UPLOAD_FAILED = "Could not submit"  # Kaggle's client returns this instead of raising


def kaggle_submission(
    experiment: Experiment,
    paths: Mapping[str, str],
    accelerator: str,
    submit: bool = False,
) -> None:
    """Write `submission.csv`: predictions of the run with the lowest loss on validation data.

    The images are compressed to bytes, and predictions are made from the decoded bytes. The run
    and its root mean squared error (Kaggle's score) on validation data are printed.

    Raises ConfigError if the best run's data set has no Kaggle competition, NoRunsError if no
    predictor is finished, and DataError or FileNotFoundError if a checkpoint or Kaggle's images are
    missing, or if Kaggle rejects the file.
    """
    runs, option = experiment.finished("predictor"), experiment.option
    if runs.empty:
        raise tables.NoRunsError(
            f"{option}: no predictor in {experiment.folder} is finished: run the experiment "
            "without is_only_feat"
        )
    run = runs.loc[runs[LOSS].idxmin()]
    config = config_here(Path(run[tables.FOLDER]), paths, accelerator)
    data = building.build_data(config, "data_pred", "none")
    if not isinstance(data, ImageDataModule) or not data.source.name.startswith("Galaxy"):
        raise ConfigError(
            f"{option}: the best run predicts data_pred={config.data_pred.name}, which has no "
            f"Kaggle competition: select runs on Galaxy Zoo with {option}.where"
        )
    title = f"{fitting.describe(config)}, run_{run['predictor_id']}"
    score = math.sqrt(run[LOSS])
    print(f"Best on validation data: {title}, score (RMSE) {score:.5f}: {run[tables.FOLDER]}")
    path = experiment.folder / "submission.csv"
    compressor = building.load_compressor(config)
    predictor = building.load_predictor(config, compressor)
    device = building.pick_device(config)
    batches = kaggle_test_batches(data, config.data_pred.kwargs.crop, device)
    ids, predictions = predict_decoded(compressor, predictor, batches, device)
    write_submission(path, ids, predictions, columns=(ID, *ANSWERS))
    print(f"Submission: {path}")
    if submit:
        print(upload(path, COMPETITION, f"{title}, validation {score:.5f}"))


@torch.no_grad()
def predict_decoded(
    compressor: Compressor,
    predictor: Callable[[Tensor], Tensor],
    batches: Iterable[tuple[Tensor, Tensor]],
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Compress images to bytes, and predict from the decoded bytes.

    Returns ids int64 [N] and predictions float32 [N, n_outputs] in [0, 1]. `batches` yields images
    [B, C, H, W] and their ids [B]; models and images are on the device.
    """
    all_ids, predictions = [], []
    for x, ids in batches:
        payload = compressor.codec.compress(compressor.represent(x))
        decoded = compressor.receive(compressor.codec.decompress(payload, len(x)).to(device))
        if compressor.is_reconstruct:  # predictors are trained on 8-bit images
            decoded = from_pixels(to_pixels(decoded))
        predictions.append(predictor(decoded).float().clamp(0, 1).cpu())
        all_ids.append(ids.cpu())
    return torch.cat(all_ids), torch.cat(predictions)


def write_submission(path: Path, ids: Tensor, predictions: Tensor, columns: Sequence[str]) -> None:
    """Write a line for each example, sorted by id.

    Raises ValueError if a prediction is NaN or infinite, which Kaggle rejects. `columns` names the
    columns that hold the ids [N] and the predictions [N, K].
    """
    if not predictions.isfinite().all():
        raise ValueError(f"{path}: predictions must be finite: Kaggle rejects NaN and infinity")
    order = ids.argsort()
    table = pd.DataFrame(predictions[order].numpy(), columns=list(columns[1:]))
    table.insert(0, columns[0], ids[order].numpy())
    write_text(path, table.to_csv(index=False, float_format="%.6f", lineterminator="\n"))


def upload(path: Path, competition: str, message: str) -> str:
    """Send a submission to Kaggle and return the answer; the score appears on Kaggle's website."""
    client = kaggle.connect()
    try:
        answer = client.competition_submit(str(path), message, competition)
    except OSError as error:
        raise DataError(f"{path} was not submitted to {competition}: {error}") from error
    answer = str(getattr(answer, "message", answer))
    if answer.startswith(UPLOAD_FAILED):
        raise DataError(f"{path} was not submitted to {competition}: {answer}")
    return answer
