"""The runs of an experiment, and how its tables and figures are saved; shared by all modes.

Output is reproducible: equal tables and figures are written as identical bytes.
"""

import functools
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from pandas import DataFrame

from lossyless.atomic import replacing
from utils.aggregation import tables
from utils.aggregation.selection import restrict
from utils.configs.checks import ConfigError
from utils.runs.files import write_text
from utils.runs.identity import digest

MISSING = "-"
MAX_NAME = 200  # longer parts of file names are truncated; file systems allow 255 bytes
NO_DATE = {"CreationDate": None}  # PDF metadata
PDF_FONTS = {"pdf.fonttype": 42}  # TrueType: conferences reject Type 3 fonts, the default
LATEX_OF = {"\\": r"\textbackslash{}", "±": r"$\pm$", "^": r"\^{}", "~": r"\~{}"}
LATEX_OF |= {character: f"\\{character}" for character in "&%$#_{}"}

Where = Mapping[str, object]  # parameter or setting -> value or list of values


@dataclass
class Experiment:
    """The runs of an experiment, read once for all modes, and the options of all modes."""

    folder: Path  # `results/exp_<experiment>`
    where: Where = field(default_factory=dict)  # restricts all modes; determines `output`
    names: Mapping[str, str] = field(default_factory=dict)  # display names in figures and tables
    seeds: Sequence[object] = ()  # expected for each row of the tables; empty: unknown
    dpi: int | None = None  # pixels per inch of PNGs; None: the figure's own
    prefix: str = ""  # prepended to all file names
    option: str = "aggregate"  # name of the current mode, for errors
    mode_where: Where = field(default_factory=dict)  # restricts the current mode

    @property
    def name(self) -> str:
        """Name of the experiment, with the prefix of its mode."""
        return self.folder.name.removeprefix("exp_")

    @functools.cached_property
    def _collected(self) -> tuple[dict[str, DataFrame], Counter]:
        return tables.collect(self.folder)

    def stages(self) -> dict[str, DataFrame]:
        """The chosen runs by stage; metrics of unfinished ones are missing."""
        runs, _ = self._collected
        if not self.mode_where and not self.where:
            return runs
        chosen = self.merged()
        return {
            stage: frame[frame[f"{stage}_id"].isin(chosen[f"{stage}_id"])].reset_index(drop=True)
            if f"{stage}_id" in chosen and len(frame)
            else frame
            for stage, frame in runs.items()
        }

    def merged(self, where: Where | None = None, name: str = "where") -> DataFrame:
        """The chosen runs with the metrics of all stages; see `tables.merge`.

        Unless `where`, the value of the mode's option `name`, is None, it replaces `mode_where`.
        """
        return self._restrict(tables.merge(self._collected[0]), where, name)

    def merged_or_empty(self) -> DataFrame:
        """Like `merged`, but return an empty table if there are no runs."""
        try:
            return self.merged()
        except tables.NoRunsError:
            return DataFrame()

    def columns(self, names: Iterable[str]) -> DataFrame:
        """The chosen runs, with columns for these metrics, parameters and settings.

        Raises ConfigError if there is no such metric, parameter or setting.
        """
        names = list(names)
        frame = tables.with_settings(self.merged(), names)
        if unknown := [name for name in names if name not in frame]:
            raise ConfigError(
                f"{self.option}: unknown columns {unknown}; choose from the metrics "
                f"{tables.metrics_of(frame)}, the parameters {tables.parameters(frame)}, and all "
                "settings, such as optimizer_feat.kwargs.lr"
            )
        return frame

    def finished(self, stage: str, where: Where | None = None) -> DataFrame:
        """The chosen runs of a stage that are done; see `merged`."""
        frame = tables.finished(self._collected[0][stage])
        return frame if frame.empty else self._restrict(frame, where)

    def _restrict(
        self, frame: DataFrame, where: Where | None = None, name: str = "where"
    ) -> DataFrame:
        frame = restrict(frame, self.where, "aggregate.where")
        chosen = self.mode_where if where is None else where
        return restrict(frame, chosen, f"{self.option}.{name}")

    def summary(self, frame: DataFrame) -> DataFrame:
        """Means over seeds; see `tables.summarise`."""
        return tables.summarise(frame, self.seeds)

    def pretty(self, name: object) -> object:
        """Display name of a parameter, value or metric."""
        return self.names.get(str(name), name)

    def counts(self) -> str:
        """Describe the number of runs by state, e.g. "runs of all stages: 50 done, 4 failed"."""
        try:
            _, states = self._collected
        except tables.NoRunsError:
            return "no finished runs"
        found = f"runs of all stages: {', '.join(f'{n} {s}' for s, n in sorted(states.items()))}"
        return f"{found}; only those with {self._chosen} are shown" if self.where else found

    @property
    def output(self) -> Path:
        """Folder for figures and tables."""
        return self.folder / f"only_{in_file_name(self._chosen)}" if self.where else self.folder

    @property
    def _chosen(self) -> str:
        lists = {key: v if isinstance(v, (list, tuple)) else [v] for key, v in self.where.items()}
        return ",".join(f"{key}={'+'.join(map(str, values))}" for key, values in lists.items())

    def save_figure(self, figure: Figure, name: str) -> None:
        """Write `<name>.png` and `<name>.pdf`; the name may start with a folder."""
        png, pdf = self._file(name, "png"), self._file(name, "pdf")
        with replacing(png) as file:
            figure.savefig(file, dpi="figure" if self.dpi is None else self.dpi)
        with mpl.rc_context(PDF_FONTS), replacing(pdf) as file:
            figure.savefig(file, format="pdf", metadata=NO_DATE)
        print(f"Figure: {png}, .pdf")

    def save_table(
        self, frame: DataFrame, name: str, *, caption: str = "", shown: DataFrame | None = None
    ) -> None:
        """Write `<name>.csv`, `.md` and `.tex` (booktabs), and print the table.

        The CSV has all digits. The Markdown and LaTeX files contain `shown` or, if it is None, the
        same table rounded to four significant digits. The number of runs in each state is appended
        to the caption.
        """
        caption = f"{caption} ({self.counts()})" if caption else self.counts()
        shown = readable(frame) if shown is None else shown
        shown = shown.rename(columns=self.pretty).map(self.pretty)
        text = f"{to_markdown(shown)}\n{caption}\n"
        self.save_numbers(frame, name)
        write_text(self._file(name, "md"), text)
        write_text(self._file(name, "tex"), to_latex(shown, caption))
        print(f"\n{self.folder.name}\n\n{text}\nTable: {self._file(name, 'md')}, .csv, .tex")

    def save_numbers(self, frame: DataFrame, name: str) -> None:
        """Write only `<name>.csv`, for tables that are too wide to read."""
        write_text(self._file(name, "csv"), frame.to_csv(index=False))

    def _file(self, name: str, suffix: str) -> Path:
        path = self.output / f"{name}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.with_name(f"{self.prefix}{path.name}")


def in_file_name(text: object) -> str:
    """Convert text, such as the name of a metric, to part of a file name; truncate long names."""
    name = re.sub(r"[^\w.,=+-]+", "_", str(text))
    return name if len(name) <= MAX_NAME else f"{name[:MAX_NAME]}_{digest(name)}"


def readable(frame: DataFrame) -> DataFrame:
    """Format the cells of a table: four significant digits, "-" for missing values."""

    def cell(value: object) -> object:
        if pd.isna(value):
            return MISSING
        return f"{value:.4g}" if isinstance(value, float) else value

    return frame.astype(object).map(cell)


def number(mean: float, sem: float = float("nan"), form: str = ".4g") -> str:
    """Format a mean and its error: "1.5 ± 0.2", "1.5" without an error, "-" without a mean."""
    if pd.isna(mean):
        return MISSING
    return f"{mean:{form}}" if pd.isna(sem) else f"{mean:{form}} ± {sem:.1g}"


def to_markdown(table: DataFrame) -> str:
    """Format a table in Markdown, with aligned columns."""
    cells = [list(table.columns), *table.to_numpy().tolist()]
    cells = [[str(cell).replace("|", r"\|") for cell in row] for row in cells]
    widths = [max(len(row[i]) for row in cells) for i in range(len(table.columns))]
    cells.insert(1, ["-" * width for width in widths])
    rows = (" | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in cells)
    return "".join(f"| {row} |\n" for row in rows)


def to_latex(table: DataFrame, caption: str) -> str:
    """Format a table in LaTeX, for the booktabs package."""

    def escape(value: object) -> str:
        return "".join(LATEX_OF.get(character, character) for character in str(value))

    escaped = table.rename(columns=escape).astype(object).map(escape)  # pandas does not escape "±"
    return escaped.to_latex(index=False, escape=False, caption=escape(caption))
