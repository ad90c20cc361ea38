"""WQMIX: targets of Q*, weights of each joint action, who learns from what, and the game that QMIX cannot solve."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from value_cases import AGENTS, KEY, SPEC, context, init, random_batch, values_of, view_of

from jaxshare import registry
from jaxshare.algos.wqmix import algorithm as wqmix
from jaxshare.envs.matrix import environment as matrix
from jaxshare.envs.matrix.tables import NON_MONOTONIC_1
from jaxshare.learners.utilities import agent_inputs, unrolled
from jaxshare.models.mixers import MixerInputs
from jaxshare.settings.records import RunConfig
from jaxshare.settings.run_parts import ReplayConfig
from jaxshare.training.counting import start_clock
from jaxshare.training.program import Program

ALPHA = 0.3
KINDS = ("optimistic", "central")


def case(weighting, seed=0, **config):
    """(learner, view with values) of random parameters and episodes of all kinds."""
    small = {"hidden_dim": 4, "embed_dim": 3, "hypernet_dim": 4, "central_dim": 5, **config}
    learner = wqmix.make(wqmix.Config(weighting=weighting, **small), SPEC)
    algorithm = learner.assemble()
    state = init(algorithm, seed)
    ctx = context(algorithm, alpha=ALPHA)
    batch = random_batch(seed)
    values = values_of(learner, state, batch, ctx)
    return learner, view_of(learner, state, batch, ctx, KEY, values=values)


def central_mix(params, q, state):
    """Q* of utilities [N] in a state [G], by numpy."""

    def linear(name, x):
        return x @ np.asarray(params[name]["kernel"]) + np.asarray(params[name]["bias"])

    x = np.concatenate([state, q])
    for i in range(3):
        x = np.maximum(linear(f"hidden_{i}", x), 0)
    return (linear("out", x) + linear("v_out", np.maximum(linear("v_hidden", state), 0)))[0]


def by_hand(view):
    """(target, weight, Q* of what was done), [T, B] each, step by step."""
    batch = jax.tree.map(np.asarray, view.batch)
    x = agent_inputs(view)
    online = np.asarray(unrolled(view, "agent", view.params, x))
    central = np.asarray(unrolled(view, "central", view.params, x))
    slow = np.asarray(unrolled(view, "central", view.target_params, x))
    q_tot = np.asarray(view.values.q_tot)
    steps, episodes = batch.mask.shape
    target, weight, taken = (np.zeros((steps, episodes)) for _ in range(3))

    def best(t, b):
        return [int(np.argmax(np.where(batch.avail[t, b, i], online[t, b, i], -np.inf))) for i in range(AGENTS)]

    def value(q, params, t, b, actions):
        utilities = np.array([q[t, b, i, a] for i, a in enumerate(actions)])
        return central_mix(params["central_mixer"], utilities, batch.state[t, b])

    for t in range(steps):
        for b in range(episodes):
            after = value(slow, view.target_params, t + 1, b, best(t + 1, b))
            # a time limit ends an episode, as in SMAC
            ended = batch.terminated[t, b] | batch.truncated[t, b]
            gamma = 0.0 if ended else float(view.hparams["gamma"])
            target[t, b] = batch.reward[t, b, 0] + gamma * after
            taken[t, b] = value(central, view.params, t, b, batch.action[t, b])
            if view.config.weighting == "optimistic":
                good = q_tot[t, b] < target[t, b]
            else:
                greedy = best(t, b)
                is_best = list(batch.action[t, b]) == greedy
                good = is_best or target[t, b] > value(slow, view.target_params, t, b, greedy)
            weight[t, b] = 1.0 if good else ALPHA
    return target, weight, taken


@pytest.mark.parametrize("weighting", KINDS)
def test_targets_and_weights_are_those_of_the_paper(weighting):
    _, view = case(weighting)
    target, weight, taken = by_hand(view)
    central = wqmix.central_values(view)
    real = np.asarray(view.batch.mask) > 0
    np.testing.assert_allclose(central.target[real], target[real], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(central.taken[real], taken[real], rtol=1e-4, atol=1e-4)
    found = np.asarray(wqmix.weights(view, central))
    np.testing.assert_allclose(found[real], weight[real], rtol=1e-6)
    assert {round(float(w), 3) for w in found[real]} == {1.0, ALPHA}  # both kinds of steps are there

    loss, metrics = wqmix.loss(view)
    team = np.sum(weight * np.square(target - np.asarray(view.values.q_tot)), where=real) / real.sum()
    error = np.sum(np.square(target - taken), where=real) / real.sum()
    np.testing.assert_allclose(loss, team + error, rtol=1e-4)
    np.testing.assert_allclose(metrics["loss/central"], error, rtol=1e-4)


@pytest.mark.parametrize("weighting", KINDS)
def test_each_value_learns_from_its_own_error(weighting):
    """No gradient of the weighted error reaches Q*, none of Q*'s the agents that play."""
    learner, view = case(weighting)

    def part(params, name):
        here = view.replace(params=params)
        return wqmix.loss(here.replace(values=learner.steps[learner.main].compute(here)))[1][name]

    for name, own in (("loss/td", {"agent", "mixer"}), ("loss/central", {"central", "central_mixer"})):
        grads = jax.grad(part)(view.params, name)
        moved = {key for key, tree in grads.items() if any(np.any(leaf) for leaf in jax.tree.leaves(tree))}
        assert moved == own


def test_with_alpha_1_both_are_fitted_to_the_same_targets():
    learner, view = case("optimistic")
    view = view.replace(ctx=view.ctx.replace(hparams={**view.hparams, "alpha": jnp.float32(1.0)}))
    central = wqmix.central_values(view)
    assert (wqmix.weights(view, central) == 1).all()
    assert set(learner.targets.networks or learner.networks) == {"agent", "mixer", "central", "central_mixer"}


# ------------------------------------------------------------------------------------------------ what QMIX cannot do


def greedy_joint_action(name, **config):
    """Everybody's greedy action after training on uniform data of a game without a monotone optimum."""
    env = matrix.make(matrix.Config(game="nm1"))
    small = {"recurrent": False, "hidden_dim": 32, "embed_dim": 16, "hypernet_dim": 16, "obs_last_action": False}
    module = registry.get("algo", name)
    learner = module.make(module.Config(optimizer="adam", **small, **config), env.spec)
    run = RunConfig(num_envs=64, batch_size=64, updates_per_episode=2 / 64, replay=ReplayConfig(capacity=2048))
    program = Program(env, learner.assemble(), run)
    values = {**program.algorithm.hparams, "epsilon_start": 1.0, "epsilon_end": 1.0, "lr": 2e-3}
    if name == "wqmix":
        values["alpha"] = 0.1
    hparams = {key: jnp.float32(value) for key, value in values.items()}
    state, clock = jax.jit(lambda: program.prefill(program.init(jnp.int32(0)), hparams, start_clock()))()
    chunk = jax.jit(lambda state, clock: program.chunk(600, state, hparams, clock))
    (state, _), _ = chunk(state, clock)
    x = learner.reads.build(jnp.ones((1, 1, 2, 1)), None)
    agent = learner.networks["agent"]
    _, q = agent.unroll(state.learner.params["agent"], agent.initial_carry(1), x)
    mixed = learner.mixer.apply(
        state.learner.params["mixer"], q.max(-1), MixerInputs(q.max(-1), q.argmax(-1), jnp.ones((1, 1, 1)))
    )
    return tuple(int(a) for a in q[0, 0].argmax(-1)), float(mixed[0, 0])


@pytest.mark.slow
@pytest.mark.parametrize("weighting", KINDS)
def test_it_finds_the_best_joint_action_where_qmix_does_not(weighting):
    payoff = np.array(NON_MONOTONIC_1)
    assert payoff[greedy_joint_action("qmix")[0]] == 0
    action, value = greedy_joint_action("wqmix", weighting=weighting)
    assert payoff[action] == payoff.max() == 8
    assert abs(value - 8) < 2
