"""Running moments: the numbers of EPyMARL's example, and that they are those of everything that was seen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxshare.ops import moments


def merged(*batches):
    found = moments.start(batches[0][0].shape[-1])
    for x, mask in batches:
        found = moments.merge(found, jnp.array(x, jnp.float32), jnp.array(mask, jnp.float32))
    return found


def test_the_first_batch():
    x = np.array([[0.0], [0.0], [3.0]])
    found = merged((x, [1, 1, 1]))
    np.testing.assert_allclose([found.mean[0], found.var[0], found.count], [0.99996667, 2.99996667, 3.0001], rtol=1e-6)
    shown = moments.standardise(found, jnp.array(x, jnp.float32), centre=True)[:, 0]
    np.testing.assert_allclose(shown, [-0.577334, -0.577334, 1.154726], atol=1e-6)
    scaled = moments.standardise(found, jnp.array(x, jnp.float32), centre=False)[:, 0]
    np.testing.assert_allclose(scaled, x[:, 0] / np.sqrt(2.99996667), rtol=1e-6)


@pytest.mark.slow
def test_many_batches_against_a_slow_count():
    """Each adds n var_b with the unbiased var_b, as the reference does, so that it is not the variance of all."""
    rng = np.random.default_rng(0)
    batches = [(rng.normal(size=(4, n, 2)) * 3 + 5, rng.random((4, n)) < 0.7) for n in (3, 1, 8)]
    mean, var, count = np.zeros(2), np.ones(2), 1e-4
    for x, mask in batches:
        real, n = x[mask], mask.sum()
        delta, total = real.mean(0) - mean, count + n
        var = (var * count + real.var(0, ddof=1) * n + delta**2 * count * n / total) / total
        mean, count = mean + delta * n / total, total
    found = merged(*batches)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-5)
    np.testing.assert_allclose(found.var, var, rtol=1e-5)
    everything = np.concatenate([x[mask] for x, mask in batches])
    np.testing.assert_allclose(found.mean, everything.mean(0), rtol=1e-4)
    np.testing.assert_allclose(found.var, everything.var(0), rtol=0.15)


def test_what_is_masked_does_not_count():
    x, mask = np.array([[1.0], [4.0], [7.0], [9.0]]), np.array([1, 1, 0, 0])
    found = merged((x, mask))
    for junk in (1e9, np.nan, np.inf):
        dirty = merged((np.where(mask[:, None] > 0, x, junk), mask))
        jax.tree.map(np.testing.assert_array_equal, found, dirty)
    jax.tree.map(np.testing.assert_array_equal, merged((x, mask), (x, 0 * mask)), found)


@pytest.mark.parametrize("value", [0.0, 1.0, -2.5])
def test_a_constant_and_a_single_sample_stay_finite(value):
    found = merged(*[(np.full((100, 1), value), np.ones(100))] * 20, (np.full((1, 1), value), np.ones(1)))
    shown = moments.standardise(found, jnp.full((1, 1), value), centre=True)
    assert np.isfinite(shown).all()
    assert np.abs(shown) < 0.1
