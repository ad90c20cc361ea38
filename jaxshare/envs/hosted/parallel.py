"""PettingZoo's parallel environments: dicts by the names of agents, of whom some may leave before the others."""

import importlib
import os
import re
import runpy
import sys
import tempfile

import numpy as np

INTERFACE = runpy.run_path(
    os.path.join(os.path.dirname(__file__), "interface.py")
)  # no package: a worker has none
SPACES = INTERFACE["SPACES"]
MASK = INTERFACE["MASK"]
Misfit = SPACES["Misfit"]
number_of = SPACES["number_of"]
flag_of = SPACES["flag_of"]
LIMITS = (
    "max_cycles",
    "max_steps",
    "max_episode_steps",
    "episode_limit",
)  # how environments call their time limit

SEGMENTED = {
    "ManySegmentSwimmer": ("many_segment_swimmer", "Swimmer-v5"),
    "ManySegmentAnt": ("many_segment_ant", "Ant-v5"),
}


class Parallel:
    """A parallel environment by import path ('module' or 'module:attribute') as a hosted environment.

    max_steps: the time limit; without it the environment's own, where it tells one.
    state: "auto" (its `state()`, if that works) or "concat" (the observations, one after the other).
    reward: "individual", "sum" (every agent receives the sum), or "common" (they are all equal).
    draw: whether pictures will be asked for.

    Who has left is not alive, observes zeros, and has action 0 only; who is in `agents` again without a flag is alive
    again. Who is in `agents` without an observation keeps its last one, and has action 0 only while it waits. The
    episode is terminated if every agent was.
    """

    global_random = True  # unknown packages may draw from the global generators

    def __init__(
        self, id, kwargs=None, max_steps=None, state="auto", reward="individual", draw=False
    ):
        self.max_steps, self.reward_kind = max_steps, reward
        self.kwargs = kwargs or {}
        self.env = INTERFACE["made"](id, self.kwargs, draw)
        self.names = list(self.env.possible_agents)
        self.obs_spaces = [
            INTERFACE["without_mask"](self.env.observation_space(name)) for name in self.names
        ]
        self.action_spaces = [self.env.action_space(name) for name in self.names]
        self.actions = SPACES["actions_of"](self.action_spaces)
        self.readers = [SPACES["Reader"](space) for space in self.obs_spaces]
        self.sizes = [reader.size for reader in self.readers]
        self.possible = SPACES["avail_of"](self.action_spaces)
        self.has_state = None if state == "auto" else False
        self.left = {}  # who has left: whether it was terminated
        self.met = set()  # who has played in this episode
        self.last_obs, self.last_rows, self.last_state = [], None, None  # as they were shown last

    def describe(self):
        """See `hosted.worker`."""
        about = {
            "num_agents": len(self.names),
            "obs_dim": max(self.sizes),
            "state_dim": len(self.reset(0)["state"]),
            "episode_limit": self.limit(),
            "common_reward": self.reward_kind != "individual",
            "draws_if_asked": True,
            **self.actions,
            **grouped(self.names, self.obs_spaces, self.action_spaces),
        }
        self.try_step()
        return about

    def try_step(self):
        """One step, so that a wrong interface is noticed now. Raises Misfit; other errors show when it is played."""
        if self.possible is None:
            action = [SPACES["middle_of"](space) for space in self.action_spaces]
        else:
            action = self.last_rows.argmax(1)
        try:
            self.step(action)
        except Misfit:
            raise
        except Exception:
            pass

    def limit(self):
        """The time limit: ours, or what the environment says of its own."""
        inner = getattr(self.env, "aec_env", None)
        holders = [
            self.env,
            getattr(self.env, "unwrapped", None),
            inner,
            getattr(inner, "unwrapped", None),
        ]
        told = [self.kwargs.get(key) for key in LIMITS]
        told += [getattr(holder, key, None) for holder in holders for key in LIMITS]
        told += [getattr(self.env, "metadata", {}).get(key) for key in LIMITS]
        told += [
            getattr(
                getattr(getattr(self.env, "single_agent_env", None), "spec", None), LIMITS[2], None
            )
        ]
        for steps in [self.max_steps, *told]:
            if isinstance(steps, int) and steps > 0:
                return steps
        raise ValueError("it tells no time limit of its own: give one, as in env.max_steps=100")

    def reset(self, seed):
        """See `hosted.worker`."""
        obs, infos = INTERFACE["first_shown"](self.env, seed)
        self.left, self.met = {}, set(self.env.agents)
        self.last_obs = [np.zeros(size, np.float32) for size in self.sizes]
        self.last_rows = None
        if not self.env.agents:
            raise Misfit("its `agents` is empty after reset(): an episode needs an agent")
        self.check_names()
        return self.shown(obs, infos, {}, ())

    def step(self, action):
        """See `hosted.worker`."""
        playing = [name for name in self.names if name in self.env.agents]
        rows = zip(self.names, self.action_spaces, action)
        chosen = {
            name: SPACES["action_for"](space, a) for name, space, a in rows if name in playing
        }
        obs, rewards, terminations, truncations, infos = INTERFACE["checked_results"](
            self.env.step(chosen)
        )
        self.check_names()
        self.met.update(self.env.agents)
        self.note_leaving(playing, terminations, truncations)
        return self.shown(obs, infos, rewards, playing)

    def note_leaving(self, playing, terminations, truncations):
        """Who left in this step, and who is there again: in `agents` without a flag."""
        leaving = {}
        for name in {*playing, *self.env.agents}:
            terminated = flag_of(terminations.get(name), "the termination of agent {}".format(name))
            truncated = flag_of(truncations.get(name), "the truncation of agent {}".format(name))
            if terminated or truncated:
                leaving[name] = terminated  # both at once: a true end
        self.left.update(leaving)
        for name in self.env.agents:
            if name not in leaving:
                self.left.pop(name, None)

    def check_names(self):
        """Raise Misfit if an agent plays that was never announced."""
        unknown = set(self.env.agents).difference(self.names)
        if unknown:
            raise Misfit(
                "agent {} is in `agents`, but not in `possible_agents` ({})".format(
                    sorted(map(str, unknown))[0], ", ".join(map(str, self.names))
                )
            )

    def shown(self, obs, infos, rewards, played):
        """The record of one step, in which the agents `played` acted."""
        ended = bool(played) and all(name in self.left for name in self.env.agents)
        terminated = ended and all(self.left.get(name, False) for name in self.met)
        alive = [self.alive(name, played, ended, terminated) for name in self.names]
        cut = ended and not terminated
        flat = [
            self.flat(i, obs) if here else np.zeros(self.sizes[i], np.float32)
            for i, here in enumerate(alive)
        ]
        return {
            "obs": flat,
            "state": self.state(flat, ended),
            "avail": self.avail(obs, infos, alive, cut),
            "alive": alive,
            "reward": self.reward(rewards, played),
            "terminated": terminated,
            "truncated": cut,
        }

    def alive(self, name, played, ended, terminated):
        """An agent plays on; on the last step: played to the end, and was not lost before a time limit cut the rest."""
        if ended:
            return name in played and (terminated or not self.left.get(name, False))
        return name in self.env.agents and name not in self.left

    def flat(self, i, obs):
        """The observation of agent i as a vector; its last one, or zeros, if nothing is shown to it."""
        value = obs.get(self.names[i])
        if value is not None:
            if isinstance(value, dict) and MASK in value and self.readers[i].kind != "Dict":
                value = value["observation"]
            self.last_obs[i] = self.readers[i](value, self.names[i])
        return self.last_obs[i]

    def state(self, flat, ended):
        """The state, at the end of an episode perhaps the one before. Whether `state()` works is found out once."""
        if self.has_state is None:
            try:
                self.env.state()
                self.has_state = True
            except (NotImplementedError, AttributeError):
                self.has_state = False
        if not self.has_state:
            return np.concatenate(flat)
        try:
            state = self.flat_state(self.env.state())
            if ended and state.shape != self.last_state.shape:  # made of the agents that are left
                return self.last_state
        except Exception:
            if not ended:
                raise
            return self.last_state
        self.last_state = state
        return state

    def flat_state(self, state):
        """`state()` as a vector: of its `state_space`, or of numbers."""
        space = getattr(self.env, "state_space", None)
        if isinstance(state, (dict, tuple)) and type(space).__name__ in ("Dict", "Tuple"):
            return SPACES["Reader"](space)(state, "(the team, by state())")
        if isinstance(state, dict) or np.asarray(state).dtype.kind not in SPACES["NUMBERS"]:
            raise Misfit(
                "its state() gives {}, which is no array of numbers: env.state=concat takes the observations "
                "instead".format(SPACES["text_of"](state))
            )
        return np.ravel(state)

    def avail(self, obs, infos, alive, cut):
        """[N, A] bool, no row of it empty; None for Boxes. cut: a time limit ended the episode."""
        if self.possible is None:
            return None
        rows = self.possible.copy()
        for i, name in enumerate(self.names):
            value = obs.get(name)
            if alive[i] and value is not None:
                self.mask(rows[i], i, value, infos.get(name))
            elif alive[i] and cut and self.last_rows is not None:
                rows[i] = self.last_rows[i]  # as of the observation that is shown again
            else:
                rows[i] = False
            if not rows[i].any():
                rows[i, 0] = True
        self.last_rows = rows
        return rows

    def mask(self, row, i, value, info):
        """Take from agent i's row what its mask forbids, which lies in its observation or in its info."""
        holder = value if isinstance(value, dict) and MASK in value else info
        mask = holder.get(MASK) if isinstance(holder, dict) else None
        if mask is None:
            return
        mask, count = np.ravel(mask), int(self.action_spaces[i].n)
        if mask.size != count:
            raise Misfit(
                "agent {} has {} actions, but its mask has {} entries".format(
                    self.names[i], count, mask.size
                )
            )
        row[:count] &= mask.astype(bool)

    def reward(self, rewards, played):
        """A number, or one per agent."""
        values = [
            number_of(rewards.get(name, 0.0), "the reward of agent {}".format(name))
            for name in self.names
        ]
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

    def __init__(self, scenario, agent_conf, agent_obsk=1, max_steps=None, draw=False):
        import mujoco

        mujoco.set_mju_user_warning(_warn)
        kwargs = {"scenario": scenario, "agent_conf": agent_conf, "agent_obsk": agent_obsk}
        if max_steps:
            kwargs["max_episode_steps"] = max_steps
        if draw:
            kwargs["render_mode"] = "rgb_array"
        if scenario in SEGMENTED:
            kwargs["gym_env"] = segmented(scenario, agent_conf, max_steps)
        super().__init__(
            "gymnasium_robotics:mamujoco_v1.parallel_env",
            kwargs,
            max_steps,
            reward="common",
            draw=draw,
        )

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
