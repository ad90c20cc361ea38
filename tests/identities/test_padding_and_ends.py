"""Ends of episodes by hand, padding that must not matter, permutations, groups, and target networks."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from value_cases import (
    ACTIONS,
    KEY,
    OBS,
    SPEC,
    assert_close,
    context,
    flat,
    init,
    learner_parts,
    random_batch,
    step,
    values_of,
    view_of,
)

from jaxshare.learners.passes import with_values
from jaxshare.learners.records import View
from jaxshare.learners.value import Values
from jaxshare.learners.value_losses import individual_td_loss, team_td_loss
from jaxshare.models.agents import AgentNetwork
from jaxshare.training import replay
from jaxshare.types import Discrete, EnvSpec, Episode

# ---- padding


def junk(batch, seed=1):
    """The batch with large random values wherever the mask is 0; available actions stay all ones there."""
    rng = np.random.default_rng(seed)
    off = np.asarray(batch.mask) == 0
    unreached = np.concatenate([np.zeros_like(off[:1]), off])

    def fill(x, where, values):
        where = where.reshape(where.shape + (1,) * (x.ndim - 2))
        return jnp.where(where, jnp.asarray(values, x.dtype), x)

    noise = lambda x, size: size * rng.normal(size=x.shape)  # noqa: E731
    flips = lambda x: rng.random(x.shape) < 0.5  # noqa: E731
    assert unreached.any()
    assert np.asarray(batch.avail)[unreached].all()
    return batch.replace(
        obs=fill(batch.obs, unreached, noise(batch.obs, 1e4)),
        state=fill(batch.state, unreached, noise(batch.state, 1e3)),
        alive=fill(batch.alive, unreached, flips(batch.alive)),
        action=fill(batch.action, off, rng.integers(0, ACTIONS, batch.action.shape)),
        reward=fill(batch.reward, off, noise(batch.reward, 1e4)),
        terminated=fill(batch.terminated, off, flips(batch.terminated)),
        truncated=fill(batch.truncated, off, flips(batch.truncated)),
    )


LEARNERS = [("iql", None), ("vdn", None), ("qmix", None), ("vdn", {"select": "all"})]
LEARNERS += [("qmix", {"select": select}) for select in ("all", "greedy", "greedy_weight", "per", "per_expected")]


@pytest.mark.parametrize(("name", "differ"), LEARNERS, ids=str)
def test_padding_changes_nothing(name, differ):
    algorithm = learner_parts(name, differ=differ).assemble()
    learner, ctx, batch = init(algorithm), context(algorithm), random_batch()
    update = jax.jit(algorithm.update)
    clean, clean_metrics = update(learner, batch, ctx, KEY)
    for seed in (1, 2):
        found, metrics = update(learner, junk(batch, seed), ctx, KEY)
        jax.tree.map(np.testing.assert_array_equal, clean, found)  # parameters, optimiser (hence gradients), targets
        assert metrics.keys() == clean_metrics.keys()
        for key, value in metrics.items():
            np.testing.assert_allclose(value, clean_metrics[key], rtol=1e-6, err_msg=key)
    assert np.any(flat(clean.params) != flat(learner.params))


def test_a_batch_of_nothing_but_padding_learns_nothing():
    for name, differ in (("iql", None), ("qmix", {"select": "per"})):
        algorithm = learner_parts(name, differ=differ).assemble()
        batch = random_batch()
        found, metrics, _ = step(algorithm, init(algorithm), batch.replace(mask=0 * batch.mask), context(algorithm))
        assert not np.any(flat(found))
        assert all(np.all(np.isfinite(value)) for value in metrics.values())


@pytest.mark.parametrize(("name", "differ"), [("iql", None), ("qmix", None), ("qmix", {"select": "greedy"})], ids=str)
def test_cropping_to_the_longest_episode_changes_nothing(name, differ):
    longer = dataclasses.replace(SPEC, episode_limit=SPEC.episode_limit + 3)
    algorithm = learner_parts(name, spec=longer, differ=differ).assemble()
    batch, room = random_batch(), 3

    def pad(x, value):
        return jnp.concatenate([x, jnp.full((room, *x.shape[1:]), value, x.dtype)])

    padded = jax.tree.map(lambda x: pad(x, 0), batch).replace(avail=pad(batch.avail, True))
    limit = int(batch.mask.sum(0).max())
    cropped = replay.crop(padded, limit)
    assert padded.mask.shape[0] == limit + room
    jax.tree.map(np.testing.assert_array_equal, cropped, batch)
    learner, ctx = init(algorithm), context(algorithm)
    whole, whole_metrics, _ = step(algorithm, learner, padded, ctx)
    part, part_metrics, _ = step(algorithm, learner, cropped, ctx)
    assert_close(part, whole, 1e-5)
    for key, value in whole_metrics.items():
        np.testing.assert_allclose(part_metrics[key], value, rtol=1e-4, atol=1e-6, err_msg=key)


# ---- two episodes by hand: the utilities are the parameters

PAIR = EnvSpec("pair", 2, 1, 1, Discrete(2), 3, (0, 0), ("unit",))
# [agent][slot][action]. The first episode terminates after two steps; the last slot is padding.
FIRST = [[[1, 2], [3, 1], [0, 4], [9, 9]], [[2, 0], [1, 2], [5, 1], [9, 9]]]
FIRST_TARGET = [[[0, 0], [0.5, 7], [6, 6], [8, 8]], [[0, 0], [1.5, 8], [6, 6], [8, 8]]]
# The second runs into the limit of three; its second agent is dead from slot 2 on and has action 0 only.
SECOND = [[[2, 1], [1, 3], [2, 0], [1, 6]], [[0, 1], [2, 4], [3, 9], [2, 9]]]
SECOND_TARGET = [[[0, 0], [4, 1], [1, 2], [8, 2]], [[0, 0], [3, 0.5], [1, 100], [2, 100]]]
Q_TAKEN = np.array([[[1, 0], [2, 1]], [[1, 1], [3, 2]], [[0, 0], [2, 3]]])  # [slot, episode, agent]; one padded
NEXT_Q = np.array([[[0.5, 1.5], [1, 0.5]], [[0, 0], [1, 1]], [[0, 0], [2, 2]]])  # of the online network's choice
REWARD = np.array([[1.0, -1.0], [5.0, 0.0], [0.0, 3.0]])
REAL = np.array([[1, 1], [1, 1], [0, 1]])
ENDED = np.array([[0, 0], [1, 0], [0, 0]])
TIMEOUT = np.array([[0, 0], [0, 0], [0, 1]])
ALIVE = np.array([[[1, 1], [1, 1]], [[1, 1], [1, 1]], [[1, 1], [1, 0]], [[0, 0], [1, 0]]])
GAMMA = 0.9


def table(first, second):
    return jnp.array(np.array([first, second]).transpose(2, 0, 1, 3), jnp.float32)  # [slot, episode, agent, action]


def hand_batch():
    avail = np.ones((4, 2, 2, 2), bool)
    avail[1, 0, 1, 1] = avail[2:, 1, 1, 1] = False
    action = np.array([[[0, 1], [0, 1]], [[1, 0], [1, 0]], [[0, 0], [0, 0]]])
    return Episode(
        obs=jnp.zeros((4, 2, 2, 1)),
        state=jnp.ones((4, 2, 1)),
        avail=jnp.array(avail),
        alive=jnp.array(ALIVE, bool),
        action=jnp.array(action, jnp.int32),
        reward=jnp.array(np.repeat(REWARD[..., None], 2, -1), jnp.float32),
        terminated=jnp.array(ENDED, bool),
        truncated=jnp.array(TIMEOUT, bool),
        mask=jnp.array(REAL, jnp.float32),
    )


def fixed_mixer(second_bias):
    """A QMixer that ignores the state: the weights of QMIX-1 (second_bias -4) and QMIX-2 (-5)."""
    bias = {"w1": [1, 2, 0.5, 1], "b1": [0, second_bias], "w2": [1, 0.5], "v_hidden": [0, 0], "v_out": [0.25]}
    rows = {name: 2 if name == "v_out" else 1 for name in bias}
    return {
        name: {"kernel": jnp.zeros((rows[name], len(b))), "bias": jnp.array(b, jnp.float32)} for name, b in bias.items()
    }


def slow_mix(q, second_bias):
    """(Q_tot, its slopes) of `fixed_mixer` for one pair of utilities."""
    z = np.array([q[0] + 0.5 * q[1], 2 * q[0] + q[1] + second_bias])
    slope = np.where(z > 0, 1, np.exp(z)) * [1, 0.5]
    return np.where(z > 0, z, np.expm1(z)) @ [1, 0.5] + 0.25, np.array([[1, 2], [0.5, 1]]) @ slope


def hand_gradients(name, differ=None, **config):
    """dL/dQ of the taken actions [slot, episode, agent], all other entries being 0, and the metrics."""
    settings = {"hypernet_layers": 1, "embed_dim": 2} if name == "qmix" else {}
    parts = learner_parts(name, PAIR, differ, **settings, **config)
    tables = AgentNetwork(
        init=lambda key: table(FIRST, SECOND),
        initial_carry=lambda batch: jnp.zeros((batch, 2, 0)),
        unroll=lambda params, carry, x: (carry, params),
        param_sets=(0, 0),
    )
    algorithm, batch = parts.with_network("agent", tables).assemble(), hand_batch()
    learner = init(algorithm)
    params, target = {"agent": table(FIRST, SECOND)}, {"agent": table(FIRST_TARGET, SECOND_TARGET)}
    if name != "iql":
        params["mixer"], target["mixer"] = (fixed_mixer(-5), fixed_mixer(-4)) if name == "qmix" else ({}, {})
    learner = learner.replace(params=params, target_params=target)
    found, metrics, _ = step(algorithm, learner, batch, context(algorithm, gamma=GAMMA))
    taken = np.take_along_axis(found["agent"][:-1], np.asarray(batch.action)[..., None], -1)[..., 0]
    np.testing.assert_allclose(np.abs(found["agent"]).sum(), np.abs(taken).sum(), rtol=1e-6)
    return taken, metrics


def ends(on_timeout):
    return ENDED if on_timeout else ENDED | TIMEOUT


@pytest.mark.parametrize(
    ("on_timeout", "target"),
    [
        (False, [[[1.45, 2.35], [-0.1, -0.55]], [[5, 5], [0.9, 0.9]], [[0, 0], [3, 3]]]),
        (True, [[[1.45, 2.35], [-0.1, -0.55]], [[5, 5], [0.9, 0.9]], [[0, 0], [4.8, 4.8]]]),
    ],
)
def test_two_episodes_for_iql(on_timeout, target):
    found, metrics = hand_gradients("iql", bootstrap_on_timeout=on_timeout)
    real = REAL[..., None]
    np.testing.assert_allclose((Q_TAKEN - found * 2 * 5 / 2) * real, np.array(target) * real, rtol=1e-5, atol=1e-6)
    loss = np.sum(real * (Q_TAKEN - target) ** 2) / 10
    np.testing.assert_allclose(metrics["loss/td"], loss, rtol=1e-5)
    np.testing.assert_allclose(metrics["q/target_mean"], np.sum(real * target) / 10, rtol=1e-5)


@pytest.mark.parametrize(("on_timeout", "last"), [(False, 3.0), (True, 6.6)])
def test_two_episodes_for_vdn(on_timeout, last):
    found, metrics = hand_gradients("vdn", bootstrap_on_timeout=on_timeout)
    target = np.array([[2.8, 0.35], [5, 1.8], [0, last]])
    delta = REAL * (target - [[1, 3], [2, 5], [0, 5]])
    np.testing.assert_allclose(found, np.repeat(-2 * delta[..., None] / 5, 2, -1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(metrics["loss/td"], np.sum(delta**2) / 5, rtol=1e-5)
    np.testing.assert_allclose(metrics["q/target_mean"], np.sum(REAL * target) / 5, rtol=1e-5)


def qmix_by_hand(on_timeout):
    """(delta [slot, episode], slopes [slot, episode, agent]) with online bias -5 and target bias -4."""
    delta, slopes = np.zeros((3, 2)), np.zeros((3, 2, 2))
    for at in np.ndindex(3, 2):
        q_tot, slopes[at] = slow_mix(Q_TAKEN[at], -5)
        target = REWARD[at] + GAMMA * (1 - ends(on_timeout)[at]) * slow_mix(NEXT_Q[at], -4)[0]
        delta[at] = REAL[at] * (target - q_tot)
    return delta, slopes


@pytest.mark.parametrize("on_timeout", [False, True])
def test_two_episodes_for_qmix(on_timeout):
    found, metrics = hand_gradients("qmix", bootstrap_on_timeout=on_timeout)
    delta, slopes = qmix_by_hand(on_timeout)
    # the first target in full: q' = (0.5, 1.5) gives z = (1.25, -1.5), Q' = 1.25 + (e^-1.5 - 1) / 2 + 0.25 = 1.111565
    q_tot = 1 + 0.5 * np.expm1(-3) + 0.25  # q = (1, 0): z = (1, -3)
    np.testing.assert_allclose(delta[0, 0], 1 + 0.9 * 1.1115651 - q_tot, rtol=1e-6)
    np.testing.assert_allclose(found, -2 * delta[..., None] * slopes / 5, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(metrics["loss/td"], np.sum(delta**2) / 5, rtol=1e-5)


@pytest.mark.parametrize("on_timeout", [False, True])
def test_two_episodes_for_differ(on_timeout):
    found, metrics = hand_gradients("qmix", {"select": "all"}, bootstrap_on_timeout=on_timeout)
    delta, slopes = qmix_by_hand(on_timeout)
    alive = ALIVE[:-1] * REAL[..., None]
    assert alive.sum() == 9
    error = delta[..., None] * slopes * alive  # the dead agent of the last step is left out
    np.testing.assert_allclose(found, -2 * error / 9, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(metrics["loss/individual"], np.sum(error**2) / 9, rtol=1e-4)
    np.testing.assert_allclose(metrics["loss/td"], np.sum(delta**2) / 5, rtol=1e-4)


def test_iql1_and_vdn1_numbers():
    """Q = (1, 2), Q' = (0.5, 1.5), R = 1, gamma = 0.9, with and without a sum."""
    one = lambda *x: jnp.array(x, jnp.float32).reshape(1, 1, -1)  # noqa: E731
    values = Values(
        q=None, q_taken=one(1, 2), next_q=one(0.5, 1.5), q_tot=jnp.full((1, 1), 3.0), next_q_tot=jnp.full((1, 1), 2.0),
        discount=jnp.full((1, 1), 0.9), team_reward=jnp.ones((1, 1)), mix=None,
    )  # fmt: skip
    batch = Episode(*[None] * 5, one(1, 1), None, None, jnp.ones((1, 1)))
    view = View(None, None, {}, batch, None, KEY, values=values)
    loss, metrics = individual_td_loss(view)
    np.testing.assert_allclose(loss, 0.1625, rtol=1e-6)  # errors -0.45 and -0.35
    np.testing.assert_allclose(metrics["td_error/abs_mean"], 0.4, rtol=1e-6)

    def team(q):
        return team_td_loss(view.replace(values=values.replace(q_taken=q, q_tot=q.sum(-1))))[0]

    loss, grad = jax.value_and_grad(team)(values.q_taken)
    np.testing.assert_allclose(loss, 0.04, rtol=1e-5)
    np.testing.assert_allclose(grad, one(0.4, 0.4), rtol=1e-5)


# ---- permutations and shifts


def permuted_params(params, order):
    """The parameter sets of per-agent networks in another order, each still reading its own one-hot index."""
    params = jax.tree.map(lambda p: p[order], params)
    rows = np.concatenate([np.arange(OBS + ACTIONS), OBS + ACTIONS + order])
    embed = {**params["embed"], "kernel": params["embed"]["kernel"][:, rows]}
    return {**params, "embed": embed}


def permuted_batch(batch, order):
    fields = ("obs", "avail", "alive", "action", "reward")
    return batch.replace(**{name: getattr(batch, name)[:, :, order] for name in fields})


@pytest.mark.parametrize("name", ["iql", "vdn"])
def test_permuting_agents_permutes_the_gradients_of_their_networks(name):
    order = np.array([2, 0, 1])
    batch = random_batch()
    own = np.random.default_rng(5).normal(size=batch.reward.shape)
    batch = batch.replace(reward=jnp.array(own * np.asarray(batch.mask)[..., None], jnp.float32))
    spec = dataclasses.replace(SPEC, common_reward=False)
    algorithm = learner_parts(name, spec, share_params="none").assemble()
    learner, ctx = init(algorithm), context(algorithm)
    moved = learner.replace(
        params={**learner.params, "agent": permuted_params(learner.params["agent"], order)},
        target_params={**learner.target_params, "agent": permuted_params(learner.target_params["agent"], order)},
    )
    here, metrics, _ = step(algorithm, learner, batch, ctx)
    there, moved_metrics, _ = step(algorithm, moved, permuted_batch(batch, order), ctx)
    assert_close(there["agent"], permuted_params(here["agent"], order), 1e-5)
    np.testing.assert_allclose(moved_metrics["loss/td"], metrics["loss/td"], rtol=1e-5)


@pytest.mark.parametrize("name", ["vdn", "qmix", "iql"])
def test_vdn2_opposite_shifts_of_two_utilities_cancel_in_a_sum_only(name):
    algorithm = learner_parts(name, share_params="none").assemble()
    learner, ctx, batch = init(algorithm), context(algorithm), random_batch()
    shift = jnp.array([3.0, -3.0, 0.0])[:, None]
    head = learner.params["agent"]["head"]
    agent = {**learner.params["agent"], "head": {**head, "bias": head["bias"] + shift}}
    update = jax.jit(algorithm.update)
    losses = [
        float(update(state, batch, ctx, KEY)[1]["loss/td"])
        for state in (learner, learner.replace(params={**learner.params, "agent": agent}))
    ]
    assert (abs(losses[1] / losses[0] - 1) < 1e-5) == (name == "vdn")


@pytest.mark.parametrize("layers", [1, 2])
def test_qmix_is_monotone_in_every_utility_of_the_assembled_learner(layers):
    parts = learner_parts("qmix", hypernet_layers=layers)
    algorithm, batch = parts.assemble(), random_batch()
    ctx = context(algorithm)

    @jax.jit
    def slopes(learner):
        values = values_of(parts, learner, batch, ctx)
        return jax.grad(lambda q: values.mix(q).sum())(values.q_taken), values.q_tot - values.mix(values.q_taken)

    for seed in range(20):
        learner = init(algorithm, seed, scale=1.5)
        found, gap = slopes(learner)
        assert found.shape == batch.action.shape
        assert np.all(np.asarray(found) >= 0)
        assert np.any(np.asarray(found) > 0)
        np.testing.assert_array_equal(gap, 0)


# ---- groups and target networks


@pytest.mark.parametrize("held", ["agent", "mixer"])
def test_each_group_is_clipped_by_its_own_norm(held):
    """With a tiny clip both groups have exactly that norm, so neither is scaled down by the other."""
    algorithm = learner_parts("qmix", differ={"select": "all"}).assemble()
    learner, batch = init(algorithm), random_batch()
    free, metrics, _ = step(algorithm, learner, batch, context(algorithm))
    norm = np.linalg.norm(flat(free[held]))
    np.testing.assert_allclose(metrics[f"grad_norm/{held}"], norm, rtol=1e-5)
    limit = 1e-3
    assert norm > limit
    clipped, _, _ = step(algorithm, learner, batch, context(algorithm, grad_clip=limit))
    np.testing.assert_allclose(flat(clipped[held]), flat(free[held]) * limit / norm, rtol=1e-4, atol=1e-9)


def test_one_joint_group_is_clipped_by_its_common_norm():
    algorithm = learner_parts("qmix").assemble()
    learner, batch = init(algorithm), random_batch()
    free, metrics, _ = step(algorithm, learner, batch, context(algorithm))
    norm = np.linalg.norm(flat(free))
    np.testing.assert_allclose(metrics["grad_norm/joint"], norm, rtol=1e-5)
    clipped, _, _ = step(algorithm, learner, batch, context(algorithm, grad_clip=norm / 2))
    assert_close(clipped, jax.tree.map(lambda g: g / 2, free), 1e-5)


def test_the_target_network_is_copied_at_every_200th_update():
    algorithm = learner_parts("qmix", recurrent=False).assemble()
    learner, batch = init(algorithm), random_batch()
    update = jax.jit(algorithm.update)
    for updates in (0, 1, 198, 199, 200, 398, 399, 400):
        new, _ = update(learner, batch, context(algorithm, updates=updates), KEY)
        assert np.any(flat(new.params) != flat(learner.params))
        source = new.params if updates in (199, 399) else learner.target_params  # updates: those made before
        jax.tree.map(np.testing.assert_array_equal, new.target_params, source)


def test_the_target_network_follows_softly():
    algorithm = learner_parts("qmix", recurrent=False, target_update="soft").assemble()
    learner, batch = init(algorithm), random_batch()
    for updates, tau in ((0, 0.01), (199, 0.25)):
        _, _, new = step(algorithm, learner, batch, context(algorithm, updates=updates, tau=tau))
        expected = jax.tree.map(lambda p, t, tau=tau: tau * p + (1 - tau) * t, new.params, learner.target_params)
        assert_close(new.target_params, expected, 1e-6)


def test_the_target_network_gets_no_gradient():
    """Online parameters move by their own gradient only: targets enter the loss as numbers."""
    parts = learner_parts("qmix")
    algorithm, batch = parts.assemble(), random_batch()
    learner, ctx = init(algorithm), context(algorithm)

    def loss(target):
        view = with_values(view_of(parts, learner.replace(target_params=target), batch, ctx, key=None))
        return parts.steps[parts.main].loss(view.replace(key=KEY))[0]

    assert not np.any(flat(jax.jit(jax.grad(loss))(learner.target_params)))
