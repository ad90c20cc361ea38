"""Returns against the tables of Mnih et al.'s n steps, GAE and TD(lambda), and against sums written out."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxshare.ops import returns

GAMMA = 0.99


def array(*x):
    return jnp.array(x, jnp.float32)


def laid_out(reward, last_value, terminated=(), truncated=None, value=None):
    """(reward, discount, next_value, end), [T] each. truncated: {step: value of its true successor}."""
    steps = len(reward)
    after = np.full(steps, 123.0)  # of steps whose successor does not matter to the return
    after[:-1] = 50.0 if value is None else value[1:]
    after[-1] = last_value
    end, discount = np.zeros(steps, bool), np.full(steps, GAMMA)
    for t in terminated:
        end[t], discount[t], after[t] = True, 0.0, 77.0
    for t, v in (truncated or {}).items():
        end[t], after[t] = True, v
    return array(*reward), array(*discount), array(*after), jnp.array(end)


@pytest.mark.parametrize("lambda_", [0.0, 0.6, 1.0])
def test_one_step_ahead_of_a_successor_is_the_lambda_return(lambda_):
    laid = laid_out(
        [1.0, -2.0, 3.0, 0.5, 2.0], 0.5, terminated=(1,), truncated={3: 0.7}, value=[0.1, 0.2, 0.3, 0.4, 0.5]
    )
    reward, discount, after, _ = laid
    successor = returns.lambda_successor(*laid, lambda_)
    np.testing.assert_allclose(reward + discount * successor, returns.td_lambda(*laid, lambda_), rtol=1e-6)
    np.testing.assert_array_equal(successor[jnp.array([1, 3, 4])], after[jnp.array([1, 3, 4])])  # ends, and the cut
    wide = [jnp.stack([x, x], axis=1) for x in laid]
    np.testing.assert_allclose(returns.lambda_successor(*wide, lambda_)[:, 1], successor, rtol=1e-6)


FIVE = [0.0, 0.0, 1.0, 0.0, 0.0]
TABLE = [
    ({}, [1.45559502, 1.470298005, 1.4851495, 0.49005, 0.495]),
    ({"terminated": (2,)}, [0.9801, 0.99, 1.0, 0.49005, 0.495]),
    ({"truncated": {2: 0.7}}, [1.6593093, 1.67607, 1.693, 0.49005, 0.495]),
]


@pytest.mark.parametrize(("ends", "expected"), TABLE)
def test_returns_to_the_end_of_a_piece(ends, expected):
    """The values of successors inside an episode are never read."""
    for n in (5, 9):
        np.testing.assert_allclose(returns.n_step(*laid_out(FIVE, 0.5, **ends), n), expected, rtol=1e-6)


def test_a_step_that_is_cut_is_not_thrown_away():
    """The rule of SEAC's code would set R_t = V(o_t) there: [.29403, .297, .3, ...] with V = .3."""
    found = returns.n_step(*laid_out(FIVE, 0.5, truncated={2: 0.7}), 5)
    assert np.all(np.abs(found[:3] - np.array([0.29403, 0.297, 0.3])) > 1)


@pytest.mark.parametrize(
    ("values", "last", "n", "terminated", "expected"),
    [
        ([0.5, 0.5, 0.5], 0.9, 5, (2,), [2.9701, 1.99, 1.0]),  # EPyMARL's code: [3.8433691, 2.87209, 1.891]
        ([0.5, 0.6, 0.7], 0.9, 2, (), [2.67607, 2.87209, 1.891]),
    ],
)
def test_n_steps_of_an_episode(values, last, n, terminated, expected):
    found = returns.n_step(*laid_out([1.0, 1.0, 1.0], last, terminated, value=values), n)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("terminated", "expected"), [((), [1.870415, 0.930798, 0.995]), ((1,), [0.52475, -0.5, 0.995])]
)
def test_generalised_advantages(terminated, expected):
    reward, discount, after, end = laid_out([1.0, 0.0, 1.0], 0.5, terminated, value=[0.5] * 3)
    value = array(0.5, 0.5, 0.5)
    found = returns.gae(reward, discount, value, after, end, jnp.float32(0.95))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    targets = returns.td_lambda(reward, discount, after, end, jnp.float32(0.95))
    np.testing.assert_allclose(targets, found + 0.5, atol=1e-6)


@pytest.mark.parametrize(
    ("lambda_", "terminated", "expected"),
    [
        (0.8, True, [2.687752, 1.881, 2.0]),
        (0.8, False, [3.122446, 2.429856, 2.693]),
        (0.0, True, [1.99, 1.485, 2.0]),
        (1.0, True, [2.9602, 1.98, 2.0]),
    ],
)
def test_td_lambda(lambda_, terminated, expected):
    ends = {"terminated": (2,)} if terminated else {"truncated": {2: 0.7}}
    given = laid_out([1.0, 0.0, 2.0], 0.7, value=[0.5, 1.0, 1.5], **ends)
    np.testing.assert_allclose(returns.td_lambda(*given, jnp.float32(lambda_)), expected, rtol=1e-6)


# ------------------------------------------------------------------------------------------------------------ by sums


def draw(seed, steps=9, batch=4):
    """[T, B, 2] each, with both kinds of end scattered over it."""
    rng = np.random.default_rng(seed)
    shape = (steps, batch, 2)
    terminated, truncated = (np.repeat(rng.random((steps, batch, 1)) < 0.2, 2, -1) for _ in range(2))
    reward, value, after = (rng.normal(size=shape) for _ in range(3))
    return reward, GAMMA * (1 - terminated), value, after, terminated | truncated


def slow_n_step(reward, discount, after, end, n):
    found = np.zeros_like(reward)
    for t, b, i in np.ndindex(*reward.shape):
        weight = 1.0
        for u in itertools.count(t):
            found[t, b, i] += weight * reward[u, b, i]
            weight *= discount[u, b, i]
            if end[u, b, i] or u == len(reward) - 1 or u == t + n - 1:
                found[t, b, i] += weight * after[u, b, i]
                break
    return found


@pytest.mark.parametrize("n", [1, 2, 4, 9, 20])
def test_n_steps_against_sums(n):
    reward, discount, _, after, end = draw(n)
    given = [jnp.array(x, jnp.float32) for x in (reward, discount, after)]
    found = jax.jit(lambda *x: returns.n_step(*x, n))(*given, jnp.array(end))
    np.testing.assert_allclose(found, slow_n_step(reward, discount, after, end, n), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("lambda_", [0.0, 0.3, 0.95, 1.0])
def test_td_lambda_is_the_weighted_mean_of_n_steps(lambda_):
    """G_t = (1 - l) sum_n l^(n-1) R^(n)_t, with all of the rest on the longest; and GAE is that less the value."""
    reward, discount, value, after, end = draw(3)
    expected, weight = np.zeros_like(reward), 1.0
    for n in range(1, 10):
        share = (1 - lambda_) * weight if n < 9 else weight
        expected += share * slow_n_step(reward, discount, after, end, n)
        weight *= lambda_
    r, d, v, a = (jnp.array(x, jnp.float32) for x in (reward, discount, value, after))
    found = returns.td_lambda(r, d, a, jnp.array(end), jnp.float32(lambda_))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    # where the values are one function of the observation, as they are inside an episode
    a = jnp.where(end, a, jnp.concatenate([v[1:], a[-1:]]))
    both = (
        returns.td_lambda(r, d, a, jnp.array(end), jnp.float32(lambda_)),
        returns.gae(r, d, v, a, jnp.array(end), jnp.float32(lambda_)),
    )
    np.testing.assert_allclose(both[0] - v, both[1], rtol=1e-4, atol=1e-5)


def test_nothing_of_the_next_episode_is_seen():
    reward, discount, value, after, end = draw(5)
    last = 3
    end[last] = True
    later = np.arange(len(end)) > last
    noise = np.where(later[:, None, None], 1e6, 0.0)
    a = [jnp.array(x, jnp.float32) for x in (reward, discount, value, after)]
    b = [jnp.array(x, jnp.float32) for x in (reward + noise, discount, value + noise, after + noise)]
    stop, lambda_ = jnp.array(end), jnp.float32(0.9)
    for one, other in (
        *((returns.n_step(x[0], x[1], x[3], stop, n) for x in (a, b)) for n in (2, 9)),
        (returns.td_lambda(x[0], x[1], x[3], stop, lambda_) for x in (a, b)),
        (returns.gae(*x, stop, lambda_) for x in (a, b)),
    ):
        np.testing.assert_array_equal(one[: last + 1], other[: last + 1])


def test_shapes_must_agree():
    x = jnp.zeros((3, 2))
    with pytest.raises(AssertionError):
        returns.n_step(x, x, x, jnp.zeros(3, bool), 2)
