"""Download files of Kaggle's competitions and data sets with the user's token."""

from pathlib import Path
from typing import Protocol

from utils.data.downloads import unpack
from utils.data.module import DataError


class KaggleClient(Protocol):
    """What is used of `kaggle.api.kaggle_api_extended.KaggleApi` (kaggle >= 1.7)."""

    def competition_download_file(
        self, competition: str, file_name: str, path: str, force: bool, quiet: bool
    ) -> None: ...

    def dataset_download_files(
        self, dataset: str, path: str, force: bool, quiet: bool, unzip: bool
    ) -> None: ...

    def competition_submit(self, file_name: str, message: str, competition: str) -> object: ...


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
