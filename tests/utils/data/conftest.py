"""Fixtures: small data sets in the original layouts."""

from collections.abc import Callable

import pytest
from helpers.originals import MAKERS, open_small

from utils.data import kaggle
from utils.data.images import ImageDataModule
from utils.data.module import DataError


@pytest.fixture
def make(monkeypatch, tmp_path) -> Callable[..., ImageDataModule]:
    """Build a small data set; its files are written first unless `exists` is false."""
    truths = {}

    def refuse() -> None:
        raise DataError("no token")

    monkeypatch.setattr(kaggle, "connect", refuse)

    def make(data_set, exists=True, **kwargs):
        if exists and data_set not in truths:
            truths[data_set] = MAKERS[data_set](tmp_path, monkeypatch)
        truth = truths.get(data_set, {"train": {0: 0}, "test": {0: 0}})
        data = open_small(data_set, tmp_path, truth, **kwargs)
        data.truth = truth
        return data

    return make
