"""Gumbel-softmax samples: numbers, one-hot exactly, masks, and the distribution of what is drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxshare.ops import gumbel

KEY = jax.random.key(0)
LOGITS, NOISE = jnp.log(jnp.array([1.0, 2.0, 3.0])), jnp.array([0.1, 0.5, -0.2])
WORTH = jnp.array([1.0, 2.0, 3.0])
ALL = jnp.ones(3, bool)


@pytest.mark.parametrize(
    ("temperature", "y", "gradient"),
    [
        (1.0, [0.161132, 0.480760, 0.358108], [-0.192871, -0.094698, 0.287569]),
        (0.5, [0.067379, 0.599817, 0.332804], [-0.170526, -0.318413, 0.488939]),
    ],
)
def test_the_numbers_of_the_specification(temperature, y, gradient):
    """Q = w . y: the value is that of the one-hot action, the gradient that of the relaxed one."""

    def value(logits, hard):
        soft = gumbel.relaxed(logits, ALL, NOISE, jnp.float32(temperature))
        return (WORTH * (gumbel.straight_through(soft) if hard else soft)).sum()

    np.testing.assert_allclose(gumbel.relaxed(LOGITS, ALL, NOISE, jnp.float32(temperature)), y, atol=1e-6)
    q, slope = jax.jit(jax.value_and_grad(value), static_argnums=1)(LOGITS, True)
    assert q == 2.0
    np.testing.assert_allclose(slope, gradient, atol=1e-6)
    np.testing.assert_allclose(jax.grad(value)(LOGITS, False), gradient, atol=1e-6)


def test_a_hard_sample_is_one_exact_one_even_under_ties():
    tied = jnp.array([[0.3, 0.4, 0.4, 0.4], [0.25, 0.25, 0.25, 0.25], [0.0, 0.0, 0.0, 1.0]])
    np.testing.assert_array_equal(jax.jit(gumbel.straight_through)(tied), np.eye(4)[[1, 0, 3]])
    many = jax.nn.softmax(jax.random.normal(KEY, (5000, 5)))
    hard = np.asarray(jax.jit(gumbel.straight_through)(many))
    assert set(np.unique(hard)) == {0.0, 1.0}
    assert np.all(hard.sum(-1) == 1)
    np.testing.assert_array_equal(hard.argmax(-1), np.asarray(many).argmax(-1))


def test_what_is_not_available_is_never_drawn_and_has_no_gradient():
    logits = jnp.array([50.0, 0.0, -3.0, 1.0])
    avail = jnp.array([False, True, True, False])

    def value(logits, noise):
        y = gumbel.relaxed(logits, avail, noise, jnp.float32(0.7))
        return (jnp.array([1.0, 2.0, 3.0, 4.0]) * gumbel.straight_through(y)).sum(), y

    noise = jax.vmap(lambda k: gumbel.noise(k, (4,)))(jax.random.split(KEY, 500))
    slope, y = jax.jit(jax.vmap(jax.grad(value, has_aux=True), in_axes=(None, 0)))(logits, noise)
    assert np.all(np.asarray(y)[:, [0, 3]] == 0.0)
    assert np.all(np.asarray(slope)[:, [0, 3]] == 0.0)
    assert np.all(np.isfinite(slope))
    assert np.any(np.asarray(slope)[:, [1, 2]] != 0.0)
    one = gumbel.relaxed(logits, jnp.array([False, False, True, False]), noise[0], jnp.float32(1.0))
    np.testing.assert_array_equal(one, [0, 0, 1, 0])


@pytest.mark.slow
def test_the_largest_is_distributed_as_the_policy_at_any_temperature():
    trials = 20000
    noise = jax.vmap(lambda k: gumbel.noise(k, (3,)))(jax.random.split(KEY, trials))
    sample = lambda g, t: gumbel.first_maximum(gumbel.relaxed(LOGITS, ALL, g, jnp.float32(t)))  # noqa: E731
    warm, cold = (np.asarray(jax.vmap(lambda g, t=t: sample(g, t))(noise)) for t in (1.0, 0.3))
    np.testing.assert_array_equal(warm, cold)
    expected = np.array([1, 2, 3]) / 6
    np.testing.assert_allclose(warm.mean(0), expected, atol=5 * np.sqrt(0.25 / trials))
    assert np.isfinite(noise).all()
    assert -4 < np.min(noise) < np.max(noise) < 17


def test_the_noise_is_finite_at_both_ends():
    for end in (gumbel.TINY, gumbel.MOST):
        assert np.isfinite(-np.log(-np.log(np.float32(end))))


def test_a_cropped_batch_keeps_its_draws():
    long, short = (gumbel.noise_per_step(KEY, (steps, 2, 3)) for steps in (6, 4))
    np.testing.assert_array_equal(long[:4], short)
    assert len(np.unique(long)) == long.size


def test_the_penalty_counts_available_logits_of_valid_steps():
    logits = jnp.array([[[[1.0, 2.0], [3.0, 100.0]]], [[[50.0, 50.0], [50.0, 50.0]]]])  # [2, 1, 2, 2]
    avail = jnp.array([[[[True, True], [True, False]]], [[[True, True], [True, True]]]])
    mask = jnp.array([[1.0], [0.0]])
    size, slope = jax.value_and_grad(gumbel.mean_square_logit)(logits, avail, mask)
    np.testing.assert_allclose(size, (1 + 4 + 9) / 3, rtol=1e-6)
    np.testing.assert_allclose(slope[0, 0], np.array([[2, 4], [6, 0]]) / 3, rtol=1e-6)
    assert not np.any(slope[1])
    assert gumbel.mean_square_logit(logits, avail, jnp.zeros((2, 1))) == 0.0
