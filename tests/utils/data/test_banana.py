"""The Banana source has a known density; its equivalences are orbits of groups."""

import math

import pytest
import torch
from helpers.batches import gather, seeded
from scipy.stats import kstest

from utils.data.banana import (
    EQUIVALENCES,
    BananaDataModule,
    BananaDistribution,
    central_range,
    rotate,
)

BANANA = BananaDistribution()
ENTROPY = math.log2(2 * math.pi * math.e * 1.5)  # 4.68 bits


@pytest.fixture(scope="module")
def points():
    return BANANA.sample(400_000, seeded())


# Members of each group: maps that preserve M(X).
GROUP_ACTIONS = {
    "rotation": lambda x, t: rotate(x, torch.tensor(t)),
    "x_translation": lambda x, t: x + torch.tensor([t, 0.0]),
    "y_translation": lambda x, t: x + torch.tensor([0.0, t]),
    None: lambda x, t: x,
}


def test_the_density_integrates_to_one_and_has_the_known_entropy(points):
    side = torch.arange(-20, 20, 0.05, dtype=torch.float64)
    grid = torch.cartesian_prod(side, side)
    log_prob = BANANA.log_prob(grid)
    mass = log_prob.exp() * 0.05**2
    assert abs(mass.sum() - 1) < 1e-4
    assert abs(-(mass * log_prob).sum() / math.log(2) - ENTROPY) < 1e-3
    assert pytest.approx(ENTROPY) == BANANA.entropy
    assert abs(-BANANA.log_prob(points).mean() / math.log(2) - ENTROPY) < 0.01
    assert torch.allclose(points.mean(dim=0), torch.tensor(BANANA.shift), atol=0.03)


def test_samples_follow_the_density(points):
    """The share of samples in each box is the probability of the box under log_prob."""
    centres = torch.tensor([[-0.75, -1.0], [-2.5, 0.5], [1.0, -2.5], [2.0, -1.0], [-3.0, 3.0]])
    offsets = torch.linspace(-0.49, 0.49, 50, dtype=torch.float64)
    box = torch.cartesian_prod(offsets, offsets)
    for centre in centres:
        expected = BANANA.log_prob(box + centre.double()).exp().mean()  # the area is 1
        share = ((points - centre).abs() < 0.5).all(dim=1).double().mean()
        assert abs(share - expected) < 5 * math.sqrt(expected / len(points)) + 1e-4


def test_the_entropy_of_the_radius_agrees_with_published_rates(points):
    """By high-resolution theory, VIC's published 2.302 bits at MSE 0.071 imply h(|X|) = 2.19.

    R = h - 1/2 log2(2 pi e D) + .254 for a uniform quantiser with entropy coding.
    """
    published = 2.302 + 0.5 * math.log2(2 * math.pi * math.e * 0.071) - 0.254
    counts = torch.histc(points.norm(dim=1), bins=250, min=0, max=25)
    shares = (counts / counts.sum())[counts > 0]
    entropy = -(shares * (shares / 0.1).log2()).sum()
    assert abs(entropy - published) < 0.03


@pytest.mark.parametrize("name", EQUIVALENCES)
def test_maximal_invariants_and_representatives_identify_classes(name, points):
    x, equivalence = points[:1000], EQUIVALENCES[name]
    invariant, representative = equivalence.maximal_invariant(x), equivalence.representative(x)
    assert invariant.shape == (1000, equivalence.n_outputs)
    for parameter in (-2.0, 0.3, 4.0):
        moved = GROUP_ACTIONS[name](x, parameter)
        assert torch.allclose(equivalence.maximal_invariant(moved), invariant, atol=1e-5)
        assert torch.allclose(equivalence.representative(moved), representative, atol=1e-5)
    for member in (representative, equivalence.draw_member(x, seeded())):
        assert member.shape == x.shape
        assert torch.allclose(equivalence.maximal_invariant(member), invariant, atol=1e-5)
    assert torch.allclose(equivalence.representative(representative), representative, atol=1e-5)
    # the representative, hence the class, is a function of M(X): equal M means equal class
    order = invariant[:, 0].argsort()
    steps = (t[order].diff(dim=0).norm(dim=1) for t in (invariant, representative))
    assert torch.allclose(*steps, atol=1e-5)


def test_representatives_of_rotations_lie_on_one_ray(points):
    representative = EQUIVALENCES["rotation"].representative(points)
    angle = torch.atan2(representative[:, 1], representative[:, 0]).rad2deg() % 360
    assert torch.allclose(angle, torch.tensor(225.0))


def test_members_are_independent_of_the_point_given_its_orbit(points):
    x = points[:20_000]
    member = EQUIVALENCES["rotation"].draw_member(x, seeded(7))
    given, drawn = (torch.atan2(*p.T.flip(0)) / (2 * math.pi) + 0.5 for p in (x, member))
    assert kstest(drawn, "uniform").pvalue > 0.01
    assert abs(torch.corrcoef(torch.stack([given, drawn]))[0, 1]) < 0.03
    for axis, name in enumerate(["x_translation", "y_translation"]):
        drawn = EQUIVALENCES[name].draw_member(x, seeded(7))[:, axis]
        low, high = points[:, axis].quantile(torch.tensor([0.1, 0.9])).tolist()
        assert kstest(drawn, "uniform", (low, high - low)).pvalue > 0.01
        assert abs(torch.corrcoef(torch.stack([x[:, axis], drawn]))[0, 1]) < 0.03


def test_the_range_of_translations_is_the_paper_s():
    expected = [(-3.31, 2.56), (-3.03, 1.96)]
    for axis in (0, 1):
        assert central_range(BANANA, axis) == pytest.approx(expected[axis], abs=0.03)


def small(**kwargs):
    return BananaDataModule(**({"n_train": 5000, "n_eval": 3000} | kwargs))


@pytest.mark.parametrize("name", ["rotation", "x_translation", "y_translation"])
def test_x_is_a_random_member_of_the_orbit_with_representatives(name):
    """VIC's encoder sees entire orbits, not only the parts where the source has mass."""
    raw, vic = (small(equivalence=name, auxiliary=a) for a in ("input", "representative"))
    for split in ("train", "test"):
        raw_batch, vic_batch = next(iter(raw.loader(split))), next(iter(vic.loader(split)))
        assert torch.equal(raw_batch.y, vic_batch.y)
        torch.testing.assert_close(EQUIVALENCES[name].maximal_invariant(raw_batch.x), raw_batch.y)
        assert (raw_batch.x != vic_batch.x).any(dim=1).all()
        x, y, aux = vic_batch
        torch.testing.assert_close(EQUIVALENCES[name].maximal_invariant(x), y)
        torch.testing.assert_close(EQUIVALENCES[name].representative(raw_batch.x), aux)


def test_points_depend_only_on_seed_split_and_epoch():
    x = gather(small().loader("test")).x
    for kwargs in ({"equivalence": None}, {"auxiliary": "positive"}, {"eval_batch_size": 700}):
        assert torch.equal(gather(small(**kwargs).loader("test")).x, x)
    assert not torch.equal(gather(small().loader("val")).x, x)
    data = small()
    x, other = (gather(data.loader("train", epoch=epoch)).x for epoch in range(2))
    assert (x != other).any(dim=1).all()
    ordered = gather(data.loader("train", shuffle=False)).x
    assert torch.equal(ordered[: len(x)], x) and len(ordered) == 5000


def test_unknown_equivalences_are_rejected():
    with pytest.raises(ValueError, match="equivalence: .*'rotations'.*rotation.*null"):
        small(equivalence="rotations")
