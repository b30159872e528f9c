"""Kaggle: download files; predict from the compressed images of a competition, and submit that.

With a trained compressor and the predictor of what it decodes to (`data` is a `GalaxyDataModule`):

    ids, predictions = predict_submission(compressor, predictor, data, device)
    write_submission("submission.csv", ids, predictions, columns=("GalaxyID", *ANSWERS))
    print(submit("submission.csv", COMPETITION, "VIC, beta 0.1"))

`aggregate.py` does this with the best run of an experiment: mode `kaggle_submission`.

What to expect of it, from the validation split:

    batches = ((batch.x, batch.y) for batch in data.loader("val", device=device))
    targets, predictions = predict_decoded(compressor, predictor, batches, device)
    print(kaggle_score(predictions, targets))
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import pandas as pd
import torch
from torch import Tensor
from torchmetrics.functional import mean_squared_error

from lossyless.base import Compressor
from utils.data.decoded import from_pixels, to_pixels
from utils.data.downloads import unpack
from utils.data.module import DataError
from utils.runs.files import write_text

UPLOAD_FAILED = "Could not submit"  # the client reports it in its answer instead of raising


class KaggleClient(Protocol):
    """What is used of `kaggle.api.kaggle_api_extended.KaggleApi` (kaggle >= 1.7)."""

    def competition_download_file(
        self, competition: str, file_name: str, path: str, force: bool, quiet: bool
    ) -> None: ...

    def dataset_download_files(
        self, dataset: str, path: str, force: bool, quiet: bool, unzip: bool
    ) -> None: ...

    def competition_submit(self, file_name: str, message: str, competition: str) -> object: ...


class KaggleTestData(Protocol):
    """A data set with images whose targets only Kaggle has."""

    def kaggle_test_batches(self, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]: ...


Predictor = Callable[[Tensor], Tensor]


def connect() -> KaggleClient:
    """Log in with the user's token; DataError that says how to get one if there is none."""
    try:
        from kaggle.api.kaggle_api_extended import KaggleApi

        client = KaggleApi()
        client.authenticate()
    except ImportError as error:
        raise DataError(
            f"Kaggle's client is needed ({error}): `pip install kaggle six`, which no other "
            "part of this project needs."
        ) from error
    except (SystemExit, OSError, ValueError) as error:  # it ends the process if it has no token
        raise DataError(
            "Kaggle's client found no token: make an account on kaggle.com, create an API token at "
            "https://www.kaggle.com/settings and put it into ~/.kaggle/access_token (if you "
            "were given a file kaggle.json, into ~/.kaggle)."
        ) from error
    return client


def download_data_set(name: str, folder: Path, client: KaggleClient | None = None) -> None:
    """Download a data set, "owner/title", and unpack it into a folder; otherwise as `download`."""
    client = client or connect()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        client.dataset_download_files(name, path=str(folder), force=False, quiet=False, unzip=False)
    except OSError as error:
        raise DataError(
            f"Kaggle did not give the data set {name}: {error}. For error 401, renew your token."
        ) from error
    unpack(folder / f"{name.partition('/')[2]}.zip", folder)


def download(competition: str, file: str, folder: Path, client: KaggleClient | None = None) -> None:
    """Download a zip file of a competition and unpack it into a folder that lacks its content.

    What it contains appears there when it is completely unpacked; the zip file is then deleted.

    Raises
    ------
    DataError
        If Kaggle refuses, or if the file that was downloaded is damaged.
    """
    client = client or connect()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        client.competition_download_file(
            competition, file, path=str(folder), force=False, quiet=False
        )
    except OSError as error:  # that of `requests`
        raise DataError(
            f"Kaggle did not give {file} of {competition}: {error}. For error 401, renew your "
            "token; for 403, log in and accept the rules of the competition at "
            f"https://www.kaggle.com/c/{competition}/rules."
        ) from error
    unpack(folder / file, folder)


@torch.no_grad()
def predict_decoded(
    compressor: Compressor,
    predictor: Predictor,
    batches: Iterable[tuple[Tensor, Tensor]],
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Compress each batch of images into bytes and predict from what is decoded from them.

    Parameters
    ----------
    compressor, predictor : trained, in evaluation mode, on the device.
    batches : pairs of images [B, C, H, W] on the device and what goes with them [B, ...].

    Returns
    -------
    What goes with all N images [N, ...], and predictions float32 [N, n_outputs]; on the CPU.
    Predictions are clipped to [0, 1], where shares of answers lie.
    """
    companions, predictions = [], []
    for x, companion in batches:
        payload = compressor.compress(compressor.represent(x))
        decoded = compressor.receive(compressor.decompress(payload, len(x)).to(device))
        if compressor.is_reconstruct:  # images, of 8 bits as those that predictors learn from
            decoded = from_pixels(to_pixels(decoded))
        predictions.append(predictor(decoded).float().clamp(0, 1).cpu())
        companions.append(companion.cpu())
    return torch.cat(companions), torch.cat(predictions)


def predict_submission(
    compressor: Compressor,
    predictor: Predictor,
    data: KaggleTestData,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Tensor]:
    """Ids int64 [N] of Kaggle's test images and predictions [N, n_outputs]: `predict_decoded`."""
    device = torch.device(device)
    return predict_decoded(compressor, predictor, data.kaggle_test_batches(device), device)


def kaggle_score(predictions: Tensor, targets: Tensor) -> float:
    """Root of the squared error, mean over all examples and outputs: Kaggle's leaderboard.

    `sqrt(<split>/pred/loss)` is the same for a predictor's unclipped outputs.
    """
    return mean_squared_error(predictions, targets, squared=False).item()


def write_submission(
    path: Path | str, ids: Tensor, predictions: Tensor, columns: Sequence[str]
) -> None:
    """Write predictions as Kaggle wants them: a line for each example, in the order of the ids.

    Parameters
    ----------
    ids : int64 [N].
    predictions : [N, K].
    columns : the header: name of the ids, then those of the K predictions.
    """
    if predictions.shape != (len(ids), len(columns) - 1):
        raise ValueError(
            f"predictions must be [{len(ids)}, {len(columns) - 1}], for {len(ids)} ids and "
            f"{len(columns)} columns with that of the ids, got {list(predictions.shape)}."
        )
    if not predictions.isfinite().all():
        raise ValueError("predictions must be finite: Kaggle takes no NaN and no infinity.")
    if len(ids.unique()) != len(ids):
        raise ValueError("an id occurs twice: each example is predicted once.")
    order = ids.argsort()
    table = pd.DataFrame(predictions[order].numpy(), columns=list(columns[1:]))
    table.insert(0, columns[0], ids[order].numpy())
    write_text(Path(path), table.to_csv(index=False, float_format="%.6f", lineterminator="\n"))


def submit(
    path: Path | str, competition: str, message: str, client: KaggleClient | None = None
) -> str:
    """Upload a submission; Kaggle's answer. The score appears on the competition's page."""
    client = client or connect()
    try:
        answer = client.competition_submit(str(path), message, competition)
    except OSError as error:
        raise DataError(f"{path} was not submitted to {competition}: {error}") from error
    answer = str(getattr(answer, "message", answer))
    if answer.startswith(UPLOAD_FAILED):
        raise DataError(f"{path} was not submitted to {competition}: {answer}")
    return answer
