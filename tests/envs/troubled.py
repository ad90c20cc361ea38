"""Teams as people write them, each with one habit that the interface allows, or that must be refused in a sentence.

`Porters` is a parallel environment in PettingZoo's interface: two porters carry a load for six steps, action 1 pays 1.
`Rowers` is the same for Gymnasium with tuples.
"""

import gymnasium
import numpy as np
from gymnasium import spaces

NAMES = ["porter_0", "porter_1"]
BOX = spaces.Box(-9, 9, (3,), np.float32)


class Porters:
    """Keeps to the interface. Observation: [agent, step, 1]."""

    possible_agents = NAMES
    metadata = {"max_steps": 6}  # noqa: RUF012
    obs = BOX
    act = spaces.Discrete(3)

    def __init__(self, **settings):
        self.__dict__.update(settings)

    def observation_space(self, name):
        return self.obs

    def action_space(self, name):
        return self.act

    def view(self, name):
        return np.float32([NAMES.index(name), self.time, 1])

    def reset(self, seed=None, options=None):
        self.time, self.agents = 0, list(NAMES)
        return {name: self.view(name) for name in self.agents}, {name: {} for name in self.agents}

    def pay(self, name, action):
        return float(np.sum(action) == 1)

    def ends(self, name):
        """(terminated, truncated) of one porter, at this step."""
        return False, self.time == 6

    def step(self, actions):
        assert set(actions) == set(self.agents), f"{sorted(actions)} act, but {self.agents} are there"
        self.actions, self.time, names = actions, self.time + 1, list(self.agents)
        flags = {name: self.ends(name) for name in names}
        rewards = {name: self.pay(name, actions[name]) for name in names}
        self.agents = self.after(names, flags)
        obs = {name: self.view(name) for name in self.shown(names)}
        terms, cuts = ({name: flags[name][i] for name in names} for i in (0, 1))
        return obs, rewards, terms, cuts, {name: {} for name in obs}

    def after(self, names, flags):
        return [name for name in names if not any(flags[name])]

    def shown(self, names):
        return names

    def close(self):
        pass


class ShowsWhoIsLeft(Porters):
    """Builds its dicts from `agents`, which it has emptied before."""

    def shown(self, names):
        return self.agents


class WinsUnseen(ShowsWhoIsLeft):
    def ends(self, name):
        return self.time == 3, False


class Blinks(Porters):
    """The second porter is there all the time, and sees nothing at steps 2 and 3."""

    def shown(self, names):
        return [name for name in names if name == NAMES[0] or self.time not in (2, 3)]


class BlindAtFirst(Porters):
    def reset(self, seed=None, options=None):
        obs, infos = super().reset()
        return {NAMES[0]: obs[NAMES[0]]}, infos


class Returns(Porters):
    """The second porter is terminated at step 2 and carries on from step 4."""

    def ends(self, name):
        return name == NAMES[1] and self.time == 2, self.time == 6

    def after(self, names, flags):
        back = [NAMES[1]] if self.time == 4 else []
        return super().after(names, flags) + back

    def shown(self, names):
        return {*names, *self.agents}


class NeverPruned(Returns):
    """It stays in `agents`, flagged, until it carries on."""

    def ends(self, name):
        return name == NAMES[1] and self.time in (2, 3), self.time == 6

    def after(self, names, flags):
        return [] if self.time == 6 else list(NAMES)


class Stranger(Porters):
    def after(self, names, flags):
        return [*names, "porter_2"]

    def view(self, name):
        return np.zeros(3, np.float32)


class NobodyThere(Porters):
    def reset(self, seed=None, options=None):
        super().reset()
        self.agents = []
        return {}, {}


class WithGoal(Porters):
    """A mask beside three other entries, one of them nested."""

    obs = spaces.Dict(
        {
            "observation": BOX,
            "action_mask": spaces.MultiBinary(3),
            "goal": spaces.Box(-9, 9, (2,), np.float32),
            "load": spaces.Dict({"kind": spaces.Discrete(2, start=4)}),
        }
    )
    mask = (1, 1, 0)

    def view(self, name):
        goal, load = np.float32([5, 6]), {"kind": 5}
        return {"goal": goal, "observation": super().view(name), "action_mask": np.array(self.mask), "load": load}


class Shows(Porters):
    """Shows `value` in the space `obs`, from step `since` on."""

    since, good = 0, None

    def view(self, name):
        return self.value if self.time >= self.since else self.good


class Pays(Porters):
    def pay(self, name, action):
        return self.value


class Flags(Porters):
    """Its flags are what numpy calls flags."""

    def ends(self, name):
        return tuple(self.kind(flag) for flag in super().ends(name))


class NoInfos(Porters):
    def reset(self, seed=None, options=None):
        return super().reset()[0], None

    def step(self, actions):
        return (*super().step(actions)[:4], None)


class OldReset(Porters):
    def reset(self, seed=None, options=None):
        return super().reset()[0]


class OldStep(Porters):
    def step(self, actions):
        obs, rewards, terms, cuts, infos = super().step(actions)
        return obs, rewards, {name: terms[name] or cuts[name] for name in terms}, infos


class TeamReward(Porters):
    def step(self, actions):
        obs, _, *rest = super().step(actions)
        return (obs, 1.0, *rest)


class NoSeed(Porters):
    def reset(self):
        return super().reset()


class Wrapped(Porters):
    """Hands its arguments on to one that takes none."""

    def reset(self, seed=None, options=None):
        return NoSeed.reset(self, seed=seed)


class Mixed(Porters):
    def action_space(self, name):
        kinds = [spaces.Discrete(3), spaces.Box(-1, 1, (2,), np.float32)]
        return kinds[NAMES.index(name) != self.first]


class Whole(Porters):
    """Actions are whole numbers."""

    def action_space(self, name):
        assert self.dtype
        return spaces.Box(np.array(self.low), np.array(self.high), dtype=self.dtype)


class State(Porters):
    def state(self):
        return self.whole


class StateOfWhoIsLeft(ShowsWhoIsLeft):
    """Its state is made of the agents that are left; at the end there are none."""

    def state(self):
        views = [self.view(name) for name in self.agents]
        return np.concatenate(views) if self.raises else np.ravel(views)


class HumanOnly(Porters):
    """It opens a window, or draws nothing."""

    metadata = {"max_steps": 6, "render_modes": ["human"]}  # noqa: RUF012

    def __init__(self, render_mode=None):
        if render_mode not in (None, "human"):
            raise ValueError(f"no such mode: {render_mode}")


class Draws(Porters):
    """It can draw itself, which is dear: it counts how often it was asked to be ready for it."""

    metadata = {"max_steps": 6, "render_modes": ["human", "rgb_array"]}  # noqa: RUF012
    ready, broken = 0, False

    def __init__(self, render_mode=None):
        self.render_mode = render_mode
        Draws.ready += render_mode is not None
        if render_mode and Draws.broken:
            raise OSError("no display")

    def render(self):
        return np.full((2, 2, 3), self.time, np.uint8) if self.render_mode else None


class Rowers(gymnasium.Env):
    """Keeps to the interface."""

    max_steps = 6

    def __init__(self, **settings):
        self.__dict__.update(settings)
        self.observation_space = spaces.Tuple([settings.get("obs", BOX)] * 2)
        self.action_space = spaces.Tuple([settings.get("act", spaces.Discrete(3))] * 2)

    def view(self):
        return tuple(np.float32([i, self.time, 1]) for i in range(2))

    def reset(self, *, seed=None, options=None):
        self.time = 0
        return self.view(), {}

    def reward(self):
        return [1.0, 2.0]

    def ends(self):
        return False, False

    def step(self, action):
        self.actions, self.time = action, self.time + 1
        assert self.time <= 6, "stepped after its end"
        return (self.view(), self.reward(), *self.ends(), {})


class OneByOne(Rowers):
    """The first rower is terminated from step 2 on, the second truncated at step 4, where the boat lies still."""

    max_steps = 9

    def ends(self):
        assert self.time <= 4, "stepped after its end"
        return self.kind([self.time >= 2, False]), self.kind([False, self.time == 4])


class BothTerminated(Rowers):
    max_steps = 9

    def ends(self):
        return np.array([self.time >= 2, self.time >= 3]), np.array([[False], [True]])


class RowersPay(Rowers):
    def reward(self):
        return self.value


class RowersShow(Rowers):
    def view(self):
        return self.value


class RowersOldReset(Rowers):
    def reset(self, *, seed=None, options=None):
        return self.view_of(super().reset()[0])

    def view_of(self, obs):
        return obs


class RowersOldStep(Rowers):
    def step(self, action):
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, reward, terminated or truncated, info


class RowersNoSeed(Rowers):
    def reset(self):
        return super().reset()


class RowersState(Rowers):
    def get_state(self):
        return {"time": self.time}


class RowersMixed(Rowers):
    def __init__(self, first):
        super().__init__()
        kinds = [spaces.Discrete(3), spaces.Box(-1, 1, (2,), np.float32)]
        self.action_space = spaces.Tuple([kinds[first], kinds[1 - first]])


class RowersHumanOnly(Rowers):
    metadata = {"render_modes": ["human"]}  # noqa: RUF012

    def __init__(self, render_mode=None):
        assert render_mode in (None, "human")
        super().__init__()


class RowersDraw(Rowers):
    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    ready = 0

    def __init__(self, render_mode=None):
        super().__init__()
        self.render_mode = render_mode
        RowersDraw.ready += render_mode is not None

    def render(self):
        return np.full((2, 2, 3), self.time, np.uint8)
