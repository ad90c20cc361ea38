"""Gymnasium environments with a tuple of agents: spaces, observations and rewards have one entry per agent."""

import importlib

import numpy as np


class Tuples:
    """`gymnasium.make(id, **kwargs)` as a hosted environment.

    imports: modules to import first, which register ids.
    max_steps: the time limit; the environment's own is left alone, and ends an episode as that environment says.
    common_reward: every agent receives the sum of the rewards.
    """

    def __init__(self, id, max_steps, kwargs=None, imports=(), common_reward=False, render_mode=None):
        import gymnasium

        for name in imports:
            importlib.import_module(name)
        self.env = gymnasium.make(id, disable_env_checker=True, render_mode=render_mode, **(kwargs or {}))
        self.game = self.env.unwrapped
        self.max_steps, self.common_reward = max_steps, common_reward

    def describe(self):
        """See `hosted.worker`."""
        spaces = self.env.observation_space.spaces
        sizes = [int(np.prod(space.shape, dtype=int)) for space in spaces]
        return {
            "num_agents": len(spaces),
            "obs_dim": max(sizes),
            "state_dim": sum(sizes),
            "episode_limit": self.limit(),
            "common_reward": self.common_reward,
            **actions_of(self.env.action_space.spaces),
        }

    def limit(self):
        """The time limit: ours, or the environment's own."""
        own = getattr(self.env.spec, "max_episode_steps", None)
        if self.max_steps or own:
            return int(self.max_steps or own)
        raise ValueError("this environment has no time limit of its own: give one, as in env.max_steps=100")

    def reset(self, seed):
        """See `hosted.worker`."""
        obs, _ = self.env.reset(seed=seed)
        return self.shown(obs, 0.0, False, False)

    def step(self, action):
        """See `hosted.worker`."""
        obs, reward, terminated, truncated, _ = self.env.step(self.chosen(action))
        return self.shown(obs, reward, terminated, truncated)

    def chosen(self, action):
        """Actions as the environment wants them."""
        return tuple(int(a) for a in action) if isinstance(action, np.ndarray) else tuple(action)

    def shown(self, obs, reward, terminated, truncated):
        """The record of one step. The state is the observations, one after the other."""
        flat = [np.ravel(o) for o in obs]
        reward = np.sum(reward) if self.common_reward else np.asarray(reward, np.float32)
        return {
            "obs": flat,
            "state": np.concatenate(flat),
            "reward": reward,
            "terminated": np.all(terminated),
            "truncated": np.all(truncated),
        }

    def render(self):
        """See `hosted.worker`."""
        return self.env.render()

    def close(self):
        """See `hosted.worker`."""
        self.env.close()


def actions_of(spaces):
    """{"num_actions"} of Discrete spaces, or {"low", "high"} of Boxes; one space per agent."""
    kinds = {type(space).__name__ for space in spaces}
    if kinds == {"Discrete"}:
        return {"num_actions": max(int(space.n) for space in spaces)}
    if kinds == {"Box"}:
        return {side: [np.ravel(getattr(space, side)).tolist() for space in spaces] for side in ("low", "high")}
    raise ValueError("actions of kind {}: all agents must have Discrete ones, or all Boxes".format(", ".join(kinds)))


def avail_of(spaces):
    """[N, A] bool: agents with fewer actions than others never have the rest."""
    counts = np.array([int(space.n) for space in spaces])
    return np.arange(counts.max())[None] < counts[:, None]


class Foraging(Tuples):
    """lbforaging's environments: a seeded reset that depends on the seed alone, and a time limit that is one."""

    def __init__(self, id, max_steps, kwargs=None, common_reward=False, mask_actions=False):
        super().__init__(id, max_steps, kwargs, ("lbforaging",), common_reward)
        self.mask_actions = mask_actions
        self.game._max_episode_steps = max_steps + 1  # code: its own limit looks like the end of the food

    def describe(self):
        """See `hosted.worker`."""
        return {**super().describe(), "info": ("food_eaten",), "group_names": ("forager",)}

    def reset(self, seed):
        """See `hosted.worker`."""
        for player in self.game.players:
            player.position = None  # code: where players stood before would keep new ones away
        return super().reset(seed)

    def shown(self, obs, reward, terminated, truncated):
        """See `Tuples.shown`; info: the share of all food, by level, that was eaten in this step."""
        left, whole = self.game.field.sum(), self.game._food_spawned
        before = left if self.game.current_step == 0 else self.left
        self.left = left
        found = super().shown(obs, reward, terminated, truncated)
        found["info"] = {"food_eaten": float(before - left) / whole}
        if self.mask_actions:
            valid = self.game._valid_actions
            found["avail"] = np.array([[a in map(int, valid[p]) for a in range(6)] for p in self.game.players])
        return found


class Warehouse(Tuples):
    """rware's environments: the time limit is ours, since rware reports its own as the end of the task."""

    def __init__(self, id, max_steps, kwargs=None, common_reward=False):
        super().__init__(id, max_steps, kwargs, ("rware",), common_reward)
        self.game.max_steps = None

    def describe(self):
        """See `hosted.worker`."""
        return {**super().describe(), "group_names": ("robot",)}
