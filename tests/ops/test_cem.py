"""The cross-entropy method against numbers of the specification (CEM-1 to CEM-3), a slow loop, and its box."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxshare.ops import cem

KEY = jax.random.key(0)
KEYS = jax.random.split(KEY, 100)


@pytest.fixture(scope="module")
def found():
    """2000 searches for each of four maxima of -(a - c)^2, all rows of one call: {c: a [2000]}."""
    maxima = np.array([0.0, 0.3, 0.9, -1.0], np.float32)
    goal = jnp.repeat(jnp.array(maxima), 2000)

    def search(key):
        return cem.maximise(key, lambda a: -jnp.square(a[..., 0] - goal[None]), jnp.zeros((8000, 1)), 64, 6, 2)

    action, value = jax.jit(search)(KEY)
    np.testing.assert_allclose(value, -np.square(action[:, 0] - goal), atol=1e-6)
    return dict(zip(maxima.tolist(), np.asarray(action).reshape(4, 2000), strict=True))


@pytest.mark.parametrize("maximum", [0.0, 0.3, 0.9])
def test_cem1_inside_the_box(found, maximum):
    distance = next(np.abs(a - c) for c, a in found.items() if np.isclose(c, maximum))
    assert np.mean(distance < 0.1) >= 0.999
    assert distance.mean() < 3e-3


def test_cem1_at_its_edge(found):
    assert np.abs(found[-1.0] + 1).max() < 0.2
    assert 0.005 < np.abs(found[-1.0] + 1).mean() < 0.03


def test_cem2_the_standard_deviation_is_the_unbiased_one():
    mean, std = cem.refit(jnp.array([1.0, 2.0, 3.0])[:, None, None])
    np.testing.assert_allclose([mean[0, 0], std[0, 0]], [2.0, 1.0], rtol=1e-6)


def test_cem3_never_outside_the_box_whatever_the_start():
    start = jnp.array([[-50.0, 0.0], [50.0, 3.0]])
    action, _ = cem.maximise(KEY, lambda a: a.sum(-1), start, 8, 2, 3)
    assert np.all(np.abs(action) <= 1)
    np.testing.assert_allclose(action[:, 0], [-1, 1])


def slow(key, function, start, samples, elites, rounds):
    """One row [U] after the other, in numpy, from the same normals."""
    draws = [np.asarray(jax.random.normal(k, (samples, *start.shape))) for k in jax.random.split(key, rounds)]
    best = []
    for row in range(len(start)):
        mean, std = start[row], np.ones_like(start[row])
        for draw in draws:
            x = mean + std * draw[:, row]
            order = np.argsort(-function(np.tanh(x), row), kind="stable")[:elites]
            mean, std = x[order].mean(0), np.sqrt(np.sum((x[order] - x[order].mean(0)) ** 2, 0) / (elites - 1))
        best.append(np.tanh(x[order[0]]))
    return np.array(best)


@pytest.mark.parametrize(("samples", "elites", "rounds"), [(64, 6, 2), (8, 8, 1)])
def test_against_a_slow_loop(samples, elites, rounds):
    goal = np.random.default_rng(0).uniform(-1, 1, (5, 3)).astype(np.float32)
    start = np.zeros((5, 3), np.float32)
    action, _ = cem.maximise(KEY, lambda a: -jnp.abs(a - goal[None]).sum(-1), jnp.array(start), samples, elites, rounds)
    expected = slow(KEY, lambda a, row: -np.abs(a - goal[row]).sum(-1), start, samples, elites, rounds)
    np.testing.assert_allclose(action, expected, atol=1e-5)


def test_more_rounds_come_closer():
    goal = jnp.array([[0.5, -0.2, 0.1]])
    function = lambda a: -jnp.square(a - goal[None]).sum(-1)  # noqa: E731
    start = jnp.zeros((1, 3))
    gaps = [
        float(jax.vmap(lambda k, n=n: jnp.abs(cem.maximise(k, function, start, 64, 6, n)[0] - goal).max())(KEYS).mean())
        for n in (1, 4)
    ]
    assert gaps[0] > 4 * gaps[1]
    assert gaps[1] < 0.05


def test_a_row_does_not_see_the_others():
    goal = jnp.array([[0.5], [-0.5], [0.0]])
    search = lambda goal: cem.maximise(KEY, lambda a: -jnp.square(a - goal[None])[..., 0], 0 * goal, 16, 3, 2)[0]  # noqa: E731
    first, second = search(goal), search(goal.at[0].set(-0.9))
    np.testing.assert_array_equal(first[1:], second[1:])
    assert first[0] != second[0]


# ---- exploration


def test_noise_stays_near_and_in_the_box():
    action = jnp.concatenate([jnp.zeros((5000, 1)), jnp.ones((5000, 1))])
    moved = np.asarray(cem.perturb(KEY, action, jnp.float32(0.1), jnp.float32(0.0)))[:, 0]
    np.testing.assert_allclose([moved[:5000].mean(), moved[:5000].std()], [0, 0.1], atol=5e-3)
    assert moved.max() == 1.0
    np.testing.assert_allclose(np.mean(moved[5000:] == 1.0), 0.5, atol=0.05)


def test_uniform_actions_replace_whole_rows_at_their_rate():
    action = jnp.full((5000, 2), 0.5)
    moved = np.asarray(cem.perturb(KEY, action, jnp.float32(0.0), jnp.float32(0.3)))
    changed = np.any(moved != 0.5, axis=-1)
    np.testing.assert_array_equal(changed, np.all(moved != 0.5, axis=-1))
    np.testing.assert_allclose(changed.mean(), 0.3, atol=0.03)
    np.testing.assert_allclose(moved[changed].std(0), 1 / np.sqrt(3), atol=0.03)
    assert np.abs(moved).max() <= 1.0


def test_no_exploration_changes_nothing():
    action = jnp.array([[0.3, -1.0]])
    np.testing.assert_array_equal(cem.perturb(KEY, action, jnp.float32(0), jnp.float32(0)), action)
