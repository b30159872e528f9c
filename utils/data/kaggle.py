"""Downloads from Kaggle with the user's token."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from utils.data.downloads import unpack
from utils.data.module import DataError

if TYPE_CHECKING:
    from kaggle.api.kaggle_api_extended import KaggleApi


def connect() -> "KaggleApi":
    """Log in with the user's token. Raises DataError if the token or Kaggle's client is missing."""
    try:
        from kaggle.api.kaggle_api_extended import KaggleApi

        client = KaggleApi()
        client.authenticate()
    except ImportError as error:
        raise DataError(
            f"Kaggle's client is not installed ({error}): run `pip install kaggle six`."
        ) from error
    except (SystemExit, OSError, ValueError) as error:  # without a token, the client exits
        raise DataError(
            "Kaggle's client found no token: create an account on kaggle.com, create an API token "
            "at https://www.kaggle.com/settings and save it as ~/.kaggle/access_token (or put the "
            "file kaggle.json in ~/.kaggle)."
        ) from error
    return client


def download_data_set(name: str, folder: Path) -> None:
    """Download the data set "owner/title" and unpack it into a folder; see `download`."""
    archive = folder / f"{name.partition('/')[2]}.zip"
    with _fetching(archive, f"the data set {name}") as client:
        client.dataset_download_files(name, path=str(folder), force=False, quiet=False, unzip=False)


def download(competition: str, file: str, folder: Path) -> None:
    """Download a competition's zip file and unpack it into a folder; see `unpack`.

    Raises DataError if the download fails or the downloaded file is damaged.
    """
    rules = (
        f" For error 403, log in and accept the rules of the competition at "
        f"https://www.kaggle.com/c/{competition}/rules."
    )
    with _fetching(folder / file, f"{file} of {competition}", rules) as client:
        client.competition_download_file(
            competition, file, path=str(folder), force=False, quiet=False
        )


@contextmanager
def _fetching(archive: Path, what: str, advice: str = "") -> Iterator["KaggleApi"]:
    """Yield a client for downloading `archive`, which is unpacked on a successful exit."""
    client = connect()
    archive.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield client
    except OSError as error:  # raised by `requests`
        raise DataError(
            f"Kaggle did not deliver {what}: {error}. For error 401, renew your token.{advice}"
        ) from error
    unpack(archive, archive.parent)
