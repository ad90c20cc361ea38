"""The weights, ratios and policy terms of SEAC, by numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxshare.algos.seac import equations as sharing


def steps(x):
    """[S, N] -> [S, T=1, B=1, N]"""
    return jnp.array(x, jnp.float32)[:, None, None, :]


FIRST, SECOND = np.array([0.5, 0.5]), np.array([0.75, 0.25])  # policies of agents 1 and 2; both took action 0
LOG_PROB = steps(np.log([[0.5, 0.5], [0.75, 0.75]]))
OWN = (0, 1)


@pytest.mark.parametrize(
    ("sets", "types", "expected"),
    [
        ((0, 1, 2), (0, 0, 0), [[1, 0.4, 0.4], [0.4, 1, 0.4], [0.4, 0.4, 1]]),
        ((0, 1, 2), (0, 0, 1), [[1, 0.4, 0], [0.4, 1, 0], [0, 0, 1]]),  # agents of another type see other things
        ((0, 0, 0), (0, 0, 0), [[1, 1, 1]]),  # one network: all are its own
        ((0, 0, 1), (0, 0, 1), [[1, 1, 0], [0, 0, 1]]),
    ],
)
def test_who_learns_from_whom(sets, types, expected):
    np.testing.assert_allclose(sharing.weights(sets, types, jnp.float32(0.4)), np.array(expected), rtol=1e-6)
    own = sharing.weights(sets, types, jnp.float32(0.0))
    np.testing.assert_array_equal(own, [[float(k == s) for k in sets] for s in range(max(sets) + 1)])


def test_the_ratio_is_of_one_step_and_a_constant():
    ratio = sharing.ratios(LOG_PROB, OWN)[:, 0, 0]
    np.testing.assert_allclose(ratio, [[1, 0.6666667], [1.5, 1]], rtol=1e-6)
    assert ratio[0, 0] == ratio[1, 1] == 1  # exactly, without the 1e-7
    tiny_own = sharing.ratios(steps(np.log([[1e-7, 0.5], [0.5, 0.5]])), OWN)
    np.testing.assert_allclose(tiny_own[1, 0, 0, 0], 0.5 / 2e-7, rtol=1e-5)
    slope = jax.grad(lambda x: sharing.ratios(x, OWN).sum())(LOG_PROB)
    np.testing.assert_array_equal(slope, np.zeros_like(LOG_PROB))


def test_each_agents_own_view():
    x = jnp.arange(2 * 3 * 4 * 3.0).reshape(2, 3, 4, 3)
    np.testing.assert_array_equal(
        sharing.own_sets(x, (1, 0, 1)), np.stack([x[1, ..., 0], x[0, ..., 1], x[1, ..., 2]], -1)
    )


@pytest.mark.parametrize(
    ("advantage", "loss", "slope"),
    [(0.196, 0.0905712, [-0.0653333, 0.0653333]), (0.79, 0.3650575, [-0.2633333, 0.2633333])],
)
def test_the_policy_term_of_a_shared_step(advantage, loss, slope):
    """pi_1 = (.5, .5) learns from agent 2, who took action 0 with .75: learner's bootstrap, owner's bootstrap."""

    def shared(logits, differentiate=False):
        log_prob = jax.nn.log_softmax(logits)[0]
        ratio = jnp.exp(log_prob) / 0.75 if differentiate else sharing.ratios(LOG_PROB, OWN)[0, 0, 0, 1]
        if differentiate:
            return -ratio * advantage * log_prob
        return sharing.policy_loss(ratio, jnp.float32(advantage), log_prob)

    found, gradient = jax.value_and_grad(shared)(jnp.zeros(2))
    np.testing.assert_allclose(found, loss, rtol=1e-5)
    np.testing.assert_allclose(gradient, slope, atol=1e-6)
    wrong = jax.grad(lambda x: shared(x, differentiate=True))(jnp.zeros(2))
    np.testing.assert_allclose(wrong, np.array([-0.0200480, 0.0200480]) * advantage / 0.196, rtol=1e-4)


def test_weighted_by_the_ratio_others_steps_are_unbiased():
    """sum_a pi_2 rho A grad log pi_1 = sum_a pi_1 A grad log pi_1, both through the loss and by hand."""
    advantage = np.array([1.0, -2.0])

    def loss(logits, weight, ratio):
        log_prob = jax.nn.log_softmax(logits)
        return (weight * sharing.policy_loss(jnp.array(ratio), jnp.array(advantage), log_prob)).sum()

    zero = jnp.zeros(2)
    # agent 2's action is a: its probability under both policies
    ratio = [sharing.ratios(steps(np.log([[0.5, FIRST[a]], [0.5, SECOND[a]]])), OWN)[0, 0, 0, 1] for a in range(2)]
    others = jax.grad(loss)(zero, SECOND, np.array(ratio))
    own = jax.grad(loss)(zero, FIRST, np.ones(2, np.float32))
    np.testing.assert_allclose(-others, [0.75, -0.75], rtol=1e-5)
    np.testing.assert_allclose(others, own, rtol=1e-5)


def test_an_action_that_the_learner_cannot_take_adds_nothing():
    log_prob = steps([[-1e10, -1e10], [-0.5, -0.5]])
    ratio = sharing.ratios(log_prob, OWN)
    assert ratio[0, 0, 0, 1] == 0

    def loss(x):
        return sharing.policy_loss(ratio, jnp.ones_like(ratio), x)[0, 0, 0, 1]

    found, slope = jax.value_and_grad(loss)(log_prob)
    assert found == 0
    np.testing.assert_array_equal(slope, np.zeros_like(slope))
    infinite = jnp.where(log_prob < -1e9, -jnp.inf, log_prob)
    assert loss(infinite) == 0
    assert np.isfinite(jax.grad(loss)(infinite)).all()
