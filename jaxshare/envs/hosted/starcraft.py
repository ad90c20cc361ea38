"""StarCraft battles on the host: SMAC's `MultiAgentEnv` interface, and SMAClite's."""

import glob
import importlib
import os

import numpy as np

HOW_SC2 = (
    "Install StarCraft II 4.10 for Linux and put the SMAC maps under Maps/SMAC_Maps, then set "
    "SC2PATH (or env.sc2path)"
)
HOW_SMAC = "the installed package smac is AutoML's SMAC3, not StarCraft: uninstall it first"


class StarCraft:
    """An environment with the interface of oxwhirl's `StarCraft2Env`.

    implementation: "module:Class".
    kwargs: of that class, besides map_name and seed.
    units: {type: how many agents, in their order}; None: all agents are of one.
    time_limit: "truncated", or "terminated" as in the literature.
    The game takes a seed when it starts, not at each reset: only the first episode of a slot is its
    seed's.
    """

    def __init__(
        self,
        map_name,
        implementation,
        kwargs=None,
        time_limit="truncated",
        sc2path="",
        units=None,
    ):
        if sc2path:
            os.environ["SC2PATH"] = sc2path
        module, _, name = implementation.partition(":")
        try:
            self.make = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            if module.split(".")[0] == "smac" and is_automl():
                raise ImportError(HOW_SMAC) from error
            raise
        if module.split(".")[0] == "smac":
            check_game(map_name)
        self.kwargs = {"map_name": map_name, "continuing_episode": True, **(kwargs or {})}
        self.time_limit = time_limit
        self.units = units or {}
        self.env = None
        self.last = None  # what it showed last

    def describe(self):
        """See `hosted.slots`. The game is not started for it."""
        env = self.make(**self.kwargs)
        try:
            about = env.get_env_info()
        finally:
            env.close()

        # as the bridge calls it
        obs_dim = int(np.prod(about["obs_shape"]))
        state_dim = int(np.prod(about["state_shape"]))
        return {
            "num_agents": int(about["n_agents"]),
            "obs_dim": obs_dim,
            "state_dim": state_dim,
            "num_actions": int(about["n_actions"]),
            "episode_limit": int(about["episode_limit"]),
            "info": ("won", "lost_connection"),
            "common_reward": True,
            **self.types(int(about["n_agents"])),
        }

    def types(self, num_agents):
        """{"groups", "group_names"}; one type if the map has other units than were told."""
        groups = [i for i, count in enumerate(self.units.values()) for _ in range(count)]
        if len(groups) != num_agents:
            return {"group_names": ("unit",)}
        return {"groups": groups, "group_names": tuple(self.units)}

    def reset(self, seed):
        """See `hosted.slots`."""
        if self.env is None:
            self.env = self.make(seed=seed, **self.kwargs)
        self.env.reset()
        return self.look(0.0)

    def step(self, action):
        """See `hosted.slots`."""
        reward, terminated, info = self.env.step([int(a) for a in action])
        if terminated and not info:
            # code: a protocol error; SMAC has started another game, and would start a third at its
            # next reset without ending that one, so this object is given up
            self.close()
            lost = {"lost_connection": 1.0}
            return {**self.last, "reward": 0.0, "truncated": True, "info": lost}

        # a time limit is no end of the battle
        late = bool(info.get("episode_limit")) and self.time_limit == "truncated"
        results = self.look(reward)
        results["terminated"] = terminated and not late
        results["truncated"] = terminated and late
        results["info"] = {"won": float(info.get("battle_won", False))}
        return results

    def look(self, reward):
        """What the game shows now.

        Death is read from health: SMAC's own count stands still with sparse rewards.
        """
        env = self.env
        alive = [env.get_unit_by_id(i).health > 0 for i in range(env.n_agents)]
        self.last = {
            "obs": env.get_obs(),
            "state": env.get_state(),
            "avail": env.get_avail_actions(),
            "alive": alive,
            "reward": reward,
        }
        return dict(self.last)

    def close(self):
        """See `hosted.slots`."""
        env = self.env
        self.env = None
        if env is not None:
            env.close()


def is_automl():
    """Whether `import smac` finds AutoML's SMAC3."""
    try:
        smac = importlib.import_module("smac")
    except ImportError:
        return False
    return not os.path.isdir(os.path.join(os.path.dirname(smac.__file__ or ""), "env"))


def check_game(map_name):
    """Raise FileNotFoundError if the game or the map is not where pysc2 looks for it."""
    folder = os.path.expanduser(os.environ.get("SC2PATH", "~/StarCraftII"))
    if not os.path.isdir(os.path.join(folder, "Versions")):
        raise FileNotFoundError("StarCraft II is not in {}. {}".format(folder, HOW_SC2))
    pattern = os.path.join(glob.escape(folder), "Maps", "**", glob.escape(map_name) + ".SC2Map")
    if not glob.glob(pattern, recursive=True):
        raise FileNotFoundError(
            "the map {}.SC2Map is not under {}/Maps. {}".format(map_name, folder, HOW_SC2)
        )


class Lite:
    """A SMAClite battle: a Gymnasium environment with masks, without a time limit of its own."""

    def __init__(self, id, max_steps, reward="dense", kwargs=None):
        import gymnasium

        importlib.import_module("smaclite")
        self.env = gymnasium.make(id, disable_env_checker=True, **(kwargs or {}))
        self.game = self.env.unwrapped
        self.max_steps = max_steps
        self.sparse = reward == "sparse"

    def describe(self):
        """See `hosted.slots`."""
        return {
            "num_agents": int(self.game.n_agents),
            "obs_dim": int(self.game.obs_size),
            "state_dim": int(self.game.state_size),
            "num_actions": int(self.game.n_actions),
            "episode_limit": self.max_steps,
            "info": ("won",),
            "group_names": ("unit",),
            "common_reward": True,
        }

    def reset(self, seed):
        """See `hosted.slots`."""
        obs, _ = self.env.reset(seed=seed)
        return self.look(obs, 0.0)

    def step(self, action):
        """See `hosted.slots`. SMAClite takes Python's int and no other."""
        obs, reward, done, _, info = self.env.step([int(a) for a in action])
        won = bool(info.get("battle_won", False))
        if self.sparse:
            reward = float(done) * (1.0 if won else -1.0)
        return {**self.look(obs, reward), "terminated": done, "info": {"won": float(done and won)}}

    def look(self, obs, reward):
        """The record of one step. The dead may do action 0 only, the living may not."""
        avail = np.asarray(self.game.get_avail_actions(), bool)
        return {
            "obs": obs,
            "state": self.game.get_state(),
            "avail": avail,
            "alive": ~avail[:, 0],
            "reward": reward,
        }

    def close(self):
        """See `hosted.slots`."""
        self.env.close()
