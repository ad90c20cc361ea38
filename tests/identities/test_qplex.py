"""QPLEX assembled: two episodes by hand, padding, its penalty, under DIFFER (QD-1 to QD-3), and the games (QPLEX-6)."""

import dataclasses
import itertools
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_padding_and_ends import (
    FIRST,
    FIRST_TARGET,
    GAMMA,
    PAIR,
    REAL,
    REWARD,
    SECOND,
    SECOND_TARGET,
    ends,
    hand_batch,
    junk,
    table,
)
from value_cases import (
    KEY,
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
    view_of,
)

from jaxshare.algos.qplex import algorithm as qplex
from jaxshare.algos.qplex.mixer import duplex
from jaxshare.envs.matrix import environment as matrix
from jaxshare.envs.matrix.tables import TABLES
from jaxshare.learners.value import Values
from jaxshare.models.agents import AgentNetwork
from jaxshare.modifiers.differ import modifier as differ
from jaxshare.ops import differ as ops_differ
from jaxshare.ops import td
from jaxshare.types import Episode

WIDE = dataclasses.replace(SPEC, state_dim=7)  # two numbers of each agent, and one more
SMALL = {"hypernet_dim": 4, "num_kernels": 2}
QATTEN = {**SMALL, "mixer": "qatten", "unit_dim": 2, "embed_dim": 3, "num_heads": 2}
BOTH = {**QATTEN, "weighted_head": True, "nonlinear": True}
EXACT = {"select": "all", "g_clamp": None, "alive_mask": False, "normaliser": "team"}


def parts_of(config, differ=None, **more):
    return learner_parts("qplex", WIDE, differ, **config, **more)


# ---- two episodes by hand: the utilities are the parameters, the mixer ignores the state

W = np.array([2, 0.5])
AGENTS_LOGIT = np.array([0, np.log(3)])
ACTION_LOGIT = np.array([[0.3, -1], [0.7, 0.2], [-0.4, 1.1], [0, 0.5]])  # of agent 0's actions, then of agent 1's


def fixed_mixer(key, bias):
    """One kernel; parameters of `qplex_mixer` for two agents with two actions and a state of one number."""
    affine = lambda rows, b: {"kernel": jnp.zeros((rows, len(b))), "bias": jnp.array(b, jnp.float32)}  # noqa: E731
    actions = {**affine(5, [0, 0]), "kernel": jnp.array(np.vstack([[0, 0], ACTION_LOGIT]), jnp.float32)}
    return {
        "weights": {"w_hidden": affine(1, [0]), "w_out": affine(1, W * [1, -1]), "b_hidden": affine(1, [0])}
        | {"b_out": affine(1, bias)},
        "importance": {
            "key": {"first": affine(1, [key])}, "agents": {"first": affine(1, AGENTS_LOGIT)},
            "actions": {"first": actions},
        },
    }  # fmt: skip


ONLINE, TARGET = (-2, [0.1, -0.2]), (3, [1, 0.5])


def slow_mix(mixer, q, q_max, action):
    key, bias = mixer
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    importance = abs(key) * sigmoid(AGENTS_LOGIT) * sigmoid(ACTION_LOGIT[action[0]] + ACTION_LOGIT[2 + action[1]])
    return np.sum(W * q_max + bias + importance * W * (q - q_max))


def slow_deltas(on_timeout, double):
    """(delta [slot, episode], whether actions are greedy [slot, episode, agent])."""
    batch, q, target = hand_batch(), table(FIRST, SECOND), table(FIRST_TARGET, SECOND_TARGET)
    avail, action = np.asarray(batch.avail), np.asarray(batch.action)
    q, target = (np.where(avail, x, -np.inf) for x in (np.asarray(q), np.asarray(target)))
    delta, greedy = np.zeros((3, 2)), action == q[:-1].argmax(-1)
    for at in zip(*np.nonzero(REAL), strict=True):
        later = (at[0] + 1, at[1])
        taken, agents = action[at], np.arange(2)
        best = (q if double else target)[later].argmax(-1)
        now = slow_mix(ONLINE, q[at][agents, taken], q[at].max(-1), taken)
        then = slow_mix(TARGET, target[later][agents, best], target[later].max(-1), best)
        delta[at] = REWARD[at] + GAMMA * (1 - ends(on_timeout)[at]) * then - now
    return delta, greedy


@pytest.mark.parametrize(
    ("on_timeout", "double_q", "differ"), [(False, True, None), (True, False, None), (True, True, {"select": "all"})]
)
def test_two_episodes_by_hand(on_timeout, double_q, differ):
    config = {"num_kernels": 1, "hypernet_dim": 1, "bootstrap_on_timeout": on_timeout, "double_q": double_q}
    tables = AgentNetwork(
        init=lambda key: table(FIRST, SECOND),
        initial_carry=lambda batch: jnp.zeros((batch, 2, 0)),
        unroll=lambda params, carry, x: (carry, params),
        param_sets=(0, 0),
    )
    algorithm = learner_parts("qplex", PAIR, differ, **config).with_network("agent", tables).assemble()
    learner, batch = init(algorithm), hand_batch()
    params = {"agent": table(FIRST, SECOND), "mixer": fixed_mixer(*ONLINE)}
    target = {"agent": table(FIRST_TARGET, SECOND_TARGET), "mixer": fixed_mixer(*TARGET)}
    assert jax.tree.map(jnp.shape, learner.params) == jax.tree.map(jnp.shape, params)
    learner = learner.replace(params=params, target_params=target)
    found, metrics, _ = step(algorithm, learner, batch, context(algorithm, gamma=GAMMA))
    delta, greedy = slow_deltas(on_timeout, double_q)
    share = np.ones((3, 2, 2)) if differ is None else np.asarray(batch.alive[:-1]) * 5 / 9  # 9 of 10 lived
    expected = -2 * delta[..., None] * W * share * REAL[..., None] / 5
    taken = np.take_along_axis(found["agent"][:-1], np.asarray(batch.action)[..., None], -1)[..., 0]
    np.testing.assert_allclose(taken, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(np.abs(found["agent"]).sum(), np.abs(taken).sum(), rtol=1e-6)  # none through V_i
    np.testing.assert_allclose(metrics["loss/td"], np.sum(delta**2) / 5, rtol=1e-5)
    np.testing.assert_allclose(metrics["q/greedy_rate"], np.sum(greedy.mean(-1) * REAL) / 5, rtol=1e-5)


def test_the_first_error_by_hand():
    """q = (1, 0), V = (2, 2); then a' = (0, 0), as agent 1 has no action 1: q' = (0.5, 1.5), V' = (7, 1.5)."""
    delta, _ = slow_deltas(on_timeout=False, double=True)
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    now = 4.1 + 0.8 - 2 * (2 * 0.5 * sigmoid(0.3)) - 0.5 * 2 * (2 * 0.75 * sigmoid(-0.5))
    then = 15 + 1.25 - 2 * 6.5 * (3 * 0.5 * sigmoid(-0.1))
    np.testing.assert_allclose(delta[0, 0], 1 + 0.9 * then - now, rtol=1e-9)


# ---- padding


@cache
def updater(name):
    """(algorithm, compiled update) of QPLEX-DIFFER, or of the attention variant with everything on."""
    config, modified = {"dmaq": (SMALL, {"select": "per"}), "qatten": (BOTH, None)}[name]
    algorithm = parts_of(config, modified, recurrent=False).assemble()
    return algorithm, jax.jit(algorithm.update)


@pytest.mark.parametrize("name", ["dmaq", "qatten"])
def test_padding_changes_nothing(name):
    algorithm, update = updater(name)
    learner, ctx, batch = init(algorithm), context(algorithm), random_batch(spec=WIDE)
    clean, clean_metrics = update(learner, batch, ctx, KEY)
    found, metrics = update(learner, junk(batch), ctx, KEY)
    jax.tree.map(np.testing.assert_array_equal, clean, found)
    for key, value in metrics.items():
        np.testing.assert_allclose(value, clean_metrics[key], rtol=1e-6, err_msg=key)
    assert np.all(np.isfinite(flat(clean.params)))
    empty, metrics = update(learner, batch.replace(mask=0 * batch.mask), ctx, KEY)
    assert not np.any(flat(empty.params) != flat(learner.params))
    assert all(np.all(np.isfinite(value)) for value in metrics.values())


# ---- DIFFER


@pytest.mark.parametrize("config", [SMALL, pytest.param(BOTH, marks=pytest.mark.slow)], ids=["dmaq", "qatten"])
def test_qd2_dividing_the_reward_changes_no_gradient(config):
    with jax.enable_x64(True):
        batch = random_batch(spec=WIDE, dtype=jnp.float64)
        base, divided = (
            gradients(parts_of(config, d, recurrent=False), batch, jnp.float64, attention_penalty=0.5)
            for d in (None, EXACT)
        )
        assert flat(base).dtype == np.float64
        for name in ("agent", "mixer"):
            assert_close(divided[name], base[name], 1e-10)
    assert jnp.zeros(()).dtype == jnp.float32


def test_qd1_by_hand():
    """QPLEX-1 with y = 4: delta = 1.1 and delta_i = w_i delta; with Q' = (1, 2) and gamma = 0.9 the rewards follow."""
    one = lambda *x: jnp.array(x, jnp.float32).reshape(1, 1, -1)  # noqa: E731
    v, w, b, importance = one(1, 4), one(2, 0.5), one(0.1, -0.2), one(1.5, 2)
    values = Values(
        q=None, q_taken=one(1, 3), next_q=one(1, 2), q_tot=jnp.full((1, 1), 2.9), next_q_tot=jnp.full((1, 1), 2.0),
        discount=jnp.full((1, 1), 0.9), team_reward=jnp.full((1, 1), 2.2),
        mix=lambda q: duplex(q, v, w, b, importance),
    )  # fmt: skip
    config = differ.Config()
    delta, gradient = differ._decompose(config, values)
    np.testing.assert_allclose(delta, [[1.1]], rtol=1e-5)
    np.testing.assert_allclose(gradient * delta[..., None], one(2.2, 0.55), rtol=1e-5)
    alive = jnp.ones((2, 1, 2), bool)
    batch = Episode(*[None] * 3, alive, *[None] * 5)
    view = view_of(None, None, batch, None, params={}, values=values)
    shown = differ.individual_rewards(config, view)["individual_reward"]
    np.testing.assert_allclose(shown, one(2.3, 1.75), rtol=1e-5)


def test_qd3_lambda_changes_no_priority():
    """Other parameters of lambda: another delta, the same dQ_tot/dQ_i, hence the same priorities for a given delta."""
    parts = parts_of(SMALL, EXACT)
    algorithm, batch = parts.assemble(), random_batch(spec=WIDE)
    learner, ctx = init(algorithm), context(algorithm)

    @jax.jit
    def decomposed(importance):
        params = {**learner.params, "mixer": {**learner.params["mixer"], "importance": importance}}
        values = values_of(parts, learner, batch, ctx, params=params)
        return differ._decompose(differ.Config(), values)

    importance = learner.params["mixer"]["importance"]
    here, gradient = decomposed(importance)
    there, other = decomposed(jax.tree.map(lambda x: x + 1, importance))
    np.testing.assert_array_equal(gradient, other)
    assert np.any(np.abs(here - there) > 1e-2)
    mask = jnp.broadcast_to(batch.mask[..., None], gradient.shape)
    found = [ops_differ.priorities(jnp.abs(g * here[..., None]), mask, 0.8, 0.01) for g in (gradient, other)]
    np.testing.assert_array_equal(*found)


# ---- the penalty


def test_the_penalty_is_the_mixers_and_counts_real_steps():
    algorithm, update = updater("qatten")
    learner, batch = init(algorithm), random_batch(spec=WIDE)
    grads, sizes = [], []
    for coefficient in (0.0, 0.5):
        new, metrics = update(learner, batch, context(algorithm, attention_penalty=coefficient), KEY)
        grads.append(jax.tree.map(lambda m: np.asarray(m) * 10, new.opt_state["joint"][1].mu))
        sizes.append(metrics["loss/attention"])
    assert sizes[0] == sizes[1]
    assert_close(grads[1]["agent"], grads[0]["agent"], 1e-6)
    difference = jax.tree.map(lambda a, b: b - a, grads[0]["mixer"], grads[1]["mixer"])
    assert {name for name, part in difference["weights"].items() if np.abs(flat(part)).max() > 1e-2} == {"query", "key"}
    # the logits are a product of queries and keys, so that the penalty has degree 2 in the keys: <k, dP/dk> = 2 P
    keys = np.sum(difference["weights"]["key"] * learner.params["mixer"]["weights"]["key"])
    np.testing.assert_allclose(keys, 0.5 * 2 * sizes[0], rtol=1e-3)


# ---- matrix games, with every joint action once in the batch: uniform data without noise

TOY = {
    "num_kernels": 10,
    "importance_layers": 3,
    "importance_dim": 32,
    "hypernet_dim": 32,
}  # as the code's matrix games
MIXERS = {"vdn": {}, "qmix": {"embed_dim": 32, "hypernet_dim": 16}, "qplex": TOY}
BOUNDS = {"climbing": 151.5556, "or": 6.25, "nm1": 32.0, "nm2": 38.2222, "stag_hunt_sum": 0.1667}  # MG-2
SUM_ERRORS = {"climbing": 175.0864, "or": 6.25, "nm1": 50.5679, "nm2": 64.4938, "stag_hunt_sum": 2.25}  # MG-1


def every_joint_action(env):
    actions = env.spec.action.num_actions
    joint = jnp.array(list(itertools.product(range(actions), repeat=2)), jnp.int32)
    state, first = env.reset(KEY)
    last = jax.vmap(lambda a: env.step(state, a, KEY)[1])(joint)

    def slots(name):
        end = getattr(last, name)
        return jnp.stack([jnp.broadcast_to(getattr(first, name), end.shape), end])

    return Episode(
        **{name: slots(name) for name in ("obs", "state", "avail", "alive")},
        **{name: getattr(last, name)[None] for name in ("reward", "terminated", "truncated")},
        action=joint[None],
        mask=jnp.ones((1, len(joint))),
    )


@cache
def learned(name, game, updates=1000, lr=5e-3, seed=0, **config):
    """Q_tot [A, A] after training with a step size that falls to 0."""
    env = matrix.make(matrix.Config(game=game))
    settings = {"recurrent": False, "hidden_dim": 32, "obs_last_action": False, **MIXERS[name], **config}
    parts = learner_parts(name, env.spec, **settings)
    algorithm = parts.assemble()
    ctx = context(algorithm)

    @jax.jit
    def train(learner):
        batch = every_joint_action(env)

        def body(learner, share):
            now = dataclasses.replace(ctx, hparams={**ctx.hparams, "lr": lr * jnp.minimum(1.0, 2.0 * share)})
            return algorithm.update(learner, batch, now, KEY)[0], None

        learner, _ = jax.lax.scan(body, learner, jnp.linspace(1.0, 0.0, updates))
        return values_of(parts, learner, batch, ctx).q_tot

    found = train(init(algorithm, seed, scale=0.2))  # drawn here: compiling the networks' own draws takes longest
    return np.asarray(found).reshape([env.spec.action.num_actions] * 2)


def error(found, game):
    return np.mean(np.square(found - TABLES[game]))


def greedy(found):
    return "".join("ABC"[i] for i in np.unravel_index(found.argmax(), found.shape))


@pytest.mark.slow
def test_qplex6_qplex_learns_climbing():
    """VDN and QMIX cannot: test_matrix_tables.py on sampled data, and below on these."""
    found = learned("qplex", "climbing")
    assert greedy(found) == "AA"
    assert error(found, "climbing") < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("game", BOUNDS)
def test_mg1_and_mg2_what_vdn_and_qmix_reach_at_best(game):
    vdn, qmix = (learned(name, game, 3000) for name in ("vdn", "qmix"))
    np.testing.assert_allclose(error(vdn, game), SUM_ERRORS[game], rtol=1e-3)
    assert BOUNDS[game] - 1e-3 < error(qmix, game) <= SUM_ERRORS[game] + 1e-2
    if game == "climbing":
        assert greedy(vdn) == "CC"
        assert greedy(qmix) != "AA"


@pytest.mark.slow
def test_qplex_learns_the_first_non_monotonic_game_of_its_paper():
    found = learned("qplex", "nm1", 10_000, lr=5e-4, optimizer="rmsprop", hidden_dim=64, importance_dim=64)
    assert greedy(found) == "AA"
    assert error(found, "nm1") < 0.01


def test_double_q_is_the_default_and_without_it_only_available_actions_are_looked_at():
    """code: all its files have double_q; without it its maximum is over all actions, available or not."""
    assert qplex.Config().double_q
    online, target = jnp.array([[[[0.0, 5.0, 1.0]]]] * 2), jnp.array([[[[3.0, 4.0, 9.0]]]] * 2)
    avail = jnp.array([[[[True, True, False]]]] * 2)
    assert td.next_q(online, target, avail, True).ravel() == 4.0
    other = jnp.array([[[[3.0, 0.0, 9.0]]]] * 2)
    assert td.next_q(online, other, avail, False).ravel() == 3.0
