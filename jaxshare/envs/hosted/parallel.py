"""PettingZoo's parallel environments: dicts by the names of agents, of whom some may leave before the others."""

import importlib
import os
import re
import runpy
import sys
import tempfile

import numpy as np

TUPLES = runpy.run_path(os.path.join(os.path.dirname(__file__), "tuples.py"))  # no package here: a worker has none
LIMITS = ("max_cycles", "max_steps", "max_episode_steps", "episode_limit")  # how environments call their time limit

SEGMENTED = {
    "ManySegmentSwimmer": ("many_segment_swimmer", "Swimmer-v5"),
    "ManySegmentAnt": ("many_segment_ant", "Ant-v5"),
}


class Parallel:
    """A parallel environment by import path ('module' or 'module:attribute') as a hosted environment.

    max_steps: the time limit; without it the environment's own, where it tells one.
    state: "auto" (its `state()`, if that works) or "concat" (the observations, one after the other).
    reward: "individual", "sum" (every agent receives the sum), or "common" (they are all equal).

    Who has left is not alive, observes zeros, and has action 0 only. The episode is terminated if every agent was.
    """

    global_random = True  # unknown packages may draw from the global generators

    def __init__(self, id, kwargs=None, max_steps=None, state="auto", reward="individual"):
        self.max_steps, self.reward_kind = max_steps, reward
        self.kwargs = kwargs or {}
        self.env = made(id, self.kwargs)
        self.names = list(self.env.possible_agents)
        spaces = [self.env.observation_space(name) for name in self.names]
        self.obs_spaces = [space["observation"] if masked(space) else space for space in spaces]
        self.action_spaces = [self.env.action_space(name) for name in self.names]
        self.sizes = [TUPLES["size_of"](space) for space in self.obs_spaces]
        self.possible = TUPLES["avail_of"](self.action_spaces)
        self.has_state = None if state == "auto" else False
        self.left, self.seen = {}, set()

    def describe(self):
        """See `hosted.worker`."""
        return {
            "num_agents": len(self.names),
            "obs_dim": max(self.sizes),
            "state_dim": len(self.reset(0)["state"]),
            "episode_limit": self.limit(),
            "common_reward": self.reward_kind != "individual",
            **TUPLES["actions_of"](self.action_spaces),
            **grouped(self.names, self.obs_spaces, self.action_spaces),
        }

    def limit(self):
        """The time limit: ours, or what the environment says of its own."""
        inner = getattr(self.env, "aec_env", None)
        holders = [self.env, getattr(self.env, "unwrapped", None), inner, getattr(inner, "unwrapped", None)]
        told = [self.kwargs.get(key) for key in LIMITS]
        told += [getattr(holder, key, None) for holder in holders for key in LIMITS]
        told += [getattr(self.env, "metadata", {}).get(key) for key in LIMITS]
        told += [getattr(getattr(getattr(self.env, "single_agent_env", None), "spec", None), LIMITS[2], None)]
        for steps in [self.max_steps, *told]:
            if isinstance(steps, int) and steps > 0:
                return steps
        raise ValueError("it tells no time limit of its own: give one, as in env.max_steps=100")

    def reset(self, seed):
        """See `hosted.worker`."""
        obs, infos = self.env.reset(seed=seed)
        self.left, self.seen = {}, set(self.env.agents)
        return self.shown(obs, infos, {}, ())

    def step(self, action):
        """See `hosted.worker`."""
        playing = [name for name in self.names if name in self.env.agents]
        rows = zip(self.names, self.action_spaces, action)
        chosen = {name: TUPLES["action_for"](space, a) for name, space, a in rows if name in playing}
        obs, rewards, terminations, truncations, infos = self.env.step(chosen)
        self.seen.update(self.env.agents)
        for name in playing:
            if terminations.get(name) or truncations.get(name):
                self.left[name] = bool(terminations.get(name))  # both at once: a true end
        return self.shown(obs, infos, rewards, playing)

    def shown(self, obs, infos, rewards, played):
        """The record of one step, in which the agents `played` acted."""
        ended = bool(played) and all(name in self.left for name in self.env.agents)
        terminated = ended and all(self.left.get(name, False) for name in self.seen)
        alive = [self.alive(name, played, ended, terminated) for name in self.names]
        flat = [self.flat(i, obs) if here else np.zeros(self.sizes[i], np.float32) for i, here in enumerate(alive)]
        return {
            "obs": flat,
            "state": self.state(flat),
            "avail": self.avail(obs, infos, alive),
            "alive": alive,
            "reward": self.reward(rewards, played),
            "terminated": terminated,
            "truncated": ended and not terminated,
        }

    def alive(self, name, played, ended, terminated):
        """An agent plays on; on the last step: played to the end, and was not lost before a time limit cut the rest."""
        if ended:
            return name in played and (terminated or not self.left.get(name, False))
        return name in self.env.agents and name not in self.left

    def flat(self, i, obs):
        """The observation of agent i as a vector."""
        value = obs[self.names[i]]
        if isinstance(value, dict) and "action_mask" in value:
            value = value["observation"]
        return TUPLES["flat_of"](self.obs_spaces[i], value)

    def state(self, flat):
        """The state; whether there is a `state()` is found out once."""
        if self.has_state is None:
            try:
                self.env.state()
                self.has_state = True
            except (NotImplementedError, AttributeError):
                self.has_state = False
        return np.ravel(self.env.state()) if self.has_state else np.concatenate(flat)

    def avail(self, obs, infos, alive):
        """[N, A] bool, no row of it empty; None for Boxes."""
        if self.possible is None:
            return None
        rows = self.possible.copy()
        for i, name in enumerate(self.names):
            value = obs.get(name)
            mask = value.get("action_mask") if isinstance(value, dict) else infos.get(name, {}).get("action_mask")
            if alive[i] and mask is not None:
                rows[i, : len(mask)] &= np.asarray(mask, bool)
            if not alive[i] or not rows[i].any():
                rows[i] = np.arange(rows.shape[1]) == 0
        return rows

    def reward(self, rewards, played):
        """A number, or one per agent."""
        values = [float(rewards.get(name, 0.0)) for name in self.names]
        if self.reward_kind == "common":
            return values[self.names.index(played[0])] if played else 0.0
        return sum(values) if self.reward_kind == "sum" else values

    def render(self):
        """See `hosted.worker`."""
        return self.env.render()

    def close(self):
        """See `hosted.worker`."""
        self.env.close()


class MaMujoco(Parallel):
    """gymnasium-robotics' mamujoco_v1."""

    global_random = False

    def __init__(self, scenario, agent_conf, agent_obsk=1, max_steps=None):
        import mujoco

        mujoco.set_mju_user_warning(_warn)
        kwargs = {"scenario": scenario, "agent_conf": agent_conf, "agent_obsk": agent_obsk}
        if max_steps:
            kwargs["max_episode_steps"] = max_steps
        if scenario in SEGMENTED:
            kwargs["gym_env"] = segmented(scenario, agent_conf, max_steps)
        super().__init__("gymnasium_robotics:mamujoco_v1.parallel_env", kwargs, max_steps, reward="common")

    def render(self):
        """See `hosted.worker`."""
        if not os.environ.get("DISPLAY"):
            os.environ.setdefault("MUJOCO_GL", "egl")
        try:
            return self.env.render()
        except Exception as error:
            raise RuntimeError(
                "MuJoCo cannot draw here: without a display it needs EGL or OSMesa. Install libegl1 and set MUJOCO_GL="
                f"egl, or libosmesa6 and MUJOCO_GL=osmesa, before the start ({type(error).__name__}: {error})"
            ) from error


def segmented(scenario, agent_conf, max_steps):
    """A robot of many segments. Its description is written to a place of our own.

    code: the package writes it among its own files, under one name for all, where workers would delete each other's.
    """
    import gymnasium

    module, base = SEGMENTED[scenario]
    writer = importlib.import_module(f"gymnasium_robotics.envs.multiagent_mujoco.{module}")
    agents, each = agent_conf.split("x")
    options = {"max_episode_steps": max_steps} if max_steps else {}
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "robot.xml")
        writer.gen_asset(n_segs=int(agents) * int(each), asset_path=path)
        return gymnasium.make(base, xml_file=path, render_mode="rgb_array", **options)


def _warn(text):
    """MuJoCo's warnings, but that of an old file format, on stderr; by itself it also writes a file where we are."""
    if "is deprecated" not in text:
        print(f"mujoco: {text}", file=sys.stderr)


def made(id, kwargs):
    """The environment at an import path, ready to draw itself if it takes a render_mode."""
    where, _, name = id.partition(":")
    factory = importlib.import_module(where)
    for part in (name or "parallel_env").split("."):
        factory = getattr(factory, part)
    try:
        env = factory(**{"render_mode": "rgb_array", **kwargs})
    except TypeError:
        env = factory(**kwargs)
    if hasattr(env, "agent_iter"):
        raise ValueError(
            "it is one of PettingZoo's AEC environments, in which agents take turns: name a function that returns a "
            "parallel one, as in env.id=module:parallel_env"
        )
    return env


def masked(space):
    """Whether observations are dicts that hold an action mask."""
    return type(space).__name__ == "Dict" and "action_mask" in space.spaces


def grouped(names, obs_spaces, action_spaces):
    """{"groups", "group_names"}: one group per name without its number, observation space and action space."""
    kinds, groups = [], []
    for name, obs, action in zip(names, obs_spaces, action_spaces):
        kind = (re.sub(r"[_\d]+$", "", str(name)) or "agent", obs, action)
        if kind not in kinds:
            kinds.append(kind)
        groups.append(kinds.index(kind))
    prefixes = [prefix for prefix, _, _ in kinds]
    first = [str(names[groups.index(i)]) for i in range(len(kinds))]
    unique = [p if prefixes.count(p) == 1 else f for p, f in zip(prefixes, first)]
    return {"groups": groups, "group_names": unique}
