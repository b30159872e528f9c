"""Download files of Kaggle's competitions and data sets with the user's token."""

from pathlib import Path
from typing import Protocol

from utils.data.downloads import unpack
from utils.data.module import DataError


class KaggleClient(Protocol):
    """The used part of `kaggle.api.kaggle_api_extended.KaggleApi` (kaggle >= 1.7)."""

    def competition_download_file(
        self, competition: str, file_name: str, path: str, force: bool, quiet: bool
    ) -> None: ...

    def dataset_download_files(
        self, dataset: str, path: str, force: bool, quiet: bool, unzip: bool
    ) -> None: ...

    def competition_submit(self, file_name: str, message: str, competition: str) -> object: ...


def connect() -> KaggleClient:
    """Log in with the user's token; without one, DataError says how to get it."""
    try:
        from kaggle.api.kaggle_api_extended import KaggleApi

        client = KaggleApi()
        client.authenticate()
    except ImportError as error:
        raise DataError(
            f"Kaggle's client is not installed ({error}): run `pip install kaggle six`."
        ) from error
    except (SystemExit, OSError, ValueError) as error:  # without a token it exits
        raise DataError(
            "Kaggle's client found no token: make an account on kaggle.com, create an API token at "
            "https://www.kaggle.com/settings and save it as ~/.kaggle/access_token (a file "
            "kaggle.json: in ~/.kaggle)."
        ) from error
    return client


def download_data_set(name: str, folder: Path, client: KaggleClient | None = None) -> None:
    """Download a data set, "owner/title", and unpack it into a folder; see `download`."""
    client = client or connect()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        client.dataset_download_files(name, path=str(folder), force=False, quiet=False, unzip=False)
    except OSError as error:
        raise DataError(
            f"Kaggle refused the data set {name}: {error}. For error 401, renew your token."
        ) from error
    unpack(folder / f"{name.partition('/')[2]}.zip", folder)


def download(competition: str, file: str, folder: Path, client: KaggleClient | None = None) -> None:
    """Download a zip file of a competition and unpack it into a folder; see `unpack`.

    Raises
    ------
    DataError
        If Kaggle refuses, or if the downloaded file is damaged.
    """
    client = client or connect()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        client.competition_download_file(
            competition, file, path=str(folder), force=False, quiet=False
        )
    except OSError as error:  # of `requests`
        raise DataError(
            f"Kaggle refused {file} of {competition}: {error}. For error 401, renew your "
            "token; for 403, log in and accept the rules of the competition at "
            f"https://www.kaggle.com/c/{competition}/rules."
        ) from error
    unpack(folder / file, folder)
