"""QPLEX's mixer: QPLEX-1 to QPLEX-5, both mixers against loops, the best joint action, and what passes a gradient."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxshare.algos.qplex import algorithm as qplex
from jaxshare.algos.qplex.mixer import (
    AttentionWeights,
    HyperWeights,
    Importance,
    Kernels,
    duplex,
    kernel_sum,
    qplex_mixer,
    transformation,
)
from jaxshare.models.mixers import MixerInputs
from jaxshare.types import Box, Discrete, EnvSpec, RefusedError

KEY = jax.random.key(0)
ACTIONS, STATE, UNIT, STEPS = 3, 7, 2, 6
ATTENTION = {"plain": (False, False), "weighted": (True, False), "nonlinear": (False, True), "both": (True, True)}


def size(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def weights_of(kind):
    if kind == "dmaq":
        return HyperWeights(hypernet_dim=4)
    weighted, nonlinear = ATTENTION[kind]
    return AttentionWeights(2, 3, 4, UNIT, weighted_head=weighted, nonlinear=nonlinear)


def case(kind, agents=3, kernels=2, layers=1, lead=(), seed=0):
    """(mixer, weights, parameters with leading axes, q, MixerInputs), drawn at random."""
    rng = np.random.default_rng(seed)
    weights = weights_of(kind)
    mixer = qplex_mixer(agents, STATE, weights, Importance(kernels, layers, 4, ACTIONS))
    params = jax.tree.map(lambda x: jnp.array(rng.normal(size=(*lead, *x.shape))), jax.eval_shape(mixer.init, KEY))
    q, state = rng.normal(size=(STEPS, agents)), rng.normal(size=(STEPS, STATE))
    seen = MixerInputs(
        q_max=jnp.array(q + rng.random(q.shape)),
        action=jnp.array(rng.integers(0, ACTIONS, q.shape), jnp.int32),
        state=jnp.array(state),
    )
    return mixer, weights, params, jnp.array(q), seen


@pytest.fixture
def double():
    with jax.enable_x64(True):
        yield
    assert jnp.zeros(()).dtype == jnp.float32


# ---- by hand

W, B, LAMBDA = jnp.array([2, 0.5]), jnp.array([0.1, -0.2]), jnp.array([1.5, 2])
V = jnp.array([1.0, 4.0])


def test_qplex1_and_3_by_hand():
    """Q' = (2.1, 1.3), V' = (2.1, 1.8): 3.9 + 1.5 * 0 - 2 * 0.5 = 3.4 + 0.5 * 0 - 1 * 0.5 = 2.9."""
    q = jnp.array([1.0, 3.0])
    value, slope = jax.value_and_grad(duplex)(q, V, W, B, LAMBDA)
    np.testing.assert_allclose(value, 2.9, rtol=1e-6)
    np.testing.assert_allclose((W * V + B).sum() + (LAMBDA * W * (q - V)).sum(), 2.9, rtol=1e-6)
    np.testing.assert_allclose(slope, [2, 0.5], rtol=1e-6)
    assert slope[1] != (LAMBDA * W)[1] == 1  # which it would be without the stop-gradient


def test_qplex2_greedy_actions_leave_lambda_out():
    for importance in (LAMBDA, jnp.array([7.0, 0.1])):
        np.testing.assert_allclose(duplex(V, V, W, B, importance), 3.9, rtol=1e-6)


@pytest.mark.parametrize(("heads", "found"), [(1, (0.5, 0.75)), (4, (2, 3))])
def test_qplex4_lambda_by_hand(heads, found):
    repeat = lambda *x: jnp.tile(jnp.array([x], jnp.float32), (heads, 1))  # noqa: E731
    np.testing.assert_allclose(kernel_sum(repeat(-2), repeat(0, math.log(3)), repeat(0, 0)), found, rtol=1e-6)


def made_for(config, spec):
    return jax.eval_shape(qplex.make(config, spec).mixer.init, KEY)


def test_qplex5_parameter_counts():
    spec = EnvSpec("marines", 3, 5, 48, Discrete(9), 5, (0, 0, 0), ("unit",))
    params = made_for(qplex.Config(), spec)
    assert {name: size(part) for name, part in params.items()} == {"weights": 6662, "importance": 1696}
    toy = made_for(qplex.Config(num_kernels=10, importance_layers=3), spec)
    state, both = 49 * 64 + 65 * 64, 76 * 64 + 65 * 64  # two hidden layers of 64 on 48 and on 48 + 27 numbers
    assert size(toy["importance"]) == 10 * (state + 65 + state + 65 * 3 + both + 65 * 3)
    qatten = made_for(qplex.Config(mixer="qatten", unit_dim=10), spec)["weights"]
    assert size(qatten) == 4 * (49 * 64 + 64 * 32 + 10 * 32) + 49 * 32 + 33


# ---- against loops


def plain(p):
    return jax.tree.map(np.asarray, p)


def linear(p, x):
    return x @ p["kernel"] + p["bias"]


def two(p, name, x):
    return linear(p[f"{name}_out"], np.maximum(linear(p[f"{name}_hidden"], x), 0))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def slow_kernel(p, k, kernels, layers, x):
    """The k-th of the networks that lie side by side in the first layer."""
    first = linear(p["first"], x)
    width = len(first) // kernels
    y = first[k * width : (k + 1) * width]
    for i in range(layers - 1):
        y = np.maximum(y, 0) @ p[f"kernel_{i}"][k] + p[f"bias_{i}"][k]
    return y


def slow_importance(p, kernels, layers, state, action):
    both = np.concatenate([state, *(np.eye(ACTIONS)[a] for a in action)])
    found = np.zeros(len(action))
    for k in range(kernels):
        key, who, what = (
            slow_kernel(p[name], k, kernels, layers, x)
            for name, x in (("key", state), ("agents", state), ("actions", both))
        )
        found += (abs(key[0]) + 1e-10) * sigmoid(who) * sigmoid(what)
    return found


def slow_weights(kind, p, q, state):
    """(w, b, penalty) of one step."""
    if kind == "dmaq":
        return np.abs(two(p, "w", state)) + 1e-10, two(p, "b", state), 0.0
    weighted, nonlinear = ATTENTION[kind]
    units = [np.append(state[i * UNIT : (i + 1) * UNIT], [q[i]] * nonlinear) for i in range(len(q))]
    asked = np.maximum(linear(p["query"]["first"], state).reshape(2, -1), 0)
    heads = np.abs(two(p, "head", state)) if weighted else np.ones(2)
    w, penalty = 1e-10, 0.0
    for h, head in enumerate(heads):
        logits = np.array([(asked[h] @ p["query"]["kernel_0"][h]) @ (u @ p["key"][:, h]) for u in units])
        share = np.exp(logits / np.sqrt(3))
        w, penalty = w + head * share / share.sum(), penalty + np.mean(logits**2)
    return w, np.full(len(q), two(p, "v", state)[0] / len(q)), penalty


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(
    ("kind", "agents", "layers"),
    [("dmaq", 3, 1), ("dmaq", 1, 2), ("dmaq", 3, 3), ("plain", 3, 1), ("weighted", 1, 1), ("both", 3, 1)],
)
def test_the_mixer_against_a_loop(kind, agents, layers):
    mixer, weights, params, q, seen = case(kind, agents, layers=layers)
    both = jax.jit(lambda p, *args: (mixer.apply(p, *args), transformation(weights, p, args[0], args[1].state)))
    found, (w, b, penalty) = plain(both(params, q, seen))
    p, steps = plain(params), plain((q, seen.q_max, seen.state, seen.action))
    for t in range(STEPS):
        now = [x[t] for x in steps]
        expected = slow_weights(kind, p["weights"], now[0], now[2])
        for part, slow in zip((w[t], b[t], penalty[t]), expected, strict=True):
            np.testing.assert_allclose(part, slow, rtol=1e-10)
        importance = slow_importance(p["importance"], 2, layers, now[2], now[3])
        value = expected[0] * now[1] + expected[1]
        slow = value.sum() + (importance * expected[0] * (now[0] - now[1])).sum()
        np.testing.assert_allclose(found[t], slow, rtol=1e-10)


@pytest.mark.parametrize("kind", ["plain", "nonlinear"])
def test_shares_of_an_attention_sum_to_the_number_of_heads(kind):
    _, weights, params, q, seen = case(kind)
    w = np.asarray(jax.jit(lambda p: transformation(weights, p, q, seen.state)[0])(params))
    assert np.all(w > 0)
    assert np.ptp(w) > 0.1
    np.testing.assert_allclose(w.sum(-1), 2, rtol=1e-5)


def test_initial_weights_are_torchs():
    """Every one of the networks side by side as if it were alone: its own fan, not that of all together."""
    module = Kernels(10, 2, 64, 64)
    params = jax.jit(lambda: module.init(KEY, jnp.zeros((1, 49)))["params"])()
    assert params["kernel_0"].shape == (10, 64, 64)
    for leaf, fan in ((params["first"]["kernel"], 49), (params["kernel_0"], 64), (params["bias_0"], 64)):
        flat, bound = np.asarray(leaf).ravel(), 1 / np.sqrt(fan)
        assert np.all(np.abs(flat) <= bound)
        np.testing.assert_allclose(flat.std(), bound / np.sqrt(3), rtol=0.1)


# ---- the best joint action

JOINT = np.array(list(itertools.product(range(ACTIONS), repeat=3)))


def joint_tables(kind, draws=400):
    """(Q_tot of all joint actions [draws, A^3], utilities, available [draws, 3, A]), everything drawn at random."""
    mixer, _, params, _, seen = case(kind, lead=(draws,))
    rng = np.random.default_rng(1)
    q, avail = rng.normal(size=(draws, 3, ACTIONS)), rng.random((draws, 3, ACTIONS)) < 0.7
    avail[..., 0] |= ~avail.any(-1)
    q_max = np.where(avail, q, -np.inf).max(-1)
    state = jnp.broadcast_to(seen.state[:1], (len(JOINT), STATE))

    def table(params, q, q_max):
        own = MixerInputs(jnp.broadcast_to(q_max, JOINT.shape), jnp.array(JOINT, jnp.int32), state)
        return mixer.apply(params, q[jnp.arange(3), JOINT], own)

    return np.asarray(jax.jit(jax.vmap(table))(params, q, q_max)), q, avail


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("kind", ["dmaq", "weighted", "nonlinear"])
def test_the_best_joint_action_is_everyones_best(kind):
    """For all mixers whose w does not read the utilities of the taken actions; by enumeration."""
    tables, q, avail = joint_tables(kind)
    allowed = avail[:, np.arange(3), JOINT].all(-1)
    assert 0.2 < allowed.mean() < 0.9
    best = JOINT[np.where(allowed, tables, -np.inf).argmax(1)]
    agreed = np.all(best == np.where(avail, q, -np.inf).argmax(-1), axis=-1)
    assert np.mean(agreed) < 0.99 if kind == "nonlinear" else np.all(agreed)
    # and it is no monotone mixer: an action with a larger utility may have a smaller value
    if kind == "dmaq":
        order = np.argsort(q[:, 0], axis=-1)[:, :, None]
        rising = np.take_along_axis(tables.reshape(-1, ACTIONS, ACTIONS**2), order, axis=1)
        steps = np.diff(rising, axis=1)[avail[:, 0].all(-1)]
        assert np.mean(steps < -1e-3) > 0.01


# ---- gradients


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("kind", ["dmaq", "both"])
def test_what_passes_a_gradient(kind):
    """Q_tot has the gradients of sum_i Q'_i alone, but for lambda's parameters; V_i has none."""
    mixer, weights, params, q, seen = case(kind)

    def additive(params, q):
        w, b, _ = transformation(weights, params, q, seen.state)
        return (w * q + b).sum(), w

    @jax.jit
    def slopes(params, q, q_max):
        total = lambda p, q, v: mixer.apply(p, q, seen.replace(q_max=v)).sum()  # noqa: E731
        return jax.grad(total, (0, 1, 2))(params, q, q_max), jax.grad(additive, (0, 1), has_aux=True)(params, q)

    (of_params, of_q, of_max), ((expected, expected_q), w) = slopes(params, q, seen.q_max)
    assert not np.any(of_max)
    np.testing.assert_allclose(of_q, expected_q, rtol=1e-10)
    assert np.allclose(of_q, w, rtol=1e-10) == (kind == "dmaq")
    assert all(np.any(leaf) for leaf in jax.tree.leaves(of_params["importance"]))
    for a, b in zip(*(jax.tree.leaves(p["weights"]) for p in (of_params, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
    greedy = slopes(params, q, q)[0][0]
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(greedy["importance"]))


# ---- refusals

SPEC = EnvSpec("fake", 3, 3, STATE, Discrete(ACTIONS), 5, (0, 0, 0), ("unit",))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"mixer": "qmix"}, r"algo.mixer=qmix is not one of dmaq, qatten"),
        ({"importance_layers": 4}, r"algo.importance_layers=4 is not one of 1, 2, 3"),
        ({"num_kernels": 0}, r"algo.num_kernels=0 must be at least 1"),
        ({"unit_dim": -1, "mixer": "qatten"}, r"algo.unit_dim=-1 must be at least 0"),
        ({"nonlinear": True}, r"algo.nonlinear=True needs algo.mixer=qatten"),
        ({"weighted_head": True}, r"algo.weighted_head=True needs algo.mixer=qatten"),
        ({"unit_dim": 2}, r"algo.unit_dim=2 needs algo.mixer=qatten"),
        ({"mixer": "qatten"}, r"algo.mixer=qatten needs algo.unit_dim"),
        ({"mixer": "qatten", "unit_dim": 3}, r"algo.unit_dim=3 times 3 agents is more than the 7.*algo.mixer=dmaq"),
    ],
)
def test_what_cannot_be_is_refused(changed, message):
    with pytest.raises(RefusedError, match=message):
        qplex.make(qplex.Config(**changed), SPEC)


def test_continuous_actions_are_refused():
    box = EnvSpec("box", 2, 2, 1, Box(1, (-1.0,), (1.0,)), 4, (0, 0), ("unit",))
    with pytest.raises(RefusedError, match=r"algo=qplex needs discrete actions"):
        qplex.make(qplex.Config(), box)
