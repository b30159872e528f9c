"""Ratios of the bits that two kinds of runs take at equal cost."""

import numpy as np
import pandas as pd
import pytest
from helpers.curve_runs import Runs, table

from utils.aggregation import bit_ratios
from utils.aggregation.bit_ratios import ratios
from utils.aggregation.tables import summarise

X, Y = "test/comm/n_bits", "test/pred/err"


def front(bits, costs):
    return np.asarray(bits, float), np.asarray(costs, float)


def test_ratio_of_scaled_bits_is_the_factor_at_all_costs():
    """With cost = a - b log(bits), interpolation in log-bits reproduces the fronts exactly."""
    slow, fast = np.array([100.0, 230.0, 900.0, 2000.0]), np.array([40.0, 77.0, 700.0, 1500.0])

    def cost(bits):
        return 1 - 0.1 * np.log(bits)

    found = ratios(front(slow, cost(slow)), front(fast, cost(2.5 * fast)))
    np.testing.assert_allclose(found["ratio"], 2.5)
    # at the points of both fronts within their common range
    assert found["cost"].iloc[0] == pytest.approx(min(cost(slow[0]), cost(2.5 * fast[0])))
    assert found["cost"].iloc[-1] == pytest.approx(max(cost(slow[-1]), cost(2.5 * fast[-1])))
    assert len(found) == 6


def test_the_smallest_ratio_is_at_a_point_of_a_front():
    a = front([100, 200, 1000], [0.5, 0.4, 0.1])
    b = front([50, 120, 300], [0.45, 0.3, 0.05])
    smallest = ratios(a, b)["ratio"].min()
    between = np.linspace(0.1, 0.45, 500)
    dense = bit_ratios.bits_at(a, between) / bit_ratios.bits_at(b, between)
    assert smallest <= dense.min() + 1e-12
    assert smallest == pytest.approx(dense.min(), rel=1e-2)
    found = ratios(a, a, worst=0.35)  # higher costs are left out
    assert found["cost"].tolist() == [0.35, 0.1] and (found["ratio"] == 1).all()
    assert ratios(a, a, worst=0.05).empty


def test_fronts_are_selected_on_validation_data_if_there_are_any():
    n_bits, val, test = [100, 200, 300, 400], [0.4, 0.3, 0.35, 0.1], [0.42, 0.33, 0.01, 0.12]
    runs = pd.DataFrame({"seed": "1", "group": list("abcd"), "state": "done", "beta": list("abcd")})
    runs = runs.assign(**{"test/comm/n_bits": n_bits, "test/pred/err": test})
    columns = ("test/comm/n_bits", "test/pred/err")
    bits, costs = bit_ratios._front(summarise(runs.assign(**{"val/pred/err": val})), *columns)
    assert list(bits) == [100, 200, 400] and list(costs) == [0.42, 0.33, 0.12]
    bits, costs = bit_ratios._front(summarise(runs), *columns)
    assert list(bits) == [100, 200, 300] and list(costs) == [0.42, 0.33, 0.01]


def test_fronts_decrease_strictly():
    bits, costs = np.array([400.0, 100, 200, 300]), np.array([0.1, 0.5, 0.2, 0.3])
    found = bit_ratios.falling(bits, costs)
    assert found[0].tolist() == [100, 200, 400]
    np.testing.assert_allclose(found[1], [0.5, 0.25, 0.1])
    once = front([100, 200, 1000], [0.5, 0.4, 0.1])
    for before, after in zip(once, bit_ratios.falling(*once), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.fixture
def runs(tmp_path):
    """Kind "a" needs twice the bits of "b"; "c" has no error and "d" an infinite one."""
    kinds = {"a": (2, 1), "b": (1, 1), "c": (1, np.nan), "d": (1, np.inf)}
    return Runs(
        tmp_path,
        table(
            {"rate": kind, "beta": beta, "seed": 1, X: factor * 2.0**beta, Y: cost / (1 + beta)}
            for kind, (factor, cost) in kinds.items()
            for beta in (1, 2, 3)
        ),
    )


def test_the_table_of_ratios(runs):
    bit_ratios.summarize_bit_ratios(runs, by="rate", baseline="a", better="b")
    assert np.allclose(pd.read_csv(runs.folder / "bit_ratios.csv")["ratio"], 2)
    assert "Smallest ratio: 2" in (runs.folder / "bit_ratios.md").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"better": "c"}, f"rate=c has both {X} and {Y}"),
        ({"better": "d"}, f"rate=d has both {X} and {Y}"),
        ({"better": "b", "reference": {"rate": "a"}, "within": -1.0}, Y),
    ],
)
def test_a_message_replaces_the_table_without_a_common_cost(runs, options, message, capsys):
    bit_ratios.summarize_bit_ratios(runs, "rate", baseline="a", **options)
    error = capsys.readouterr().err
    assert "left out" in error and message in error
    assert not (runs.folder / "bit_ratios.csv").exists()
