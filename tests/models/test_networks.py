"""Networks: C-6, C-7, QMIX-1 to QMIX-6, the GRU's own backward pass, and parameter sharing."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxshare.models import inputs
from jaxshare.models.agents import GATES, GRU, RecurrentQ, drawn_orthogonally, q_network
from jaxshare.models.base import BLOCK, Linear, block_size, in_blocks, sharing_sets
from jaxshare.models.inputs import Reads
from jaxshare.models.mixers import MixerInputs, QMixer, mix_two_layers, qmix_mixer, vdn_mixer
from jaxshare.models.recurrent import Gates, GRUWeights, gru_unroll
from jaxshare.types import Box, Discrete, EnvSpec

KEY = jax.random.key(0)


def size(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def normal(seed, tree, scale=1.0, dtype=jnp.float32, lead=()):
    """The tree with every leaf drawn from a normal distribution, with further leading axes."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.array(scale * rng.normal(size=(*lead, *x.shape)), dtype), tree)


def shapes_of(init):
    return jax.eval_shape(init, KEY)


# ---- agents


def test_c6_gru_of_one_unit():
    one, module = jnp.ones((1, 1)), GRU(1)
    params = module.init(KEY, one, one[None])["params"]
    params = {name: jnp.ones_like(p) if "kernel" in name else jnp.zeros_like(p) for name, p in params.items()}
    hidden = module.apply({"params": params}, 0.5 * one, one[None])
    np.testing.assert_allclose(hidden, [[[0.5706418]]], rtol=1e-6)


def test_c7_parameter_counts():
    params = shapes_of(q_network(42, 9, 64, recurrent=True, param_sets=(0, 0)).init)
    assert {name: size(part) for name, part in params.items()} == {"embed": 2752, "gru": 24_960, "head": 585}
    assert size(params) == 28_297
    assert size(shapes_of(q_network(42, 9, 64, recurrent=True, param_sets=(0, 1)).init)) == 2 * 28_297
    assert size(shapes_of(q_network(42, 9, 64, recurrent=False, param_sets=(0,)).init)) == 2752 + 64 * 65 + 585


def slow_gru(params, carry, x):
    """torch's equations, one step after the other."""
    sigmoid = lambda a: 1 / (1 + np.exp(-a))  # noqa: E731
    p = {name: np.asarray(value, np.float64) for name, value in params.items()}
    hidden, h = [], np.asarray(carry, np.float64)
    for now in np.asarray(x, np.float64):
        own = {g: now @ p[f"input_{g}_kernel"] + p[f"input_{g}_bias"] for g in ("reset", "update", "new")}
        back = {g: h @ p[f"hidden_{g}_kernel"] + p[f"hidden_{g}_bias"] for g in ("reset", "update", "new")}
        r, z = sigmoid(own["reset"] + back["reset"]), sigmoid(own["update"] + back["update"])
        n = np.tanh(own["new"] + r * back["new"])
        h = (1 - z) * n + z * h
        hidden.append(h)
    return np.stack(hidden)


def test_gru_against_a_loop():
    module = GRU(5)
    carry, x = jax.random.normal(KEY, (3, 5)), jax.random.normal(jax.random.key(1), (6, 3, 4))
    params = normal(0, shapes_of(lambda key: module.init(key, carry, x)["params"]))
    hidden = jax.jit(module.apply)({"params": params}, carry, x)
    np.testing.assert_allclose(hidden, slow_gru(params, carry, x), rtol=1e-4, atol=1e-5)


def test_the_recurrent_agent_against_a_loop():
    module = RecurrentQ(5, 3)
    carry, x = jnp.zeros((2, 5)), jax.random.normal(KEY, (4, 2, 6))
    params = normal(0, shapes_of(lambda key: module.init(key, carry, x)["params"]), 0.5)
    last, q = jax.jit(module.apply)({"params": params}, carry, x)
    p = jax.tree.map(np.asarray, params)
    embedded = np.maximum(np.asarray(x) @ p["embed"]["kernel"] + p["embed"]["bias"], 0)
    hidden = slow_gru(p["gru"], carry, embedded)
    np.testing.assert_allclose(q, hidden @ p["head"]["kernel"] + p["head"]["bias"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(last, hidden[-1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("recurrent", [True, False])
def test_acting_step_by_step_is_the_unroll(recurrent):
    network = q_network(4, 3, 8, recurrent, param_sets=(0, 1))
    params, x = normal(0, shapes_of(network.init), 0.5), jax.random.normal(KEY, (5, 2, 2, 4))
    whole_carry, whole = jax.jit(network.unroll)(params, network.initial_carry(2), x)
    carry, steps, unroll = network.initial_carry(2), [], jax.jit(network.unroll)
    for t in range(5):
        carry, q = unroll(params, carry, x[t : t + 1])
        steps.append(q[0])
    np.testing.assert_allclose(np.stack(steps), whole, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(carry, whole_carry, rtol=1e-5, atol=1e-6)


def test_the_feed_forward_agent_keeps_no_memory():
    network = q_network(4, 3, 8, recurrent=False, param_sets=(0,))
    params, x = normal(0, shapes_of(network.init), 0.5), jax.random.normal(KEY, (5, 2, 1, 4))
    unroll = jax.jit(network.unroll)
    _, q = unroll(params, network.initial_carry(2), x)
    _, changed = unroll(params, network.initial_carry(2), x.at[1].add(3.0))
    np.testing.assert_array_equal(np.delete(q, 1, 0), np.delete(changed, 1, 0))
    assert np.any(q[1] != changed[1])
    p, h = jax.tree.map(np.asarray, params), np.asarray(x)
    for name in ("embed", "body"):
        h = np.maximum(h @ p[name]["kernel"] + p[name]["bias"], 0)
    np.testing.assert_allclose(q, h @ p["head"]["kernel"] + p["head"]["bias"], rtol=1e-4, atol=1e-5)


def test_initial_weights_are_torchs():
    def check(leaf, fan):
        bound, flat = 1 / np.sqrt(fan), np.asarray(leaf).ravel()
        assert np.all(np.abs(flat) <= bound)
        np.testing.assert_allclose(flat.std(), bound / np.sqrt(3), rtol=0.25)
        assert abs(flat.mean()) < 4 * bound / np.sqrt(3 * flat.size)

    params = jax.jit(q_network(42, 9, 64, recurrent=True, param_sets=(0,)).init)(KEY)
    for leaf in jax.tree.leaves(params["gru"]):
        check(leaf, 64)
    check(params["embed"]["kernel"], 42)
    check(params["embed"]["bias"], 42)
    check(params["head"]["kernel"], 64)


@pytest.mark.parametrize("recurrent", [True, False])
def test_orthogonal_weights_are_orthonormal_and_biases_zero(recurrent):
    """torch's orthogonal_ of every matrix; those of a GRU's gates are one, so that each alone is none."""
    network = drawn_orthogonally(q_network(10, 3, 8, recurrent, param_sets=(0, 1)))
    params = jax.jit(network.init)(KEY)
    assert shapes_of(network.init) == shapes_of(q_network(10, 3, 8, recurrent, param_sets=(0, 1)).init)
    first, second = (jax.tree.map(lambda x, i=i: np.asarray(x[i]), params) for i in (0, 1))
    matrices = [layer["kernel"] for layer in first.values() if "kernel" in layer]
    if recurrent:
        halves = [[first["gru"][f"{half}_{gate}_kernel"] for gate in GATES] for half in ("hidden", "input")]
        matrices += [np.concatenate(half, axis=1) for half in halves]
        alone = halves[0][0].T @ halves[0][0]
        assert np.abs(alone - np.eye(8)).max() > 0.1
    assert len(matrices) == (4 if recurrent else 3)
    for matrix in matrices:
        gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
        np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-5)
    flat = jax.tree_util.tree_leaves_with_path(first)
    biases = [x for path, x in flat if path[-1].key.endswith("bias")]
    assert len(biases) + sum(path[-1].key.endswith("kernel") for path, _ in flat) == len(flat)
    assert not any(bias.any() for bias in biases)
    assert np.abs(first["head"]["kernel"] - second["head"]["kernel"]).max() > 0.1  # each agent has its own draw


# ---- the GRU's backward pass


def plain_unroll(weights, gates, carry):
    """The same recurrence, left to autodiff."""

    def step(h, a):
        r = jax.nn.sigmoid(a.reset + h @ weights.reset)
        z = jax.nn.sigmoid(a.update + h @ weights.update)
        n = jnp.tanh(a.new + r * (h @ weights.new + weights.new_bias[None]))
        h = (1 - z) * n + z * h
        return h, h

    return jax.lax.scan(step, carry, gates)[1]


def gru_case(dtype, seed=0, steps=7, rows=3, hidden=4):
    square, gate = np.zeros((hidden, hidden)), np.zeros((steps, rows, hidden))
    weights, gates = GRUWeights(square, square, square, square[0]), Gates(gate, gate, gate)
    return normal(seed, ((weights, gates, gate[0]), gate), dtype=dtype)


def gradients(unroll, args, direction):
    return jax.jit(jax.grad(lambda args: (unroll(*args) * direction).sum()))(args)


@pytest.mark.parametrize(("dtype", "rtol", "atol"), [("float64", 1e-11, 1e-13), ("float32", 1e-4, 1e-5)])
def test_gradients_of_the_gru_are_those_of_autodiff(dtype, rtol, atol):
    with jax.enable_x64(dtype == "float64"):
        args, direction = gru_case(jnp.dtype(dtype))
        np.testing.assert_allclose(gru_unroll(*args), plain_unroll(*args), rtol=rtol, atol=atol)
        found, expected = gradients(gru_unroll, args, direction), gradients(plain_unroll, args, direction)
        assert jax.tree.leaves(found)[0].dtype == dtype
        jax.tree.map(lambda f, e: np.testing.assert_allclose(f, e, rtol=rtol, atol=atol), found, expected)
        assert all(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(found))  # the carry's included
    assert jnp.zeros(()).dtype == jnp.float32


def test_gradients_of_the_gru_under_vmap():
    cases = [gru_case(jnp.float32, i) for i in range(3)]
    args, direction = jax.tree.map(lambda *x: jnp.stack(x), *cases)
    together = jax.jit(jax.vmap(lambda a, d: gradients(gru_unroll, a, d)))(args, direction)
    for i, case in enumerate(cases):
        alone = gradients(plain_unroll, *case)
        jax.tree.map(lambda f, e, i=i: np.testing.assert_allclose(f[i], e, rtol=1e-4, atol=1e-5), together, alone)


def test_gradients_of_the_gru_with_one_step():
    args, direction = gru_case(jnp.float32, steps=1)
    found, expected = gradients(gru_unroll, args, direction), gradients(plain_unroll, args, direction)
    jax.tree.map(lambda f, e: np.testing.assert_allclose(f, e, rtol=1e-4, atol=1e-5), found, expected)


# ---- sharing


def test_sharing_sets():
    types = (0, 1, 0)
    found = {share: sharing_sets(share, types) for share in ("all", "type", "none")}
    assert found == {"all": (0, 0, 0), "type": (0, 1, 0), "none": (0, 1, 2)}
    with pytest.raises(ValueError, match="most"):
        sharing_sets("most", types)


def with_gradient(network):
    """(params, carry, x) -> (carry, q, gradient of sum q^2 with respect to params)."""

    def run(params, start, x):
        carry, q = network.unroll(params, start, x)
        return carry, q, jax.grad(lambda p: jnp.square(network.unroll(p, start, x)[1]).sum())(params)

    return jax.jit(run)


@pytest.mark.parametrize(
    ("groups", "recurrent"), [((0, 1, 2), True), ((0, 1, 0), True), ((1, 0, 0), True), ((0, 1, 2), False)]
)
def test_equal_parameter_sets_are_one_shared_set(groups, recurrent):
    shared, split = (q_network(4, 3, 6, recurrent, g) for g in ((0, 0, 0), groups))
    params, x = normal(0, shapes_of(shared.init), 0.5), jax.random.normal(KEY, (5, 2, 3, 4))
    stacked = jax.tree.map(lambda p: jnp.stack([p] * (max(groups) + 1)), params)
    assert jax.tree.map(jnp.shape, shapes_of(split.init)) == jax.tree.map(jnp.shape, stacked)
    start = jax.random.normal(KEY, shared.initial_carry(2).shape)
    *one, grad_one = with_gradient(shared)(params, start, x)
    *many, grad_many = with_gradient(split)(stacked, start, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), one, many)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b.sum(0), rtol=1e-4, atol=1e-4), grad_one, grad_many)


@pytest.mark.parametrize("groups", [(0, 1, 2), (0, 1, 0), (1, 0, 0)])
def test_every_agent_uses_its_own_parameter_set(groups):
    team, single = q_network(4, 3, 6, True, groups), q_network(4, 3, 6, True, (0,))
    params, x = normal(0, shapes_of(team.init), 0.5), jax.random.normal(KEY, (5, 2, 3, 4))
    carry, q = jax.jit(team.unroll)(params, team.initial_carry(2), x)
    alone = jax.jit(single.unroll)
    assert np.ptp([float(jax.tree.leaves(params)[0][s].sum()) for s in range(max(groups) + 1)]) > 0
    for i, group in enumerate(groups):
        own = jax.tree.map(lambda p, g=group: p[g], params)
        own_carry, own_q = alone(own, single.initial_carry(2), x[:, :, i : i + 1])
        np.testing.assert_allclose(q[:, :, i], own_q[:, :, 0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(carry[:, i], own_carry[:, 0], rtol=1e-5, atol=1e-6)


# ---- inputs


@pytest.mark.parametrize("last_action", [False, True])
@pytest.mark.parametrize("agent_id", [False, True])
def test_what_the_agents_read(last_action, agent_id):
    spec = EnvSpec("three", 3, 2, 1, Discrete(4), 5, (0, 0, 0), ("unit",))
    obs, action = jax.random.normal(KEY, (6, 2, 3, 2)), jax.random.randint(KEY, (5, 2, 3), 0, 4)
    reads = Reads(spec, last_action, agent_id)
    x = reads.build(obs, inputs.last_actions(action, spec))
    assert x.shape[-1] == reads.dim
    for t, b, i in np.ndindex(6, 2, 3):
        previous = np.eye(4)[action[t - 1, b, i]] if t else np.zeros(4)
        parts = [obs[t, b, i], *[previous] * last_action, *[np.eye(3)[i]] * agent_id]
        np.testing.assert_array_equal(x[t, b, i], np.concatenate(parts).astype(np.float32))


def test_continuous_last_actions_are_read_as_they_are():
    spec = EnvSpec("box", 2, 2, 1, Box(3, (-1.0,) * 3, (1.0,) * 3), 4, (0, 0), ("unit",))
    action = jax.random.normal(KEY, (4, 1, 2, 3))
    previous = inputs.last_actions(action, spec)
    np.testing.assert_array_equal(previous[0], 0)
    np.testing.assert_array_equal(previous[1:], action)
    assert Reads(spec, last_action=True, agent_id=True).dim == 2 + 3 + 2


# ---- mixers

W1, W2, V = jnp.array([[1.0, 2.0], [0.5, 1.0]]), jnp.array([1.0, 0.5]), jnp.float32(0.25)


@pytest.mark.parametrize(
    ("q", "b1", "q_tot", "gradient"),
    [
        ((1, 2), (0, -4), 2.25, None),
        ((1, 2), (0, -5), 1.9339397, (1.3678794, 0.6839397)),
        ((3, 4), (0, 0), 10.25, (2, 1)),
    ],
    ids=["QMIX-1", "QMIX-2", "QMIX-3"],
)
def test_qmix1_to_3_by_hand(q, b1, q_tot, gradient):
    mix = lambda q: mix_two_layers(q, W1, jnp.array(b1, jnp.float32), W2, V)  # noqa: E731
    value, found = jax.value_and_grad(mix)(jnp.array(q, jnp.float32))
    np.testing.assert_allclose(value, q_tot, rtol=1e-6)
    if gradient is not None:  # at the kink of QMIX-1 ELU has slope 1 from either side, but nobody promises it
        np.testing.assert_allclose(found, gradient, rtol=1e-6)


def mixer_case(layers=2, agents=3, lead=(), dtype=jnp.float32):
    """A QMixer with (leading axes of) random parameters, and utilities and states for it."""
    module = QMixer(embed_dim=4, hypernet_dim=6, hypernet_layers=layers)
    q, state = normal(0, (np.zeros((7, agents)), np.zeros((7, 5))), dtype=dtype)
    shapes = shapes_of(lambda key: module.init(key, q, state)["params"])
    return module, normal(1, shapes, dtype=dtype, lead=lead), 3 * q, state


def slow_mixer(params, layers, q, state):
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    linear = lambda name, x: x @ p[name]["kernel"] + p[name]["bias"]  # noqa: E731
    hyper = lambda name, s: (  # noqa: E731
        linear(name, s) if layers == 1 else linear(f"{name}_out", np.maximum(linear(f"{name}_hidden", s), 0))
    )
    found = []
    for q_now, s in zip(np.asarray(q, np.float64), np.asarray(state, np.float64), strict=True):
        w1 = np.abs(hyper("w1", s)).reshape(len(q_now), -1)
        z = q_now @ w1 + linear("b1", s)
        hidden = np.where(z > 0, z, np.expm1(z))
        bias = linear("v_out", np.maximum(linear("v_hidden", s), 0))[0]
        found.append(hidden @ np.abs(hyper("w2", s)) + bias)
    return np.array(found)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("agents", [1, 3])
def test_the_mixer_against_a_loop(layers, agents):
    module, params, q, state = mixer_case(layers, agents)
    found = jax.jit(module.apply)({"params": params}, q, state)
    np.testing.assert_allclose(found, slow_mixer(params, layers, q, state), rtol=1e-4, atol=1e-3)


def test_qmix4_signs_of_the_hypernetworks_do_not_matter():
    module, params, q, state = mixer_case()
    flipped = {n: jax.tree.map(jnp.negative, p) if n in ("w1_out", "w2_out") else p for n, p in params.items()}
    apply = jax.jit(lambda p: module.apply({"params": p}, q, state))
    np.testing.assert_array_equal(apply(params), apply(flipped))


@pytest.mark.parametrize("layers", [1, 2])
def test_qmix4_the_mixer_is_monotone(layers):
    module, params, q, state = mixer_case(layers, lead=(100,))
    slopes = jax.grad(lambda q, p: module.apply({"params": p}, q, state).sum())
    found = np.asarray(jax.jit(jax.vmap(slopes, (None, 0)))(q, params))
    assert np.all(found >= 0)
    assert np.mean(found > 0) > 0.5  # deep in ELU's tail they round to 0


@pytest.mark.parametrize(("layers", "count"), [(2, 9376 + 5216 + 1568 + 1601), (1, 49 * 96 + 49 * 32 + 1568 + 1601)])
def test_qmix5_parameter_counts(layers, count):
    mixer = qmix_mixer(num_agents=3, state_dim=48, embed_dim=32, hypernet_dim=64, hypernet_layers=layers)
    assert size(shapes_of(mixer.init)) == count
    assert layers == 1 or count == 17_761


def mixed_tables(utilities, draws, dtype):
    """Q_tot of all joint actions [draws, A, ..., A] for utilities [N, A], with random mixers in one state."""
    agents, actions = utilities.shape
    module, params, _, state = mixer_case(agents=agents, lead=(draws,), dtype=dtype)
    joint = np.array(list(itertools.product(range(actions), repeat=agents)))
    q = jnp.array(utilities[np.arange(agents), joint], dtype)
    mix = jax.vmap(lambda p: module.apply({"params": p}, q, jnp.broadcast_to(state[:1], (len(q), 5))))
    return np.asarray(jax.jit(mix)(params)).reshape(draws, *(actions,) * agents)


def test_qmix6_the_best_joint_action_is_everyones_best():
    rng = np.random.default_rng(2)
    agents, actions = 3, 4
    for _ in range(5):
        q, avail = rng.normal(size=(agents, actions)).astype(np.float32), rng.random((agents, actions)) < 0.7
        avail[:, 0] |= ~avail.any(-1)
        tables = mixed_tables(q, 50, jnp.float32)
        allowed = avail[0][:, None, None] & avail[1][:, None] & avail[2]
        best = np.where(allowed, tables, -np.inf).max((1, 2, 3))
        each = tuple(np.where(avail, q, -np.inf).argmax(1))
        np.testing.assert_allclose(tables[:, *each], best, rtol=1e-6)


def test_two_agents_payoffs_are_convex_supermodular_and_rising():
    """For a fixed state Q_tot is convex in (Q_1, Q_2) with non-negative weights: cross differences are >= 0."""
    with jax.enable_x64(True):
        utilities = np.sort(3 * np.random.default_rng(3).normal(size=(2, 6)), axis=-1)
        tables = mixed_tables(utilities, 1000, jnp.float64)
    cross = np.diff(np.diff(tables, axis=1), axis=2) / np.abs(tables).max((1, 2), keepdims=True)
    assert tables.dtype == np.float64
    assert cross.min() > -1e-13
    assert cross.max() > 1e-3  # it is not merely additive
    assert np.diff(tables, axis=1).min() >= 0
    assert np.diff(tables, axis=2).min() >= 0
    assert jnp.zeros(()).dtype == jnp.float32


def test_mixers_have_one_signature():
    q, state = jax.random.normal(KEY, (4, 2, 3)), jax.random.normal(KEY, (4, 2, 5))
    seen = MixerInputs(q_max=q, action=jnp.zeros((4, 2, 3), jnp.int32), state=state)
    for mixer in (vdn_mixer(), qmix_mixer(3, 5, 4, 6, 2)):
        assert jax.eval_shape(mixer.apply, shapes_of(mixer.init), q, seen).shape == (4, 2)
    np.testing.assert_allclose(vdn_mixer().apply({}, q, seen), np.asarray(q).sum(-1), rtol=1e-6, atol=1e-6)
    assert vdn_mixer().init(KEY) == {}


def test_one_agent_makes_the_sum_the_identity():
    q = jax.random.normal(KEY, (4, 2, 1))
    np.testing.assert_array_equal(vdn_mixer().apply({}, q, None), q[..., 0])


def test_linear_is_affine_with_a_bias_of_any_rank():
    module, x = Linear(3), jax.random.normal(KEY, (2, 1, 4, 5))
    params = module.init(KEY, x)["params"]
    expected = np.asarray(x) @ np.asarray(params["kernel"]) + np.asarray(params["bias"])
    np.testing.assert_allclose(module.apply({"params": params}, x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("steps", "rows"), [(13, 200), (26, 100), (101, 96), (7, 2000)])
def test_blocks_of_steps_are_the_whole_sequence(steps, rows):
    """Values, the last carry and gradients; the first case leaves steps over, in the last a block is one step."""
    module = RecurrentQ(8, 3)
    keys = jax.random.split(jax.random.key(0), 3)
    carry, x = jax.random.normal(keys[0], (rows, 8)), jax.random.normal(keys[1], (steps, rows, 4))
    params = module.init(keys[2], carry, x[:1])
    assert block_size(steps, rows) < steps

    def loss(apply):
        def value(params, carry, x):
            last, y = apply(params, carry, x)
            return jnp.square(y).mean() + jnp.sin(last).mean(), (last, y)

        return jax.jit(jax.value_and_grad(value, argnums=(0, 1, 2), has_aux=True))(params, carry, x)

    whole, blocks = loss(module.apply), loss(in_blocks(module.apply))
    for found, expected in zip(jax.tree.leaves(blocks), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rows", [1, 96, 160, 320, 5000])
def test_size_of_blocks(rows):
    """Few steps are left over, no block is far from BLOCK rows, and short sequences are left alone."""
    for steps in range(1, 130):
        size = block_size(steps, rows)
        assert size == steps < 2 * max(1, BLOCK // rows) or (
            max(1, BLOCK // rows) <= size <= 2 * max(1, BLOCK // rows) and size <= steps
        )
    assert [steps % block_size(steps, 96) for steps in (26, 51, 76, 101)] == [0, 0, 0, 1]
