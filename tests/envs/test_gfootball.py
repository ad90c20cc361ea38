"""Google Research Football through the host bridge: a stand-in with the package's interface, and the game itself.

The game is played where an interpreter that has it is named by JAXSHARE_GFOOTBALL_PYTHON.
"""

import json
import os
import random
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxshare.envs.gfootball import environment as gfootball
from jaxshare.envs.gfootball.tasks import TASKS
from jaxshare.envs.hosted import football
from jaxshare.types import Discrete, RefusedError

LEFT = np.array([[-1.0, 0.0], [0.6, 0.0], [0.7, 0.2], [0.7, -0.2]])
RIGHT = np.array([[1.0, 0.0], [0.75, 0.05]])


class StandIn:
    """gfootball 2.10.2's interface: the old one of gym, observations as lists of dicts, one per controlled player.

    The plot says what happens: {step: (x of the ball, x of our last player, goal, done)}.
    """

    def __init__(self, plot, representation, players, duration):
        self.plot, self.representation, self.players, self.duration = plot, representation, players, duration
        self.unwrapped = SimpleNamespace(observation=self.raw, _config=SimpleNamespace(_values={"players": players}))
        self.closed = False

    def reset(self):
        self.time, self.noise = 0, random.random()
        self.first = self.unwrapped._config._values.setdefault("reverse_team_processing", self.noise > 0.5)
        return self.shown()

    def raw(self):
        ball, last, _, _ = self.plot.get(self.time, (0.5, 0.7, 0, False))
        left = LEFT.copy()
        left[-1, 0] = last
        game = {
            "left_team": left, "left_team_direction": 0.01 * LEFT, "right_team": RIGHT,
            "right_team_direction": -0.01 * RIGHT, "ball": np.array([ball, 0.1, 0.3]),
            "ball_direction": np.array([self.noise, self.time, self.first]), "score": [0, 0],
            "steps_left": self.duration - self.time,
        }  # fmt: skip
        return [{**game, "active": player} for player in (0, 2, 3)[: self.players]]

    def shown(self):
        return np.full((self.players, 115), self.time, np.float32) if self.representation != "raw" else self.raw()

    def step(self, action):
        assert isinstance(action, list | np.ndarray)
        assert len(action) == self.players
        assert all(isinstance(a, int) and 0 <= a < 19 for a in action)
        self.time += 1
        _, _, goal, done = self.plot.get(self.time, (0.5, 0.7, 0, False))
        done = done or self.time == self.duration
        return self.shown(), np.full(self.players, goal, np.float32), done, {"score_reward": goal}

    def close(self):
        self.closed = True


@pytest.fixture
def package(monkeypatch):
    """Stands in for the package; `package.plot` is the plot of the next games."""
    made = SimpleNamespace(plot={}, duration=400)

    def create_environment(
        env_name="", stacked=False, representation="extracted", rewards="scoring", write_goal_dumps=False,
        write_full_episode_dumps=False, render=False, write_video=False, dump_frequency=1, logdir="",
        extra_players=None, number_of_left_players_agent_controls=1, number_of_right_players_agent_controls=0,
        channel_dimensions=(96, 72), other_config_options={},  # noqa: B006
    ):  # fmt: skip
        assert env_name in TASKS
        assert (rewards, render, number_of_right_players_agent_controls) == ("scoring", False, 0)
        return StandIn(made.plot, representation, number_of_left_players_agent_controls, made.duration)

    for name in ("gfootball", "gfootball.env"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["gfootball.env"].create_environment = create_environment
    return made


def play(steps, seed=0, actions=None, envs=1, **settings):
    """Episodes through `jax.jit(jax.vmap(env.step))`: (what was shown, over time; the episodes' seeds; spec)."""
    env = gfootball.make(gfootball.Config(**settings))
    keys = jax.random.split(jax.random.key(seed), envs)
    step = jax.jit(jax.vmap(env.step))
    if actions is None:
        actions = np.zeros((steps, envs, env.spec.num_agents), np.int32)
    try:
        state, first = jax.jit(jax.vmap(env.reset))(keys)
        shown = [first]
        for action in actions:
            state, timestep = step(state, jnp.asarray(action), keys)
            shown.append(timestep)
    finally:
        env.host.close()
    seeds = [int(jax.random.bits(key, (), jnp.uint32)) for key in keys]
    return jax.tree.map(lambda *x: np.stack(x), *shown), seeds, env.spec


def test_observation_of_the_literature(package):
    shown, _, spec = play(1)
    assert (spec.num_agents, spec.obs_dim, spec.state_dim, spec.action) == (3, 26, 26, Discrete(19))
    assert spec.episode_limit == 150
    noise, first = shown.obs[0, 0, 0, [23, 25]]
    expected = [
        0.7, 0.2,  # agent 1 is the team's last but one
        -0.1, -0.2, 0.0, -0.4,  # the others, from there
        0.007, 0.002, 0.006, 0.0, 0.007, -0.002,  # its velocity, theirs
        0.3, -0.2, 0.05, -0.15, -0.01, 0.0, -0.0075, -0.0005,  # the other team
        -0.2, -0.1, 0.3, noise, 0.0, first,  # the ball
    ]  # fmt: skip
    np.testing.assert_allclose(shown.obs[0, 0, 1], expected, atol=1e-6)
    absolute = [
        0.6, 0.0, 0.7, 0.2, 0.7, -0.2, 0.006, 0.0, 0.007, 0.002, 0.007, -0.002,
        1.0, 0.0, 0.75, 0.05, -0.01, 0.0, -0.0075, -0.0005, 0.5, 0.1, 0.3, noise, 0.0, first,
    ]  # fmt: skip
    np.testing.assert_allclose(shown.state[0, 0], absolute, atol=1e-6)
    assert shown.avail.all()


def test_types_of_players(package):
    def spec(scenario):
        return gfootball.make(gfootball.Config(scenario=scenario, workers=0)).spec

    three = spec("academy_3_vs_1_with_keeper")
    assert three.groups == (0, 1, 1)  # one amid the field, two at its sides
    assert three.group_names == ("middle", "wing")
    four = spec("academy_counterattack_hard")
    assert four.groups == (1, 0, 0, 1)
    assert spec("academy_counterattack_easy").group_names == ("player",)


def test_hard_counterattack_shows_three_opponents():
    game = {
        "left_team": np.arange(22.0).reshape(11, 2), "left_team_direction": np.zeros((11, 2)),
        "right_team": 100 + np.arange(22.0).reshape(11, 2), "right_team_direction": np.zeros((11, 2)),
        "ball": np.zeros(3), "ball_direction": np.zeros(3),
    }  # fmt: skip
    task = TASKS["academy_counterattack_hard"]
    shown = football.features(game, list(range(-task.agents, 0)), task.opponents)
    assert [obs.shape for obs in shown["obs"]] == [(34,)] * 4
    assert shown["state"].shape == (34,)
    assert shown["obs"][0][:4].tolist() == [14, 15, 2, 2]  # player 7 of 0 to 10, then 8 as seen from there
    assert shown["state"][16:22].tolist() == [100, 101, 102, 103, 104, 105]


def test_controlled_players_are_shown(package):
    shown, _, _ = play(0, representation="controlled")
    np.testing.assert_allclose(shown.obs[0, 0, 0, :2], LEFT[0])  # the stand-in controls players 0, 2 and 3
    np.testing.assert_allclose(shown.state[0, 0, :6], LEFT[[0, 2, 3]].ravel(), rtol=1e-6)


NEAR = (0.5, 0.7)
CASES = [  # plot, settings, rewards, terminated at the last step, truncated at the last step, won
    ({2: (*NEAR, 1, True)}, {}, [0, 0, 100], True, False, 1),
    ({2: (*NEAR, 0, True)}, {}, [0, 0, -1], True, False, 0),
    ({2: (*NEAR, -1, True)}, {}, [0, 0, -1], True, False, 0),
    ({2: (-0.1, 0.7, 0, False)}, {}, [0, 0, -1], True, False, 0),
    ({2: (0.5, -0.1, 0, False)}, {}, [0, 0, -1], True, False, 0),
    ({}, {"max_steps": 2}, [0, 0, -1], False, True, 0),
    ({2: (*NEAR, 1, True)}, {"max_steps": 2}, [0, 0, 100], True, False, 1),
    ({2: (*NEAR, 1, True)}, {"reward": "scoring"}, [0, 0, 1], True, False, 1),
    ({2: (*NEAR, -1, True)}, {"reward": "scoring"}, [0, 0, -1], True, False, 0),
    ({2: (-0.1, 0.7, 0, False)}, {"reward": "scoring"}, [0, 0, 0], True, False, 0),
    ({1: (-0.1, -0.1, 0, False), 2: (*NEAR, 1, True)}, {"ends": "engine"}, [0, 0, 100], True, False, 1),
]


@pytest.mark.parametrize(("plot", "settings", "reward", "terminated", "truncated", "won"), CASES)
def test_rewards_and_ends(package, plot, settings, reward, terminated, truncated, won):
    package.plot = plot
    shown, _, spec = play(2, **settings)
    assert spec.common_reward
    assert shown.reward[:, 0].tolist() == [[r] * 3 for r in reward]
    assert shown.terminated[:, 0].tolist() == [False, False, terminated]
    assert shown.truncated[:, 0].tolist() == [False, False, truncated]
    assert shown.info["won"][:, 0].tolist() == [0, 0, won]


def test_the_limit_of_the_engine_is_a_time_limit(package):
    package.duration = 2
    shown, _, _ = play(2)
    assert shown.truncated[:, 0].tolist() == [False, False, True]
    assert not shown.terminated.any()
    assert shown.reward[2, 0, 0] == -1


def test_simple115v2(package):
    shown, _, spec = play(1, representation="simple115v2")
    assert (spec.obs_dim, spec.state_dim) == (115, 115)
    assert (shown.obs[1] == 1).all()


def test_an_episode_depends_on_its_key_alone(package):
    def starts(env, seeds):
        reset = jax.jit(env.reset)
        return np.stack([np.asarray(reset(jax.random.key(seed))[1].obs) for seed in seeds])

    env = gfootball.make(gfootball.Config())
    try:
        first = starts(env, range(8))
        again = starts(env, reversed(range(8)))[::-1]
    finally:
        env.host.close()
    np.testing.assert_array_equal(first, again)
    assert len({obs.tobytes() for obs in first}) == 8
    assert set(first[:, 0, 25]) == {0.0, 1.0}  # which team moves first, drawn per episode


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"scenario": "counterattak_hard"}, ["env.scenario=counterattak_hard", "academy_counterattack_hard"]),
        ({"scenario": "corner"}, ["env.ends=engine"]),
        ({"representation": "pixels"}, ["env.representation=pixels", "literature, controlled, simple115v2"]),
        ({"reward": "checkpoints"}, ["env.reward=checkpoints"]),
        ({"ends": "never"}, ["env.ends=never", "literature, engine"]),
        ({"max_steps": 0}, ["env.max_steps=0"]),
        ({"python": sys.executable}, ["env.workers=1"]),
    ],
)
def test_refusals(settings, words):
    with pytest.raises(RefusedError) as found:
        gfootball.make(gfootball.Config(**settings))
    assert all(word in str(found.value) for word in words), found.value


def test_the_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "gfootball", None)
    monkeypatch.delitem(sys.modules, "gfootball.env", raising=False)
    with pytest.raises(RefusedError, match=r"gfootball==2\.10\.2 gym==0\.25\.2.*env\.python"):
        gfootball.make(gfootball.Config())


# ------------------------------------------------------------------------------------------------------ the game itself

DIRECT = """
import json, random, sys
import gfootball.env, numpy
seed, name, n, actions = json.load(sys.stdin)
env = gfootball.env.create_environment(
    env_name=name, representation="raw", rewards="scoring", number_of_left_players_agent_controls=n
)
random.seed(seed)
numpy.random.seed(seed)
env.unwrapped._config._values.pop("reverse_team_processing")  # as a game object that was never played has none
env.reset()
found = []
for action in actions:
    raw, reward, done, info = env.step(action)
    found.append([float(x) for x in raw[0]["ball"]] + [float(x) for x in raw[0]["left_team"][-1]])
    if done or raw[0]["ball"][0] < 0 or min(player[0] for player in raw[0]["left_team"][-n:]) < 0:
        break
print(json.dumps([found, float(reward[0])]))
"""


@pytest.fixture
def interpreter():
    python = os.environ.get("JAXSHARE_GFOOTBALL_PYTHON")
    if not python:
        pytest.skip("JAXSHARE_GFOOTBALL_PYTHON names no interpreter that has gfootball")
    return python


@pytest.mark.parametrize("task", ["academy_3_vs_1_with_keeper", "academy_counterattack_hard"])
def test_the_game_is_the_packages(interpreter, task):
    n = TASKS[task].agents
    actions = np.random.default_rng(0).integers(0, 19, (60, 2, n)).astype(np.int32)
    settings = {"scenario": task, "python": interpreter, "workers": 1}
    shown, seeds, spec = play(60, actions=actions, envs=2, **settings)
    assert (spec.num_agents, spec.obs_dim) == {"3": (3, 26), "4": (4, 34)}[str(n)]
    for slot, seed in enumerate(seeds):
        job = json.dumps([seed, task, n, actions[:, slot].tolist()])
        done = subprocess.run([interpreter, "-c", DIRECT], input=job, capture_output=True, text=True, check=True)
        found, reward = json.loads(done.stdout.splitlines()[-1])
        ball = 4 * n + 4 * TASKS[task].opponents
        state = shown.state[1 : len(found) + 1, slot]
        np.testing.assert_allclose(state[:, ball : ball + 3], np.array(found)[:, :3], rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(state[:, 2 * n - 2 : 2 * n], np.array(found)[:, 3:], rtol=1e-6, atol=1e-6)
        ended = len(found) < 60
        assert shown.terminated[:, slot].tolist() == [ended and t >= len(found) for t in range(61)]
        assert shown.reward[len(found), slot, 0] == (100 if reward > 0 else -1 if ended else 0)
    assert (shown.state[1:, 0] != shown.state[1:, 1]).any()


def test_the_game_repeats(interpreter):
    """The same key gives the same episode, in a game that was played before too, and another key another one."""
    env = gfootball.make(gfootball.Config(python=interpreter, workers=1))
    reset, step = jax.jit(env.reset), jax.jit(env.step)

    def episode(seed):
        state, shown = reset(jax.random.key(seed))
        states = [np.asarray(shown.state)]
        for t in range(30):
            state, shown = step(state, jnp.full(3, t % 19, jnp.int32), jax.random.key(0))
            states.append(np.asarray(shown.state))
        return np.stack(states)

    try:
        first, other, again = episode(1), episode(2), episode(1)
    finally:
        env.host.close()
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
