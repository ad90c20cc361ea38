"""Matrix games with uniform exploration reach the tables known in closed form (MG-1, MG-2), DIFFER's gradients MG-5."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from value_cases import assert_close, gradients, learner_parts

from jaxshare.envs.matrix import environment as matrix
from jaxshare.envs.matrix.tables import TABLES
from jaxshare.models.mixers import MixerInputs
from jaxshare.settings.records import RunConfig
from jaxshare.settings.run_parts import ReplayConfig
from jaxshare.training import replay
from jaxshare.training.counting import start_clock
from jaxshare.training.program import Program

pytestmark = pytest.mark.slow

UNIFORM = {"epsilon_start": 1.0, "epsilon_end": 1.0}
LEARNING_RATES = {"linear": [5e-3], "monotonic": [5e-3, 5e-4], "climbing": [5e-3, 5e-4, 1e-4]}  # one after the other
ITERATIONS, UPDATES = 250, 2  # at each learning rate, and updates in each
# a large ring that is renewed fast: what is left of the distance to the optimum is the imbalance of the stored actions
RUN = RunConfig(num_envs=256, batch_size=256, updates_per_episode=UPDATES / 256, replay=ReplayConfig(capacity=8192))
# row mean + column mean - grand mean: the best sum u_i + v_j under uniform data
SUMS = {
    "linear": [[1, 5], [5, 9]],
    "monotonic": [[-2.5, 2.5], [2.5, 7.5]],
    "climbing": [[-9.2222, -8.5556, -1.2222], [-10.5556, -9.8889, -2.5556], [0.7778, 1.4444, 8.7778]],
}
SUM_ERRORS = {"linear": 0, "monotonic": 6.25, "climbing": 175.0864}
MONOTONE_ERROR = 151.5556  # of the best monotone supermodular fit of climbing


def parts_of(name, game):
    env = matrix.make(matrix.Config(game=game))
    config = {"recurrent": False, "hidden_dim": 64, "obs_last_action": False}
    mixer = {"embed_dim": 32, "hypernet_dim": 16} if name == "qmix" else {}
    return env, learner_parts(name, env.spec, **config, **mixer)


@cache
def trained_table(name, game):
    """Q_tot of every joint action after training through the real program on uniform data."""
    env, parts = parts_of(name, game)
    algorithm = parts.assemble()
    program = Program(env, algorithm, RUN)
    values = {**algorithm.hparams, **UNIFORM}
    chunk = jax.jit(lambda state, hparams, clock: program.chunk(ITERATIONS, state, hparams, clock))
    hparams = {key: jnp.float32(value) for key, value in values.items()}
    state, clock = jax.jit(lambda: program.prefill(program.init(jnp.int32(0)), hparams, start_clock()))()
    for lr in LEARNING_RATES[game]:
        (state, _), clock = chunk(state, {**hparams, "lr": jnp.float32(lr)}, clock)
    assert int(clock.updates) == len(LEARNING_RATES[game]) * ITERATIONS * UPDATES
    return table(parts, state.learner.params)


def table(parts, params):
    """Q_tot [A, A], from the utilities of both agents at their constant observation."""
    spec = parts.spec
    x = parts.reads.build(jnp.ones((1, 1, 2, 1)), None)
    agent = parts.networks["agent"]
    _, q = agent.unroll(params["agent"], agent.initial_carry(1), x)
    first, second = q[0, 0]
    actions = spec.action.num_actions
    joint = jnp.stack([jnp.repeat(first, actions), jnp.tile(second, actions)], axis=-1)[None]
    seen = MixerInputs(q_max=joint, action=jnp.zeros(joint.shape, jnp.int32), state=jnp.ones((1, actions**2, 1)))
    return np.asarray(parts.mixer.apply(params["mixer"], joint, seen)).reshape(actions, actions)


def error(name, game):
    return np.mean(np.square(trained_table(name, game) - TABLES[game]))


def greedy(name, game):
    found = trained_table(name, game)
    return "".join("ABC"[i] for i in np.unravel_index(found.argmax(), found.shape))


@pytest.mark.parametrize("game", SUMS)
def test_mg1_vdn_reaches_the_best_sum(game):
    payoff = np.array(TABLES[game], float)
    best = payoff.mean(1, keepdims=True) + payoff.mean(0, keepdims=True) - payoff.mean()
    np.testing.assert_allclose(best, SUMS[game], atol=1e-4)
    np.testing.assert_allclose(np.mean(np.square(best - payoff)), SUM_ERRORS[game], atol=1e-3)
    np.testing.assert_allclose(trained_table("vdn", game), best, atol=0.5)
    assert SUM_ERRORS[game] - 1e-3 < error("vdn", game) < SUM_ERRORS[game] + 0.25


@pytest.mark.parametrize("game", ["linear", "monotonic"])
def test_mg2_qmix_is_exact_on_monotone_games(game):
    np.testing.assert_allclose(trained_table("qmix", game), TABLES[game], atol=0.5)


def test_mg2_qmix_stays_above_its_bound_on_climbing():
    assert error("qmix", "climbing") >= MONOTONE_ERROR - 1e-3
    assert error("qmix", "climbing") < SUM_ERRORS["climbing"]  # better than any sum
    assert greedy("qmix", "climbing") != "AA"


def test_mg3_vdn_settles_for_the_safe_outcome_of_climbing():
    assert greedy("vdn", "climbing") == "CC"


def test_mg4_differences_of_utilities_on_linear():
    found = trained_table("vdn", "linear")
    np.testing.assert_allclose(np.diff(found, axis=0), 4, atol=0.3)
    np.testing.assert_allclose(np.diff(found, axis=1), 4, atol=0.3)


def test_mg5_differ_has_the_base_gradients_on_climbing():
    env = matrix.make(matrix.Config(game="climbing"))
    exact = {"select": "all", "g_clamp": None, "alive_mask": False, "normaliser": "team"}
    base, divided = (learner_parts("qmix", env.spec, differ) for differ in (None, exact))
    algorithm = base.assemble()
    hparams = {key: jnp.float32(value) for key, value in {**algorithm.hparams, **UNIFORM}.items()}
    program = Program(env, algorithm, RunConfig(num_envs=32, batch_size=32, replay=ReplayConfig(capacity=32)))
    state, _ = jax.jit(lambda: program.prefill(program.init(jnp.int32(0)), hparams, start_clock()))()
    batch = replay.gather(state.replay, jnp.arange(32))
    with jax.enable_x64(True):
        batch = jax.tree.map(lambda x: x.astype(jnp.float64) if x.dtype == jnp.float32 else x, batch)
        expected, found = (gradients(parts, batch, jnp.float64) for parts in (base, divided))
    assert_close(found, expected, 1e-10)
    assert jnp.zeros(()).dtype == jnp.float32
