"""PettingZoo's parallel environments: dicts by the names of agents, who may leave early."""

import numpy as np

from .interface import MASK, checked_results, first_shown, grouped, made, without_mask
from .spaces import (
    NUMBERS,
    Misfit,
    Reader,
    action_for,
    actions_of,
    avail_of,
    flag_of,
    middle_of,
    number_of,
    text_of,
)

# how environments call their time limit
LIMITS = ("max_cycles", "max_steps", "max_episode_steps", "episode_limit")


class Parallel:
    """A parallel environment by import path ('module' or 'module:attribute').

    max_steps: the time limit; without it the environment's own, where it tells one.
    state: "auto" (its `state()`, if that works) or "concat" (the observations side by side).
    reward: "individual", "sum" (every agent receives the sum), or "common" (they are all equal).
    draw: whether pictures will be asked for.

    Who has left is not alive, observes zeros, and has action 0 only; who is in `agents` again
    without a flag is alive again. Who is in `agents` without an observation keeps its last one, and
    has action 0 only while it waits. The episode is terminated if every agent was.
    """

    global_random = True  # unknown packages may draw from the global generators

    def __init__(
        self, id, kwargs=None, max_steps=None, state="auto", reward="individual", draw=False
    ):
        self.max_steps = max_steps
        self.reward_kind = reward
        self.kwargs = kwargs or {}
        self.env = made(id, self.kwargs, draw)
        self.names = list(self.env.possible_agents)
        shown_spaces = [self.env.observation_space(name) for name in self.names]

        # what each agent observes and does
        self.obs_spaces = [without_mask(space) for space in shown_spaces]
        self.action_spaces = [self.env.action_space(name) for name in self.names]
        self.actions = actions_of(self.action_spaces)
        self.readers = [Reader(space) for space in self.obs_spaces]
        self.sizes = [reader.size for reader in self.readers]
        self.possible = avail_of(self.action_spaces)
        self.has_state = None if state == "auto" else False

        # of this episode
        self.left = {}  # who has left: whether it was terminated
        self.met = set()  # who has played
        # as they were shown last
        self.last_obs = []
        self.last_rows = None
        self.last_state = None

    def describe(self):
        """See `hosted.slots`."""
        groups = grouped(self.names, self.obs_spaces, self.action_spaces)
        state_dim = len(self.reset(0)["state"])
        common_reward = self.reward_kind != "individual"
        about = {
            "num_agents": len(self.names),
            "obs_dim": max(self.sizes),
            "state_dim": state_dim,
            "episode_limit": self.limit(),
            "common_reward": common_reward,
            "draws_if_asked": True,
        }
        about.update(self.actions)
        about.update(groups)

        # a wrong interface is noticed now
        self.try_step()
        return about

    def try_step(self):
        """One step, so that a wrong interface is noticed now.

        Raises Misfit; other errors show when it is played.
        """
        if self.possible is None:
            action = [middle_of(space) for space in self.action_spaces]
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
        told = [self.kwargs.get(key) for key in LIMITS]

        # itself, or what it wraps
        inner = getattr(self.env, "aec_env", None)
        unwrapped = getattr(self.env, "unwrapped", None)
        for holder in (self.env, unwrapped, inner, getattr(inner, "unwrapped", None)):
            told += [getattr(holder, key, None) for key in LIMITS]

        # what is known about it
        told += [getattr(self.env, "metadata", {}).get(key) for key in LIMITS]
        single = getattr(self.env, "single_agent_env", None)
        told.append(getattr(getattr(single, "spec", None), "max_episode_steps", None))
        for steps in [self.max_steps, *told]:
            if isinstance(steps, int) and steps > 0:
                return steps
        raise ValueError("it tells no time limit of its own: give one, as in env.max_steps=100")

    def reset(self, seed):
        """See `hosted.slots`."""
        obs, infos = first_shown(self.env, seed)
        self.left = {}
        self.met = set(self.env.agents)
        self.last_obs = [np.zeros(size, np.float32) for size in self.sizes]
        self.last_rows = None
        if not self.env.agents:
            raise Misfit("its `agents` is empty after reset(): an episode needs an agent")
        self.check_names()
        return self.shown(obs, infos, {}, ())

    def step(self, action):
        """See `hosted.slots`."""
        playing = [name for name in self.names if name in self.env.agents]
        chosen = {}
        for name, space, of_agent in zip(self.names, self.action_spaces, action):
            if name in playing:
                chosen[name] = action_for(space, of_agent)
        results = checked_results(self.env.step(chosen))
        obs, rewards, terminations, truncations, infos = results
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
        # how the episode goes on
        ended = bool(played) and all(name in self.left for name in self.env.agents)
        terminated = ended and all(self.left.get(name, False) for name in self.met)
        alive = [self.alive(name, played, ended, terminated) for name in self.names]
        cut = ended and not terminated

        # zeros of who is not there
        flat = []
        for i, here in enumerate(alive):
            flat.append(self.flat(i, obs) if here else np.zeros(self.sizes[i], np.float32))
        state = self.state(flat, ended)
        avail = self.avail(obs, infos, alive, cut)
        return {
            "obs": flat,
            "state": state,
            "avail": avail,
            "alive": alive,
            "reward": self.reward(rewards, played),
            "terminated": terminated,
            "truncated": cut,
        }

    def alive(self, name, played, ended, terminated):
        """Whether an agent plays on.

        On the last step: whether it played to the end, and was not lost before a time limit cut the
        rest.
        """
        if ended:
            return name in played and (terminated or not self.left.get(name, False))
        return name in self.env.agents and name not in self.left

    def flat(self, i, obs):
        """The observation of agent i as a vector: its last one, or zeros, if nothing is shown."""
        value = obs.get(self.names[i])
        if value is not None:
            if isinstance(value, dict) and MASK in value and self.readers[i].kind != "Dict":
                value = value["observation"]
            self.last_obs[i] = self.readers[i](value, self.names[i])
        return self.last_obs[i]

    def state(self, flat, ended):
        """The state, at the end of an episode perhaps the one before.

        Whether `state()` works is found out once.
        """
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
            return Reader(space)(state, "(the team, by state())")
        if isinstance(state, dict) or np.asarray(state).dtype.kind not in NUMBERS:
            raise Misfit(
                "its state() gives {}, which is no array of numbers: env.state=concat takes the "
                "observations instead".format(text_of(state))
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
        """Take from agent i's row what its mask forbids; it is in its observation or its info."""
        holder = value if isinstance(value, dict) and MASK in value else info
        mask = holder.get(MASK) if isinstance(holder, dict) else None
        if mask is None:
            return
        mask = np.ravel(mask)
        count = int(self.action_spaces[i].n)
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
        """See `hosted.slots`."""
        return self.env.render()

    def close(self):
        """See `hosted.slots`."""
        self.env.close()
