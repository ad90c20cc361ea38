"""Numbers by hand of the filters, allowed actions and penalties of offline learning, and what must hold of them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxshare.models.offline import linear_mixer, linear_weights
from jaxshare.ops import offline

RNG = np.random.default_rng(0)


def column(*values):
    """[T, 1]: a batch of one episode."""
    return jnp.array(values, jnp.float32)[:, None]


FILTER = jax.jit(offline.filter_weights, static_argnums=(0, 4))
EXCESS, SLOPE = jax.jit(offline.excess), jax.jit(jax.grad(offline.excess))
LOG_POLICY, FAMILIAR = jax.jit(offline.log_policy), jax.jit(offline.familiar)


def weights(x, beta=0.1, kind="softmax", mask=None, axis="batch_time"):
    mask = jnp.ones_like(x) if mask is None else mask
    return FILTER(kind, x, mask, jnp.float32(beta), axis)


# ---------------------------------------------------------------------------------------------------------- filters


def test_softmax_of_three_valid_steps():
    q = column(1.0, 1.1, 0.9)
    np.testing.assert_allclose(weights(q)[:, 0], [0.7341854, 1.9957229, 0.2700917], rtol=1e-5)
    masked = weights(q, mask=column(1, 1, 0))
    np.testing.assert_allclose(masked[:, 0], [0.5378828, 1.4621172, 0.0], rtol=1e-5)


def test_the_three_filters_of_advantages():
    a = column(0.3, -0.1, -0.2)
    np.testing.assert_allclose(weights(a)[:, 0], [2.9266763, 0.0536039, 0.0197198], rtol=1e-5)
    np.testing.assert_allclose(weights(a, kind="crr")[:, 0], [20.0, 0.3678794, 0.1353353], rtol=1e-5)
    np.testing.assert_array_equal(weights(a, kind="binary")[:, 0], [1.0, 0.0, 0.0])


def test_weighted_cloning_by_hand():
    log_pi = jnp.log(column(0.5, 0.25, 0.8))
    np.testing.assert_allclose(-(weights(column(1.0, 1.1, 0.9)) * log_pi).mean(), 1.1119424, rtol=1e-6)
    np.testing.assert_allclose(-log_pi.mean(), 0.7675283, rtol=1e-6)


@pytest.mark.parametrize("axis", offline.AXES)
def test_a_softmax_has_mean_one_and_takes_no_notice_of_a_constant(axis):
    x = jnp.array(RNG.normal(size=(3, 4, 2)), jnp.float32)
    mask = jnp.array([[1, 1, 1, 1], [1, 0, 1, 1], [0, 0, 1, 0]], jnp.float32)[..., None] * jnp.ones((1, 1, 2))
    found = weights(x, 0.5, mask=mask, axis=axis)
    over = (1,) if axis == "batch" else (0, 1)
    np.testing.assert_allclose(found.sum(over), mask.sum(over), rtol=1e-5)
    np.testing.assert_allclose(weights(x + 7.0, 0.5, mask=mask, axis=axis), found, rtol=1e-4)
    np.testing.assert_allclose(weights(x, 1e9, mask=mask, axis=axis), mask, atol=1e-6)
    others = weights(jnp.where(mask > 0, x, 1e6), 0.5, mask=mask, axis=axis)
    np.testing.assert_array_equal(others, found)


def test_the_two_axes_differ_as_said():
    x = jnp.array([[1.0, 2.0], [10.0, 10.0]])
    np.testing.assert_allclose(weights(x, 1.0, axis="batch"), [[0.5378828, 1.4621172], [1.0, 1.0]], rtol=1e-5)
    together = weights(x, 1.0)
    assert together[0].max() < 1e-2
    np.testing.assert_allclose(together[1], 2.0, rtol=1e-2)


@pytest.mark.parametrize("kind", offline.FILTERS)
@pytest.mark.parametrize("axis", offline.AXES)
def test_nothing_valid_and_huge_values_stay_finite(kind, axis):
    x = jnp.array([[3e4, -3e4], [1e5, 1e5]])
    mask = jnp.array([[1.0, 1.0], [0.0, 0.0]])
    found = weights(x, 0.1, kind, mask, axis)
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found[1], 0.0)
    assert found[0, 0] > 0
    np.testing.assert_array_equal(weights(x, 0.1, kind, jnp.zeros_like(mask), axis), 0.0)


def test_effective_share():
    mask = column(1, 1, 1, 1, 0)
    np.testing.assert_allclose(offline.effective_share(mask, mask), 1.0)
    np.testing.assert_allclose(offline.effective_share(column(4, 0, 0, 0, 0), mask), 0.25)


# --------------------------------------------------------------------------------------------------- allowed actions

MU = [0.6, 0.2, 0.15, 0.05]


def familiar(mu, avail, threshold):
    avail = jnp.array(avail, bool)
    log_mu = LOG_POLICY(jnp.log(jnp.array(mu)), avail)
    return FAMILIAR(log_mu, avail, jnp.float32(threshold)).tolist()


def test_actions_below_the_threshold_are_not_allowed():
    assert familiar(MU, [1, 1, 1, 1], 0.3) == [True, True, False, False]
    assert familiar(MU, [1, 1, 1, 1], 0.24) == [True, True, True, False]
    assert familiar(MU, [1, 1, 1, 1], 0.0) == [True] * 4


def test_the_threshold_is_of_what_is_available():
    assert familiar(MU, [0, 1, 1, 1], 0.3) == [False, True, True, False]
    assert familiar(MU, [0, 0, 0, 1], 0.3) == [False, False, False, True]


def test_the_likeliest_action_is_always_allowed():
    assert familiar(MU, [1, 1, 1, 1], 5.0) == [True, False, False, False]
    assert familiar([0.5, 0.5, 0.0, 0.0], [1, 1, 1, 1], 1.0) == [True, True, False, False]
    logits = jnp.array(RNG.normal(size=(50, 6)), jnp.float32) * 100
    avail = jnp.array(RNG.random((50, 6)) < 0.5).at[:, 0].set(True)
    allowed = FAMILIAR(LOG_POLICY(logits, avail), avail, jnp.float32(0.999))
    assert allowed.any(-1).all()
    assert not (allowed & ~avail).any()


def test_a_policy_is_over_what_is_available():
    avail = jnp.array([[True, False, True]])
    log_pi = LOG_POLICY(jnp.array([[1.0, 50.0, 1.0]]), avail)
    np.testing.assert_allclose(jnp.exp(log_pi), [[0.5, 0.0, 0.5]])
    grad = jax.grad(lambda x: offline.log_policy(x, avail)[0, 0])(jnp.array([[1.0, 50.0, 2.0]]))
    assert grad[0, 1] == 0
    assert np.isfinite(grad).all()


# --------------------------------------------------------------------------------------------------------- penalties


def test_the_excess_of_one_agent_and_its_gradient():
    q, action, every = jnp.array([1.0, 2.0, 3.0]), jnp.int32(1), jnp.array([True, True, True])
    np.testing.assert_allclose(offline.masked_logsumexp(q, every), 3.4076060, rtol=1e-6)
    np.testing.assert_allclose(EXCESS(q, every, action), 1.4076060, rtol=1e-6)
    found = EXCESS(q, every.at[2].set(False), action)
    np.testing.assert_allclose(found, 0.3132617, rtol=1e-6)
    grad = SLOPE(q, every, action)
    np.testing.assert_allclose(grad, [0.0900306, -0.7552715, 0.6652410], rtol=1e-5)
    np.testing.assert_allclose(EXCESS(q + 100.0, every, action), 1.4076060, rtol=1e-4)


def test_one_available_action_costs_nothing():
    q, avail = jnp.array([1.0, 2.0, 3.0]), jnp.array([False, True, False])
    assert EXCESS(q, avail, jnp.int32(1)) == 0
    np.testing.assert_array_equal(SLOPE(q, avail, jnp.int32(1)), 0.0)


def test_the_joint_excess_by_hand():
    q = jnp.array([[1.0, 2.0], [0.0, 4.0]])
    found = offline.joint_excess(q, jnp.array([0.25, 0.75]), jnp.ones((2, 2), bool), jnp.array([1, 1]))
    np.testing.assert_allclose(found, 0.6245268, rtol=1e-5)


def test_the_joint_excess_is_a_sum_over_joint_actions():
    agents, actions = 3, 4
    q, weight = RNG.normal(size=(agents, actions)), RNG.random(agents)
    avail = RNG.random((agents, actions)) < 0.6
    avail[:, 1] = True
    taken, bias = np.array([1, 1, 1]), 0.7
    total = lambda a: (weight * q[np.arange(agents), a]).sum() + bias  # noqa: E731
    joint = [a for a in itertools.product(range(actions), repeat=agents) if avail[np.arange(agents), a].all()]
    assert 1 < len(joint) < actions**agents
    expected = np.log(sum(np.exp(total(list(a))) for a in joint)) - total(taken)
    found = offline.joint_excess(*(jnp.array(x, jnp.float32) for x in (q, weight)), jnp.array(avail), jnp.array(taken))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


# ------------------------------------------------------------------------------------------------------------- mixer


def test_the_linear_mixer_by_hand():
    weight = linear_weights(jnp.array([[1.0, -2.0], [-3.0, 0.5]]), jnp.array([-0.5, 1.0]))
    np.testing.assert_allclose(weight, [2.5 / 4.5, 2.0 / 4.5], rtol=1e-6)
    np.testing.assert_allclose((weight * jnp.array([1.0, -2.0])).sum(), -1 / 3, rtol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_weights_of_a_state_sum_to_one(bias):
    mixer = linear_mixer(num_agents=3, state_dim=2, embed_dim=4, bias=bias)
    params, state = jax.jit(mixer.init)(jax.random.key(0)), jnp.array(RNG.normal(size=(5, 2, 2)), jnp.float32)
    weight, found = jax.jit(mixer.weights)(params, state)
    assert weight.shape == (5, 2, 3)
    np.testing.assert_allclose(weight.sum(-1), 1.0, rtol=1e-5)
    assert (weight >= 0).all()
    assert np.ptp(np.asarray(weight)) > 0.01
    assert (np.ptp(np.asarray(found)) > 0.01) == bias
    q = jnp.array(RNG.normal(size=(5, 2, 3)), jnp.float32)
    mix = jax.jit(mixer.apply)
    np.testing.assert_allclose(mix(params, q, state), (weight * q).sum(-1) + found, rtol=1e-5)
    np.testing.assert_allclose(mix(params, 0 * q, state), found, rtol=1e-5)
