"""An experiment with made-up runs, for tests of tables and figures."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from utils.aggregation.experiment import Experiment


class Runs(Experiment):
    """An experiment that consists of given runs, with an empty config."""

    def __init__(self, folder: Path, frame: pd.DataFrame, **options: object):
        super().__init__(folder, **options)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text("{}")
        frame = frame.assign(folder=str(folder))
        none = frame.iloc[:0]
        stages = {"featurizer": frame, "communication": none, "predictor": none}
        states = {"done": int((frame["state"] == "done").sum())}
        self.__dict__["_collected"] = stages, states


def table(runs: Iterable[Mapping[str, object]]) -> pd.DataFrame:
    """A table with a row for each run: its parameters, seed and metrics."""
    frame = pd.DataFrame(runs).assign(folder="", state="done", seed=lambda f: f["seed"].map(str))
    parameters = [c for c in frame if "/" not in c and c not in ("state", "folder", "seed")]
    frame["group"] = [" ".join(map(str, row)) for row in frame[parameters].to_numpy()]
    return frame


def legend_of(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]
