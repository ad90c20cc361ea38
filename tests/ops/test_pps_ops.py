"""Weights and averages of periodic parameter sharing, by the specification's numbers (13.9) and slow loops."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxshare.ops import pps
from jaxshare.ops.schedules import crossed

W = jnp.array([1.0, 2.0, 6.0])  # three agents with one parameter each
TEAM = (0, 0, 0)


def test_pps_1_the_plain_mean_and_again():
    weights = pps.convex_weights(jnp.zeros(3), "uniform")
    once = pps.average(W, weights, TEAM)
    np.testing.assert_allclose(once, [3, 3, 3], rtol=1e-6)
    np.testing.assert_allclose(pps.average(once, weights, TEAM), once, rtol=1e-6)


@pytest.mark.parametrize(
    ("rule", "expected", "mean"),
    [
        ("ratio", (0.25, 0.25, 0.5), 3.75),
        ("shifted_ratio", (0.25, 0.25, 0.5), 3.75),
        ("softmax", (0.211942, 0.211942, 0.576117), 4.092525981),
        ("uniform", (1 / 3, 1 / 3, 1 / 3), 3.0),
    ],
)
def test_pps_2_scores_one_one_two(rule, expected, mean):
    weights = pps.convex_weights(jnp.array([1.0, 1.0, 2.0]), rule)
    np.testing.assert_allclose(weights, expected, atol=1e-6)
    np.testing.assert_allclose(pps.average(W, weights, TEAM), [mean] * 3, rtol=1e-6)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ((0, 0, 0), (1 / 3, 1 / 3, 1 / 3)),
        ((-3, -3, -3), (1 / 3, 1 / 3, 1 / 3)),
        ((-1, 1, 0), (0, 2 / 3, 1 / 3)),
        ((2, -1, -1), (1, 0, 0)),
        ((1, 1, 2), (0.25, 0.25, 0.5)),
    ],
)
def test_pps_3_shifted_ratios(scores, expected):
    for weigh in (pps.convex_weights, jax.jit(pps.convex_weights, static_argnums=1)):
        weights = weigh(jnp.array(scores, jnp.float32), "shifted_ratio")
        np.testing.assert_allclose(weights, expected, rtol=1e-6, atol=2e-8)


def test_a_softmax_of_returns_nearly_takes_one_agent_and_a_ratio_does_not():
    """The returns 8, 10, 12 of the specification's 13.2; a temperature softens the first."""
    scores = jnp.array([8.0, 10.0, 12.0])
    np.testing.assert_allclose(pps.convex_weights(scores, "softmax"), [0.015876, 0.117310, 0.866814], rtol=1e-4)
    np.testing.assert_allclose(pps.convex_weights(scores, "ratio"), [4 / 15, 1 / 3, 0.4], rtol=1e-6)
    np.testing.assert_allclose(pps.convex_weights(scores, "softmax", 1e6), [1 / 3] * 3, rtol=1e-5)


def test_weights_are_convex_for_any_scores_and_follow_the_agents():
    scores = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32) * np.logspace(-3, 3, 50)[:, None]
    order = np.array([2, 0, 3, 1])
    for rule in ("shifted_ratio", "softmax", "uniform"):
        weigh = jax.jit(jax.vmap(lambda s, rule=rule: pps.convex_weights(s, rule)))
        weights = np.asarray(weigh(jnp.array(scores, jnp.float32)))
        assert (weights >= 0).all()
        np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-6)
        np.testing.assert_allclose(weigh(jnp.array(scores[:, order], jnp.float32)), weights[:, order], atol=1e-6)
        assert (np.diff(np.take_along_axis(weights, scores.argsort(1), 1)) >= -1e-6).all()  # more score, more weight


def test_shifted_ratios_are_continuous_where_the_ratio_ends():
    around = [pps.convex_weights(jnp.array([e, 1.0, 2.0]), "shifted_ratio") for e in (-1e-4, 0.0, 1e-4)]
    np.testing.assert_allclose(around[0], around[2], atol=2e-4)
    np.testing.assert_allclose(around[1], pps.convex_weights(jnp.array([0.0, 1.0, 2.0]), "ratio"), atol=1e-7)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rule", ["shifted_ratio", "softmax", "uniform"])
def test_a_score_that_is_not_finite_counts_for_nobody(rule, bad):
    np.testing.assert_allclose(pps.convex_weights(jnp.array([1.0, bad, 5.0]), rule), [1 / 3] * 3, rtol=1e-6)


@pytest.mark.parametrize("scores", [(0.0, 0.0), (-1.0, 3.0), (-1.0, -1.0), (np.nan, 1.0)])
def test_the_papers_ratio_is_nan_where_it_is_undefined(scores):
    assert np.isnan(pps.convex_weights(jnp.array(scores), "ratio")).all()


def test_weights_and_means_inside_groups_against_a_loop():
    rng = np.random.default_rng(1)
    groups, scores = (1, 0, 1, 2, 0), rng.random(5).astype(np.float32)
    x = rng.normal(size=(5, 3, 2)).astype(np.float32)
    weights = jax.jit(lambda s: pps.group_weights(s, groups, "ratio"))(scores)
    found = jax.jit(lambda x, w: pps.average(x, w, groups))(x, weights)
    for i, g in enumerate(groups):
        members = [k for k in range(5) if groups[k] == g]
        total = sum(scores[k] for k in members)
        np.testing.assert_allclose(weights[i], scores[i] / total, rtol=1e-6)
        np.testing.assert_allclose(found[i], sum(scores[k] / total * x[k] for k in members), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found[3], x[3])  # alone in its group
    np.testing.assert_array_equal(found[0], found[2])
    twice = jax.vmap(lambda x: pps.average(x, weights, groups))(jnp.stack([x, -x]))
    np.testing.assert_allclose(twice[1], -found, rtol=1e-6)


def test_pps_4_means_lie_between_the_agents():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(3, 40)).astype(np.float32)
    for rule in ("shifted_ratio", "softmax", "uniform"):
        weights = pps.convex_weights(jnp.array(rng.normal(size=3), jnp.float32), rule)
        mean = np.asarray(pps.average(jnp.array(x), weights, TEAM))
        assert (mean <= x.max(0) + 1e-6).all()
        assert (mean >= x.min(0) - 1e-6).all()


def test_the_mean_of_independent_orthogonal_matrices_shrinks():
    """Averaging networks that do not start alike is destructive (13.6): 0.577 for three of them."""
    draws = [np.linalg.qr(np.random.default_rng(i).normal(size=(64, 64)))[0] for i in range(3)]
    mean = pps.average(jnp.array(np.stack(draws), jnp.float32), jnp.full(3, 1 / 3), TEAM)[0]
    np.testing.assert_allclose(np.linalg.norm(mean) / 8, 1 / np.sqrt(3), rtol=0.05)


def test_distance_against_a_loop():
    rng = np.random.default_rng(3)
    tree = {"a": rng.normal(size=(4, 3, 2)).astype(np.float32), "b": rng.normal(size=(4, 5)).astype(np.float32)}
    rows = np.concatenate([x.reshape(4, -1) for x in tree.values()], axis=1)
    expected = np.sqrt(np.mean([np.sum((row - rows.mean(0)) ** 2) for row in rows]))
    np.testing.assert_allclose(pps.distance(tree), expected, rtol=1e-5)
    assert pps.distance({"a": jnp.ones((3, 2))}) == 0


def test_pps_5_three_averages_in_a_thousand_updates():
    updates = jnp.arange(1000)
    due = np.asarray(jax.vmap(lambda u: crossed(u, u + 1, 300))(updates))
    np.testing.assert_array_equal(np.flatnonzero(due) + 1, [300, 600, 900])
    before = np.asarray(jax.vmap(lambda u: crossed(u - 1, u, 300))(updates))  # the code's A- and RS-PPS: init=average
    np.testing.assert_array_equal(np.flatnonzero(before), [0, 300, 600, 900])


@pytest.mark.parametrize(("tau", "half_life"), [(0.05, 13.5), (0.005, 138.3)])
def test_pps_6_the_two_soft_updates_are_not_interchangeable(tau, half_life):
    soft = lambda target, _: (optax.incremental_update(1.0, target, tau), target)  # noqa: E731
    lag = 1 - np.asarray(jax.jit(lambda: jax.lax.scan(soft, jnp.float32(0), length=200)[1])())
    below = int(np.argmax(lag < 0.5))
    crossing = below - 1 + np.log(lag[below - 1] / 0.5) / np.log(lag[below - 1] / lag[below])
    np.testing.assert_allclose(crossing, half_life, atol=0.05)
