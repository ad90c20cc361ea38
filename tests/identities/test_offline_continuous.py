"""MABCQ and MACQL with continuous actions, by hand: what is drawn, what is allowed, targets, prices, who learns.

Networks are tables or single numbers: features say nothing, Q_i(a) is a slope times a, one agent acts on a line.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_offline as cases
from actor_critic_cases import view_of
from value_cases import KEY, flat

from jaxshare.algos.mabcq import continuous as mabcq
from jaxshare.models import inputs
from jaxshare.ops import offline
from jaxshare.types import Box, EnvSpec, LearnerState

LINE = cases.LINE
PAIR = dataclasses.replace(LINE, num_agents=2, groups=(0, 0))
NEXT = np.array([-0.5, 0.5, 0.0])  # what policies mean in the slots after the first
SAID = cases.SAID


@functools.cache
def slopes(name, spec=LINE, **config):
    """A learner whose Q_i(a) is its parameter times a, whose features are 0, and which adds tanh(parameter) * Phi."""
    learner = cases.tables(name, spec, **config)

    def replaced(learner, network, unroll):
        return learner.with_network(network, dataclasses.replace(learner.networks[network], unroll=unroll))

    nothing = lambda params, carry, x: (carry, jnp.zeros((*x.shape[:-1], 1)))  # noqa: E731
    judge = lambda params, carry, x: (carry, params * x[..., -1:])  # noqa: E731
    constant = lambda params, carry, x: (carry, jnp.broadcast_to(params, (*x.shape[:-1], 1)))  # noqa: E731
    learner = replaced(learner, "agent", nothing)
    learner = replaced(learner, "utility", judge)
    return replaced(learner, "perturbation", constant) if name == "mabcq" else learner


def step_of(learner, step, params, target, batch, ctx):
    """(loss, metrics) with a key, as in an update."""
    view = view_of(learner, LearnerState(params, target, {}, {}), batch, ctx).replace(key=KEY)
    return learner.steps[step].loss(view)


def numbers(utility, weights=(1.0,), bias=0.0, said=SAID, **more):
    """Parameters; agent has none."""
    mixer = cases.plain(weights, bias)
    return {"agent": jnp.float32(0), "utility": jnp.float32(utility), "mixer": mixer, **more}


# -------------------------------------------------------------------------------------------------------------- mabcq


@pytest.mark.parametrize("zeta", [0.0, 0.3, 0.9])
def test_familiar_samples_are_those_near_the_likeliest(zeta):
    """mu(a) / max mu(a') > zeta among those drawn, by the formula of a Gaussian; never none of them."""
    mean = jnp.array([[0.2, -0.9], [0.0, 0.5]])
    hparams = {"action_std": jnp.float32(0.3), "zeta": jnp.float32(zeta)}
    drawn, allowed = mabcq.candidates(KEY, mean, hparams, 50)
    assert (drawn.shape, allowed.shape) == ((50, 2, 2), (50, 2))
    assert np.abs(drawn).max() <= 1
    log_mu = -np.square((np.asarray(drawn) - np.asarray(mean)) / 0.3).sum(-1) / 2
    np.testing.assert_array_equal(allowed, np.exp(log_mu - log_mu.max(0)) > zeta)
    assert allowed.any(0).all()
    assert allowed.all() == (zeta == 0.0)


def test_the_perturbation_is_bounded_and_stays_in_the_box():
    learner = slopes("mabcq")
    network = learner.networks["perturbation"]
    drawn = jnp.linspace(-1, 1, 9).reshape(9, 1, 1, 1, 1)
    e = jnp.zeros((1, 1, 1, 1))
    for says, expected in ((50.0, 0.25), (-50.0, -0.25), (np.arctanh(0.4), 0.1)):
        moved = mabcq.perturbed(network, jnp.float32(says), e, drawn, jnp.float32(0.25))
        np.testing.assert_allclose(moved, np.clip(np.asarray(drawn) + expected, -1, 1), atol=1e-6)
    same = mabcq.perturbed(network, jnp.float32(50.0), e, drawn, jnp.float32(0.0))
    np.testing.assert_array_equal(same, drawn)


@pytest.mark.parametrize("double_q", [True, False])
def test_targets_are_of_what_the_behaviour_would_do_by_hand(double_q):
    """A narrow behaviour: the next action is its mean and the target's Phi, Q' = 2 w' a + b'."""
    learner = slopes("mabcq", double_q=double_q)
    batch = cases.on_a_line([3.0, 1.5, 2.0])  # 0.5, -0.25 and 0 to the networks
    ctx = cases.hand(learner, action_std=1e-6, perturbation=0.125)
    behaviour = SAID
    params = numbers(4.0, (0.5,), 1.0, behaviour=behaviour, perturbation=jnp.float32(-9.0))
    target = numbers(2.0, (3.0,), 0.5, behaviour=behaviour, perturbation=jnp.float32(9.0))
    loss, metrics = step_of(learner, "joint", params, target, batch, ctx)
    y = 1 + 0.99 * (3.0 * 2.0 * (NEXT + 0.125 * np.tanh(9.0)) + 0.5)
    q = 0.5 * 4.0 * np.array([0.5, -0.25, 0.0]) + 1.0
    np.testing.assert_allclose(loss, np.square(y - q).mean(), rtol=1e-4)
    np.testing.assert_allclose(metrics["q/target_mean"], y.mean(), rtol=1e-4)


@pytest.mark.parametrize(("chooser", "judge"), [(1.0, 2.0), (-1.0, 2.0), (1.0, -2.0)])
def test_the_best_of_the_familiar_samples_is_taken(chooser, judge):
    """Online networks choose among those that the target judges: the highest, or the lowest, of the allowed."""
    learner = slopes("mabcq", action_samples=20)
    batch = cases.on_a_line([3.0, 1.5, 2.0])
    ctx = cases.hand(learner, action_std=0.2, perturbation=0.0)
    more = {"behaviour": SAID, "perturbation": jnp.float32(0.0)}
    params, target = numbers(chooser, **more), numbers(judge, **more)
    _, metrics = step_of(learner, "joint", params, target, batch, ctx)
    view = view_of(learner, LearnerState(params, target, {}, {}), batch, ctx).replace(key=KEY)
    drawn, allowed = (np.asarray(x) for x in mabcq.drawn_per_step(view, jnp.tanh(SAID)[1:]))
    best = np.where(allowed, chooser * drawn[..., 0], -np.inf).argmax(0)
    taken = np.take_along_axis(drawn[..., 0], best[None], 0)[0, :, 0, 0]
    assert 0 < metrics["behaviour/allowed"] < 1
    np.testing.assert_allclose(metrics["q/target_mean"], (1 + 0.99 * judge * taken).mean(), rtol=1e-5)


@pytest.mark.parametrize("slope", [3.0, -3.0])
def test_the_perturbation_follows_the_values_and_moves_nothing_else(slope):
    learner = slopes("mabcq")
    batch = cases.on_a_line([3.0, 1.5, 2.0])
    ctx = cases.hand(learner, action_std=0.01, perturbation=0.1)
    params = numbers(slope, behaviour=0.5 * SAID, perturbation=jnp.float32(0.0))
    loss = lambda p: step_of(learner, "perturbation", p, params, batch, ctx)[0]  # noqa: E731
    value, grads = jax.value_and_grad(loss)(params)
    np.testing.assert_allclose(value, -slope * np.tanh(0.5 * np.asarray(SAID[:-1])).mean(), atol=0.02)
    np.testing.assert_allclose(grads["perturbation"], -slope * 0.1, rtol=1e-5)
    trained = learner.steps["perturbation"].optimizer_groups
    assert trained == {"perturbation": ("perturbation",)}
    assert not np.any(flat(grads["behaviour"]))


def test_agents_do_the_best_familiar_action():
    """Q = -a: of a thousand agents each takes the lowest of its own familiar draws, in the box from 0 to 4."""
    learner = slopes("mabcq")
    algorithm = learner.assemble()
    ctx = cases.hand(learner, action_std=0.1, perturbation=0.05)
    says = jnp.full((1, 1000, 1, 1), np.arctanh(0.5), jnp.float32)
    params = numbers(-1.0, behaviour=says, perturbation=jnp.float32(-50.0))
    shown = cases.seen_by(np.zeros((1000, 1, 0), bool))
    act = jax.jit(algorithm.act, static_argnums=5)
    carry, action, _ = act(params, algorithm.initial_carry(1000), shown, ctx, KEY, False)
    np.testing.assert_allclose(carry["previous"], inputs.encode(action, LINE), rtol=1e-6)
    encoded = (np.asarray(action)[:, 0, 0] - 2) / 2 + 0.05  # before the perturbation
    # zeta = .3 is 1.55 deviations off the mean, if the best of ten draws were at the mean itself
    assert encoded.min() > 0.5 - 0.1 * np.sqrt(-2 * np.log(0.3)) - 0.1
    assert 0.36 < encoded.mean() < 0.47
    free = cases.hand(learner, action_std=0.1, perturbation=0.05, zeta=0.0)
    lower = np.asarray(act(params, algorithm.initial_carry(1000), shown, free, KEY, False)[1])[:, 0, 0]
    assert (lower <= np.asarray(action)[:, 0, 0] + 1e-6).all()
    np.testing.assert_allclose(((lower - 2) / 2 + 0.05).mean(), 0.5 - 1.5388 * 0.1, atol=0.01)  # lowest of ten normals


# -------------------------------------------------------------------------------------------------------------- macql


def test_the_samples_of_an_integral_are_of_three_kinds_with_their_densities():
    now, then = jnp.full((2, 1), 0.3), jnp.full((2, 1), -0.6)
    action, density = offline.three_ways(KEY, (now, then), jnp.float32(0.1), 2000)
    assert (action.shape, density.shape) == ((6000, 2, 1), (6000, 2))
    means = np.asarray(action).reshape(3, 2000, 2).mean((1, 2))
    np.testing.assert_allclose(means, [0.0, 0.3, -0.6], atol=0.03)
    np.testing.assert_allclose(density[:2000], -np.log(2), rtol=1e-6)
    # each estimates the same integral, of 1 over the box
    for part in np.asarray(density).reshape(3, 2000, 2)[:1]:
        np.testing.assert_allclose(np.exp(-part).mean(), 2.0, rtol=1e-5)


def price(penalty, slope=2.0, weights=(0.25, 0.75), bias=0.5, samples=4000):
    """(price, Q of the data) of two agents, three steps, the mixer's weights, and the data's action 3 (0.5)."""
    learner = slopes("macql", PAIR, penalty=penalty, action_samples=samples)
    batch = cases.on_a_line([3.0, 3.0, 3.0])
    wide = {name: jnp.repeat(getattr(batch, name), 2, axis=2) for name in ("obs", "avail", "alive", "action", "reward")}
    batch = batch.replace(**wide)
    actor = jnp.zeros((4, 1, 2, 1))
    params = numbers(slope, weights, bias, actor=actor)
    ctx = cases.hand(learner, action_std=0.5, beta=2.0)
    loss, metrics = step_of(learner, "joint", params, params, batch, ctx)
    np.testing.assert_allclose(loss, metrics["loss/td"] / 2 + 2 * metrics["loss/conservative"], rtol=1e-5)
    return metrics["loss/conservative"], metrics["q/tot_mean"]


def integral(c):
    """log of the integral of e^(c a) over [-1, 1]."""
    return np.log(2 * np.sinh(c) / c)


def test_the_price_is_the_integral_over_joint_actions_by_hand():
    """Q = w_1 2 a_1 + w_2 2 a_2 + b: a product of integrals; b cancels, and as printed it is paid once more."""
    exact = integral(0.5) + integral(1.5) - 0.5 * (0.5 + 1.5)
    joint, q = price("joint")
    np.testing.assert_allclose(joint, exact, atol=0.02)
    np.testing.assert_allclose(q, 0.5 * 2.0 + 0.5, rtol=1e-5)
    np.testing.assert_allclose(price("printed")[0], joint + 0.5, rtol=1e-5)


def test_counterfactual_prices_are_a_share_of_the_joint_one():
    """Of a linear mixer, sample by sample: (joint - Q) / N, as with discrete actions."""
    joint, _ = price("joint", samples=10)
    alone, _ = price("counterfactual", samples=10)
    np.testing.assert_allclose(alone, joint / 2, rtol=1e-5)


@pytest.mark.parametrize("kind", ["one_step", "td_lambda"])
def test_targets_are_of_what_the_targets_actors_do_by_hand(kind):
    """tanh of the target's numbers, Q' = 2 w' a + b'; behind the time limit too."""
    learner = slopes("macql", target=kind)
    batch = cases.on_a_line([3.0, 1.5, 2.0])
    ctx = cases.hand(learner, beta=0.0, td_lambda=0.8)
    params = numbers(4.0, actor=SAID + 1.0)
    target = numbers(2.0, (3.0,), 0.5, actor=SAID)
    _, metrics = step_of(learner, "joint", params, target, batch, ctx)
    value = 3.0 * 2.0 * NEXT + 0.5
    y = 1 + 0.99 * value
    if kind == "td_lambda":
        for t in (1, 0):
            y[t] = 1 + 0.99 * (0.2 * value[t] + 0.8 * y[t + 1])
    np.testing.assert_allclose(metrics["q/target_mean"], y.mean(), rtol=1e-5)


def test_actors_follow_the_values_and_nothing_else_moves():
    learner = slopes("macql")
    batch = cases.on_a_line([3.0, 1.5, 9.0], (0, 1, 0), (1, 1, 0))
    ctx = cases.hand(learner)
    params = numbers(3.0, actor=SAID)
    loss = lambda p: step_of(learner, "actor", p, params, batch, ctx)[0]  # noqa: E731
    value, grads = jax.value_and_grad(loss)(params)
    mean = np.array([0.25, -0.5])
    np.testing.assert_allclose(value, -3.0 * mean.mean(), rtol=1e-5)
    np.testing.assert_allclose(grads["actor"][:2, 0, 0, 0], -3.0 * (1 - mean**2) / 2, rtol=1e-5)
    assert not np.any(grads["actor"][2:])
    assert learner.steps["actor"].optimizer_groups == {"actor": ("actor",)}


# -------------------------------------------------------------------------------------------- what they make of data


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mabcq", "macql"])
def test_of_two_ways_the_better_is_learned(name):
    """Data at -x/2, which is paid, and at x/2, which is not (cloning ends between them)."""
    learner, state, whole, x, ctx = cases.aimed(name, **({"action_std": 0.3} if name == "mabcq" else {}))
    algorithm = learner.assemble()
    shown = cases.seen_by(np.zeros((512, 2, 0), bool)).replace(obs=whole.obs[0], state=whole.state[0])
    _, action, _ = jax.jit(algorithm.act, static_argnums=5)(
        state.params, algorithm.initial_carry(512), shown, ctx, KEY, False
    )
    off = np.abs(np.asarray(action)[..., 0] / 2 + x[:, None] / 2)
    assert off.mean() < 0.2, off.mean()  # of cloning's x/2: 0.25 in the mean


def test_specs_with_wider_boxes_are_encoded():
    """Four units of two numbers: widths of the networks, and an update that changes all of them."""
    spec = EnvSpec("wide", 2, 3, 4, Box(2, (-1.0, 0.0), (1.0, 4.0)), 3, (0, 1), ("one", "other"))
    for name, known in (("mabcq", {"behaviour", "perturbation"}), ("macql", {"actor"})):
        learner = cases.parts_of(name, spec, share_params="type")
        assert set(learner.networks) == {"agent", "utility", "mixer"} | known
        assert set(learner.targets.networks) == set(learner.networks) - {"behaviour"}
