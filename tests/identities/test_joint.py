"""Central learning: a team as one agent is another name for the same game, and finds what independent learners miss."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from actor_critic_cases import episodes, parts_of
from value_cases import context, init, random_batch

from jaxshare.algos import central_a2c, central_q
from jaxshare.envs.base import time_step
from jaxshare.learners import joint
from jaxshare.training.rollout import as_segment
from jaxshare.types import Box, Discrete, EnvSpec, RefusedError

THREE = EnvSpec("three", 3, 2, 4, Discrete(4), 5, (0, 0, 1), ("runner", "healer"), common_reward=False)
TEAM = joint.Translation(THREE, "obs")
KEY = jax.random.key(0)


def test_numbers_of_joint_actions_are_their_digits():
    every = np.array(list(itertools.product(range(4), repeat=3)), np.int32)
    numbers = TEAM.joined(jnp.array(every))
    np.testing.assert_array_equal(numbers[:, 0], every @ [16, 4, 1])
    np.testing.assert_array_equal(TEAM.split(numbers), every)


def test_a_joint_action_is_available_if_all_of_it_is():
    avail = np.random.default_rng(0).random((5, 3, 4)) < 0.6
    found = np.asarray(TEAM.available(jnp.array(avail)))
    assert found.shape == (5, 1, 64)
    for number, actions in enumerate(itertools.product(range(4), repeat=3)):
        expected = np.all([avail[:, i, a] for i, a in enumerate(actions)], axis=0)
        np.testing.assert_array_equal(found[:, 0, number], expected)


def test_the_one_agent_sees_everything_and_is_paid_the_sum():
    obs = jnp.arange(6.0).reshape(1, 3, 2)
    shown = jax.tree.map(
        lambda x: x[None], time_step(THREE, obs[0], reward=jnp.array([1.0, 2.0, 4.0]), state=jnp.arange(4.0))
    )
    shown = shown.replace(alive=jnp.array([[False, True, False]]))
    found = TEAM.timestep(shown)
    np.testing.assert_array_equal(found.obs, obs.reshape(1, 1, 6))
    np.testing.assert_array_equal(found.reward, [[7.0]])
    np.testing.assert_array_equal(found.alive, [[True]])
    by_state = dataclasses.replace(TEAM, sees="state").timestep(shown)
    np.testing.assert_array_equal(by_state.obs, shown.state[:, None])
    common = joint.Translation(dataclasses.replace(THREE, common_reward=True), "obs")
    np.testing.assert_array_equal(common.timestep(shown).reward, [[1.0]])


@pytest.mark.parametrize("sees", ["obs", "state"])
def test_the_spec_of_the_one_agent(sees):
    spec = joint.joint_spec("central_q", central_q.Config(sees=sees), THREE)
    assert (spec.num_agents, spec.action, spec.groups, spec.common_reward) == (1, Discrete(64), (0,), True)
    assert spec.obs_dim == (6 if sees == "obs" else 4)
    algorithm = parts_of("central_q", THREE, sees=sees).assemble()
    assert algorithm.spec == THREE


@pytest.mark.parametrize("name", ["central_q", "central_a2c"])
def test_an_update_is_that_of_the_same_learner_in_the_one_agents_game(name):
    learner = parts_of(name, THREE)
    team, alone = learner.assemble(), dataclasses.replace(learner, finish=None).assemble()
    state = init(alone, scale=0.5)
    batch = random_batch(0, THREE) if name == "central_q" else episodes(learner, 0, THREE)
    ctx = context(team)
    update = jax.jit(lambda algorithm_batch: team.update(state, algorithm_batch, ctx, KEY))
    found, metrics = update(batch)
    expected, of_one = jax.jit(lambda b: alone.update(state, b, ctx, KEY))(TEAM.batch(batch))
    for one, other in ((found, expected), (metrics, of_one)):
        jax.tree.map(np.testing.assert_array_equal, one, other)
    assert any(np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (found.params, state.params)), strict=True))


def test_a_segment_knows_what_comes_after_it():
    learner = parts_of("central_a2c", THREE)
    batch = random_batch(0, THREE)
    carry = learner.assemble().initial_carry(batch.mask.shape[1])
    whole = TEAM.batch(as_segment(batch, carry))
    expected = as_segment(TEAM.batch(batch), carry)
    jax.tree.map(np.testing.assert_array_equal, whole, expected)


def test_agents_draw_from_the_marginals_of_the_joint_policy():
    """A policy of two joint actions, (0, 1) and (1, 0), a half each: its agents are even, but never alike."""
    spec = EnvSpec("pair", 2, 1, 1, Discrete(2), 1, (0, 0), ("player",))
    algorithm = parts_of("central_a2c", spec, recurrent=False).assemble()
    params = jax.tree.map(jnp.zeros_like, algorithm.init(KEY).params)
    bias = jnp.array([-50.0, 0.0, 0.0, -50.0])  # (0, 0), (0, 1), (1, 0), (1, 1)
    params["actor"]["head"]["linear"]["bias"] = bias
    shown = jax.tree.map(lambda x: jnp.broadcast_to(x, (2000, *x.shape)), time_step(spec, jnp.ones((2, 1))))
    carry = algorithm.initial_carry(2000)
    _, action, _ = jax.jit(algorithm.act, static_argnums=5)(params, carry, shown, context(algorithm), KEY, True)
    assert action.shape == (2000, 2)
    np.testing.assert_array_equal(action.sum(1), 1)
    np.testing.assert_allclose(action.mean(0), [0.5, 0.5], atol=0.04)


def test_what_people_look_at_is_there_for_every_agent():
    learner = parts_of("central_q", THREE)
    algorithm = learner.assemble()
    batch = random_batch(0, THREE)
    (column,) = algorithm.inspect(init(algorithm), batch, context(algorithm)).values()
    assert column.shape == (*batch.mask.shape, 3)
    np.testing.assert_array_equal(column, np.repeat(column[..., :1], 3, -1))


# ------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("module", [central_q, central_a2c])
def test_too_many_joint_actions_are_refused_with_their_number(module):
    crowd = EnvSpec("crowd", 8, 1, 1, Discrete(13), 1, (0,) * 8, ("marine",))
    with pytest.raises(RefusedError, match=r"13 actions.*815730721 joint actions.*max_joint_actions=4096"):
        module.make(module.Config(), crowd)
    with pytest.raises(RefusedError, match=r"64 joint actions, more than algo\.max_joint_actions=63"):
        module.make(module.Config(max_joint_actions=63), THREE)
    module.make(module.Config(max_joint_actions=64), THREE)


@pytest.mark.parametrize(
    ("spec", "sees", "problem"),
    [
        (dataclasses.replace(THREE, action=Box(1, (-1.0,), (1.0,))), "obs", "discrete actions.*env=three"),
        (dataclasses.replace(THREE, state_dim=0), "state", r"algo\.sees=state.*no state.*algo\.sees=obs"),
    ],
)
def test_what_cannot_be_one_agent_is_refused(spec, sees, problem):
    for module in (central_q, central_a2c):
        with pytest.raises(RefusedError, match=problem):
            module.make(module.Config(sees=sees), spec)


# ------------------------------------------------------------------------------------------------------- learning

PENALTY = (
    "env=matrix", "env.game=climbing", "num_envs=10", "seeds=3", "eval.episodes=1", "checkpoint.every=0",
    "progress=false",
)  # fmt: skip
STEPS = {"central_q": 20_000, "central_a2c": 40_000, "iql": 20_000}


def last_returns(run_dir):
    return [record["eval/return"] for record in tiny.records(run_dir) if "eval/return" in record][-3:]


@pytest.mark.slow
@pytest.mark.parametrize("algo", STEPS)
def test_one_agent_finds_the_best_joint_action_of_climbing(algo, tmp_path):
    """To it the game is a bandit with nine arms, of which one pays 11; independent learners end below."""
    steps = STEPS[algo]
    more = [f"algo={algo}", f"total_env_steps={steps}", f"eval.every={steps // 2}"]
    if algo != "central_a2c":
        more.append(f"algo.hparams.epsilon_anneal_steps={steps // 2}")
    found = last_returns(tiny.train(tmp_path / "run", *PENALTY, *more))
    assert len(found) == 3
    if algo == "iql":
        assert max(found) < 11
    else:
        assert found == [11.0] * 3
