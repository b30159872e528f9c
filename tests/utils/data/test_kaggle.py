"""Kaggle: downloads, predictions from compressed images, submissions; with a client of our own."""

import builtins
import sys
import types
import zipfile

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.kaggle_client import Client

from lossyless.classical import ClassicalCompressor
from lossyless.rates import HFactorized
from utils.data import kaggle
from utils.data.module import DataError

COLUMNS = ("GalaxyID", "Class1.1", "Class1.2", "Class1.3")


FILES = {"images/1.jpg": b"one", "images/2.jpg": b"two", "table.csv": b"a,b"}


def test_what_a_file_contains_lies_in_the_folder_and_the_file_is_gone(tmp_path):
    client = Client(FILES)
    folder = tmp_path / "new" / "data"
    kaggle.download("stars", "all.zip", folder, client)
    assert client.calls == [("stars", "all.zip", False)]
    found = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert found == FILES
    assert {path.name for path in folder.iterdir()} == {"images", "table.csv"}


def test_data_sets_are_unpacked_alike(tmp_path):
    kaggle.download_data_set("me/stars", tmp_path, Client(FILES))
    assert {path.name for path in tmp_path.iterdir()} == {"images", "table.csv"}
    client = Client(error=OSError("401 Client Error"))
    with pytest.raises(DataError, match="data set me/stars: 401 Client Error.*token"):
        kaggle.download_data_set("me/stars", tmp_path, client)


def test_interrupted_unpacking_shows_nothing_and_can_be_done_again(tmp_path, monkeypatch):
    def stop(self, path):
        (path / "images").mkdir(parents=True)
        (path / "images" / "1.jpg").write_bytes(b"on")
        raise KeyboardInterrupt

    with monkeypatch.context() as interrupted:
        interrupted.setattr(zipfile.ZipFile, "extractall", stop)
        with pytest.raises(KeyboardInterrupt):
            kaggle.download("stars", "all.zip", tmp_path, Client(FILES))
    assert not (tmp_path / "images").exists()
    kaggle.download("stars", "all.zip", tmp_path, Client(FILES))
    assert {path.name for path in (tmp_path / "images").iterdir()} == {"1.jpg", "2.jpg"}
    assert {path.name for path in tmp_path.iterdir()} == {"images", "table.csv"}


class Truncating(Client):
    def competition_download_file(self, competition, file_name, path, force, quiet):
        super().competition_download_file(competition, file_name, path, force, quiet)
        with open(f"{path}/{file_name}", "r+b") as file:
            file.truncate(60)


class Forgetful(Client):
    def competition_download_file(self, competition, file_name, path, force, quiet):
        """Gives nothing."""


@pytest.mark.parametrize("client", [Truncating(FILES), Forgetful()])
def test_an_incomplete_file_is_named_and_deleted(tmp_path, client):
    with pytest.raises(DataError, match="all.zip was not completely downloaded.*run again"):
        kaggle.download("stars", "all.zip", tmp_path, client)
    assert not (tmp_path / "all.zip").exists() and not (tmp_path / "images").exists()


def test_refusals_say_what_to_do(tmp_path):
    client = Client(error=OSError("403 Client Error: Forbidden"))
    with pytest.raises(DataError, match="403 Client Error.*kaggle.com/c/stars/rules"):
        kaggle.download("stars", "all.zip", tmp_path, client)


def test_without_the_client_the_error_says_how_to_install_it(monkeypatch):
    original = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] == "kaggle":
            raise ModuleNotFoundError("No module named 'kaggle'")
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DataError, match="pip install kaggle six"):
        kaggle.connect()


def install_client(monkeypatch, api):
    module = types.ModuleType("kaggle.api.kaggle_api_extended")
    module.KaggleApi = api
    for name in ("kaggle", "kaggle.api"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)


def test_without_a_token_the_error_says_where_it_goes(monkeypatch):
    class Api:
        def authenticate(self):
            sys.exit(1)

    install_client(monkeypatch, Api)
    with pytest.raises(DataError, match="~/.kaggle/access_token"):
        kaggle.connect()


def test_the_client_is_logged_in(monkeypatch):
    class Api:
        is_logged_in = False

        def authenticate(self):
            self.is_logged_in = True

    install_client(monkeypatch, Api)
    assert kaggle.connect().is_logged_in


# --- predictions


class Data:
    """Images whose ids are in no order."""

    def __init__(self, n=7):
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randint(0, 256, (n, 3, 8, 8), generator=generator)
        self.x = pixels.float() / 255
        self.ids = torch.randperm(n, generator=generator) + 100

    def kaggle_test_batches(self, device):
        yield from zip(self.x.to(device).split(3), self.ids.to(device).split(3), strict=True)


def test_predictions_are_those_of_the_images_if_nothing_is_lost():
    data = Data()
    ids, predictions = kaggle.predict_submission(
        ClassicalCompressor("png", n_channels=3), lambda x: x.mean((2, 3)), data
    )
    assert torch.equal(ids, data.ids)
    torch.testing.assert_close(predictions, data.x.mean((2, 3)))


def test_predictions_come_from_decoded_bytes(make_compressor, monkeypatch):
    data = Data()
    compressor = make_compressor((3, 8, 8), rate=HFactorized(4), kind="colour_image").eval()
    compressor.rate.update()
    payloads = []
    compress = compressor.compress

    def record(z):
        payloads.append(compress(z))
        return payloads[-1]

    monkeypatch.setattr(compressor, "compress", record)
    predictor = torch.nn.Linear(4, 3)
    _, predictions = kaggle.predict_submission(compressor, predictor, data)
    assert [type(payload) for payload in payloads] == [bytes] * 3
    z_hat = torch.cat(
        [compressor.decompress(p, n) for p, n in zip(payloads, (3, 3, 1), strict=True)]
    )
    assert torch.equal(predictions, predictor(z_hat).detach().clamp(0, 1))


def test_predictions_are_shares():
    _, predictions = kaggle.predict_submission(
        ClassicalCompressor("png", n_channels=3), lambda x: 9 * x.mean((2, 3)) - 4.5, Data()
    )
    assert predictions.min() >= 0 and predictions.max() <= 1


def test_the_score_is_the_root_of_the_mean_squared_error_over_all_values():
    generator = torch.Generator().manual_seed(0)
    predictions, targets = torch.rand(2, 50, 37, generator=generator)
    expected = np.sqrt(np.mean((predictions.numpy() - targets.numpy()) ** 2))
    assert kaggle.kaggle_score(predictions, targets) == pytest.approx(expected, rel=1e-5)
    assert kaggle.kaggle_score(targets, targets) == 0


# --- submissions


def test_a_submission_has_a_line_for_each_example_in_the_order_of_the_ids(tmp_path):
    path = tmp_path / "submission.csv"
    predictions = torch.tensor([[1.0, 0.0, 0.25], [0.1234567, 1e-9, 1.0]])
    kaggle.write_submission(path, torch.tensor([100023, 99]), predictions, COLUMNS)
    assert path.read_text() == (
        "GalaxyID,Class1.1,Class1.2,Class1.3\n"
        "99,0.123457,0.000000,1.000000\n"
        "100023,1.000000,0.000000,0.250000\n"
    )


def test_a_submission_can_be_read_back(tmp_path):
    path = str(tmp_path / "submission.csv")
    predictions = torch.rand(30, 3, generator=torch.Generator().manual_seed(0))
    kaggle.write_submission(path, torch.arange(30), predictions, COLUMNS)
    table = pd.read_csv(path)
    assert tuple(table.columns) == COLUMNS
    np.testing.assert_allclose(table.to_numpy()[:, 1:], predictions, atol=1e-6)


@pytest.mark.parametrize(
    ("ids", "predictions", "message"),
    [
        ([1, 2], torch.zeros(2, 4), r"must be \[2, 3\].*got \[2, 4\]"),
        ([1, 2, 3], torch.zeros(2, 3), r"must be \[3, 3\]"),
        ([1, 1], torch.zeros(2, 3), "twice"),
        ([1, 2], torch.full((2, 3), torch.nan), "finite"),
    ],
)
def test_submissions_that_kaggle_would_refuse_are_refused(tmp_path, ids, predictions, message):
    with pytest.raises(ValueError, match=message):
        kaggle.write_submission(tmp_path / "s.csv", torch.tensor(ids), predictions, COLUMNS)
    assert not list(tmp_path.iterdir())


def test_submitting_hands_the_file_over():
    client = Client()
    assert kaggle.submit("s.csv", "stars", "my best", client) == "Successfully submitted"
    assert client.calls == [("s.csv", "my best", "stars")]


@pytest.mark.parametrize(
    "client",
    [
        Client(answer="Could not submit to competition"),
        Client(error=OSError("400 Client Error: could not parse")),
    ],
)
def test_submissions_that_fail_are_errors(client):
    with pytest.raises(DataError, match="s.csv was not submitted to stars: .*(C|c)ould not"):
        kaggle.submit("s.csv", "stars", "my best", client)
