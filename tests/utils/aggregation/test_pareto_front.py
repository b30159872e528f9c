"""Pareto fronts, and measures of curves compared with closed forms."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from utils.aggregation.pareto_front import (
    area_under_rates,
    bd_rate,
    gaussian_bits,
    pareto_front,
    rate_at,
    rate_gain,
)


def curve(rates, distortions):
    return np.asarray(rates, float), np.asarray(distortions, float)


def exponential(scale=1.0, rates=(1.0, 2.0, 4.0, 7.0)):
    """The curve D = 2^(-R / scale): `scale` multiplies the rates."""
    rates = np.asarray(rates)
    return curve(scale * rates, 2.0**-rates)


def test_front_has_exactly_the_points_that_no_other_dominates():
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


@pytest.mark.parametrize(
    ("distortions", "rates", "expected"),
    [
        ([0.5, 4, 0.5 + 3.5 / 2], [3, 1, 2], 2 * 3.5),  # in any order
        ([0.5, 4, math.nan], [3, 1, 2], 2 * 3.5),
        ([], [], math.nan),
        ([2], [3], math.nan),
        ([2, -math.inf], [3, 4], math.nan),
    ],
)
def test_area_of_a_trapezium(distortions, rates, expected):
    assert area_under_rates(distortions, rates) == pytest.approx(expected, nan_ok=True)


def test_gaussian_bits_are_the_differential_entropy_of_a_gaussian():
    for std in (0.1, 3.0):
        entropy = norm(scale=std).entropy() / math.log(2)
        assert gaussian_bits(std**2) == pytest.approx(entropy)
    assert gaussian_bits(0.0) == -math.inf


@pytest.mark.parametrize(
    ("distortions", "level", "expected"),
    [
        ([2, 1], 1.01, 2.98),
        ([2, 1], 1, 3),
        ([2, 1], 2, 1),
        ([-1, -2], -1.5, 2),
        ([2, 1], 0.99, math.nan),  # never reached
        ([2, 1], 2.01, math.nan),  # a lower rate might suffice
        ([2, 1], math.nan, math.nan),
    ],
)
def test_rate_at_a_distortion(distortions, level, expected):
    found = rate_at(curve([1, 3], distortions), level)
    assert found == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("factor", [0.25, 3])
def test_gain_over_scaled_rates_is_their_factor(factor):
    assert rate_gain(exponential(factor), exponential()) == pytest.approx(1 / factor)


def test_gain_is_measured_at_the_lowest_distortion_that_both_reach():
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
def test_no_gain_without_a_common_distortion(ours, theirs):
    assert math.isnan(rate_gain(ours, theirs))


@pytest.mark.parametrize(("factor", "expected"), [(0.5, -50), (2, 100)])
def test_delta_rate_over_scaled_rates(factor, expected):
    assert bd_rate(exponential(factor), exponential()) == pytest.approx(expected)


def test_delta_rate_is_averaged_over_the_common_qualities():
    """log R = q and log R' = 2 q, both for q from 1 to 2: the mean difference is 3 / 2."""
    quality = np.linspace(1, 2, 5)
    ours, theirs = curve(np.exp(2 * quality), -quality), curve(np.exp(quality), -quality)
    assert bd_rate(ours, theirs) == pytest.approx(100 * math.expm1(1.5))
    longer = np.linspace(0, 3, 13)
    assert bd_rate(ours, curve(np.exp(longer), -longer)) == pytest.approx(100 * math.expm1(1.5))


@pytest.mark.parametrize(
    "ours",
    [
        curve([1], [0.5]),  # a point
        curve([1, 2], [9, 8]),  # no common quality
        curve([1, 2], [2, 1]),  # a single one
        curve([0, 2], [0.5, 0.2]),  # no bits have no logarithm
    ],
)
def test_no_delta_rate_without_common_qualities(ours):
    assert math.isnan(bd_rate(ours, curve([1, 2], [1, 0.1])))
