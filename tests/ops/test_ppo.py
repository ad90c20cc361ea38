"""The clipped losses against a table, their gradients, and standardisation under a mask."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxshare.ops import ppo

EPS = 0.2


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        (1.3, 1.0, -1.2, 0.0),  # already too likely, and more would pay
        (1.3, -1.0, 1.3, 1.0),
        (0.7, 1.0, -0.7, -1.0),
        (0.7, -1.0, 0.8, 0.0),  # already too unlikely, and less would pay
        (1.1, 2.0, -2.2, -2.0),
        (1.0, -3.0, 3.0, 3.0),
    ],
)
def test_the_clipped_objective(ratio, advantage, loss, slope):
    found = jax.value_and_grad(ppo.policy_loss)(jnp.float32(ratio), jnp.float32(advantage), jnp.float32(EPS))
    np.testing.assert_allclose(found, (loss, slope), rtol=1e-6)


def test_without_bounds_it_is_the_ratio_times_the_advantage():
    ratio, advantage = jnp.exp(jax.random.normal(jax.random.key(0), (2, 7)))
    np.testing.assert_array_equal(ppo.policy_loss(ratio, advantage, jnp.inf), -ratio * advantage)


@pytest.mark.parametrize(
    ("value", "old", "target", "loss", "slope"),
    [
        (0.9, 0.5, 1.0, 0.045, 0.0),  # half of max(0.01, 0.09): it came near by more than eps
        (0.6, 0.5, 1.0, 0.08, -0.4),  # within eps
        (0.1, 0.5, 1.0, 0.405, -0.9),  # went away: the plain error is the larger one
        (1.5, 0.5, 0.8, 0.245, 0.7),  # went past the target
    ],
)
def test_the_clipped_value_loss(value, old, target, loss, slope):
    found = jax.value_and_grad(ppo.clipped_value_loss)(*map(jnp.float32, (value, old, target, EPS)))
    np.testing.assert_allclose(found, (loss, slope), rtol=1e-5, atol=1e-7)


def test_a_value_that_has_not_moved_has_the_plain_loss():
    value, target = jax.random.normal(jax.random.key(1), (2, 5))
    plain = jax.value_and_grad(lambda v: ppo.value_loss(v, target).sum())(value)
    clipped = jax.value_and_grad(lambda v: ppo.clipped_value_loss(v, value, target, jnp.float32(EPS)).sum())(value)
    np.testing.assert_allclose(clipped[0], plain[0], rtol=1e-6)
    np.testing.assert_allclose(plain[1], value - target, rtol=1e-6)


def test_standardised_advantages_leave_the_padding_out():
    rng = np.random.default_rng(0)
    advantage, mask = rng.normal(3.0, 5.0, (4, 3, 2)).astype(np.float32), rng.random((4, 3, 2)) < 0.6
    assert not mask.all()
    junk = np.where(mask, advantage, np.nan)
    found = np.asarray(jax.jit(ppo.standardise)(jnp.array(junk), jnp.array(mask, jnp.float32)))[mask]
    real = advantage[mask]
    np.testing.assert_allclose(found, (real - real.mean()) / real.std(), rtol=1e-4, atol=1e-5)


def test_equal_advantages_become_zero():
    found = ppo.standardise(jnp.full((3, 2), 7.0), jnp.ones((3, 2)))
    np.testing.assert_array_equal(found, np.zeros((3, 2)))


def test_the_estimate_of_the_divergence_is_never_negative_and_right_on_average():
    old, new = jax.nn.softmax(jax.random.normal(jax.random.key(2), (2, 6)))
    found = jax.vmap(ppo.approximate_kl)(jnp.log(new) - jnp.log(old))
    assert (found >= 0).all()
    np.testing.assert_allclose((old * found).sum(), (old * (jnp.log(old) - jnp.log(new))).sum(), rtol=1e-5)
