"""What the modes draw from: the runs of an experiment, and where figures and tables go."""

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.figure import Figure
from pandas import DataFrame

from utils.aggregation import outputs, tables
from utils.aggregation.outputs import in_file_name
from utils.aggregation.selection import restrict


@dataclass(frozen=True)
class Experiment:
    """The runs of an experiment, read once for all modes; and what all modes share.

    Attributes
    ----------
    folder : `results/exp_<experiment>`.
    where : parameter -> value or values: the runs that any mode sees; those of its own `where`
        are among these. What is drawn of a part of the runs goes to a folder of its own.
    names : what parameters, values and metrics are called in figures and tables for people.
    seeds : that each row of the tables should have; empty: unknown.
    dpi : pixels per inch of figures; None: the usual ones.
    prefix : before the names of all files that are written.
    """

    folder: Path
    where: Mapping[str, object] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    seeds: Sequence[object] = ()
    dpi: int | None = None
    prefix: str = ""

    @property
    def name(self) -> str:
        """Of the experiment, with the prefix of its mode."""
        return self.folder.name.removeprefix("exp_")

    @property
    def states(self) -> Counter:
        """How many runs, of all stages, are done, failed, ..."""
        return self._collected[1]

    def stages(self, where: Mapping[str, object] | None, option: str) -> dict[str, DataFrame]:
        """All runs that are meant, by stage: finished ones, and others without metrics.

        Parameters
        ----------
        where : parameter -> value or values, of any stage; None: all.
        option : whose `where` it is, for errors.
        """
        everything, _ = self._collected
        if not where and not self.where:
            return everything
        chosen = self.merged(where, option)
        return {
            stage: frame[frame[f"{stage}_id"].isin(chosen[f"{stage}_id"])].reset_index(drop=True)
            if f"{stage}_id" in chosen and len(frame)
            else frame
            for stage, frame in everything.items()
        }

    def merged(self, where: Mapping[str, object] | None, option: str) -> DataFrame:
        """The runs that are meant, with the metrics of all stages; see `tables.merge`."""
        return self._restrict(tables.merge(self._collected[0]), where, option)

    def finished(self, stage: str, where: Mapping[str, object] | None, option: str) -> DataFrame:
        """The runs of a stage that are meant and done."""
        frame = tables.finished(self._collected[0][stage])
        return frame if frame.empty else self._restrict(frame, where, option)

    def summary(self, frame: DataFrame) -> DataFrame:
        """Means over seeds; see `tables.summarise`."""
        return tables.summarise(frame, self.seeds)

    @property
    def output(self) -> Path:
        """Where figures and tables go: never over those of all runs if these are only some."""
        return self.folder / f"only_{in_file_name(self._chosen)}" if self.where else self.folder

    @property
    def _chosen(self) -> str:
        lists = {key: v if isinstance(v, (list, tuple)) else [v] for key, v in self.where.items()}
        return ",".join(f"{key}={'+'.join(map(str, values))}" for key, values in lists.items())

    def counts(self) -> str:
        """ "runs of all stages: 50 done, 4 failed"."""
        try:
            states = self.states
        except tables.NoRunsError:
            return "no finished runs"
        found = f"runs of all stages: {', '.join(f'{n} {s}' for s, n in sorted(states.items()))}"
        return f"{found}; only those of {self._chosen} are shown" if self.where else found

    def save_figure(self, figure: Figure, name: str) -> None:
        """Write a figure into the experiment's folder, and say so; `name` may have folders."""
        stem = self._stem(name)
        outputs.save_figure(figure, stem, self.dpi)
        print(f"Figure: {stem}.png, .pdf")

    def save_table(
        self, frame: DataFrame, name: str, *, caption: str = "", shown: DataFrame | None = None
    ) -> None:
        """Write a table into the experiment's folder, and print it; see `outputs.save_table`.

        How many runs failed or are missing is said below it.
        """
        caption = f"{caption} ({self.counts()})" if caption else self.counts()
        shown = outputs.readable(frame) if shown is None else shown
        shown = shown.rename(columns=self.pretty).map(self.pretty)
        stem = self._stem(name)
        text = outputs.save_table(frame, stem, caption=caption, shown=shown)
        print(f"\n{self.folder.name}\n\n{text}\nTable: {stem}.md, .csv, .tex")

    def remove_table(self, name: str) -> None:
        """Leave no table of earlier runs where there is none of those at hand."""
        outputs.remove_table(self._stem(name))

    def save_numbers(self, frame: DataFrame, name: str) -> None:
        """Write a table that is too wide to be read: its CSV alone."""
        outputs.save_csv(frame, self._stem(name))

    def pretty(self, name: object) -> object:
        """What something is called in figures and tables."""
        return self.names.get(str(name), name)

    @functools.cached_property
    def _collected(self) -> tuple[dict[str, DataFrame], Counter]:
        return tables.collect_all(self.folder)

    def _restrict(
        self, frame: DataFrame, where: Mapping[str, object] | None, option: str
    ) -> DataFrame:
        frame = restrict(frame, self.where, "aggregate.where")
        return restrict(frame, where or {}, f"{option}.where")

    def _stem(self, name: str) -> Path:
        path = self.output / name
        return path.with_name(f"{self.prefix}{path.name}")
