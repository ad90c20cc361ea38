"""COMIX and COMIX-DIFFER: oracles CD-1 and CD-2, what must not matter, and the search inside the learner."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from value_cases import (
    AGENTS,
    KEY,
    SPEC,
    assert_close,
    context,
    flat,
    gradients,
    init,
    random_batch,
    step,
    values_of,
    view_of,
)

from jaxshare import compatibility, registry
from jaxshare.algos.comix import algorithm as comix
from jaxshare.algos.comix import search
from jaxshare.learners.passes import with_values
from jaxshare.models import inputs
from jaxshare.models.agents import AgentNetwork
from jaxshare.models.inputs import Reads
from jaxshare.models.mixers import Mixer, mix_two_layers
from jaxshare.training import replay
from jaxshare.training.counting import start_clock
from jaxshare.types import Box, Discrete, EnvSpec, Episode, RefusedError, TimeStep

BOX = Box(2, (-1.0, 0.0), (1.0, 4.0))
PLANE = dataclasses.replace(SPEC, name="plane", action=BOX)
EXACT = {"select": "all", "g_clamp": None, "alive_mask": False, "normaliser": "team"}


def parts_of(spec=PLANE, differ=None, **config):
    small = {"hidden_dim": 4, "embed_dim": 3, "hypernet_dim": 4, "cem_samples": 6, "cem_elites": 3, **config}
    parts = comix.make(comix.Config(**small), spec)
    if differ is None:
        return parts
    modifier = registry.get("modifiers", "differ")
    return modifier.make(modifier.Config(**differ), parts)


def read_by(parts, obs, action):
    """What the agents read, the action apart: [T+1, B, N, D]."""
    assert parts.reads == Reads(PLANE, last_action=True, agent_id=True)
    return parts.reads.build(obs, inputs.last_actions(action, PLANE))


def batch_of(spec=PLANE, seed=0, dtype=jnp.float32, **kinds):
    """`random_batch` with actions drawn from the box."""
    batch = random_batch(seed, dataclasses.replace(spec, action=Discrete(2)), dtype=dtype, **kinds)
    shape = (*batch.mask.shape, spec.num_agents, spec.action.dim)
    action = np.random.default_rng(seed).uniform(spec.action.low, spec.action.high, shape)
    action = action * np.asarray(batch.mask)[..., None, None]
    return batch.replace(action=jnp.array(action, dtype), avail=batch.avail[..., :0])


# ---- padding, cropping, and who sees what


def junk(batch, seed):
    """Large random values wherever the mask is 0."""
    rng = np.random.default_rng(seed)
    off = np.asarray(batch.mask) == 0
    unreached = np.concatenate([np.zeros_like(off[:1]), off])

    def fill(x, where, size):
        values = rng.random(x.shape) < 0.5 if x.dtype == bool else size * rng.normal(size=x.shape)
        return jnp.where(where.reshape(where.shape + (1,) * (x.ndim - 2)), jnp.asarray(values, x.dtype), x)

    slots = {name: fill(getattr(batch, name), unreached, 1e3) for name in ("obs", "state", "alive")}
    ends = {name: fill(getattr(batch, name), off, 1e3) for name in ("action", "reward", "terminated", "truncated")}
    return batch.replace(**slots, **ends)


RECURRENT = {"recurrent": True, "double_q": True, "differ": {}}


@pytest.mark.parametrize("settings", [{}, pytest.param(RECURRENT, marks=pytest.mark.slow)], ids=str)
def test_padding_changes_nothing(settings):
    algorithm = parts_of(**settings).assemble()
    learner, ctx, batch = init(algorithm), context(algorithm), batch_of()
    update = jax.jit(algorithm.update)
    clean, clean_metrics = update(learner, batch, ctx, KEY)
    found, metrics = update(learner, junk(batch, 1), ctx, KEY)
    jax.tree.map(np.testing.assert_array_equal, clean, found)
    for key, value in metrics.items():
        np.testing.assert_allclose(value, clean_metrics[key], rtol=1e-6, err_msg=key)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves((found, metrics)))
    assert np.any(flat(clean.params) != flat(learner.params))


def test_cropping_keeps_the_draws_of_the_search():
    parts = parts_of()
    batch = batch_of()
    cut = replay.crop(batch, batch.mask.shape[0] - 2)
    learner, ctx = init(parts.assemble()), context(parts.assemble())

    @jax.jit
    def next_q(batch):
        return values_of(parts, learner, batch, ctx, KEY).next_q

    np.testing.assert_allclose(next_q(cut), next_q(batch)[:-2], rtol=1e-5)


@pytest.mark.parametrize("share", ["all", "none", "type"])
def test_cem3_nobody_sees_the_observations_of_others(share):
    parts = parts_of(share_params=share)
    algorithm = parts.assemble()
    params, ctx = init(algorithm).params, context(algorithm)
    timestep = TimeStep(obs=batch_of().obs[0], **dict.fromkeys(OTHERS))
    other = timestep.replace(obs=timestep.obs.at[:, 0].add(1.0))
    act = jax.jit(lambda timestep: algorithm.act(params, algorithm.initial_carry(4), timestep, ctx, KEY, False)[1])
    first, second = act(timestep), act(other)
    np.testing.assert_allclose(first[:, 1:], second[:, 1:], rtol=1e-6, atol=1e-6)
    assert np.any(first[:, 0] != second[:, 0])


OTHERS = [field.name for field in dataclasses.fields(TimeStep) if field.name != "obs"]


# ---- acting


def player(algorithm, explore):
    """(params, ctx, obs [T, B, N, O]) -> actions [T, B, N, U] and the last carry."""

    def play(params, ctx, obs):
        def one(carry, at):
            timestep = TimeStep(obs=at[0], **dict.fromkeys(OTHERS))
            carry, action, _ = algorithm.act(params, carry, timestep, ctx, at[1], explore)
            return carry, action

        start = algorithm.initial_carry(obs.shape[1])
        carry, action = jax.lax.scan(one, start, (obs, jax.random.split(KEY, len(obs))))
        return action, carry

    return jax.jit(play)


@pytest.mark.slow
def test_memory_follows_the_actions_taken_in_acting_as_in_training():
    parts = parts_of(recurrent=True)
    algorithm, batch = parts.assemble(), batch_of()
    params, ctx = init(algorithm).params, context(algorithm)
    action, carry = player(algorithm, explore=True)(params, ctx, batch.obs[:-1])
    hidden, previous = carry["agent"], carry["previous"]
    np.testing.assert_allclose(previous, inputs.encode(action[-1], PLANE))
    x = read_by(parts, batch.obs, action)[:-1]
    agent = parts.networks["agent"]
    start, encoded = agent.initial_carry(4), inputs.encode(action, PLANE)
    memory = search.memories(agent, params["agent"], start, x, encoded)
    np.testing.assert_allclose(memory[-1], hidden, rtol=1e-5, atol=1e-6)
    last, q = search.utility(agent, params["agent"], start, x, encoded)
    np.testing.assert_allclose(last, hidden, rtol=1e-5, atol=1e-6)
    _, again = search.utility(agent, params["agent"], memory[0], x[1:2], encoded[1:2])
    np.testing.assert_allclose(again[0], q[1], rtol=1e-5, atol=1e-6)
    assert np.abs(hidden).max() > 0


def test_actions_stay_in_the_box_and_exploration_is_as_asked():
    algorithm = parts_of().assemble()
    params, obs = init(algorithm).params, batch_of().obs[:-1]
    explore = player(algorithm, explore=True)
    act = lambda play=explore, **hparams: np.asarray(play(params, context(algorithm, **hparams), obs)[0])  # noqa: E731
    greedy, still, loud = act(player(algorithm, explore=False)), act(action_noise=0.0), act(action_noise=10.0)
    uniform = act(epsilon_start=1.0, epsilon_end=1.0)
    first, later = (act(uniform_steps=1.0, action_noise=0.0, env_steps=steps) for steps in (0, 1))
    for action in (greedy, still, loud, uniform):
        assert np.all((action >= np.array(BOX.low)) & (action <= np.array(BOX.high)))
    np.testing.assert_array_equal(still, greedy)
    np.testing.assert_array_equal(later, greedy)
    np.testing.assert_array_equal(first, uniform)
    assert np.mean((loud == np.array(BOX.low)) | (loud == np.array(BOX.high))) > 0.8
    assert len(np.unique(uniform)) == uniform.size


def test_the_search_finds_the_best_action_of_the_network():
    """Against a grid of 41 x 41 actions: most of the way from the mean to the maximum for every agent and episode."""
    parts = parts_of(cem_samples=64, cem_elites=6)
    params, batch = init(parts.assemble()).params["agent"], batch_of()
    x = read_by(parts, batch.obs, batch.action)[0]
    agent = parts.networks["agent"]
    hidden = agent.initial_carry(4)
    action, found = search.best_action(parts, params, hidden, x, KEY)
    axis = np.linspace(-1, 1, 41)
    grid = jnp.array(np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2), jnp.float32)
    q = jax.vmap(
        lambda u: search.utility(agent, params, hidden, x[None], jnp.broadcast_to(u, (1, 4, AGENTS, 2)))[1][0]
    )(grid)
    np.testing.assert_allclose(
        found, search.utility(agent, params, hidden, x[None], action[None])[1][0], rtol=1e-5, atol=1e-5
    )
    share = (np.asarray(found) - q.mean(0)) / (q.max(0) - q.mean(0))
    assert share.max() <= 1.01
    assert share.min() > 0.8
    assert share.mean() > 0.95


def test_double_q_judges_the_online_choice():
    batch, found = batch_of(), {}
    for double in (False, True):
        parts = parts_of(double_q=double, cem_samples=64, cem_elites=6)
        algorithm = parts.assemble()
        learner, ctx = init(algorithm), context(algorithm)
        values = jax.jit(lambda state, p=parts, c=ctx: values_of(p, state, batch, c, KEY).next_q)
        found[double, "same"] = values(learner.replace(target_params=learner.params))
        found[double, "other"] = values(learner)
    np.testing.assert_allclose(found[True, "same"], found[False, "same"], rtol=1e-5, atol=1e-5)
    gain = np.asarray(found[False, "other"] - found[True, "other"])  # the target's own choice is better in its eyes
    assert gain.min() > -0.2  # a search is not exact
    assert gain.mean() > 0.2


# ---- COMIX-DIFFER


@pytest.mark.slow
def test_dividing_the_reward_changes_no_gradient():
    config = {"recurrent": True, "share_params": "none"}
    with jax.enable_x64(True):
        batch = batch_of(dtype=jnp.float64)
        base, divided = (gradients(parts_of(differ=d, **config), batch, jnp.float64) for d in (None, EXACT))
    assert flat(base).dtype == np.float64
    assert_close(divided, base, 1e-10)


def test_cd2_one_agent_is_q_learning_with_or_without_differ():
    spec = EnvSpec("alone", 1, 3, 2, BOX, 5, (0,), ("unit",))
    with jax.enable_x64(True):
        batch = batch_of(spec, dtype=jnp.float64)
        found = [gradients(parts_of(spec, differ), batch, jnp.float64) for differ in (None, {"select": "all"})]
    assert jax.tree.leaves(found[0]["mixer"]) == []
    assert_close(found[1]["agent"], found[0]["agent"], 1e-10)


PAIR = EnvSpec("pair", 2, 1, 2, Box(1, (-4.0,), (4.0,)), 2, (0, 0), ("unit",))
W1, BIAS, W2 = jnp.array([[[[1.0, 2.0], [0.5, 1.0]]]]), jnp.array([[[0.0, -5.0]]]), jnp.array([[[1.0, 0.5]]])  # QMIX-2
V = jnp.array([[0.25]])
# Q_i = theta_0 o_i + theta_1 u_i
LINES = AgentNetwork(
    init=lambda key: jnp.zeros(2),
    initial_carry=lambda batch: jnp.zeros((batch, 2, 0)),
    unroll=lambda theta, carry, x: (carry, theta[0] * x[..., :1] + 4 * theta[1] * x[..., 1:]),  # the box is 4 wide
    param_sets=(0, 0),
)


def line_parts(mix, **differ):
    """Of `LINES` and of a mixer (params, q, state) -> q_tot."""
    mixer = Mixer(lambda key: jnp.zeros(()), lambda params, q, seen: mix(params, q, seen.state))
    parts = parts_of(PAIR, {"g_clamp": None, "select": "all", **differ}, obs_last_action=False, obs_agent_id=False)
    return parts.with_network("agent", LINES).with_network("mixer", mixer)


def line_batch(obs, action, state, reward, alive=None, terminated=True):
    """One episode: obs [T+1, N], action [T, N], state [T+1, G], reward [T]; ends after the last step."""
    steps = len(reward)
    end = np.arange(steps)[:, None] == steps - 1
    return Episode(
        obs=jnp.array(obs, jnp.float32)[:, None, :, None],
        state=jnp.array(state, jnp.float32)[:, None],
        avail=jnp.ones((steps + 1, 1, 2, 0), bool),
        alive=jnp.ones((steps + 1, 1, 2), bool) if alive is None else jnp.array(alive, bool)[:, None],
        action=jnp.array(action, jnp.float32)[:, None, :, None],
        reward=jnp.repeat(jnp.array(reward, jnp.float32)[:, None, None], 2, -1),
        terminated=jnp.array(end & terminated),
        truncated=jnp.array(end & (not terminated)),
        mask=jnp.ones((steps, 1)),
    )


def line_learner(algorithm, theta, target=(0.0, 0.0), mixer=(0.0, 0.0)):
    make = lambda theta, m: {"agent": jnp.array(theta, jnp.float32), "mixer": jnp.float32(m)}  # noqa: E731
    return init(algorithm).replace(params=make(theta, mixer[0]), target_params=make(target, mixer[1]))


@pytest.mark.parametrize(("on_timeout", "terminated"), [(True, False), (False, False), (True, True)])
def test_cd1_individual_rewards_of_dif1_and_ends_of_episodes(on_timeout, terminated):
    """DIF-1 with Q_i = u_i and Q_i' = o_i': only what bootstraps has the target 1 + 0.9 * 2."""
    parts = line_parts(lambda online, q, state: jnp.where(online > 0, mix_two_layers(q, W1, BIAS, W2, V), 2.0))
    parts = dataclasses.replace(parts, config=dataclasses.replace(parts.config, bootstrap_on_timeout=on_timeout))
    algorithm = parts.assemble()
    batch = line_batch([[0, 0], [0.5, 1.0]], [[1, 2]], np.zeros((2, 2)), [1.0], terminated=terminated)
    learner = line_learner(algorithm, (0, 1), (1, 0), mixer=(1.0, 0.0))
    shown = jax.jit(algorithm.inspect)(learner, batch, context(algorithm, gamma=0.9))
    np.testing.assert_allclose(shown["q_taken"][0, 0], [1, 2], rtol=1e-6)
    bootstraps = on_timeout and not terminated
    delta = (2.8 if bootstraps else 1.0) - 1.9339397
    error = delta * np.array([1.3678794, 0.6839397])
    reward = error + np.array([1, 2]) - 0.9 * bootstraps * np.array([0.5, 1.0])
    if bootstraps:
        np.testing.assert_allclose(error, [1.1846660, 0.5923330], rtol=1e-5)
        np.testing.assert_allclose(reward, [1.7346660, 1.6923330], rtol=1e-5)
    np.testing.assert_allclose(shown["individual_reward"][0, 0], reward, rtol=1e-5)


@pytest.mark.parametrize(
    ("differ", "dead", "gradient"),
    [
        ({"normaliser": "team"}, False, -0.1943036),
        ({"normaliser": "individual"}, False, -0.0971518),
        ({"normaliser": "team"}, True, -0.6443036),
        ({"normaliser": "individual"}, True, -0.4295357),
    ],
    ids=str,
)
def test_cd1_gradients_of_dif3(differ, dead, gradient):
    """Q_i = theta u_i, Q_tot = g(s) . Q, and rewards that make Q_tot - y the given errors."""
    g, u = np.array([[1.367879, 0.683940], [0.5, 1.5]]), np.array([[1.0, 2.0], [3.0, 1.0]])
    parts = line_parts(lambda params, q, state: (q * state).sum(-1) + params, **differ)
    algorithm, theta = parts.assemble(), 0.7
    reward = theta * (g * u).sum(-1) - [-0.4, 0.3]
    alive = [[1, 1], [1, not dead], [0, 0]]
    batch = line_batch(np.zeros((3, 2)), u, [*g, [0, 0]], reward, alive)
    found, metrics, _ = step(algorithm, line_learner(algorithm, (0, theta)), batch, context(algorithm, gamma=0.0))
    np.testing.assert_allclose(found["agent"], [0, gradient], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(metrics["loss/td"], (0.4**2 + 0.3**2) / 2, rtol=1e-5)


def test_qtot_is_monotone_and_the_target_gets_no_gradient():
    parts = parts_of()
    algorithm, batch = parts.assemble(), batch_of()
    learner, ctx = init(algorithm), context(algorithm)

    @jax.jit
    def look(target):
        values = values_of(parts, learner.replace(target_params=target), batch, ctx, KEY)
        return jax.grad(lambda q: values.mix(q).sum())(values.q_taken)

    slopes = np.asarray(look(learner.target_params))
    assert np.all(slopes >= 0)
    assert np.any(slopes > 0)

    def loss(target):
        view = with_values(view_of(parts, learner.replace(target_params=target), batch, ctx))
        return parts.steps[parts.main].loss(view)[0]

    assert not np.any(flat(jax.jit(jax.grad(loss))(learner.target_params)))


# ---- what is stored, and what is refused


def test_a_ring_of_half_precision_keeps_actions_exactly():
    batch = batch_of()
    ring = replay.init(batch, 4, "bfloat16")
    assert ring.action.dtype == jnp.float32
    through = jax.jit(lambda: replay.gather(replay.add(ring, batch, start_clock()), jnp.arange(4)))
    read = through()
    np.testing.assert_array_equal(read.action, batch.action)
    assert read.avail.shape == batch.avail.shape


def test_networks_read_the_box_as_the_unit_interval():
    corners = jnp.array([BOX.low, BOX.high, (0.0, 2.0), (0.5, 1.0)])
    encoded = inputs.encode(corners, PLANE)
    np.testing.assert_array_equal(encoded, [[-1, -1], [1, 1], [0, 0], [0.5, -0.5]])
    np.testing.assert_array_equal(inputs.decode(encoded, BOX), corners)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"mixer": "qplex"}, "algo.mixer=qplex is not one of qmix, vdn"),
        ({"hypernet_layers": 3}, "algo.hypernet_layers=3"),
        ({"cem_rounds": 0}, "algo.cem_rounds=0 must be at least 1"),
        ({"cem_elites": 1}, "algo.cem_elites=1 must be at least 2"),
        ({"cem_elites": 7, "cem_samples": 6}, "algo.cem_elites=7 .* at most algo.cem_samples=6"),
    ],
)
def test_impossible_settings_are_refused(config, told):
    with pytest.raises(RefusedError, match=told):
        comix.Config(**config)


def test_the_wrong_kind_of_action_is_refused_with_the_remedy():
    assert "use algo=qmix" in compatibility.refusal("comix", (), Discrete(3))
    assert "use algo=comix" in compatibility.refusal("qmix", (), BOX)
    assert compatibility.refusal("comix", (), BOX) is None
    assert compatibility.refusal("comix", ("differ",), BOX) is None
    for low, high in (((-np.inf, 0.0), (1.0, 1.0)), ((0.0, 1.0), (1.0, 1.0))):
        assert "finite bounds" in compatibility.refusal("comix", (), Box(2, low, high))


def test_covdn_is_the_sum():
    assert jax.tree.leaves(parts_of(mixer="vdn").mixer.init(KEY)) == []
