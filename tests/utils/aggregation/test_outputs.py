"""Files of tables and figures: their formats, digits, and that they do not change by themselves."""

import pandas as pd
import pytest

from utils.aggregation import outputs
from utils.plots import style

TABLE = pd.DataFrame({"a_b": ["50 %", "x_1"], "value": [1 / 3, float("nan")], "n": [1, 2]})


def files(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_table_has_all_digits_as_csv_and_four_for_people(tmp_path):
    text = outputs.save_table(TABLE, tmp_path / "t", caption="Of runs & seeds.")
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "t.csv", float_precision="round_trip"), TABLE, check_exact=True
    )
    assert (tmp_path / "t.md").read_text() == text
    lines = text.splitlines()
    assert lines[2:] == ["| 50 % | 0.3333 | 1 |", "| x_1  | -      | 2 |", "", "Of runs & seeds."]
    latex = (tmp_path / "t.tex").read_text()
    assert all(rule in latex for rule in (r"\toprule", r"\midrule", r"\bottomrule"))
    assert r"\caption{Of runs \& seeds.}" in latex and r"a\_b & value & n \\" in latex
    assert r"50 \% & 0.3333 & 1 \\" in latex


def test_what_is_shown_may_differ_from_the_numbers(tmp_path):
    shown = pd.DataFrame({"value": [outputs.number(1 / 3, 0.05)]})
    text = outputs.save_table(TABLE, tmp_path / "t", shown=shown)
    assert "0.3333 ± 0.05" in text and "a_b" not in text
    assert r"0.3333 $\pm$ 0.05" in (tmp_path / "t.tex").read_text()
    assert "a_b" in (tmp_path / "t.csv").read_text()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((1.5, 0.25), "1.5 ± 0.2"),
        ((1.5,), "1.5"),
        ((float("nan"), 1.0), "-"),
        ((12345.6,), "1.235e+04"),
    ],
)
def test_numbers_in_words(values, expected):
    assert outputs.number(*values) == expected


def test_markdown_is_aligned():
    table = pd.DataFrame({"a": [1, 200], "long name": ["x", "y"]})
    lines = outputs.to_markdown(table).splitlines()
    assert lines[0] == "| a   | long name |" and set(lines[1]) <= set("|- ")
    assert len({len(line) for line in lines}) == 1 and len(lines) == 4


@pytest.fixture
def make_figure():
    def make():
        figure, axes = style.make_figure()
        axes.plot([0, 1], [1, 0], label="a")
        axes.set_title("title")
        return figure

    return make


def test_a_figure_that_did_not_change_has_the_same_bytes(tmp_path, make_figure, monkeypatch):
    for name, epoch in (("a", "1"), ("b", "1000000000")):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)  # the date that files would have
        outputs.save_figure(make_figure(), tmp_path / name / "beta_0.5")
    found = files(tmp_path / "a")
    assert set(found) == {"beta_0.5.png", "beta_0.5.pdf"}
    assert found == files(tmp_path / "b")
    assert b"/Type3" not in found["beta_0.5.pdf"] and found["beta_0.5.pdf"].startswith(b"%PDF")


def test_resolution_is_that_of_the_figure_unless_it_is_chosen(tmp_path, make_figure):
    from PIL import Image

    for name, dpi in (("usual", None), ("fine", 320)):
        outputs.save_figure(make_figure(), tmp_path / name, dpi)
    width, height = Image.open(tmp_path / "usual.png").size
    assert (width, height) == (5 * style.DPI, 3.6 * style.DPI)
    assert Image.open(tmp_path / "fine.png").size == (2 * width, 2 * height)
