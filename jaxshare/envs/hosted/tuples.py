"""Gymnasium environments with a tuple of agents: spaces, observations and rewards have one entry per agent."""

import importlib

import numpy as np

LIMITS = ("max_steps", "_max_episode_steps", "max_cycles", "episode_limit")  # how environments call their time limit


class Tuples:
    """`gymnasium.make(id, **kwargs)` as a hosted environment.

    imports: modules to import first, which register ids.
    max_steps: the time limit; without it the registered one, or what the environment names as its own. An episode may
    also end as the environment says; an end at the step that it names as its own limit is a time limit.
    common_reward: every agent receives the sum of the rewards.
    It draws itself as "rgb_array" where it offers that. A reward that is one number is the team's, common to all.
    """

    global_random = True  # unknown packages may draw from the global generators

    def __init__(self, id, max_steps=None, kwargs=None, imports=(), common_reward=False):
        import gymnasium

        for name in imports:
            importlib.import_module(name)
        options = {**offered(gymnasium, id), **(kwargs or {})}
        if max_steps:
            options["max_episode_steps"] = max_steps  # so that ours replaces the registered one
        self.env = gymnasium.make(id, disable_env_checker=True, **options)
        self.game = self.env.unwrapped
        self.max_steps, self.common_reward = max_steps, common_reward
        named = [getattr(self.game, key, None) for key in LIMITS]
        self.own, self.steps = next((n for n in named if isinstance(n, int) and n > 0), None), 0
        self.obs_spaces = entries(self.env.observation_space, "observation")
        self.action_spaces = entries(self.env.action_space, "action")
        self.sizes = [size_of(space) for space in self.obs_spaces]
        self.masks = getattr(self.game, "get_avail_actions", None)  # PyMARL's names
        self.whole = getattr(self.game, "get_state", None)

    def describe(self):
        """See `hosted.worker`."""
        found = {
            "num_agents": len(self.obs_spaces),
            "obs_dim": max(self.sizes),
            "state_dim": sum(self.sizes),
            "episode_limit": self.limit(),
            **actions_of(self.action_spaces),
        }
        found["common_reward"] = self.common_reward or self.one_reward()
        if self.whole:
            found["state_dim"] = len(self.reset(0)["state"])
        return found

    def one_reward(self):
        """Whether the environment gives one reward to the team: tried by one step."""
        masks = self.reset(0)["avail"]
        if avail_of(self.action_spaces) is None:
            action = [np.zeros(int(np.prod(space.shape, dtype=int))) for space in self.action_spaces]
        else:
            action = np.asarray(masks).argmax(1)
        return np.ndim(self.env.step(self.chosen(action))[1]) == 0

    def limit(self):
        """The time limit: ours, the registered one, or the environment's own."""
        found = self.max_steps or getattr(self.env.spec, "max_episode_steps", None) or self.own
        if found:
            return int(found)
        raise ValueError("it tells no time limit of its own: give one, as in env.max_steps=100")

    def reset(self, seed):
        """See `hosted.worker`."""
        obs, _ = self.env.reset(seed=seed)
        self.steps = 0
        return self.shown(obs, 0.0, False, False)

    def step(self, action):
        """See `hosted.worker`."""
        obs, reward, terminated, truncated, _ = self.env.step(self.chosen(action))
        self.steps += 1
        if self.steps == self.own and np.all(terminated):
            terminated, truncated = False, True
        return self.shown(obs, reward, terminated, truncated)

    def chosen(self, action):
        """Actions as the environment wants them."""
        return tuple(action_for(space, a) for space, a in zip(self.action_spaces, action))

    def shown(self, obs, reward, terminated, truncated):
        """The record of one step. Without a `get_state` the state is the observations, one after the other."""
        flat = [flat_of(space, o) for space, o in zip(self.obs_spaces, obs)]
        reward = np.asarray(reward, np.float32)
        return {
            "obs": flat,
            "state": np.ravel(self.whole()) if self.whole else np.concatenate(flat),
            "avail": self.masks() if self.masks else avail_of(self.action_spaces),
            "reward": reward.sum() if self.common_reward and reward.ndim else reward,
            "terminated": np.all(terminated),
            "truncated": np.all(truncated),
        }

    def render(self):
        """See `hosted.worker`."""
        return self.env.render()

    def close(self):
        """See `hosted.worker`."""
        self.env.close()


def offered(gymnasium, id):
    """{"render_mode": "rgb_array"} if the environment can draw itself in that way, else {}."""
    module, colon, name = id.rpartition(":")
    if colon:
        importlib.import_module(module)
    creator = gymnasium.spec(name).entry_point
    if isinstance(creator, str):
        where, _, attribute = creator.partition(":")
        creator = getattr(importlib.import_module(where), attribute)
    modes = getattr(creator, "metadata", {}).get("render_modes", ())
    return {"render_mode": "rgb_array"} if "rgb_array" in modes else {}


def entries(space, what):
    """The spaces of a Tuple, one per agent."""
    if type(space).__name__ != "Tuple":
        raise ValueError(
            f"its {what} space is of kind {type(space).__name__}, not a Tuple with one entry per agent, so it is no "
            "environment for a team"
        )
    return list(space.spaces)


def size_of(space):
    """Numbers in a flat observation."""
    import gymnasium

    return int(gymnasium.spaces.flatdim(space))


def flat_of(space, value):
    """One observation as a vector; what is no Box as Gymnasium flattens it (a Discrete one becomes one-hot)."""
    if type(space).__name__ == "Box":
        return np.ravel(value)
    import gymnasium

    return np.ravel(gymnasium.spaces.flatten(space, value))


def actions_of(spaces):
    """{"num_actions"} of Discrete spaces, or {"low", "high"} of Boxes; one space per agent."""
    kinds = {type(space).__name__ for space in spaces}
    if kinds == {"Discrete"}:
        return {"num_actions": max(int(space.n) for space in spaces)}
    if kinds == {"Box"}:
        if not all(np.isfinite(space.low).all() and np.isfinite(space.high).all() for space in spaces):
            raise ValueError("a Box of actions has no bounds, to which numbers in [-1, 1] could be scaled")
        return {side: [np.ravel(getattr(space, side)).tolist() for space in spaces] for side in ("low", "high")}
    raise ValueError("actions of kind {}: all agents must have Discrete ones, or all Boxes".format(", ".join(kinds)))


def action_for(space, action):
    """One agent's action as its space has it: a Python number, or an array of the Box's shape and type."""
    if type(space).__name__ == "Discrete":
        return int(action) + int(getattr(space, "start", 0))
    return np.asarray(action, space.dtype).reshape(space.shape)


def avail_of(spaces):
    """[N, A] bool: agents with fewer actions than others never have the rest. None for Boxes."""
    if type(spaces[0]).__name__ != "Discrete":
        return None
    counts = np.array([int(space.n) for space in spaces])
    return np.arange(counts.max())[None] < counts[:, None]


class Foraging(Tuples):
    """lbforaging's environments: a seeded reset that depends on the seed alone, and a time limit that is one."""

    global_random = False

    def __init__(self, id, max_steps, kwargs=None, common_reward=False, mask_actions=False):
        super().__init__(id, max_steps, kwargs, ("lbforaging",), common_reward)
        self.mask_actions = mask_actions
        self.game._max_episode_steps = max_steps + 1  # code: its own limit looks like the end of the food
        self.own = None

    def describe(self):
        """See `hosted.worker`."""
        return {**super().describe(), "info": ("food_eaten",)}

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
        found = {"obs": obs, "reward": np.sum(reward) if self.common_reward else reward, "terminated": terminated}
        found["info"] = {"food_eaten": (before - left) / max(self.spawned, 1)}
        if self.mask_actions:
            valid = self.game._valid_actions
            found["avail"] = np.array([[a in {v.value for v in valid[p]} for a in range(6)] for p in self.game.players])
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
        return {**super().describe(), "info": ("deliveries",), "group_names": ("robot",)}

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
        return {"obs": obs, "reward": team if self.common_reward else reward, "info": {"deliveries": team}}

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
