import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from omegaconf import OmegaConf

from jaxshare.envs.matrix import environment as matrix
from jaxshare.types import RefusedError

KEY = jax.random.key(0)
TABLES = {
    "linear": [[1, 5], [5, 9]],
    "monotonic": [[0, 0], [0, 10]],
    "climbing": [[11, -30, 0], [-30, 7, 0], [0, 6, 5]],
    "stag_hunt_sum": [[8, 3], [3, 4]],
    "nm1": [[8, -12, -12], [-12, 0, 0], [-12, 0, 0]],
    "nm2": [[8, -12, -12], [-12, 6, 0], [-12, 0, 6]],
    "or": [[0, 10], [10, 10]],
    "two_step_b": [[0, 1], [1, 8]],
    "penalty": [[-100, 0, 10], [0, 2, 0], [10, 0, -100]],
}


def play(env, *actions, key=KEY):
    """The TimeSteps of one episode with the given joint actions, the first one included."""
    state, shown = env.reset(key)
    steps = [shown]
    for action in actions:
        state, shown = env.step(state, jnp.array(action, jnp.int32), key)
        steps.append(shown)
    return steps


def read_back(env, *shape):
    """What agent 0 gets for every joint action, in one vmapped step."""
    state, _ = env.reset(KEY)
    joint = jnp.array(list(itertools.product(*map(range, shape))), jnp.int32)
    shown = jax.jit(jax.vmap(lambda a: env.step(state, a, KEY)[1]))(joint)
    assert np.all(shown.terminated)
    assert not np.any(shown.truncated)
    return np.asarray(shown.reward).reshape(*shape, env.spec.num_agents)


@pytest.mark.parametrize(("game", "table"), TABLES.items())
def test_every_joint_action_pays_what_the_table_says(game, table):
    env = matrix.make(matrix.Config(game=game))
    table = np.array(table, np.float32)
    paid = read_back(env, *table.shape)
    np.testing.assert_array_equal(paid, np.stack([table, table], axis=-1))
    assert env.spec.common_reward
    assert env.spec.episode_limit == 1


def test_stag_hunt_pays_each_agent_its_own():
    env = matrix.make(matrix.Config(game="stag_hunt"))
    paid = read_back(env, 2, 2)
    np.testing.assert_array_equal(paid[..., 0], [[4, 0], [3, 2]])
    np.testing.assert_array_equal(paid[..., 1], [[4, 3], [0, 2]])
    np.testing.assert_array_equal(paid.sum(-1), TABLES["stag_hunt_sum"])
    assert not env.spec.common_reward


def test_penalty_is_a_setting():
    paid = read_back(matrix.make(matrix.Config(game="penalty", penalty=-7.0)), 3, 3)
    assert paid[0, 0, 0] == paid[2, 2, 1] == -7


def test_obs_and_state_are_constant():
    first, last = play(matrix.make(matrix.Config()), (2, 1))
    np.testing.assert_array_equal(first.obs, last.obs)
    np.testing.assert_array_equal(first.state, last.state)
    assert last.reward.tolist() == [6, 6]


def test_custom_table_from_the_command_line():
    merged = OmegaConf.merge(
        OmegaConf.structured(matrix.Config), {"game": "custom", "payoff": [[1, 2, 3], [4, 5, 6.5]]}
    )
    for config in (OmegaConf.to_object(merged), merged):  # resolved or not
        env = matrix.make(config)
        np.testing.assert_array_equal(read_back(env, 2, 3)[..., 0], [[1, 2, 3], [4, 5, 6.5]])
        assert play(env)[0].avail.tolist() == [[True, True, False], [True, True, True]]


def test_custom_table_of_three_agents():
    table = np.arange(12.0).reshape(2, 3, 2)
    env = matrix.make(matrix.Config(game="custom", payoff=table.tolist()))
    assert env.spec.num_agents == 3
    np.testing.assert_array_equal(read_back(env, 2, 3, 2)[..., 2], table)


@pytest.mark.parametrize(
    "payoff",
    [
        [[1, 2], [3]],
        [[1, "a"], [2, 3]],
        [[True, False], [False, True]],
        [[float("nan"), 1], [1, 1]],
        [1, 2],
        [],
        [[], []],
        3,
        "x",
    ],
)
def test_bad_tables_are_refused(payoff):
    with pytest.raises(RefusedError, match="payoff"):
        matrix.make(matrix.Config(game="custom", payoff=payoff))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"game": "climbin"}, "Did you mean climbing"),
        ({"game": "custom"}, "payoff"),
        ({"game": "linear", "payoff": [[1, 2], [3, 4]]}, "env.game=custom"),
        ({"game": "recall", "delay": 0}, "delay"),
    ],
)
def test_refusals(settings, message):
    with pytest.raises(RefusedError, match=message):
        matrix.make(matrix.Config(**settings))


@pytest.mark.parametrize(("first", "table"), [(0, [[7, 7], [7, 7]]), (1, [[0, 1], [1, 8]])])
def test_two_step(first, table):
    env = matrix.make(matrix.Config(game="two_step"))
    assert env.spec.episode_limit == 2
    for other, i, j in itertools.product(range(2), repeat=3):  # the second agent's first action changes nothing
        start, middle, end = play(env, (first, other), (i, j))
        assert [x.reward.tolist() for x in (start, middle, end)] == [[0, 0], [0, 0], [table[i][j]] * 2]
        assert [bool(x.terminated) for x in (start, middle, end)] == [False, False, True]
        assert start.state.tolist() == [1, 0, 0]
        assert middle.state.tolist() == np.eye(3)[1 + first].tolist()
        np.testing.assert_array_equal(middle.obs, [middle.state, middle.state])


@pytest.mark.parametrize("delay", [1, 2, 5])
def test_recall_pays_for_both_cues_at_the_end_only(delay):
    env = matrix.make(matrix.Config(game="recall", delay=delay))
    assert env.spec.episode_limit == delay + 1
    key = jax.random.key(5)
    cue = np.argmax(play(env, key=key)[0].obs[:, :2], axis=1)
    for answer in itertools.product(range(2), repeat=2):
        steps = play(env, *[1 - cue] * delay, answer, key=key)
        assert [float(x.reward[1]) for x in steps[:-1]] == [0.0] * (delay + 1)
        assert steps[-1].reward.tolist() == [float(np.array_equal(answer, cue))] * 2
        assert [bool(x.terminated) for x in steps] == [False] * (delay + 1) + [True]
        assert all(np.all(x.obs[:, :2] == 0) for x in steps[1:]), "the cue is shown once"
        assert [float(x.obs[0, 2]) for x in steps] == [0.0] * delay + [1.0, 0.0]
        np.testing.assert_array_equal(steps[-1].state[:2], cue)


def test_recall_cues_are_independent_and_fair():
    env = matrix.make(matrix.Config(game="recall"))
    cues = np.asarray(jax.vmap(lambda k: env.reset(k)[0].cue)(jax.random.split(KEY, 400)))
    counts = np.bincount(2 * cues[:, 0] + cues[:, 1], minlength=4)
    assert counts.min() > 70
