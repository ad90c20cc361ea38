"""MASER's goals, ROMA's roles and SEQL's weights: the numbers of the specification, and slow loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxshare.algos.maser import equations as intrinsic
from jaxshare.algos.roma import equations as roles
from jaxshare.algos.seql import equations as sharing

RNG = np.random.default_rng(0)
STEPS, BATCH, AGENTS, DIM = 4, 2, 3, 2


def normal(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


# ---- MASER


def test_mas1_goal_step():
    q, q_tot = jnp.array([1.0, 4, 2]), jnp.array([2.0, 2, 8])
    two = jnp.stack([q, q], axis=-1)[:, None]
    np.testing.assert_allclose(0.5 * q + 0.5 * q_tot / 2, [1, 2.5, 3])
    step = jax.jit(intrinsic.goal_step)
    assert step(two, q_tot[:, None], jnp.ones((3, 1)), 0.5).tolist() == [[2, 2]]
    assert step(two, q_tot[:, None], jnp.ones((3, 1)), 1.0).tolist() == [[1, 1]]
    assert step(two, q_tot[:, None], jnp.array([[1.0], [1], [0]]), 0.5).tolist() == [[1, 1]]  # padding is no goal
    assert step(0 * two, 0 * q_tot[:, None], jnp.ones((3, 1)), 0.5).tolist() == [[0, 0]]  # the first of equals


def test_mas2_distance_and_its_gradient():
    assert intrinsic.distance(jnp.zeros(2), jnp.array([3.0, 4.0])) == 5
    np.testing.assert_allclose(jax.grad(intrinsic.distance)(jnp.array([3.0, 4.0]), jnp.zeros(2)), [0.6, 0.8], rtol=1e-6)
    assert jax.grad(intrinsic.distance)(jnp.ones(2), jnp.ones(2)).tolist() == [0, 0]


def test_mas3_shares_of_the_reward():
    share = intrinsic.reward_share(jnp.array([0.0, jnp.log(3.0)]))
    np.testing.assert_allclose(2 * share, [0.5, 1.5], rtol=1e-6)
    assert intrinsic.reward_share(jnp.array([7.0])) == 1


def test_mas4_divergence_from_uniform():
    p = jnp.array([0.7, 0.2, 0.1])
    np.testing.assert_allclose(intrinsic.kl_to_uniform(jnp.log(p), jnp.ones(3, bool)), 0.2967937, rtol=1e-6)
    more, avail = jnp.array([*jnp.log(p), 50.0]), jnp.array([True, True, True, False])
    np.testing.assert_allclose(intrinsic.kl_to_uniform(more, avail), 0.2967937, rtol=1e-6)
    assert intrinsic.kl_to_uniform(more, jnp.array([False, False, False, True])) == 0
    assert np.all(np.isfinite(jax.grad(intrinsic.kl_to_uniform)(more, avail)))


def test_cosines_leave_unavailable_actions_out():
    x, y, every = jnp.array([1.0, 2, 9]), jnp.array([2.0, 1, -7]), jnp.ones(3, bool)
    two = jnp.array([True, True, False])
    np.testing.assert_allclose(intrinsic.cosine_distance(x, two, y, two), 1 - 4 / 5, rtol=1e-6)
    np.testing.assert_allclose(intrinsic.cosine_distance(x, every, x, every), 0, atol=1e-6)
    assert intrinsic.cosine_distance(0 * x, every, y, every) == 1


def test_everybody_has_a_goal_of_its_own():
    x, step = normal(STEPS, BATCH, AGENTS, DIM), RNG.integers(0, STEPS, (BATCH, AGENTS))
    found = intrinsic.at_step(x, jnp.asarray(step))
    for b in range(BATCH):
        for i in range(AGENTS):
            np.testing.assert_array_equal(found[b, i], x[step[b, i], b, i])


def test_means_over_time():
    x, mask = jnp.array([[[1.0]], [[3.0]], [[jnp.nan]]]), jnp.array([[[1.0]], [[1.0]], [[0.0]]])
    assert intrinsic.mean_over_time(x, mask).tolist() == [[2]]
    assert intrinsic.mean_over_time(x, 0 * mask).tolist() == [[0]]


# ---- ROMA


def test_roma1_entropy_divergence_and_the_softplus():
    zero, one = jnp.zeros(1), jnp.ones(1)
    entropy, kl = roles.entropy(one), roles.kl(zero, one, one, 4 * one)
    np.testing.assert_allclose([entropy, kl, entropy + kl], [1.4189385, 0.4431472, 1.8620857], rtol=1e-6)
    each = jnp.broadcast_to(entropy, (1, 1, 1)), jnp.broadcast_to(kl, (1, 1, 1))
    loss = roles.identity_loss(*each, jnp.ones((1, 1)), jnp.float32(1e-4), jnp.float32(1e-4))
    np.testing.assert_allclose(loss, [0.6932403], rtol=1e-6)
    ceiling = roles.identity_loss(*each, jnp.ones((1, 1)), jnp.float32(1e9), jnp.float32(0))
    assert ceiling == 2000


def test_roma2_density_at_the_floor():
    mean, floor = jnp.array([5.0]), jnp.array([0.002])
    np.testing.assert_allclose(roles.log_density(mean, mean, floor), [2.18837], atol=1e-5)


@pytest.mark.slow
def test_roma4_one_agent_has_nobody_to_differ_from():
    role, mean, var = normal(STEPS, BATCH, 1, DIM), normal(STEPS, BATCH, 1, DIM), jnp.ones((STEPS, BATCH, 1, DIM))
    loss = lambda role: roles.diversity_loss(  # noqa: E731
        roles.role_fit(role, mean, var), jnp.square(roles.others(role)).sum(-1), 1.0
    )
    assert not loss(role).any()
    assert not jax.grad(lambda role: loss(role).sum())(role).any()


def slow_pairs(x, fn):
    """fn(i, j) of all pairs of [T, B, N, D], ordered as `others`."""
    return np.array(
        [
            [[[fn(x[t, b, i], x[t, b, (i - k) % AGENTS], (t, b, i)) for i in range(AGENTS)] for b in range(BATCH)]
             for t in range(STEPS)]
            for k in range(1, AGENTS + 1)
        ]
    )  # fmt: skip


def test_role_pairs_by_hand():
    role, mean = np.asarray(normal(STEPS, BATCH, AGENTS, DIM)), np.asarray(normal(STEPS, BATCH, AGENTS, DIM))
    var = np.exp(RNG.normal(size=mean.shape)).astype(np.float32) / 50  # some densities below the clamp

    def fit(own, other, at):
        density = -0.5 * (np.log(2 * np.pi * var[at]) + (other - mean[at]) ** 2 / var[at])
        return np.maximum(density + 13.9, -13.9).mean()

    mi = slow_pairs(role, fit)
    dis = slow_pairs(role, lambda own, other, at: np.abs(own - other).sum())
    assert (mi == -13.9).any()
    found = jax.jit(roles.role_fit)(role, mean, var)
    np.testing.assert_allclose(found, mi, rtol=1e-4, atol=1e-4)
    assert not dis[-1].any()  # the last shift is an agent with itself

    def scale(x):
        low, high = x.min((0, 3), keepdims=True), x.max((0, 3), keepdims=True)
        return (x - low) / (high - low)

    expected = scale(dis).sum((0, 3)) / AGENTS - 0.7 * np.minimum(scale(mi) + scale(dis), 1).sum((0, 3)) / AGENTS
    loss = roles.diversity_loss(jnp.asarray(mi, jnp.float32), jnp.asarray(dis, jnp.float32), jnp.float32(0.7))
    np.testing.assert_allclose(loss, expected / AGENTS, rtol=1e-4)


def test_steps_without_episodes_and_padding_do_not_count():
    x, mask = jnp.array([[1.0, jnp.nan], [jnp.nan, jnp.nan]]), jnp.array([[1.0, 0.0], [0.0, 0.0]])
    assert roles.step_mean(x, mask).tolist() == [1, 0]


# ---- SEQL


def errors(*by_source):
    """Squared errors [T, B, N] of every agent on views grouped by source, and which of them are its own."""
    size = len(by_source)
    square = jnp.array(by_source, jnp.float32).T[:, :, None]  # steps, one episode for each source
    own = jnp.eye(size, dtype=bool)
    return jnp.broadcast_to(square, (*square.shape[:2], size)), own


@pytest.mark.parametrize(
    ("by_source", "uniform", "summed"), [(([1, 2], [3, 4]), 2.5, 5.0), (([1, 2], [3, 4], [5, 6]), 3.5, None)]
)
def test_seql1_and_2_weights(by_source, uniform, summed):
    square, own = errors(*by_source)
    mask = jnp.ones(square.shape)
    np.testing.assert_allclose(sharing.uniform_mean(square, mask), uniform)
    found = sharing.own_plus_others(square, mask, own[None], jnp.float32(1))
    if summed is not None:
        np.testing.assert_allclose(found, summed)
    one = lambda i: sharing.own_plus_others(square[..., i : i + 1], mask[..., :1], own[None, :, i : i + 1], 1.0)  # noqa: E731
    own_mean, total = np.mean(by_source, 1), np.sum(by_source)
    for i in range(len(by_source)):
        others = (total - 2 * own_mean[i]) / (2 * len(by_source) - 2)
        np.testing.assert_allclose(one(i), own_mean[i] + others, rtol=1e-6)
    if len(by_source) == 3:
        np.testing.assert_allclose(one(0), 6.0)


def test_nobody_elses_experience_is_no_error():
    square, own = errors([1, 2])
    assert sharing.own_plus_others(square, jnp.ones(square.shape), own[None], 1.0) == 1.5
    assert sharing.own_plus_others(square, 0 * square, own[None], 1.0) == 0


@pytest.mark.parametrize("batch", [4, 5, 2])
def test_views_are_shared_out_evenly_within_types(batch):
    types = (0, 1, 0, 2, 0, 1)
    seen = np.array([sharing.split_sources(types, batch, jnp.int32(turn)) for turn in range(6)])
    assert seen.shape == (6, batch, 6)
    assert np.all(np.array(types)[seen] == np.array(types))
    for i, kind in enumerate(types):
        mates = [j for j, other in enumerate(types) if other == kind]
        np.testing.assert_array_equal(seen[..., i], seen[..., mates[0]])  # the same views for all of a type
        assert [np.sum(seen[..., i] == j) for j in mates] == [6 * batch / len(mates)] * len(mates)


def test_everybodys_views_come_once_ones_own_first():
    source, fresh = sharing.all_sources((0, 1, 0, 0))
    assert source.tolist() == [[0, 1, 2, 3], [2, 1, 3, 0], [3, 1, 0, 2]]
    assert fresh.tolist() == [[True] * 4, [True, False, True, True], [True, False, True, True]]


def test_exchanged_views():
    x, source = normal(STEPS, BATCH, AGENTS, DIM), jnp.array([[0, 0, 2], [1, 2, 1]])
    found = sharing.exchange(x, source[None])
    for b in range(BATCH):
        for i in range(AGENTS):
            np.testing.assert_array_equal(found[:, b, i], x[:, b, source[b, i]])
    np.testing.assert_array_equal(sharing.exchange(x[..., 0], source[None]), found[..., 0])
