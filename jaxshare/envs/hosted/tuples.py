"""Gymnasium environments with a tuple of agents: everything has one entry for each of them."""

import importlib

import numpy as np

from .spaces import NUMBERS, Misfit, Reader, action_for, actions_of, avail_of, middle_of, text_of

RESULTS = ("observations", "reward", "terminated", "truncated", "info")  # of a step
# how environments call their time limit
LIMITS = ("max_steps", "_max_episode_steps", "max_cycles", "episode_limit")


class Tuples:
    """`gymnasium.make(id, **kwargs)` as a hosted environment.

    imports: modules to import first, which register ids.
    max_steps: the time limit; without it the registered one, or what the environment names as its
    own. An episode may also end as the environment says; an end at the step that it names as its
    own limit is a time limit.
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
        self.max_steps = max_steps
        self.common_reward = common_reward
        named = [getattr(self.game, key, None) for key in LIMITS]
        self.own_limit = next((n for n in named if isinstance(n, int) and n > 0), None)
        self.steps = 0

        # what each agent observes and does
        self.obs_spaces = entries(self.env.observation_space, "observation")
        self.action_spaces = entries(self.env.action_space, "action")
        self.actions = actions_of(self.action_spaces)
        self.possible = avail_of(self.action_spaces)
        self.readers = [Reader(space) for space in self.obs_spaces]
        self.sizes = [reader.size for reader in self.readers]
        self.masks = getattr(self.game, "get_avail_actions", None)  # PyMARL's names
        self.whole = getattr(self.game, "get_state", None)

    def describe(self):
        """See `hosted.slots`."""
        about = {
            "num_agents": len(self.obs_spaces),
            "obs_dim": max(self.sizes),
            "state_dim": sum(self.sizes),
            "episode_limit": self.limit(),
            "draws_if_asked": True,
            **self.actions,
        }
        one_reward = self.one_reward()
        about["common_reward"] = self.common_reward or one_reward
        if self.whole:
            about["state_dim"] = len(self.reset(0)["state"])
        return about

    def one_reward(self):
        """Whether the environment gives one reward to the team: tried by one step."""
        masks = self.reset(0)["avail"]
        if self.possible is None:
            action = [middle_of(space) for space in self.action_spaces]
        else:
            action = np.asarray(masks).argmax(1)
        obs, reward, terminated, truncated, _ = self.results(action)
        self.shown(obs, reward, terminated, truncated)  # raises for what cannot be understood
        return np.size(reward) == 1

    def limit(self):
        """The time limit: ours, the registered one, or the environment's own."""
        registered = getattr(self.env.spec, "max_episode_steps", None)
        limit = self.max_steps or registered or self.own_limit
        if limit:
            return int(limit)
        raise ValueError("it tells no time limit of its own: give one, as in env.max_steps=100")

    def reset(self, seed):
        """See `hosted.slots`."""
        try:
            result = self.env.reset(seed=seed)
        except TypeError as error:
            if "unexpected keyword argument" not in str(error):
                raise
            raise Misfit(
                "its reset() is not reset(*, seed=None, options=None): {}".format(error)
            ) from error

        # (observations, info)
        is_pair = isinstance(result, (tuple, list)) and len(result) == 2
        if (
            not is_pair
            or not isinstance(result[1], (dict, type(None)))
            or not isinstance(result[0], (tuple, list, np.ndarray))
        ):
            raise Misfit(
                "its reset() returns {}, as the old interface had it: (observations, info) is "
                "expected".format(text_of(result))
            )
        self.steps = 0
        return self.shown(result[0], 0.0, False, False)

    def step(self, action):
        """See `hosted.slots`."""
        obs, reward, terminated, truncated, _ = self.results(action)
        self.steps += 1
        if self.steps == self.own_limit and np.all(terminated):
            return self.shown(obs, reward, False, True)
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
        return tuple(action_for(space, a) for space, a in zip(self.action_spaces, action))

    def shown(self, obs, reward, terminated, truncated):
        """The record of one step.

        Without a `get_state` the state is the observations, one after the other.
        """
        if len(obs) != len(self.readers):
            raise Misfit(
                "it shows observations of {} agents, but has {}".format(len(obs), len(self.readers))
            )
        flat = []
        for i, (reader, value) in enumerate(zip(self.readers, obs)):
            flat.append(reader(value, i))
        state = self.state() if self.whole else np.concatenate(flat)

        # an end of all agents is one of the episode
        gone = self.per_agent(terminated, "terminated")
        ended = gone | self.per_agent(truncated, "truncated")
        cut = ended.all() and not gone.all()
        avail = self.masks() if self.masks else self.possible
        return {
            "obs": flat,
            "state": state,
            "avail": avail,
            "reward": self.reward(reward),
            "terminated": gone.all(),
            "truncated": cut,
        }

    def state(self):
        """`get_state()` as a vector."""
        state = self.whole()
        vector = np.ravel(state)
        if vector.dtype.kind not in NUMBERS:
            raise Misfit(
                "its get_state() gives {}: an array of numbers is expected".format(text_of(state))
            )
        return vector

    def per_agent(self, flags, what):
        """[N] or [1] bool: a flag of each agent, or of all."""
        flags = np.ravel(flags)
        if flags.size not in (1, len(self.readers)) or flags.dtype.kind not in NUMBERS:
            raise Misfit(
                "`{}` is {}: a flag, or one per agent, is expected".format(what, text_of(flags))
            )
        return flags.astype(bool)

    def reward(self, reward):
        """A number, or one per agent."""
        values = np.ravel(reward)
        if values.size not in (1, len(self.readers)) or values.dtype.kind not in NUMBERS:
            raise Misfit(
                "its reward is {}: a number, or one per agent, is expected".format(text_of(reward))
            )
        return values.sum() if self.common_reward or values.size == 1 else values

    def render(self):
        """See `hosted.slots`."""
        return self.env.render()

    def close(self):
        """See `hosted.slots`."""
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
            f"its {what} space is of kind {type(space).__name__}, not a Tuple with one entry per "
            "agent, so it is no environment for a team"
        )
    return list(space.spaces)
