"""PettingZoo, Gymnasium and multi-agent MuJoCo through the host bridge, against the packages themselves."""

import sys
import warnings
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxshare import cli
from jaxshare.envs import gymnasium as gymnasium_adapter
from jaxshare.envs import pettingzoo as pettingzoo_adapter
from jaxshare.envs.hosted import robots as hosted
from jaxshare.envs.mamujoco import environment as mamujoco
from jaxshare.types import Discrete, RefusedError

gymnasium = pytest.importorskip("gymnasium")
HERE = __name__


class Played:
    """One episode in each slot through `jax.jit(jax.vmap(env.step))`; what every step showed, stacked over time."""

    def __init__(self, env, actions, seed=0):
        self.keys = jax.random.split(jax.random.key(seed), actions.shape[1])
        self.seeds = [int(jax.random.bits(key, (), jnp.uint32)) for key in self.keys]
        step = jax.jit(jax.vmap(env.step))
        try:
            state, first = jax.jit(jax.vmap(env.reset))(self.keys)
            shown = [first]
            for action in actions:
                state, timestep = step(state, jnp.asarray(action), self.keys)
                shown.append(timestep)
        finally:
            env.host.close()
        self.steps = jax.tree.map(lambda *x: np.stack(x), *shown)

    def __getattr__(self, name):
        return getattr(self.steps, name)


def zoo(id, **settings):
    return pettingzoo_adapter.make(pettingzoo_adapter.Config(id=id, **settings))


def gym(id, **settings):
    return gymnasium_adapter.make(gymnasium_adapter.Config(id=id, **settings))


def refusal(make, *args, **settings):
    with pytest.raises(RefusedError) as found:
        make(*args, **settings)
    return str(found.value)


# ---------------------------------------------------------------------------------------------------------- PettingZoo


def test_simple_spread_is_the_packages():
    package = pytest.importorskip("mpe2.simple_spread_v3")
    env = zoo("mpe2.simple_spread_v3")
    assert (env.spec.num_agents, env.spec.obs_dim, env.spec.state_dim) == (3, 18, 54)
    assert env.spec.action == Discrete(5)
    assert env.spec.episode_limit == 25  # told by the environment inside the wrapper
    assert not env.spec.common_reward
    actions = np.random.default_rng(0).integers(0, 5, (25, 2, 3)).astype(np.int32)
    played = Played(env, actions)
    original = package.parallel_env()
    for slot, seed in enumerate(played.seeds):
        obs, _ = original.reset(seed=seed)
        names = original.possible_agents
        for t in range(25):
            np.testing.assert_array_equal(played.obs[t, slot], np.float32([obs[name] for name in names]))
            np.testing.assert_array_equal(played.state[t, slot], np.float32(original.state()))
            obs, rewards, *_ = original.step({n: int(a) for n, a in zip(names, actions[t, slot], strict=True)})
            np.testing.assert_array_equal(played.reward[t + 1, slot], np.float32([rewards[name] for name in names]))
    assert played.truncated[:, 0].tolist() == [False] * 25 + [True]
    assert not played.terminated.any()
    assert played.alive.all()
    np.testing.assert_array_equal(played.obs[25, 1], np.float32([obs[name] for name in names]))  # the true last one


def test_settings_reach_the_environment():
    pytest.importorskip("mpe2")
    env = zoo("mpe2.simple_spread_v3:parallel_env", kwargs={"N": 4, "max_cycles": 30}, reward="sum", state="concat")
    assert (env.spec.num_agents, env.spec.episode_limit, env.spec.common_reward) == (4, 30, True)
    env.host.close()
    env = zoo("mpe2.simple_spread_v3", max_steps=3)
    played = Played(env, np.zeros((3, 1, 3), np.int32))
    assert played.truncated[:, 0].tolist() == [False, False, False, True]


def test_agents_of_different_kinds():
    pytest.importorskip("mpe2")
    env = zoo("mpe2.simple_speaker_listener_v4")
    assert (env.spec.groups, env.spec.group_names) == ((0, 1), ("speaker", "listener"))
    assert (env.spec.obs_dim, env.spec.action) == (11, Discrete(5))
    played = Played(env, np.zeros((1, 1, 2), np.int32))
    assert played.avail[0, 0].tolist() == [[True] * 3 + [False] * 2, [True] * 5]
    assert (played.obs[:, 0, 0, 3:] == 0).all()


def test_continuous_actions_are_scaled_to_the_box():
    package = pytest.importorskip("mpe2.simple_spread_v3")
    env = zoo("mpe2.simple_spread_v3", kwargs={"continuous_actions": True})
    actions = np.random.default_rng(1).uniform(-1, 1, (4, 1, 3, 5)).astype(np.float32)
    played = Played(env, actions)
    original = package.parallel_env(continuous_actions=True)
    original.reset(seed=played.seeds[0])
    for row in actions[:, 0]:
        chosen = {n: (a + 1) / 2 for n, a in zip(original.possible_agents, row, strict=True)}  # its box is 0 to 1
        obs, *_ = original.step(chosen)
    expected = np.float32([obs[name] for name in original.possible_agents])
    np.testing.assert_allclose(played.obs[-1, 0], expected, rtol=1e-6, atol=1e-6)
    assert played.avail.shape == (5, 1, 3, 0)


def test_settings_from_the_command_line():
    chosen = cli.settings(["env=pettingzoo", "env.kwargs={N:4,max_cycles:30}"]).env
    assert chosen == pettingzoo_adapter.Config(kwargs={"N": 4, "max_cycles": 30})
    chosen = cli.settings(["env=gymnasium", "env.id=a/b-v0", "env.imports=[a]", "env.kwargs={sight:2}"]).env
    assert chosen == gymnasium_adapter.Config(id="a/b-v0", imports=["a"], kwargs={"sight": 2})
    assert cli.settings(["env=mamujoco", "env.scenario=Humanoid-9|8"]).env.scenario == "Humanoid-9|8"


class Leaving:
    """Three agents; script: {step: {agent: "terminated" | "truncated"}} says who leaves when. Obs: [agent, step]."""

    def __init__(self, script, masks="none", prune=True, render_mode=None):
        assert render_mode is None, "no picture was asked for"
        self.possible_agents, self.metadata = ["red_0", "red_1", "blue_0"], {"max_steps": 9}
        self.script = {int(t): who for t, who in script.items()}
        self.masks, self.prune, self.received = masks, prune, []

    def observation_space(self, name):
        box = gymnasium.spaces.Box(-9, 9, (2,), np.float32)
        mask = gymnasium.spaces.MultiBinary(3)
        return gymnasium.spaces.Dict(observation=box, action_mask=mask) if self.masks == "obs" else box

    def action_space(self, name):
        return gymnasium.spaces.Discrete(3, start=10)

    def reset(self, seed=None, options=None):
        self.agents, self.time = list(self.possible_agents), 0
        return self.seen(self.agents)

    def seen(self, names):
        number = {name: 1 + self.possible_agents.index(name) for name in names}
        mask = np.array([0, 1, 1]) if self.time % 2 == 0 else np.array([0, 0, 0])
        obs = {name: np.float32([number[name], self.time]) for name in names}
        if self.masks == "obs":
            obs = {name: {"observation": o, "action_mask": mask} for name, o in obs.items()}
        return obs, {name: {"action_mask": mask} if self.masks == "infos" else {} for name in names}

    def step(self, actions):
        assert set(actions) == set(self.agents), "who has left must not act"
        assert all(isinstance(a, int) and 10 <= a <= 12 for a in actions.values())
        names, self.time = list(self.agents), self.time + 1
        going = self.script.get(self.time, {})
        ends = [{name: going.get(name) == how for name in names} for how in ("terminated", "truncated")]
        if self.prune:
            self.agents = [name for name in names if name not in going]
        obs, infos = self.seen(names)
        return obs, {name: float(actions[name]) for name in names}, *ends, infos

    def state(self):
        raise NotImplementedError

    def close(self):
        pass


RED, BLUE = ("red_0", "red_1"), ("blue_0",)


def leave(script, steps, **kwargs):
    env = zoo(f"{HERE}:Leaving", kwargs={"script": script, **kwargs})
    assert env.spec.groups == (0, 0, 1)
    assert env.spec.group_names == ("red", "blue")
    assert env.spec.episode_limit == 9  # told by its metadata
    return Played(env, np.full((steps, 1, 3), 1, np.int32))


def test_an_agent_may_leave_before_the_others():
    played = leave({2: {"red_1": "terminated"}, 3: {"red_0": "terminated", "blue_0": "terminated"}}, 3)
    assert played.alive[:, 0].tolist() == [[True] * 3, [True] * 3, [True, False, True], [True, False, True]]
    assert played.reward[:, 0].tolist() == [[0, 0, 0], [11, 11, 11], [11, 11, 11], [11, 0, 11]]
    assert played.obs[2, 0].tolist() == [[1, 2], [0, 0], [3, 2]]
    assert played.obs[3, 0].tolist() == [[1, 3], [0, 0], [3, 3]]  # the last observation is shown
    assert played.state[2, 0].tolist() == [1, 2, 0, 0, 3, 2]
    assert played.avail[2, 0].tolist() == [[True] * 3, [True, False, False], [True] * 3]
    assert played.terminated[:, 0].tolist() == [False, False, False, True]
    assert not played.truncated.any()


@pytest.mark.parametrize("prune", [True, False])
def test_an_episode_that_did_not_end_for_all_is_truncated(prune):
    script = {1: {"red_1": "terminated"}, 2: {"red_0": "truncated", "blue_0": "terminated"}}
    if not prune:  # an environment that leaves everybody in `agents` tells of all of them at the end
        script = {2: {"red_1": "terminated", "red_0": "truncated", "blue_0": "terminated"}}
    played = leave(script, 2, prune=prune)
    assert played.truncated[:, 0].tolist() == [False, False, True]
    assert not played.terminated.any()
    assert played.alive[2, 0].tolist() == [True, False, False]  # only what was cut off has a future


@pytest.mark.parametrize("masks", ["obs", "infos"])
def test_masks_are_understood_and_no_row_is_empty(masks):
    played = leave({2: {"red_1": "terminated"}}, 2, masks=masks)
    assert played.avail[0, 0].tolist() == [[False, True, True]] * 3
    assert played.avail[1, 0].tolist() == [[True, False, False]] * 3
    assert played.avail[2, 0].tolist() == [[False, True, True], [True, False, False], [False, True, True]]
    assert played.obs[1, 0].tolist() == [[1, 1], [2, 1], [3, 1]]


class Endless(Leaving):
    def __init__(self, render_mode=None):
        super().__init__({}, render_mode=render_mode)
        self.metadata = {}


def turns(**kwargs):
    env = Endless()
    env.agent_iter = lambda: iter(())
    return env


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"id": f"{HERE}:Endless"}, ["env.max_steps=100"]),
        ({"id": f"{HERE}:turns"}, ["AEC", "parallel"]),
        ({"id": "no_such_package.game"}, ["ModuleNotFoundError", "pip install"]),
        ({"id": f"{HERE}:Nothing"}, ["Nothing"]),
        ({"id": "mpe2/simple_spread"}, ["env.id=mpe2/simple_spread", "import path"]),
        ({"id": f"{HERE}:Endless", "max_steps": 0}, ["env.max_steps=0"]),
        ({"id": f"{HERE}:Endless", "state": "conact"}, ["env.state=conact", "Did you mean concat"]),
        ({"id": f"{HERE}:Endless", "reward": "total"}, ["env.reward=total", "individual, sum"]),
    ],
)
def test_pettingzoo_refuses(settings, words):
    message = refusal(zoo, **settings)
    assert all(word in message for word in words), message


# ----------------------------------------------------------------------------------------------------------- Gymnasium


@pytest.mark.parametrize(
    ("id", "package", "sizes", "actions", "own"),
    [
        ("rware-tiny-2ag-v2", "rware", (2, 71, 142), 5, 500),
        ("Foraging-8x8-2p-2f-coop-v3", "lbforaging", (2, 12, 24), 6, 50),
    ],
)
def test_an_id_is_the_packages(id, package, sizes, actions, own):
    pytest.importorskip(package)
    assert gym(id).spec.episode_limit == own
    env = gym(id, max_steps=20)
    assert (env.spec.num_agents, env.spec.obs_dim, env.spec.state_dim) == sizes
    assert env.spec.action == Discrete(actions)
    chosen = np.random.default_rng(0).integers(0, actions, (20, 2, 2)).astype(np.int32)
    played = Played(env, chosen)
    for slot, seed in enumerate(played.seeds):
        original = gymnasium.make(id, disable_env_checker=True)
        obs, _ = original.reset(seed=seed)
        for t, action in enumerate(chosen[:, slot]):
            np.testing.assert_array_equal(played.obs[t, slot], np.float32(obs))
            obs, reward, done, *_ = original.step(tuple(map(int, action)))
            np.testing.assert_array_equal(played.reward[t + 1, slot], np.float32(reward))
            assert not done
    assert played.truncated[:, 0].tolist() == [False] * 20 + [True]
    assert played.avail.all()


@pytest.mark.parametrize(
    ("id", "kwargs", "limit"), [("rware-tiny-2ag-v2", {"max_steps": 6}, 6), ("Foraging-8x8-2p-2f-coop-v3", {}, 50)]
)
def test_a_limit_that_the_package_calls_the_end_is_a_time_limit(id, kwargs, limit):
    pytest.importorskip({"r": "rware", "F": "lbforaging"}[id[0]])
    played = Played(gym(id, kwargs=kwargs), np.zeros((limit, 1, 2), np.int32))
    assert played.truncated[:, 0].tolist() == [False] * limit + [True]
    assert not played.terminated.any()


class Team(gymnasium.Env):
    """Two agents with the names of PyMARL's methods; the reward of each is its action."""

    metadata = {"render_modes": ["human"]}  # noqa: RUF012

    def __init__(self, fast=False, tuple_actions=True, bounded=True, render_mode=None):
        assert render_mode is None, "rgb_array was not offered"
        high = 2.0 if bounded else np.inf
        one = gymnasium.spaces.Box(-high, high, (1, 2), np.float32) if fast else gymnasium.spaces.Discrete(3)
        self.observation_space = gymnasium.spaces.Tuple(
            [gymnasium.spaces.Discrete(4), gymnasium.spaces.Box(0, 1, (2,))]
        )
        self.action_space = gymnasium.spaces.Tuple([one, one]) if tuple_actions else one

    def reset(self, seed=None, options=None):
        self.time = 0
        return (0, np.zeros(2, np.float32)), {}

    def step(self, action):
        self.time += 1
        rewards = [float(np.sum(a)) for a in action]
        assert all(isinstance(a, int) or a.shape == (1, 2) for a in action)
        return (self.time, np.ones(2, np.float32)), rewards, [self.time == 3] * 2, False, {}

    def get_avail_actions(self):
        return [[1, self.time % 2, 1], [1, 0, 0]]

    def get_state(self):
        return np.float32([self.time, 7, 8])


@pytest.fixture
def team():
    gymnasium.register("Team-v0", f"{HERE}:Team", max_episode_steps=5)
    gymnasium.register("Short-v0", f"{HERE}:Team", max_episode_steps=2)
    gymnasium.register("Limitless-v0", f"{HERE}:Team")
    yield
    for name in ("Team-v0", "Short-v0", "Limitless-v0"):
        gymnasium.registry.pop(name)


def test_masks_and_states_in_the_names_of_pymarl(team):
    env = gym("Team-v0", reward="sum")
    assert (env.spec.state_dim, env.spec.obs_dim, env.spec.episode_limit) == (3, 4, 5)  # the registered limit
    assert env.spec.common_reward
    played = Played(env, np.tile(np.int32([2, 0]), (3, 1, 1)))
    assert played.avail[:2, 0].tolist() == [
        [[True, False, True], [True, False, False]],
        [[True] * 3, [True, False, False]],
    ]
    assert played.state[2, 0].tolist() == [2, 7, 8]
    assert played.obs[1, 0].tolist() == [[0, 1, 0, 0], [1, 1, 0, 0]]  # a Discrete observation is one-hot
    assert played.reward[1, 0].tolist() == [2, 2]
    assert played.terminated[:, 0].tolist() == [False, False, False, True]


def test_max_steps_replaces_the_registered_limit(team):
    assert gym("Team-v0", max_steps=2).spec.episode_limit == 2
    longer = gym("Short-v0", max_steps=50)
    assert longer.spec.episode_limit == 50
    played = Played(longer, np.zeros((3, 1, 2), np.int32))
    assert played.terminated[:, 0].tolist() == [False, False, False, True]
    assert not played.truncated.any()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"id": "CartPole-v1"}, ["observation space", "Box", "Tuple"]),
        ({"id": "Team-v0", "kwargs": {"tuple_actions": False}}, ["action space", "Discrete", "Tuple"]),
        ({"id": "Team-v0", "kwargs": {"fast": True, "bounded": False}}, ["no bounds"]),
        ({"id": "Teem-v0"}, ["Teem"]),
        ({"id": "Limitless-v0"}, ["env.max_steps=100"]),
        ({"id": "Team-v0", "imports": ["no_such_module"]}, ["no_such_module", "pip install"]),
        ({"id": "Team-v0", "max_steps": 0}, ["env.max_steps=0"]),
        ({"id": "Team-v0", "reward": "summ"}, ["env.reward=summ", "Did you mean sum"]),
    ],
)
def test_gymnasium_refuses(team, settings, words):
    message = refusal(gym, **settings)
    assert all(word in message for word in words), message


# ------------------------------------------------------------------------------------------------------------- MaMuJoCo

SPECS = {  # scenario: agents, obs_dim, action dim, state_dim, limit
    "HalfCheetah-2x3": (2, 12, 3, 17, 1000),
    "HalfCheetah-6x1": (6, 9, 1, 17, 1000),
    "Walker2d-2x3": (2, 12, 3, 17, 1000),
    "Hopper-3x1": (3, 9, 1, 11, 1000),
    "Ant-4x2": (4, 42, 2, 105, 1000),
    "Humanoid-9|8": (2, 242, 9, 348, 1000),
    "ManySegmentSwimmer-10x2": (10, 6, 2, 44, 1000),
    "ManySegmentAnt-2x3": (2, 167, 12, 311, 1000),
    "Swimmer-2x1": (2, 6, 1, 8, 1000),
    "Reacher-2x1": (2, 10, 1, 10, 50),
    "HalfCheetah_2l": (2, 12, 3, 17, 200),
    "Walker_2l": (2, 12, 3, 17, 200),
}
OTHER_SPELLINGS = {
    "manyagent_swimmer-10x2": "ManySegmentSwimmer-10x2",
    "manyagent_ant-2x3": "ManySegmentAnt-2x3",
    "Humanoid-v2-9|8": "Humanoid-9|8",
}


@pytest.fixture
def robots():
    pytest.importorskip("mujoco")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a deprecated part of the package says at import
        return pytest.importorskip("gymnasium_robotics").mamujoco_v1


def robot(scenario, **settings):
    return mamujoco.make(mamujoco.Config(scenario=scenario, **settings))


@pytest.mark.parametrize("scenario", [*SPECS, *OTHER_SPELLINGS])
def test_robots_have_their_sizes(robots, scenario):
    spec = robot(scenario).spec
    found = (spec.num_agents, spec.obs_dim, spec.action.dim, spec.state_dim, spec.episode_limit)
    assert found == SPECS[OTHER_SPELLINGS.get(scenario, scenario)]
    assert spec.common_reward
    assert set(spec.action.low + spec.action.high) == {-1.0, 1.0}


def test_every_scenario_has_a_row():
    assert set(mamujoco.scenarios()) == set(SPECS)


def test_observed_joints():
    pytest.importorskip("gymnasium_robotics")
    assert robot("HalfCheetah-6x1", agent_obsk=0).spec.obs_dim == 7
    assert robot("HalfCheetah-6x1", agent_obsk=0).spec.groups == (0,) * 6


@pytest.mark.parametrize(
    ("scenario", "bound"), [("Humanoid-9|8", 0.4), ("HalfCheetah-6x1", 1.0), ("ManySegmentAnt-2x2", 1.0)]
)
def test_robots_are_the_packages(robots, scenario, bound):
    env, (name, _, parts) = robot(scenario), scenario.partition("-")
    n, dim, steps = env.spec.num_agents, env.spec.action.dim, 8
    # numbers that are scaled without rounding (a robot enlarges any error), and two that are clipped
    actions = np.random.default_rng(0).choice(np.float32([-1.2, -1, 0, 1, 1.2]), (steps, 2, n, dim))
    played = Played(env, actions)
    original = robots.parallel_env(name, parts)
    agents = original.possible_agents
    for slot, seed in enumerate(played.seeds):
        obs, _ = original.reset(seed=seed)
        for t in range(steps):
            for i, agent in enumerate(agents):
                size = len(obs[agent])
                np.testing.assert_array_equal(played.obs[t, slot, i, :size], np.float32(obs[agent]))
                assert (played.obs[t, slot, i, size:] == 0).all()
            np.testing.assert_array_equal(played.state[t, slot], np.float32(original.state()))
            own = [original.action_space(agent).shape[0] for agent in agents]
            unit = [np.clip(actions[t, slot, i, : own[i]], -1, 1) for i in range(n)]
            obs, rewards, *_ = original.step({a: np.float32(bound) * u for a, u in zip(agents, unit, strict=True)})
            np.testing.assert_array_equal(played.reward[t + 1, slot], np.float32(rewards["agent_0"]))
    assert not (played.terminated | played.truncated).any()


@pytest.mark.parametrize("name", ["ManySegmentSwimmer", "ManySegmentAnt"])
def test_workers_do_not_share_a_file(robots, name, monkeypatch):
    def shared(*args, **kwargs):
        raise AssertionError("the package writes one file for all")

    monkeypatch.setattr(robots.raw_parallel_env, "_create_base_gym_env", shared)
    env = robot(f"{name}-2x2", workers=0, max_steps=9)
    assert env.spec.episode_limit == 9
    assert hosted.MaMujoco(name, "2x2").limit() == 1000


def test_a_fall_is_a_true_end(robots):
    played = Played(robot("Hopper-3x1"), np.ones((120, 1, 3, 1), np.float32))
    original = robots.parallel_env("Hopper", "3x1")
    original.reset(seed=played.seeds[0])
    steps = 0
    while original.agents:
        obs, _, fallen, *_ = original.step({a: np.ones(1, np.float32) for a in original.possible_agents})
        steps += 1
    assert steps < 120
    assert fallen["agent_0"]
    assert played.terminated[:, 0].tolist() == [t >= steps for t in range(121)]  # it goes on showing its last step
    assert not played.truncated.any()
    np.testing.assert_allclose(played.obs[steps, 0, 1], obs["agent_1"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("max_steps", "limit"), [(None, 50), (7, 7), (60, 60)])
def test_the_time_limit_of_a_robot(robots, max_steps, limit):
    env = robot("Reacher-2x1", max_steps=max_steps)
    assert env.spec.episode_limit == limit
    played = Played(env, np.zeros((limit, 1, 2, 1), np.float32))
    assert played.truncated[:, 0].tolist() == [False] * limit + [True]
    assert played.alive.all()
    assert not played.terminated.any()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"scenario": "Walker-2x3"}, ["env.scenario=Walker-2x3", "Did you mean Walker2d-2x3"]),
        ({"scenario": "HalfCheetah-3x2"}, ["env.scenario=HalfCheetah-3x2", "HalfCheetah-2x3"]),
        ({"scenario": "CoupledHalfCheetah-1p1"}, ["IndexError"]),
        ({"scenario": "ManySegmentAnt-0x3"}, ["any agents x segments"]),
        ({"scenario": "Ant-4x2", "agent_obsk": -1}, ["env.agent_obsk=-1"]),
        ({"scenario": "Ant-4x2", "max_steps": 0}, ["env.max_steps=0"]),
    ],
)
def test_mamujoco_refuses(settings, words):
    message = refusal(robot, **settings)
    assert all(word in message for word in words), message


def test_mamujoco_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco", None)
    assert "pip install 'jaxshare[mamujoco]'" in refusal(robot, "Ant-4x2")


def test_a_picture_or_what_it_needs(robots, monkeypatch):
    env = hosted.MaMujoco("Hopper", "3x1")
    env.reset(0)
    monkeypatch.setattr(type(env.env), "render", lambda self: np.zeros((4, 4, 3), np.uint8))
    assert env.render().shape == (4, 4, 3)

    def fails(self):
        raise AttributeError("no library")

    monkeypatch.setattr(type(env.env), "render", fails)
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    with pytest.raises(RuntimeError, match=r"EGL or OSMesa.*MUJOCO_GL=egl.*no library"):
        env.render()


def test_warnings_of_mujoco_leave_no_file(robots, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    hosted.MaMujoco("HalfCheetah", "2x3").close()
    assert not list(tmp_path.iterdir())
    hosted._warn("Nan, Inf or huge value in QACC")
    assert "huge value" in capsys.readouterr().err


@pytest.mark.parametrize("adapter", [pettingzoo_adapter, gymnasium_adapter, mamujoco])
def test_adapters_import_no_package(adapter):
    packages = ("pettingzoo", "gymnasium", "mujoco", "gymnasium_robotics")
    assert not any(isinstance(value, ModuleType) and value.__name__ in packages for value in vars(adapter).values())
    assert adapter.HOST
