import pytest

from utils.aggregation.experiment import Experiment


@pytest.fixture
def figures(monkeypatch):
    """Name -> figure, as an experiment saves them."""
    found = {}
    monkeypatch.setattr(Experiment, "save_figure", lambda _, figure, n: found.update({n: figure}))
    return found
