"""Where all figures and tables are written: the same formats, and the same bytes every time.

A stem is a path without its suffix; each file is `<stem>.<format>`.
"""

import re
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from utils.runs.files import write_text

# Without a date, so that a figure that did not change has the same bytes.
NO_DATE = {"CreationDate": None}
# TrueType: conferences refuse the Type 3 fonts that are the default.
PDF_FONTS = {"pdf.fonttype": 42}
MISSING = "-"
LATEX_OF = {"\\": r"\textbackslash{}", "±": r"$\pm$", "^": r"\^{}", "~": r"\~{}"}
LATEX_OF |= {character: f"\\{character}" for character in "&%$#_{}"}


def in_file_name(text: str) -> str:
    """Text such as the name of a metric, as a part of the name of a file."""
    return re.sub(r"[^\w.,=+-]+", "_", text)


def save_figure(figure: Figure, stem: Path, dpi: int | None = None) -> None:
    """Write `<stem>.png`, for screens, and `<stem>.pdf`, for papers.

    Parameters
    ----------
    figure : what is drawn.
    stem : path without suffix. The folder is made if it is missing.
    dpi : pixels per inch of the PNG; None: those of the figure.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(_with_suffix(stem, "png"), dpi="figure" if dpi is None else dpi)
    with mpl.rc_context(PDF_FONTS):
        figure.savefig(_with_suffix(stem, "pdf"), metadata=NO_DATE)


TABLE_SUFFIXES = ("csv", "md", "tex")


def remove_table(stem: Path) -> None:
    """Remove what `save_table` wrote, if it did."""
    for suffix in TABLE_SUFFIXES:
        _with_suffix(stem, suffix).unlink(missing_ok=True)


def save_table(
    frame: pd.DataFrame, stem: Path, *, caption: str = "", shown: pd.DataFrame | None = None
) -> str:
    """Write `<stem>.csv`, `.md` and `.tex` (booktabs).

    Parameters
    ----------
    frame : the table; the CSV holds its numbers in full precision.
    stem : path without suffix. The folder is made if it is missing.
    caption : one line below the table in Markdown, its caption in LaTeX.
    shown : what Markdown and LaTeX hold instead, e.g. with rounded numbers; None: the table itself,
        with four digits.

    Returns
    -------
    str
        The Markdown.
    """
    shown = readable(frame) if shown is None else shown
    text = to_markdown(shown)
    if caption:
        text += f"\n{caption}\n"
    stem.parent.mkdir(parents=True, exist_ok=True)
    save_csv(frame, stem)
    write_text(_with_suffix(stem, "md"), text)
    write_text(_with_suffix(stem, "tex"), to_latex(shown, caption))
    return text


def save_csv(frame: pd.DataFrame, stem: Path) -> None:
    """Write `<stem>.csv` alone, in full precision: of tables that are too wide to be read."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    write_text(_with_suffix(stem, "csv"), frame.to_csv(index=False))


def readable(frame: pd.DataFrame) -> pd.DataFrame:
    """The table in words: numbers with four digits, "-" for what is missing."""
    return frame.astype(object).map(_cell)


def number(mean: float, sem: float = float("nan"), form: str = ".4g") -> str:
    """ "1.5 ± 0.2"; without the error if that is missing, "-" if the mean is."""
    if pd.isna(mean):
        return MISSING
    return f"{mean:{form}}" if pd.isna(sem) else f"{mean:{form}} ± {sem:.1g}"


def to_markdown(table: pd.DataFrame) -> str:
    """The table in Markdown, aligned so that it reads well as plain text too."""
    cells = [list(map(str, table.columns)), *([str(c) for c in row] for row in table.values)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(table.columns))]
    cells.insert(1, ["-" * width for width in widths])
    rows = (" | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in cells)
    return "".join(f"| {row} |\n" for row in rows)


def to_latex(table: pd.DataFrame, caption: str = "") -> str:
    """The table in LaTeX, for the package booktabs."""
    escaped = table.rename(columns=_escape).astype(object).map(_escape)
    # pandas' own escaping would keep the sign between mean and error as it is
    return escaped.to_latex(index=False, escape=False, caption=_escape(caption) or None)


def _cell(value: object) -> object:
    if pd.isna(value):
        return MISSING
    return f"{value:.4g}" if isinstance(value, float) else value


def _escape(value: object) -> str:
    return "".join(LATEX_OF.get(character, character) for character in str(value))


def _with_suffix(stem: Path, suffix: str) -> Path:
    """`Path.with_suffix` would take ".5" of "beta_0.5" for a suffix."""
    return stem.with_name(f"{stem.name}.{suffix}")
