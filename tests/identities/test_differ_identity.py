"""DIFFER's gradients are the base learner's exactly where the specification (7.6) says so, and nowhere else."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from value_cases import (
    AGENTS,
    SPEC,
    assert_close,
    context,
    flat,
    gradients,
    init,
    learner_parts,
    random_batch,
    step,
    values_of,
)

from jaxshare.types import Discrete, EnvSpec

EXACT = {"select": "all", "g_clamp": None, "alive_mask": False, "normaliser": "team"}
RTOL = 1e-10


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield
    assert jnp.zeros(()).dtype == jnp.float32


@cache
def base_gradients(name, dead, **config):
    return gradients(learner_parts(name, **config), random_batch(dead=dead, dtype=jnp.float64), jnp.float64)


def both(name, differ, dead=True, **config):
    """Gradients of the base learner and of the same learner under DIFFER, on a batch with or without dead agents."""
    parts, batch = learner_parts(name, differ=differ, **config), random_batch(dead=dead, dtype=jnp.float64)
    base = base_gradients(name, dead, **config)
    assert flat(base).dtype == np.float64
    return base, gradients(parts, batch, jnp.float64)


@pytest.mark.parametrize("share", ["all", "none"])
@pytest.mark.parametrize("name", ["vdn", "qmix"])
def test_dividing_the_reward_changes_no_gradient(name, share):
    base, divided = both(name, EXACT, share_params=share)
    assert_close(divided["agent"], base["agent"], RTOL)
    if name == "qmix":
        assert_close(divided["mixer"], base["mixer"], RTOL)


def test_dividing_the_reward_changes_no_gradient_of_other_settings():
    settings = {"share_params": "type", "recurrent": False, "double_q": False, "bootstrap_on_timeout": True}
    base, divided = both("qmix", EXACT, hypernet_layers=1, **settings)
    assert_close(divided, base, RTOL)


@pytest.mark.parametrize("name", ["vdn", "qmix"])
def test_dividing_by_individual_transitions_is_a_factor_of_n(name):
    differ = {**EXACT, "normaliser": "individual", "alive_mask": True}  # nobody is dead: the mask changes nothing
    base, divided = both(name, differ, dead=False)
    scaled = jax.tree.map(lambda g: g * AGENTS, divided["agent"])
    assert_close(scaled, base["agent"], RTOL)


def dead_share(parts, batch):
    """sum m delta sum_{i dead} g_i dQ_i/dtheta, from the learner's own values."""
    algorithm = parts.assemble()
    learner, ctx = init(algorithm, dtype=jnp.float64), context(algorithm, jnp.float64)

    def values(params):
        return values_of(parts, learner, batch, ctx, params=params)

    def share(params):
        now = values(learner.params)
        delta = now.team_reward + now.discount * now.next_q_tot - now.q_tot
        g = jax.grad(lambda q: now.mix(q).sum())(now.q_taken)
        dead = batch.mask[..., None] * ~batch.alive[:-1]
        constant = jax.lax.stop_gradient(dead * delta[..., None] * g)
        return (constant * values(params).q_taken).sum()

    return jax.jit(jax.grad(share))(learner.params)["agent"]


@pytest.mark.parametrize("normaliser", ["individual", "team"])
@pytest.mark.parametrize("name", ["vdn", "qmix"])
def test_leaving_dead_agents_out_takes_their_share_away(name, normaliser):
    batch = random_batch(dtype=jnp.float64)
    base, divided = both(name, {**EXACT, "alive_mask": True, "normaliser": normaliser})
    valid = float(batch.mask.sum())
    valid_individual = float((batch.mask[..., None] * batch.alive[:-1]).sum())
    assert 0 < valid_individual < AGENTS * valid
    divisor = valid_individual if normaliser == "individual" else valid
    difference = jax.tree.map(lambda b, d: valid * b - divisor * d, base["agent"], divided["agent"])
    expected = jax.tree.map(lambda x: -2 * x, dead_share(learner_parts(name), batch))
    assert np.abs(flat(difference)).max() > 1e-2
    assert_close(difference, expected, RTOL)


@pytest.mark.parametrize(
    "changed",
    [{"select": "per"}, {"select": "greedy"}, {"alive_mask": True}, {"g_clamp": 0.01}, {"normaliser": "individual"}],
    ids=str,
)
def test_what_breaks_the_identity_leaves_the_mixer_alone(changed):
    base, divided = both("qmix", {**EXACT, **changed})
    assert_close(divided["mixer"], base["mixer"], RTOL)
    gap = np.abs(flat(divided["agent"]) - flat(base["agent"])).max()
    assert gap > 1e-3 * np.abs(flat(base["agent"])).max()


def test_a_clamp_that_is_never_reached_changes_nothing():
    base, divided = both("qmix", {**EXACT, "g_clamp": 1e6})
    assert_close(divided["agent"], base["agent"], RTOL)


def test_one_agent_makes_them_all_the_same():
    """IQL-2, and DIFFER on VDN: with one agent they are all Q-learning (DQN), loss and gradient."""
    spec = EnvSpec("alone", 1, 3, 2, Discrete(4), 5, (0,), ("unit",))
    batch = random_batch(spec=spec, dtype=jnp.float64)
    found = []
    for name, d in (("iql", None), ("vdn", None), ("vdn", {"select": "all"})):
        algorithm = learner_parts(name, spec, d).assemble()
        learner, ctx = init(algorithm, dtype=jnp.float64), context(algorithm, jnp.float64)
        found.append(step(algorithm, learner, batch, ctx)[:2])
    iql, vdn, differ = found
    for grads, metrics in (vdn, differ):
        assert_close(grads["agent"], iql[0]["agent"], RTOL)
        for name in ("loss/td", "td_error/abs_mean", "q/target_mean", "q/taken_mean"):
            np.testing.assert_allclose(metrics[name], iql[1][name], rtol=RTOL)
    np.testing.assert_allclose(differ[1]["loss/individual"], iql[1]["loss/td"], rtol=RTOL)


def test_individual_rewards_of_vdn_sum_to_the_team_reward_and_n_minus_one_errors():
    parts = learner_parts("vdn", differ={"g_clamp": None})
    algorithm, batch = parts.assemble(), random_batch(dead=False, dtype=jnp.float64)
    learner, ctx = init(algorithm, dtype=jnp.float64), context(algorithm, jnp.float64)
    shown = jax.jit(algorithm.inspect)(learner, batch, ctx)["individual_reward"]
    values = jax.jit(lambda: values_of(parts, learner, batch, ctx).replace(mix=None))()
    delta = values.team_reward + values.discount * values.next_q_tot - values.q_tot
    real = np.asarray(batch.mask) > 0
    expected = values.team_reward + (SPEC.num_agents - 1) * delta
    np.testing.assert_allclose(np.asarray(shown.sum(-1))[real], np.asarray(expected)[real], rtol=1e-9, atol=1e-9)


def test_the_regulariser_reaches_the_agents_only():
    """l1_coef adds its subgradient to the agents and nothing to the mixer."""
    parts = learner_parts("qmix", differ=EXACT)
    batch = random_batch(dtype=jnp.float64)
    plain, pulled = (gradients(parts, batch, jnp.float64, **{"differ.l1_coef": c}) for c in (0.0, 0.5))
    assert_close(pulled["mixer"], plain["mixer"], RTOL)
    signs = jax.tree.map(np.sign, init(parts.assemble(), dtype=jnp.float64).params["agent"])
    difference = jax.tree.map(lambda a, b: a - b, pulled["agent"], plain["agent"])
    assert_close(difference, jax.tree.map(lambda s: 0.5 * s, signs), RTOL)
