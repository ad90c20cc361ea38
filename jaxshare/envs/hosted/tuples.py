"""Gymnasium environments with a tuple of agents: spaces, observations and rewards have one entry per agent."""

import importlib
import os
import runpy

import numpy as np

SPACES = runpy.run_path(
    os.path.join(os.path.dirname(__file__), "spaces.py")
)  # no package here: a worker has none
Misfit = SPACES["Misfit"]
text_of = SPACES["text_of"]
RESULTS = ("observations", "reward", "terminated", "truncated", "info")  # of a step
LIMITS = (
    "max_steps",
    "_max_episode_steps",
    "max_cycles",
    "episode_limit",
)  # how environments call their time limit


class Tuples:
    """`gymnasium.make(id, **kwargs)` as a hosted environment.

    imports: modules to import first, which register ids.
    max_steps: the time limit; without it the registered one, or what the environment names as its own. An episode may
    also end as the environment says; an end at the step that it names as its own limit is a time limit.
    common_reward: every agent receives the sum of the rewards.
    draw: whether pictures will be asked for; it draws itself as "rgb_array" where it offers that.
    A reward that is one number is the team's, common to all.
    """

    global_random = True  # unknown packages may draw from the global generators

    def __init__(
        self, id, max_steps=None, kwargs=None, imports=(), common_reward=False, draw=False
    ):
        import gymnasium

        for name in imports:
            importlib.import_module(name)
        options = {"disable_env_checker": True, **(kwargs or {})}
        if max_steps:
            options["max_episode_steps"] = max_steps  # so that ours replaces the registered one
        self.env = made(gymnasium, id, options, draw)
        self.game = self.env.unwrapped
        self.max_steps, self.common_reward = max_steps, common_reward
        named = [getattr(self.game, key, None) for key in LIMITS]
        self.own, self.steps = next((n for n in named if isinstance(n, int) and n > 0), None), 0
        self.obs_spaces = entries(self.env.observation_space, "observation")
        self.action_spaces = entries(self.env.action_space, "action")
        self.actions = SPACES["actions_of"](self.action_spaces)
        self.possible = SPACES["avail_of"](self.action_spaces)
        self.readers = [SPACES["Reader"](space) for space in self.obs_spaces]
        self.sizes = [reader.size for reader in self.readers]
        self.masks = getattr(self.game, "get_avail_actions", None)  # PyMARL's names
        self.whole = getattr(self.game, "get_state", None)

    def describe(self):
        """See `hosted.worker`."""
        found = {
            "num_agents": len(self.obs_spaces),
            "obs_dim": max(self.sizes),
            "state_dim": sum(self.sizes),
            "episode_limit": self.limit(),
            "draws_if_asked": True,
            **self.actions,
        }
        one_reward = self.one_reward()
        found["common_reward"] = self.common_reward or one_reward
        if self.whole:
            found["state_dim"] = len(self.reset(0)["state"])
        return found

    def one_reward(self):
        """Whether the environment gives one reward to the team: tried by one step."""
        masks = self.reset(0)["avail"]
        if self.possible is None:
            action = [SPACES["middle_of"](space) for space in self.action_spaces]
        else:
            action = np.asarray(masks).argmax(1)
        obs, reward, terminated, truncated, _ = self.results(action)
        self.shown(obs, reward, terminated, truncated)  # raises for what cannot be understood
        return np.size(reward) == 1

    def limit(self):
        """The time limit: ours, the registered one, or the environment's own."""
        found = self.max_steps or getattr(self.env.spec, "max_episode_steps", None) or self.own
        if found:
            return int(found)
        raise ValueError("it tells no time limit of its own: give one, as in env.max_steps=100")

    def reset(self, seed):
        """See `hosted.worker`."""
        try:
            result = self.env.reset(seed=seed)
        except TypeError as error:
            if "unexpected keyword argument" not in str(error):
                raise
            raise Misfit(
                "its reset() is not reset(*, seed=None, options=None): {}".format(error)
            ) from error
        new = (
            isinstance(result, (tuple, list))
            and len(result) == 2
            and isinstance(result[1], (dict, type(None)))
        )
        if not new or not isinstance(result[0], (tuple, list, np.ndarray)):
            raise Misfit(
                "its reset() returns {}, as the old interface had it: (observations, info) is expected".format(
                    text_of(result)
                )
            )
        self.steps = 0
        return self.shown(result[0], 0.0, False, False)

    def step(self, action):
        """See `hosted.worker`."""
        obs, reward, terminated, truncated, _ = self.results(action)
        self.steps += 1
        if self.steps == self.own and np.all(terminated):
            terminated, truncated = False, True
        return self.shown(obs, reward, terminated, truncated)

    def results(self, action):
        """The five results of a step. Raises Misfit for another interface."""
        chosen = self.chosen(action)
        try:
            result = self.env.step(chosen)
        except ValueError as error:  # of a wrapper of Gymnasium's
            if "values to unpack" not in str(error):
                raise
            result = self.game.step(chosen)
        if not (isinstance(result, (tuple, list)) and len(result) == len(RESULTS)):
            old = isinstance(result, (tuple, list)) and len(result) == 4
            what = "four results, as the old interface had it" if old else text_of(result)
            raise Misfit("its step() returns {}: ({}) is expected".format(what, ", ".join(RESULTS)))
        return result

    def chosen(self, action):
        """Actions as the environment wants them."""
        return tuple(SPACES["action_for"](space, a) for space, a in zip(self.action_spaces, action))

    def shown(self, obs, reward, terminated, truncated):
        """The record of one step. Without a `get_state` the state is the observations, one after the other."""
        if len(obs) != len(self.readers):
            raise Misfit(
                "it shows observations of {} agents, but has {}".format(len(obs), len(self.readers))
            )
        flat = [reader(value, i) for i, (reader, value) in enumerate(zip(self.readers, obs))]
        gone = self.per_agent(terminated, "terminated")
        ended = gone | self.per_agent(truncated, "truncated")
        return {
            "obs": flat,
            "state": self.state() if self.whole else np.concatenate(flat),
            "avail": self.masks() if self.masks else self.possible,
            "reward": self.reward(reward),
            "terminated": gone.all(),
            "truncated": ended.all() and not gone.all(),
        }

    def state(self):
        """`get_state()` as a vector."""
        state = self.whole()
        vector = np.ravel(state)
        if vector.dtype.kind not in SPACES["NUMBERS"]:
            raise Misfit(
                "its get_state() gives {}: an array of numbers is expected".format(text_of(state))
            )
        return vector

    def per_agent(self, flags, what):
        """[N] or [1] bool: a flag of each agent, or of all."""
        flags = np.ravel(flags)
        if flags.size not in (1, len(self.readers)) or flags.dtype.kind not in SPACES["NUMBERS"]:
            raise Misfit(
                "`{}` is {}: a flag, or one per agent, is expected".format(what, text_of(flags))
            )
        return flags.astype(bool)

    def reward(self, reward):
        """A number, or one per agent."""
        values = np.ravel(reward)
        if values.size not in (1, len(self.readers)) or values.dtype.kind not in SPACES["NUMBERS"]:
            raise Misfit(
                "its reward is {}: a number, or one per agent, is expected".format(text_of(reward))
            )
        return values.sum() if self.common_reward or values.size == 1 else values

    def render(self):
        """See `hosted.worker`."""
        return self.env.render()

    def close(self):
        """See `hosted.worker`."""
        self.env.close()


def made(gymnasium, id, options, draw):
    """The environment of an id, ready to draw itself if that is wanted and it offers it."""
    env = gymnasium.make(id, **options)
    modes = (getattr(env.unwrapped, "metadata", None) or {}).get("render_modes") or ()
    if draw and "rgb_array" in modes and "render_mode" not in options:
        try:
            drawing = gymnasium.make(id, render_mode="rgb_array", **options)
        except Exception:
            return env
        env.close()
        return drawing
    return env


def entries(space, what):
    """The spaces of a Tuple, one per agent."""
    if type(space).__name__ != "Tuple":
        raise ValueError(
            f"its {what} space is of kind {type(space).__name__}, not a Tuple with one entry per agent, so it is no "
            "environment for a team"
        )
    return list(space.spaces)


class Foraging(Tuples):
    """lbforaging's environments: a seeded reset that depends on the seed alone, and a time limit that is one."""

    global_random = False

    def __init__(self, id, max_steps, kwargs=None, common_reward=False, mask_actions=False):
        super().__init__(id, max_steps, kwargs, ("lbforaging",), common_reward)
        self.mask_actions = mask_actions
        self.game._max_episode_steps = (
            max_steps + 1
        )  # code: its own limit looks like the end of the food
        self.own = None

    def describe(self):
        """See `hosted.worker`."""
        return {**super().describe(), "info": ("food_eaten",), "draws_if_asked": False}

    def one_reward(self):
        """It gives one to every agent."""
        return False

    def reset(self, seed):
        """See `hosted.worker`."""
        for player in self.game.players:
            player.position = None  # code: where players stood before would keep new ones away
        return super().reset(seed)

    def step(self, action):
        """See `hosted.worker`. Past Gymnasium's wrappers, which only check."""
        return self.shown(*self.game.step(action.tolist())[:4])

    def shown(self, obs, reward, terminated, truncated):
        """The record of one step; info: the share of the foods that were eaten in it."""
        left = int(np.count_nonzero(self.game.field))
        if self.game.current_step == 0:
            self.spawned = self.left = left
        before, self.left = self.left, left
        found = {
            "obs": obs,
            "reward": np.sum(reward) if self.common_reward else reward,
            "terminated": terminated,
        }
        found["info"] = {"food_eaten": (before - left) / max(self.spawned, 1)}
        if self.mask_actions:
            valid = self.game._valid_actions
            found["avail"] = np.array(
                [[a in {v.value for v in valid[p]} for a in range(6)] for p in self.game.players]
            )
        return found

    def render(self):
        """See `hosted.worker`."""
        return drawn(self.game, "lbf")


class Warehouse(Tuples):
    """rware's environments: the time limit is ours, since rware reports its own as the end of the task."""

    global_random = False

    def __init__(self, id, max_steps, kwargs=None, common_reward=False):
        super().__init__(id, max_steps, kwargs, ("rware",), common_reward)
        self.game.max_steps = self.own = None

    def describe(self):
        """See `hosted.worker`."""
        about = {"info": ("deliveries",), "group_names": ("robot",), "draws_if_asked": False}
        return {**super().describe(), **about}

    def one_reward(self):
        """It gives one to every agent."""
        return False

    def step(self, action):
        """See `hosted.worker`. Past Gymnasium's wrappers, which only check."""
        obs, reward, _, _, _ = self.game.step(action.tolist())
        return self.shown(obs, reward, False, False)

    def shown(self, obs, reward, terminated, truncated):
        """The record of one step; info: rewards are deliveries, unless kwargs say otherwise."""
        team = float(np.sum(reward))
        return {
            "obs": obs,
            "reward": team if self.common_reward else reward,
            "info": {"deliveries": team},
        }

    def render(self):
        """See `hosted.worker`."""
        return drawn(self.game, "rware")


def drawn(game, ours):
    """The package's own picture, which opens a window."""
    try:
        return game.render(mode="rgb_array")  # code: not among the modes that it declares
    except Exception as error:
        raise RuntimeError(
            f"it needs a display ({error}); env={ours} is the same task and draws without one"
        ) from error
