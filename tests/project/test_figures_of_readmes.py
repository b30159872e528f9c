"""Every figure in a table of results is in the file that the line below the table names.

A line such as `Source: [summary.csv](exp_x/summary.csv)` names the files. Any table with a cell
that starts with a number needs one. First columns, code and dates are labels, not figures.
"""

import re
from pathlib import Path

import pytest
from helpers.tiny import ROOT

READMES = ("README.md", "results/README.md", "lossyless/hub/README.md")
TABLE = re.compile(r"((?:^\|.*\n)+)\n?(Source: .*(?:\n.+)*)?", re.MULTILINE)
LABEL = re.compile(r"`[^`]*`|!?\[[^]]*\]\([^)]*\)|\d{4}-\d\d-\d\d")
FIGURE = re.compile(r"(?<![\w.])(\d[\d,]*\.?\d*|\.\d+)( %)?")


def cells_of(table: str) -> list[str]:
    """Headers, and all cells that can hold figures."""
    header, _, *rows = [LABEL.sub("", row).split("|")[1:-1] for row in table.strip().splitlines()]
    cells = [*header, *(cell for row in rows for cell in row[1:])]
    return [cell.strip(" *±<") for cell in cells]


def tables() -> list[tuple[str, list[str], list[Path]]]:
    """README, cells and sources of every results table."""
    found = []
    for readme in READMES:
        folder, text = (ROOT / readme).parent, (ROOT / readme).read_text(encoding="utf-8")
        for table, source in TABLE.findall(text):
            files = [folder / path for path in re.findall(r"\]\(([^)]*)\)", source)]
            cells = cells_of(table)
            if files or any(cell[:1].isdigit() for cell in cells):
                found.append((f"{readme}: {table[:60]}", cells, files))
    return found


def is_in(figure: str, is_percentage: bool, values: list[float]) -> bool:
    """Whether a value, rounded to the digits of the figure, equals it."""
    _, _, decimals = figure.partition(".")
    half, scale = 0.5 * 10.0 ** -len(decimals), 100 if is_percentage else 1
    shown = float(figure.replace(",", ""))
    return any(abs(scale * value - shown) <= half * (1 + 1e-4) for value in values)


@pytest.mark.parametrize(("name", "cells", "files"), tables())
def test_figures_are_in_the_files_that_the_table_names(name, cells, files):
    assert files, f"{name}...: add a line `Source: [FILE](PATH)` below the table"
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    values = [float(number) for number in re.findall(r"(?<![\w.])\d+\.?\d*(?:e[-+]?\d+)?", text)]
    figures = [match for cell in cells for match in FIGURE.findall(cell)]
    assert figures, name
    missing = [number for number, percent in figures if not is_in(number, bool(percent), values)]
    assert not missing, f"{name}...: not in {[file.name for file in files]}"


def test_the_lookup_tells_neighbouring_figures_apart():
    assert is_in("17.8", True, [0.17749999]) and not is_in("17.9", True, [0.17749999])
    assert is_in(".1098", False, [0.10975]) and not is_in(".1099", False, [0.10975])
    assert is_in("40,964", False, [40964.15]) and not is_in("0.44", True, [0.44])
