"""Pareto fronts, and measures of curves against closed forms."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from utils.aggregation.pareto_front import (
    area_under_rates,
    bd_rate,
    front_of,
    gaussian_bits,
    pareto_front,
    rate_at,
    rate_gain,
)


def curve(rates, distortions):
    return np.asarray(rates, float), np.asarray(distortions, float)


def exponential(scale=1.0, rates=(1.0, 2.0, 4.0, 7.0)):
    """D = 2^(-R / scale): a curve with its rates multiplied."""
    rates = np.asarray(rates)
    return curve(scale * rates, 2.0**-rates)


def test_a_front_holds_exactly_the_points_that_none_beats():
    generator = np.random.default_rng(0)
    x, y = generator.integers(0, 12, (2, 60)).astype(float)
    y[:5] = np.nan
    front = pareto_front(x, y)
    for i in range(len(x)):
        beats = ((x <= x[i]) & (y <= y[i])) & ((x < x[i]) | (y < y[i]))
        is_first = not any((x[:i] == x[i]) & (y[:i] == y[i]))
        assert (i in front) == (not beats.any() and is_first and not np.isnan(y[i]))
    assert (np.diff(x[front]) > 0).all() and (np.diff(y[front]) < 0).all()
    assert len(pareto_front([], [])) == 0


def test_a_curve_is_the_front_of_its_points():
    rates, distortions = front_of([3, 1, 2, 4], [1.0, 4, 5, math.nan])
    assert list(rates) == [1, 3] and list(distortions) == [4, 1]


# --- areas


def test_the_area_of_a_triangle_in_any_order_of_its_points():
    assert area_under_rates([0.5, 4, 0.5 + 3.5 / 2], [3, 1, 2]) == pytest.approx(2 * 3.5)
    assert area_under_rates([0.5, 4, math.nan], [3, 1, 2]) == pytest.approx(2 * 3.5)


@pytest.mark.parametrize("points", [([], []), ([2], [3]), ([2, -math.inf], [3, 4])])
def test_fewer_than_two_points_have_no_area(points):
    assert math.isnan(area_under_rates(*points))


def test_gaussian_bits_are_the_differential_entropy_of_a_gaussian():
    for std in (0.1, 3.0):
        entropy = norm(scale=std).entropy() / math.log(2)
        assert gaussian_bits(std**2) == pytest.approx(entropy)
    assert gaussian_bits(0.0) == -math.inf


# --- rates at a distortion


@pytest.mark.parametrize(
    ("distortions", "level", "expected"),
    [([2, 1], 1.01, 2.98), ([2, 1], 1, 3), ([2, 1], 2, 1), ([-1, -2], -1.5, 2)],
)
def test_the_rate_at_a_distortion(distortions, level, expected):
    assert rate_at(curve([1, 3], distortions), level) == pytest.approx(expected)


@pytest.mark.parametrize("level", [0.99, 2.01, math.nan], ids=["better", "worse", "unknown"])
def test_outside_of_the_distortions_of_a_curve_the_rate_is_unknown(level):
    assert math.isnan(rate_at(curve([1, 3], [2, 1]), level))


@pytest.mark.parametrize("factor", [0.25, 3])
def test_a_curve_with_its_rates_multiplied_has_this_gain(factor):
    assert rate_gain(exponential(factor), exponential()) == pytest.approx(1 / factor)


def test_a_gain_is_that_at_the_lowest_distortion_that_both_reach():
    deep, shallow = curve([1, 2, 8], [4, 1, 0]), curve([2, 6], [4, 1])
    assert rate_gain(deep, shallow, tolerance=0) == pytest.approx(6 / 2)
    assert rate_gain(shallow, deep, tolerance=0) == pytest.approx(2 / 6)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (curve([1, 2], [9, 8]), curve([1, 2], [5, 4])),  # never as good
        (curve([1, 2], [5, 4]), curve([1, 2], [9, 8])),
        (curve([0, 2], [5, 4]), curve([1], [5])),  # no bits at all
    ],
)
def test_no_gain_is_known_without_a_common_distortion(ours, theirs):
    assert math.isnan(rate_gain(ours, theirs))


# --- Bjontegaard delta rates


@pytest.mark.parametrize(("factor", "expected"), [(0.5, -50), (2, 100)])
def test_a_curve_with_its_rates_multiplied_has_this_delta_rate(factor, expected):
    assert bd_rate(exponential(factor), exponential()) == pytest.approx(expected)


def test_a_delta_rate_is_averaged_over_the_common_qualities():
    """log R = q and log R' = 2 q, both for q from 1 to 2: the mean difference is 3 / 2."""
    quality = np.linspace(1, 2, 5)
    ours, theirs = curve(np.exp(2 * quality), -quality), curve(np.exp(quality), -quality)
    assert bd_rate(ours, theirs) == pytest.approx(100 * math.expm1(1.5))
    longer = np.linspace(0, 3, 13)
    assert bd_rate(ours, curve(np.exp(longer), -longer)) == pytest.approx(100 * math.expm1(1.5))


def test_delta_rates_of_two_curves_are_each_other_s_inverse():
    ours, theirs = curve([1, 2, 5], [8, 4, 1]), curve([2, 3, 9], [9, 3, 0.5])
    there, back = (1 + bd_rate(*pair) / 100 for pair in ((ours, theirs), (theirs, ours)))
    assert there * back == pytest.approx(1)


@pytest.mark.parametrize(
    "ours",
    [
        curve([1], [0.5]),  # a point
        curve([1, 2], [9, 8]),  # no common quality
        curve([1, 2], [2, 1]),  # a single one
        curve([0, 2], [0.5, 0.2]),  # no bits have no logarithm
    ],
)
def test_without_common_qualities_there_is_no_delta_rate(ours):
    assert math.isnan(bd_rate(ours, curve([1, 2], [1, 0.1])))
