"""The CSV log of a training: one row per epoch, continued by resumed runs."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from utils.runs.files import write_text

KEYS = ("step", "epoch")


class TidyCSVLogger(Logger):
    """Writes `step`, `epoch` and a column per metric; missing values are empty.

    Metrics logged at the same step share a row. Metrics without an epoch, such as the learning
    rates at the start of an epoch, go to the next row. The last row holds the evaluation of the
    best epoch.

    Training starts or resumes at the first logged step: existing rows from that step on belong to
    a repeated epoch and are dropped. The file is replaced atomically.
    """

    def __init__(self, path: Path):
        super().__init__()
        self.path = path
        self._rows: dict[int, dict[str, str]] | None = None  # by step; None: nothing was logged yet
        self._without_epoch: dict[str, str] = {}

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: object, *args: object, **kwargs: object) -> None:
        """Do nothing: the config is saved with the results."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Tensor | float], step: int | None = None) -> None:
        """Add metrics to the row of a step.

        Raises `ValueError` without a step, which identifies the row.
        """
        if step is None:
            raise ValueError(f"metrics {list(metrics)} have no step")
        if self._rows is None:
            self._rows = {at: row for at, row in self._read().items() if at < step}
        values = {name: repr(float(value)) for name, value in metrics.items() if name != "epoch"}
        if "epoch" not in metrics:
            self._without_epoch |= values
            return
        row = self._rows.setdefault(step, {"step": str(step), "epoch": str(int(metrics["epoch"]))})
        row |= self._without_epoch | values
        self._without_epoch = {}

    @rank_zero_only
    def save(self) -> None:
        """Write all rows logged so far."""
        if not self._rows:
            return
        names = dict.fromkeys(name for row in self._rows.values() for name in row)
        text = io.StringIO()
        writer = csv.DictWriter(text, [*KEYS, *(n for n in names if n not in KEYS)])
        writer.writeheader()
        writer.writerows(self._rows[step] for step in sorted(self._rows))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.path, text.getvalue())

    def finalize(self, status: str) -> None:
        self.save()

    def _read(self) -> dict[int, dict[str, str]]:
        """Existing rows by step, without empty values."""
        if not self.path.is_file():
            return {}
        with self.path.open(newline="", encoding="utf-8") as file:
            rows = [{k: v for k, v in row.items() if v} for row in csv.DictReader(file)]
        return {int(row["step"]): row for row in rows}
