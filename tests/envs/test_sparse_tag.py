"""SEAC's sparse predator-prey: what it pays and charges, when it ends, and what simple policies return."""

from functools import cache

import hunters
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxshare.envs.mpe import environment as mpe
from jaxshare.types import RefusedError

EPISODES = 2048


@cache
def compiled(**settings):
    env = mpe.make(mpe.Config(scenario="sparse_tag", **settings))
    return env, jax.jit(env.reset), jax.jit(env.step)


def after(places, **settings):
    """The TimeStep after a step in which nobody pushes: prey last, obstacles out of the way."""
    _, reset, step = compiled(prey="random", **settings)
    state, _ = reset(jax.random.key(0))
    state = state.replace(position=jnp.array(places), landmark=jnp.array([[-0.8, 0.8], [0.8, -0.8]]))
    _, shown = step(state, jnp.zeros(3, jnp.int32), jax.random.key(0))  # places change with the velocity, now 0
    return shown


@pytest.mark.parametrize(
    ("places", "reward"),
    [
        ([(0.2, 0.0), (0.0, 0.2), (0.8, 0.8)], [1, 1, 0]),  # who is not adjacent gets nothing
        ([(0.2, 0.0), (0.0, 0.2), (-0.2, 0.0)], [1, 1, 1]),
        ([(0.2, 0.0), (0.0, 0.3), (0.8, 0.8)], [0, 0, 0]),  # one alone does not catch
    ],
)
def test_adjacent_predators_succeed_together_and_that_is_the_end(places, reward):
    shown = after([*places, (0.0, 0.0)])
    assert shown.reward.tolist() == reward
    assert float(shown.info["caught"]) == max(reward)
    assert (bool(shown.terminated), bool(shown.truncated)) == (bool(max(reward)), False)


def test_a_catch_at_the_limit_is_the_end_not_the_limit():
    assert bool(after([(0.2, 0.0), (0.0, 0.2), (0.8, 0.8), (0.0, 0.0)], max_steps=1).terminated)
    last = after([(0.2, 0.0), (0.0, 0.3), (0.8, 0.8), (0.0, 0.0)], max_steps=1)
    assert (bool(last.terminated), bool(last.truncated)) == (False, True)


def test_only_what_lies_outside_the_map_is_charged():
    places = [(0.99, -0.99), (1.01, 0.0), (-1.2, 1.5), (0.0, 0.0)]
    np.testing.assert_allclose(after(places).reward, [0.0, -0.05, -0.05], rtol=1e-6)
    np.testing.assert_allclose(after(places, boundary_penalty=0.2).reward, [0.0, -0.2, -0.2], rtol=1e-6)
    assert after(places, boundary_penalty=0.0).reward.tolist() == [0, 0, 0]


def test_the_distance_is_a_setting():
    places = [(0.3, 0.0), (0.0, 0.3), (0.8, 0.8), (0.0, 0.0)]
    assert after(places).reward.tolist() == [0, 0, 0]
    assert after(places, catch_distance=0.2).reward.tolist() == [1, 1, 0]


def test_speeds_are_settings():
    _, reset, step = compiled(predator_speed=0.3, prey_speed=0.2)
    state, _ = reset(jax.random.key(1))
    top = np.zeros(4)
    for t in range(10):
        state, _ = step(state, jnp.full(3, 2, jnp.int32), jax.random.key(t))
        top = np.maximum(top, np.linalg.norm(state.velocity, axis=1))
    np.testing.assert_allclose(top, [0.3, 0.3, 0.3, 0.2], rtol=1e-4)


def test_nobody_starts_near_the_edge():
    env, _, _ = compiled()
    start, shown = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), 1000))
    assert 0.68 < float(jnp.abs(start.position).max()) <= 0.7
    assert 0.85 < float(jnp.abs(start.landmark).max()) <= 0.9
    assert not bool(shown.terminated.any())
    assert not bool(shown.reward.any())


@cache
def outcome(policy, **settings):
    return hunters.outcome(policy, EPISODES, scenario="sparse_tag", **settings)


def test_random_play_returns_almost_nothing_and_a_chaser_gains():
    """The paper's untrained agents: about -0.04, its best 1.93 and 2.04."""
    assert -0.5 < outcome("random").value < 0.0
    assert -0.1 < outcome("still").value <= 0.1
    assert outcome("chase").value > 1.0
    assert outcome("chase").caught > 0.5 > 0.1 > outcome("random").caught


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"catch_distance": 0.1}, {"prey_speed": 0.5}, {"boundary_penalty": 0.1}])
def test_a_chaser_gains_under_other_settings_too(settings):
    assert -0.5 < outcome("random", **settings).value < 0.0
    assert outcome("chase", **settings).value > 0.5


def test_in_the_earlier_version_the_charge_outweighs_the_catches():
    """Why it is the task no more."""
    hiding, hunting = (hunters.outcome(p, EPISODES, scenario="sparse_tag_dense_penalty") for p in ("still", "chase"))
    assert hunting.caught > 1.0
    assert hunting.value < 0.0
    assert hiding.value < -5.0


@pytest.mark.parametrize("key", ["catch_distance", "boundary_penalty", "predator_speed", "prey_speed"])
@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
def test_refusals(key, value):
    with pytest.raises(RefusedError, match=f"env.{key}={value}"):
        mpe.make(mpe.Config(scenario="sparse_tag", **{key: value}))
