"""Schedules, masks, targets and exploration: the numbers of the specification (C-1, C-2, C-5) and slow loops."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxshare import registry
from jaxshare.ops import masking, td
from jaxshare.ops.policy import epsilon_greedy
from jaxshare.ops.schedules import crossed, exploration_rate, linear
from jaxshare.training import rollout
from jaxshare.types import Algorithm, Discrete, Env, EnvSpec, RefusedError, TimeStep

KEY = jax.random.key(0)


# ---- schedules


@pytest.mark.parametrize(
    ("step", "epsilon"), [(0, 1.0), (10_000, 0.81), (25_000, 0.525), (50_000, 0.05), (60_000, 0.05)]
)
def test_c1_epsilon(step, epsilon):
    found = jax.jit(linear)(jnp.float32(1.0), jnp.float32(0.05), jnp.int32(step), jnp.float32(50_000.0))
    np.testing.assert_allclose(found, epsilon, rtol=1e-6)


def test_a_schedule_without_duration_is_at_its_end_after_the_first_step():
    step = jnp.array([0, 1, 100], jnp.int32)
    found = jax.vmap(linear, (None, None, 0, None))(jnp.float32(1), jnp.float32(0.2), step, jnp.float32(0))
    np.testing.assert_allclose(found, [1.0, 0.2, 0.2], rtol=1e-6)


def test_a_schedule_may_rise_and_start_equal_to_end():
    assert float(linear(0.6, 1.0, jnp.int32(25), 100)) == pytest.approx(0.7)
    assert float(linear(0.3, 0.3, jnp.int32(25), 100)) == pytest.approx(0.3)


@pytest.mark.parametrize(("share", "epsilon"), [(0.0, 1.0), (0.125, 0.7625), (0.25, 0.525), (0.5, 0.05), (1.0, 0.05)])
def test_exploration_may_fall_over_a_fraction_of_the_run(share, epsilon):
    h = {"epsilon_start": 1.0, "epsilon_end": 0.05, "epsilon_anneal_steps": 50_000.0, "epsilon_anneal_fraction": 0.5}
    rate = jax.jit(exploration_rate, static_argnums=2)
    for total in (9_000, 24_000, 2_000_000):
        at = jnp.int32(share * total)
        np.testing.assert_allclose(rate(h, at, total), epsilon, rtol=1e-5)
        np.testing.assert_allclose(
            rate({**h, "epsilon_anneal_fraction": 0.0}, at, total),
            max(0.05, 1 - 0.95 * share * total / 50_000),
            rtol=1e-5,
        )


@pytest.mark.parametrize("name", ["qmix", "comix", "coma", "facmac", "seql"])
def test_a_fraction_that_is_none_is_refused(name):
    module = registry.get("algo", name)
    usual = module.Config().hparams
    for value in (-0.1, 1.5):
        with pytest.raises(RefusedError, match=r"algo\.hparams\.epsilon_anneal_fraction="):
            module.Config(hparams=dataclasses.replace(usual, epsilon_anneal_fraction=value))
    module.Config(hparams=dataclasses.replace(usual, epsilon_anneal_fraction=1.0))


@pytest.mark.parametrize("stride", [1, 3, 7, 200, 450])
def test_every_period_is_crossed_whatever_the_stride(stride):
    period, before = 200, np.arange(0, 9000, stride)
    found = jax.jit(lambda b: crossed(b, b + stride, period))(jnp.array(before))
    expected = [any(n % period == 0 for n in range(b + 1, b + stride + 1)) for b in before]
    assert found.tolist() == expected


def test_the_first_crossing_is_at_the_period_and_not_at_zero():
    found = [bool(crossed(jnp.int32(b), jnp.int32(b + 1), 200)) for b in (0, 198, 199, 200, 398, 399)]
    assert found == [False, False, True, False, False, True]


# ---- masks


def counting_env(limit, length, terminal):
    """An environment that shows its step count and ends after `length` steps."""
    spec = EnvSpec("count", 2, 1, 1, Discrete(3), limit, (0, 0), ("unit",))

    def show(count, reward):
        over = count >= length
        return TimeStep(
            obs=jnp.full((2, 1), count + 1.0),
            state=jnp.full(1, count + 1.0),
            avail=jnp.tile(jnp.array([True, True, False]), (2, 1)),
            alive=jnp.ones(2, bool),
            reward=jnp.full(2, reward),
            terminated=over & terminal,
            truncated=over & (not terminal),
            info={"paid": reward},
        )

    def reset(key):
        return jnp.int32(0), show(jnp.int32(0), jnp.float32(0))

    def step(count, action, key):
        return count + 1, show(count + 1, jnp.float32(1))

    return Env(spec, reset, step)


def collect(env):
    def act(params, carry, shown, ctx, key, explore):
        return carry, jnp.ones(shown.obs.shape[:2], jnp.int32), {"seen": shown.obs}

    player = Algorithm(
        name="one", spec=env.spec, hparams={}, init=None, initial_carry=lambda batch: (), act=act, sample=None,
        update=None, inspect=None,
    )  # fmt: skip
    return rollout.episodes(rollout.Players(env, player, {}, None, True), KEY, 2)


@pytest.mark.parametrize(
    ("limit", "length", "terminal", "mask"),
    [
        (4, 3, True, [1, 1, 1, 0]),
        (4, 4, False, [1, 1, 1, 1]),
        (6, 4, False, [1, 1, 1, 1, 0, 0]),  # no phantom fifth step, although nothing terminated
        (3, 1, True, [1, 0, 0]),
    ],
)
def test_c2_the_mask_is_one_on_real_transitions_only(limit, length, terminal, mask):
    played = collect(counting_env(limit, length, terminal))
    episode = played.episode
    for b in range(2):
        np.testing.assert_array_equal(episode.mask[:, b], mask)
        ends = np.arange(limit) == length - 1
        np.testing.assert_array_equal(episode.terminated[:, b], ends & terminal)
        np.testing.assert_array_equal(episode.truncated[:, b], ends & (not terminal))
        np.testing.assert_array_equal(episode.reward[:, b, 0], mask)
        np.testing.assert_array_equal(episode.action[:, b, 1], mask)
        np.testing.assert_array_equal(episode.extras["seen"][:, b, 0, 0], np.arange(1, limit + 1) * np.array(mask))
    assert played.info["paid"].tolist() == [length, length]


def test_the_true_last_observation_is_kept_and_padding_is_harmless():
    episode = collect(counting_env(6, 4, False)).episode
    np.testing.assert_array_equal(episode.obs[:, 0, 0, 0], [1, 2, 3, 4, 5, 0, 0])
    np.testing.assert_array_equal(episode.state[:, 0, 0], [1, 2, 3, 4, 5, 0, 0])
    np.testing.assert_array_equal(episode.avail[:, 0, 0, 2], [0, 0, 0, 0, 0, 1, 1])
    np.testing.assert_array_equal(episode.alive[:, 0, 0], [1, 1, 1, 1, 1, 0, 0])


def test_masked_sum_and_mean_ignore_what_is_masked_even_nan():
    x, mask = jnp.array([[1.0, jnp.nan], [3.0, jnp.inf]]), jnp.array([[1.0, 0.0], [1.0, 0.0]])
    assert float(masking.masked_sum(x, mask)) == 4
    assert float(masking.masked_mean(x, mask)) == 2
    assert float(masking.masked_mean(x, mask > 0)) == 2


def test_the_mean_of_nothing_is_zero_with_zero_gradient():
    x, mask = jnp.array([5.0, -7.0]), jnp.zeros(2)
    value, grad = jax.value_and_grad(masking.masked_mean)(x, mask)
    assert float(value) == 0
    np.testing.assert_array_equal(grad, [0, 0])


def test_masked_reductions_against_a_loop():
    rng = np.random.default_rng(0)
    x, mask = rng.normal(size=(5, 4, 3)).astype(np.float32), rng.random((5, 4, 3)) < 0.6
    total = sum(float(x[i]) for i in np.ndindex(x.shape) if mask[i])
    np.testing.assert_allclose(jax.jit(masking.masked_sum)(x, mask), total, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(masking.masked_mean)(x, mask), total / mask.sum(), rtol=1e-5)
    by_row = jax.vmap(masking.masked_mean)(jnp.array(x), jnp.array(mask))
    np.testing.assert_allclose(by_row, [x[i][mask[i]].mean() for i in range(5)], rtol=1e-5)


def test_c5_masked_argmax():
    q, avail = jnp.array([1.0, 5.0, 3.0]), jnp.array([True, False, True])
    assert int(masking.masked_argmax(q, avail)) == 2
    assert float(masking.masked_max(q, avail)) == 3


def test_masked_extremes_against_a_loop():
    rng = np.random.default_rng(1)
    q = rng.normal(size=(6, 2, 5)).astype(np.float32) * 100
    avail = rng.random((6, 2, 5)) < 0.5
    avail[..., 0] |= ~avail.any(-1)
    best = jax.jit(masking.masked_argmax)(q, avail)
    top = jax.jit(masking.masked_max)(q, avail)
    for i in np.ndindex(6, 2):
        allowed = [a for a in range(5) if avail[i][a]]
        assert best[i] == max(allowed, key=lambda a: q[i][a])
        assert top[i] == max(q[i][a] for a in allowed)
    taken = masking.take_last(jnp.array(q), best)
    np.testing.assert_array_equal(taken, top)


def test_a_row_without_available_actions_stays_finite():
    top, grad = jax.value_and_grad(lambda q: masking.masked_max(q, jnp.zeros(3, bool)))(jnp.ones(3))
    assert np.isfinite(top)
    assert np.all(np.isfinite(grad))


# ---- targets


def test_c5_double_q_chooses_online_and_evaluates_the_target():
    here = jnp.zeros((1, 1, 3))
    q = jnp.concatenate([here, jnp.array([[[1.0, 2.0, 9.0]]])])
    target_q = jnp.concatenate([here, jnp.array([[[4.0, 3.0, 7.0]]])])
    avail = jnp.array([[[1, 1, 1]], [[1, 1, 0]]], bool)
    double, single = (td.next_q(q, target_q, avail, double=d) for d in (True, False))
    assert double.tolist() == [[3.0]]
    assert single.tolist() == [[4.0]]
    reward, value = jnp.ones((1, 1)), jnp.zeros((1, 1))
    discount = td.discounts(jnp.float32(0.99), jnp.zeros((1, 1), bool), jnp.zeros((1, 1), bool), False)
    np.testing.assert_allclose(td.td_error(reward, discount, double, value), [[3.97]], rtol=1e-6)
    np.testing.assert_allclose(td.td_error(reward, discount, single, value), [[4.96]], rtol=1e-6)


def test_next_q_against_a_loop():
    rng = np.random.default_rng(2)
    q, target_q = rng.normal(size=(2, 5, 3, 2, 4)).astype(np.float32)
    avail = rng.random(q.shape) < 0.6
    avail[..., 1] |= ~avail.any(-1)
    found = jax.jit(td.next_q, static_argnums=3)(q, target_q, avail, True)
    assert found.shape == (4, 3, 2)
    for t, b, i in np.ndindex(found.shape):
        at = t + 1, b, i
        best = max((a for a in range(4) if avail[at][a]), key=lambda a: q[at][a])
        assert found[t, b, i] == target_q[at][best]


@pytest.mark.parametrize(("on_timeout", "discount"), [(False, [0.9, 0, 0]), (True, [0.9, 0, 0.9])])
def test_a_time_limit_ends_the_bootstrap_unless_asked_otherwise(on_timeout, discount):
    terminated, truncated = jnp.array([[False, True, False]]), jnp.array([[False, False, True]])
    np.testing.assert_allclose(td.discounts(jnp.float32(0.9), terminated, truncated, on_timeout)[0], discount)


def test_the_td_error_has_a_gradient_for_the_value_only():
    one = jnp.ones(1)
    grads = jax.grad(lambda *args: td.td_error(*args)[0], argnums=(0, 1, 2, 3))(one, one, one, one)
    assert [g.item() for g in grads] == [0, 0, 0, -1]


# ---- exploration


def draws(epsilon, count=20_000):
    """Actions [count, 3] of three agents whose best actions are 0, 1, 2, with 4, 3 and 1 available."""
    q = jnp.array([[9.0, 0, 0, 0], [0, 9.0, 0, 8], [0, 0, -5, 9]])
    avail = jnp.array([[1, 1, 1, 1], [1, 1, 1, 0], [0, 0, 1, 0]], bool)
    shape = (count, 3, 4)
    choose = jax.jit(lambda: epsilon_greedy(KEY, jnp.broadcast_to(q, shape), jnp.broadcast_to(avail, shape), epsilon))
    return np.asarray(choose()), np.asarray(avail)


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
def test_exploration_is_uniform_over_available_actions(epsilon):
    action, avail = draws(jnp.float32(epsilon))
    for i, best in enumerate((0, 1, 2)):
        frequency = np.bincount(action[:, i], minlength=4) / len(action)
        expected = epsilon * avail[i] / avail[i].sum() + (1 - epsilon) * (np.arange(4) == best)
        np.testing.assert_array_equal(frequency[~avail[i]], 0)  # an unavailable action is never played
        np.testing.assert_allclose(frequency, expected, atol=4 * 0.5 / np.sqrt(len(action)))


def test_every_agent_tosses_its_own_coin():
    action, _ = draws(jnp.float32(0.5))
    greedy = np.stack([action[:, 0] == 0, action[:, 1] == 1]).astype(float)
    np.testing.assert_allclose(greedy.mean(1), [0.5 + 0.125, 0.5 + 1 / 6], atol=0.015)
    assert abs(np.corrcoef(greedy)[0, 1]) < 4 / np.sqrt(action.shape[0])
    both = np.corrcoef(action[:, 0], action[:, 1])[0, 1]
    assert abs(both) < 4 / np.sqrt(action.shape[0])


def test_steps_are_independent_of_each_other():
    action, _ = draws(jnp.float32(1.0))
    assert abs(np.corrcoef(action[:-1, 0], action[1:, 0])[0, 1]) < 4 / np.sqrt(len(action))
