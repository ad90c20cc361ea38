"""PAC with the critics of the lecture, values=pareto: what V and Q of pi+ aim at, by hand."""

import actor_critic_cases as cases
import jax.numpy as jnp
import numpy as np
import pytest
from actor_critic_cases import parts_of
from test_central import (
    CLIMBING,
    GAME,
    common,
    constant,
    every_joint_action,
    exact,
    hoping_by,
    line,
    network,
    powers,
    prefers,
    tables,
)

from jaxshare.algos.pac import algorithm as pac
from jaxshare.algos.pac import optimism
from jaxshare.types import LearnerState, RefusedError


def pareto(joint, value):
    learner = parts_of("pac", GAME, n_step=1, values="pareto", recurrent=False)
    learner = hoping_by(joint, learner).with_network("critic", optimism.both(value, joint))
    return learner.with_network("actor", prefers([1, 0, 2]))


def aims(learner, critic, segment, **hparams):
    state = LearnerState({"actor": {}, "critic": critic}, {"critic": critic}, {}, {})
    return cases.prepared(learner, state, segment, cases.context(learner.assemble(), **hparams))


def test_v_of_climbing_is_what_is_hoped_for_under_ones_own_policy():
    """The mean over uniform play of what V aims at: 8 and 7 2/3; that of EPyMARL's is the mean payoff, -3.44."""
    critic = {"value": jnp.zeros(2), "joint": tables(common(CLIMBING))}
    found = aims(pareto(network(exact), network(constant)), critic, every_joint_action(common(CLIMBING)))
    np.testing.assert_allclose(found.value_returns.mean((0, 1)), [8, 23 / 3], rtol=1e-6)
    np.testing.assert_allclose(found.returns.mean((0, 1)), [CLIMBING.mean()] * 2, rtol=1e-5)
    # with V = V of pi+ the advantage of a uniform policy has mean 0
    critic["value"] = jnp.array([8, 23 / 3])
    found = aims(pareto(network(exact), network(constant)), critic, every_joint_action(common(CLIMBING)))
    np.testing.assert_allclose(found.advantage.mean((0, 1)), [0, 0], atol=1e-5)


def test_q_aims_at_one_reward_and_the_best_from_then_on():
    """Q of `powers` is largest, 10^a + .02, where the other takes 2; later rewards do not matter to an earlier step."""
    action = [[0, 1], [2, 0], [0, 0]]
    learner = pareto(network(powers), network(lambda _, x: constant(jnp.zeros(2), x)))
    critic = {"value": {}, "joint": {}}
    for terminated, last in ((False, 10.02), (True, 0.0)):  # after the end both take 1
        segment = line([1.0, 2.0, 3.0], [0.0] * 4, action=action, terminated=terminated)
        found = aims(learner, critic, segment, gamma=0.5)
        expected = [
            [1 + 0.5 * 100.02, 1 + 0.5 * 1.02],  # next own actions 2 and 0
            [2 + 0.5 * 1.02] * 2,
            [3 + 0.5 * last] * 2,
        ]
        np.testing.assert_allclose(found.returns[:, 0], expected, rtol=1e-6)
        np.testing.assert_allclose(found.value_returns[:, 0], 10.0 ** np.array(action) + 0.02, rtol=1e-6)
        other = segment.replace(reward=segment.reward.at[2].add(7.0))
        np.testing.assert_array_equal(aims(learner, critic, other, gamma=0.5).returns[:2], found.returns[:2])


def test_both_critics_learn_their_own_target():
    learner = parts_of("pac", n_step=1, values="pareto")
    state, segment = cases.init(learner), cases.episodes(learner)
    found, _, metrics = cases.compiled(learner)(state, segment, cases.context(learner.assemble()))
    assert np.any(found.value_returns != found.returns)
    usual = parts_of("pac", n_step=1)
    played, _, other = cases.compiled(usual)(state, segment, cases.context(usual.assemble()))
    np.testing.assert_array_equal(played.value_returns, played.returns)
    np.testing.assert_array_equal(played.returns, found.returns)
    mask = np.asarray(segment.mask)[..., None]
    squares = [np.square(found.value - y) * mask for y in (found.value_returns, found.returns)]
    difference = (squares[0] - squares[1]).sum() / (3 * mask.sum())
    np.testing.assert_allclose(metrics["loss/critic"] - other["loss/critic"], difference, rtol=1e-4)


def test_returns_of_several_steps_are_refused():
    with pytest.raises(RefusedError, match=r"algo\.values=pareto with algo\.n_step=10.*algo\.n_step=1"):
        pac.Config(values="pareto")
