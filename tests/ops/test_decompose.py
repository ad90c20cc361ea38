"""SIT's equations against numbers of an independent script (oracles C1 to C12) and against slow loops."""

import types

import jax
import numpy as np
import pytest

from jaxshare.algos.sit import equations as decompose

STATIC = {"returns_to_go": "literal", "softmax_filter": "per_step", "pair_order": "groups"}


def jitted(name):
    return jax.jit(getattr(decompose, name), static_argnames=STATIC.get(name))


NAMES = [name for name, value in vars(decompose).items() if callable(value) and value.__module__ == decompose.__name__]
ops = types.SimpleNamespace(**{name: jitted(name) for name in NAMES})  # compiling a whole is cheaper than its pieces


def close(found, expected, atol=1e-6):
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=2e-5, atol=atol)


def f32(values):
    return np.array(values, np.float32)


def log_softmax(x):
    x = np.asarray(x, np.float64)
    return x - np.log(np.exp(x).sum())


def column(*values):
    """One episode: [T, 1]."""
    return f32(values)[:, None]


# -------------------------------------------------------------------------------------------------------------- stage I


def test_c1_contributions():
    found = ops.contributions(f32([0.0, np.log(2.0), 0.0]), f32([1.0, 2.0, 4.0]))
    close(found, [0.25, 1.0, 1.0])
    close(found.sum(), 2.25)


def test_c2_similarity():
    query = f32([1.0, 2.0]) @ np.diag(f32([1.0, 0.5]))
    score = ops.similarity(query, f32([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
    close(score, [1.0, 1.0, 2.0])
    close(ops.contributions(score, np.ones(3)), [0.2119416, 0.2119416, 0.5761169])


CONTRIBUTIONS = np.array([[0.25, 1.0, 1.0], [0.35, 0.8, 1.2]], np.float32)


def test_c3_ensemble():
    mean, spread = (np.asarray(x) for x in ops.ensemble_moments(CONTRIBUTIONS))
    close(mean, [0.3, 0.9, 1.1])
    close(spread, [0.05, 0.1, 0.1])
    total = CONTRIBUTIONS.sum(-1)
    close(mean.sum(), 2.3)
    close(mean.sum(), total.mean())
    loss = ops.ensemble_loss(total[:, None, None], np.full((1, 1), 2.0), np.ones((1, 1)))
    close(loss, 0.0925)


def test_the_ensemble_s_loss_does_not_see_padding():
    total = f32([[[1.0], [np.nan]], [[3.0], [np.nan]]])  # two members, two steps, one episode
    loss = lambda mask: ops.ensemble_loss(total, column(0.0, 7.0), mask)  # noqa: E731
    close(loss(column(1.0, 0.0)), 5.0)
    assert np.isnan(loss(column(1.0, 1.0)))
    grads = jax.grad(lambda t: ops.ensemble_loss(t, column(0.0, 7.0), column(1.0, 0.0)))(total)
    close(grads, [[[1.0], [0.0]], [[3.0], [0.0]]])


# ------------------------------------------------------------------------------------------------------------- stage II


@pytest.mark.parametrize(
    ("gamma", "literal", "to_go", "priority"),
    [
        (0.5, False, [1.5, 1.0, 2.0], 1.5),
        (0.99, False, [2.9602, 1.98, 2.0], 2.3134),
        (0.5, True, [9.0, 4.0, 2.0], 5.0),
    ],
)
def test_c4_returns_to_go(gamma, literal, to_go, priority):
    found = ops.returns_to_go(f32([1.0, 0.0, 2.0]), np.float32(gamma), literal)
    close(found, to_go)
    close(ops.mean_over_steps(found, np.ones(3)), priority)


def test_a_priority_is_the_mean_over_valid_steps():
    reward, mask = f32([[1.0, 1.0], [0.0, 0.0], [2.0, 0.0]]), f32([[1.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    found = ops.mean_over_steps(ops.returns_to_go(reward, np.float32(0.5)), mask)
    close(found, [1.5, 1.0])
    close(ops.mean_over_steps(np.full((3, 1), np.nan), np.zeros((3, 1))), [0.0])  # no step at all


@pytest.mark.parametrize(("length", "constant", "last"), [(10, 0.534, 0.956), (50, 2.179, 0.790), (200, 5.713, 0.433)])
def test_the_rule_prefers_long_episodes_or_short_ones(length, constant, last):
    """Its length bias: constant rewards of 0.1, and 1 at the end."""
    gamma, mask = np.float32(0.99), np.ones(length)
    priority = lambda reward: ops.mean_over_steps(ops.returns_to_go(reward, gamma), mask)  # noqa: E731
    close(priority(np.full(length, 0.1)), constant, atol=6e-4)
    close(priority(np.eye(length)[-1]), last, atol=6e-4)


VALID = np.ones(4, bool)


def test_c5_rescaled_priorities_and_their_weights():
    scaled = ops.rescaled(f32([-3.0, 0.0, 1.0, 5.0]), VALID, np.float32(20.0))
    close(scaled, [0.0, 7.5, 10.0, 20.0])
    log10 = log_softmax(ops.log_weights(scaled, VALID, np.float32(0.2))) / np.log(10.0)
    close(log10, [-43.43, -27.14, -21.71, 0.0], atol=6e-3)


def test_c6_probabilities():
    scaled = f32([20.0, 19.8, 19.6, 19.0, 18.0, 10.0, 0.0])
    found = np.exp(log_softmax(ops.log_weights(scaled, np.ones(7, bool), np.float32(0.2))))
    close(found, [0.6622525, 0.2436291, 0.0896261, 0.0044622, 0.0000301, 0.0, 0.0], atol=1e-7)


def test_only_valid_items_have_a_range_and_a_weight():
    raw = f32([1.0, 1e9, 3.0, -1e9])
    valid = np.array([True, False, True, False])
    scaled = ops.rescaled(raw, valid, np.float32(20.0))
    close(scaled, [0.0, 0.0, 20.0, 0.0])
    assert np.exp(np.asarray(ops.log_weights(scaled, valid, np.float32(1.0))))[[1, 3]].tolist() == [0.0, 0.0]
    equal = ops.rescaled(np.full(4, 7.0), VALID, np.float32(20.0))
    assert equal.tolist() == [0.0] * 4  # all alike: uniform


def test_effective_size_and_the_temperature_that_has_it():
    scaled = np.linspace(0.0, 20.0, 30_000)
    valid = np.ones(30_000, bool)
    size = lambda alpha: ops.effective_size(ops.log_weights(scaled, valid, alpha))  # noqa: E731
    for alpha, expected in [(0.2, 600), (1.0, 3000), (5.0, 14_460), (20.0, 27_727)]:
        np.testing.assert_allclose(size(np.float32(alpha)), expected, rtol=2e-3)
    close(size(np.float32(1e7)), 30_000, atol=1.0)  # uniform in the limit
    wide = jax.jit(ops.wide_enough)
    assert wide(scaled, valid, np.float32(0.2), np.float32(256.0)) == np.float32(0.2)  # enough already
    np.testing.assert_allclose(size(wide(scaled, valid, np.float32(0.2), np.float32(3000.0))), 3000, rtol=1e-3)
    np.testing.assert_allclose(size(wide(scaled, valid, np.float32(0.2), np.float32(1e9))), 15_000, rtol=1e-3)


def test_bell_shaped_priorities_leave_a_handful_of_trajectories():
    """Why min_ess exists."""
    raw = f32(np.random.default_rng(0).normal(size=30_000))
    valid = np.ones(30_000, bool)
    scaled = ops.rescaled(raw, valid, np.float32(20.0))
    assert ops.effective_size(ops.log_weights(scaled, valid, np.float32(0.2))) < 10.0
    alpha = ops.wide_enough(scaled, valid, np.float32(0.2), np.float32(256.0))
    np.testing.assert_allclose(ops.effective_size(ops.log_weights(scaled, valid, alpha)), 256.0, rtol=1e-3)


# ------------------------------------------------------------------------------------------------------------ stage III


def test_c7_graph_attention():
    obs = f32([0.0, 1.0, -3.0])
    rows = [ops.graph_weights(own, obs) for own in obs]
    close(rows[0], [0.2343516, 0.6370336, 0.1286149])
    close([(row * obs).sum() for row in rows], [0.2511890, 0.4990041, -0.1534293])


Q = column(1.0, 1.1, 0.9)
BETA = np.float32(0.1)
ONES = np.ones((3, 1))


def test_c8_softmax_filter():
    close(ops.softmax_filter(Q, ONES, BETA), column(0.7341854, 1.9957229, 0.2700917))
    close(ops.softmax_filter(Q, column(1, 1, 0), BETA), column(0.5378828, 1.4621172, 0.0))
    close(ops.softmax_filter(Q + 100.0, ONES, BETA), ops.softmax_filter(Q, ONES, BETA), atol=1e-4)
    close(ops.softmax_filter(Q, ONES, np.float32(1e6)), ONES, atol=1e-5)
    assert ops.softmax_filter(Q, np.zeros((3, 1)), BETA).tolist() == [[0.0]] * 3


def test_the_filter_of_each_step_alone():
    x = np.concatenate([Q, Q + 5.0], axis=1).T  # two steps, three episodes
    mask = f32([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]])
    found = ops.softmax_filter(x, mask, BETA, per_step=True)
    close(found, [[0.7341854, 1.9957229, 0.2700917], [0.5378828, 1.4621172, 0.0]], atol=1e-5)
    assert not np.allclose(found, ops.softmax_filter(x, mask, BETA))


PI = column(0.5, 0.25, 0.8)


def test_c9_and_c10_the_actor_s_loss():
    filter_ = np.asarray(ops.softmax_filter(Q, ONES, BETA))
    close(ops.actor_loss(np.log(PI), ONES, filter_, ONES), 1.1119424)
    close(ops.actor_loss(np.log(PI), ONES, ONES, ONES), 0.7675283)
    weight = ops.stable_weight(
        column(0.05, 0.1, 0.2), ONES, np.float32(1.0), np.float32(0.0), np.float32(0.1), np.float32(10.0)
    )
    close(weight, column(1.7142857, 0.8571429, 0.4285714))
    close(ops.actor_loss(np.log(PI), weight, filter_, ONES), 1.0898832)
    cloned = ops.softmax_filter(Q, ONES, np.float32(1e6))  # a large beta: weighted behaviour cloning
    close(ops.actor_loss(np.log(PI), weight, cloned, ONES), (-weight * np.log(PI)).mean(), atol=1e-5)


def test_the_printed_loss_is_a_mean_of_q():
    """That an actor learns nothing by it is shown where there is an actor: tests/identities/test_sit.py."""
    filter_ = np.asarray(ops.softmax_filter(Q, ONES, BETA))
    close(ops.literal_actor_loss(Q, ONES, filter_, ONES), -(filter_ * Q).mean())
    close(jax.grad(ops.actor_loss)(np.log(PI), ONES, filter_, ONES), -filter_ / 3.0)


def test_weights_are_bounded_and_do_not_see_padding():
    uncertainty, mask = column(0.0, 1.0, 1.0, 1e-30), column(1, 1, 1, 0)
    weigh = lambda u, floor: ops.stable_weight(  # noqa: E731
        u, mask, np.float32(1.0), np.float32(floor), np.float32(0.1), np.float32(2.0)
    )
    found = np.asarray(weigh(uncertainty, 0.25))
    inverse = np.array([4.0, 0.8, 0.8])
    close(found[:3, 0], np.clip(inverse / inverse.mean(), 0.1, 2.0))
    close(weigh(column(0.0, 1.0, 1.0, 5.0), 0.25)[:3], found[:3])
    assert np.asarray(weigh(uncertainty, 0.0))[:3, 0].tolist() == [
        2.0,
        np.float32(0.1),
        np.float32(0.1),
    ]  # u = 0, and no floor
    close(ops.literal_weight(column(0.05, 0.2), np.float32(2.0)), column(40.0, 10.0))


@pytest.mark.parametrize(("discount", "expected"), [(0.99, 4.802), (0.0, 5.0)])
def test_c11_the_critic_s_loss(discount, expected):
    weight = ops.literal_weight(np.full((1, 1), 0.05), np.float32(1.0))
    target = np.full((1, 1), 0.3) + discount * 1.0
    loss = lambda q, mask: ops.critic_loss(q, target, weight, mask)  # noqa: E731
    close(loss(np.full((1, 1), 0.8), np.ones((1, 1))), expected)
    grads = jax.grad(loss)(np.full((1, 1), np.nan), np.zeros((1, 1)))
    assert grads.tolist() == [[0.0]]


def test_c12_the_filters_of_an_advantage():
    advantage = column(0.3, -0.1, -0.2)
    close(ops.softmax_filter(advantage, ONES, BETA), column(2.9266763, 0.0536039, 0.0197198))
    close(ops.exponential_filter(advantage, BETA, np.float32(20.0)), column(20.0, 0.3678794, 0.1353353))
    close(ops.binary_filter(advantage), column(1.0, 0.0, 0.0))
    assert np.isfinite(ops.exponential_filter(np.float32(1e6), BETA, np.float32(20.0)))


# ------------------------------------------------------------------------------------------------------------ judgement


@pytest.mark.parametrize("count", [1, 2, 5, 6])
def test_masked_median(count):
    rng = np.random.default_rng(count)
    x, mask = rng.normal(size=(4, 3)), np.arange(12).reshape(4, 3) < count
    close(ops.masked_median(np.array(x), np.array(mask)), np.median(x[mask]))


def test_the_median_of_nothing_is_0():
    assert ops.masked_median(np.ones(3), np.zeros(3)) == 0.0


def test_auroc_counts_pairs():
    rng = np.random.default_rng(0)
    score, positive = rng.integers(0, 4, size=20).astype(np.float32), rng.random(20) < 0.4
    pairs = [(a > b) + 0.5 * (a == b) for a in score[positive] for b in score[~positive]]
    close(ops.auroc(np.array(score), np.array(positive)), np.mean(pairs))
    assert ops.auroc(f32([1.0, 2.0, 3.0]), np.array([False, False, True])) == 1.0
    assert ops.auroc(f32([3.0, 2.0, 1.0]), np.array([False, False, True])) == 0.0
    assert np.isnan(ops.auroc(np.ones(3), np.ones(3, bool)))


def test_pair_order_looks_at_one_type_of_one_episode():
    level = f32([[0, 1, 2], [1, 1, 0]])
    score = f32([[0.3, 0.5, -9.0], [5.0, 5.0, 9.0]])
    assert ops.pair_order(score, level, (0, 0, 1)) == 1.0  # the one pair: agents 0 and 1 of the first episode
    close(ops.pair_order(score, level, (0, 0, 0)), 1.0 / 5.0)  # three pairs there, two in the second episode
    assert np.isnan(ops.pair_order(score, level, (0, 1, 2)))
