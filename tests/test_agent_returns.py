"""Each agent's own return is logged where rewards are not common: in training, evaluations, and their tables."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from combinations import FAST, fading, program, together

from jaxshare.evaluation import tables
from jaxshare.training.counting import start_clock
from jaxshare.training.rollout import Rollout
from jaxshare.types import Episode

REWARD = [[[1.0, 0.0, 2.0], [5.0, 5.0, 5.0]], [[1.0, 4.0, 0.0], [9.0, 9.0, 9.0]]]  # [T=2, B=2, N=3]
MASK = [[1.0, 1.0], [1.0, 0.0]]  # the second episode has one step


def played(reward):
    nothing = dict.fromkeys(("obs", "state", "avail", "alive", "action", "terminated", "truncated"))
    return Rollout(Episode(**nothing, reward=jnp.array(reward), mask=jnp.array(MASK)), info={})


@functools.cache
def programs(algo):
    return program(algo, (), fading(), "none")


def test_means_by_hand():
    """Returns (2, 4, 2) and (5, 5, 5): means 3.5, 4.5 and 3.5; padding counts for nothing."""
    found = programs("iql").scores(played(REWARD))
    agents = [found[f"return/agent_{i}"] for i in range(3)]
    np.testing.assert_allclose(agents, [3.5, 4.5, 3.5])
    assert (found["return/best_agent"], found["return/worst_agent"]) == (4.5, 3.5)
    np.testing.assert_allclose(found["return"], 11.5)


def test_a_common_reward_has_no_parts():
    common = program("iql", (), together(fading()), "none")
    assert set(common.scores(played(REWARD))) == {"return", "length"}


@pytest.mark.parametrize("algo", ["iql", "seac"])
def test_they_add_up_to_the_return_in_training_and_evaluation(algo):
    made = programs(algo)
    hparams = {name: jnp.float32(value) for name, value in made.algorithm.hparams.items()}

    def explore(seed):
        state = made.init(seed)
        collected = made.explore(state, hparams, start_clock())
        return collected.summary, made.evaluate(state, hparams, start_clock())[0]

    training, evaluation = jax.jit(explore, compiler_options=FAST)(jnp.int32(0))
    for scores in (training, evaluation):
        total = sum(scores[f"return/agent_{i}"] for i in range(3))
        np.testing.assert_allclose(total, scores["return"], rtol=1e-5, atol=1e-6)
    assert "return/best_agent" in evaluation
    assert "return/best_agent" not in training  # the best of a few episodes is not the best one's mean


def test_the_table_of_an_evaluation_has_the_best_and_the_worst_agent():
    mean = {"env_steps": 10, "return": 3.0, "return/best_agent": 2.0, "return/worst_agent": 1.0, "length": 4.0}
    result = {
        "runs": [{"seed": 0, **mean}],
        "mean": mean,
        "policy": "greedy",
        "episodes": 2,
        "eval_seed": 1,
        "checkpoint": 5,
    }
    (table,) = tables.tables(result)
    assert [column.header for column in table.columns][-2:] == ["best_agent", "worst_agent"]
