"""Environments of one worker: they read actions from a shared block and write what they show.

This runs in worker processes, perhaps under another Python interpreter, and in the trainer itself
when there are no workers. It therefore imports neither jax nor jaxshare.

A hosted environment is any object with

* `describe()` -> dict: num_agents, obs_dim, state_dim, num_actions (or low, high [N][U] for
  continuous actions), episode_limit, and optionally info (names), groups, group_names,
  common_reward, draws_if_asked (True: its class takes `draw=True`, said where pictures are wanted);
* `reset(seed)` and `step(action)` -> dict: obs [N][<= O] (short rows are padded), reward (a number
  or [N]), terminated, truncated, and, always or never, state (otherwise the observations, one after
  the other), avail, alive, info;
* optionally `render()` -> uint8 [height, width, 3], `close()`, and `global_random = True` if it may
  draw from the generators of `random` or `numpy.random`, which are then its own while it is made or
  called.

An exception with an attribute `plain = True` is a sentence for the user: it is shown without a
traceback.
"""

import random
import traceback

import numpy as np

from .errors import FAILURES, SlotError
from .layout import Columns
from .loading import load


class Slots:
    """Some environments of a pool and their rows of the shared arrays.

    target, kwargs: what makes an environment.
    about: what one says of itself.
    numbers: of the slots, side by side.
    arrays: action [slots, N] int32 or [slots, N, U] float32; seed [slots] uint32; block
    [slots, width] float32.
    """

    def __init__(self, target, kwargs, about, numbers, arrays):
        self.target = target
        self.kwargs = kwargs
        self.numbers = list(numbers)
        self.arrays = arrays

        # where they write
        columns = Columns(about)
        block = arrays["block"]
        self.views = {slot: columns.views(block[slot]) for slot in self.numbers}
        self.block = block[self.numbers[0] : self.numbers[-1] + 1]
        self.avail = columns.slices["avail"]
        self.avail_shape = (len(self.numbers), *columns.shapes["avail"])

        # what they say of themselves
        self.num_agents = about["num_agents"]
        self.obs_shapes = [(about["obs_dim"],)] * about["num_agents"]
        self.state_is_obs = about["state_dim"] == about["num_agents"] * about["obs_dim"]
        self.limit = about["episode_limit"]
        self.info = tuple(about.get("info", ()))
        self.bounds = None if about.get("num_actions") else _bounds(about)
        self.global_random = False

        # by slot
        self.envs = {}
        self.running = {}
        self.steps = {}
        self.random = {}
        self.episodes = dict.fromkeys(self.numbers, 0)
        self.seeds = {}

    def reset(self):
        """Start an episode in every slot, each from its seed."""
        for slot in self.numbers:
            seed = int(self.arrays["seed"][slot])
            self.seeds[slot] = seed
            self.steps[slot] = 0
            self.episodes[slot] += 1
            try:
                if slot not in self.envs:
                    self.envs[slot] = self._alone(slot, seed, self._make)
                    self.global_random = getattr(self.envs[slot], "global_random", False)
                self._write(slot, self._call(slot, "reset", seed), True)
            except FAILURES as error:
                raise self._failed(slot, "reset", error) from error
            self.running[slot] = True
        self._check("reset")

    def step(self):
        """Take one step in every slot whose episode has not ended; the others keep what they show.

        Raises SlotError.
        """
        for slot in self.numbers:
            if not self.running[slot]:
                continue
            self.steps[slot] += 1
            try:
                results = self._call(slot, "step", self._scaled(self.arrays["action"][slot]))
                self.running[slot] = not self._write(slot, results, False)
            except FAILURES as error:
                raise self._failed(slot, "step", error) from error
        self._check("step")

    def render(self, slot):
        """The picture of one slot, or None."""
        env = self.envs[slot]
        return np.asarray(env.render(), np.uint8) if hasattr(env, "render") else None

    def close(self):
        """Close all environments, whatever they say."""
        envs = self.envs
        self.envs = {}
        for env in envs.values():
            close_env(env)

    def _make(self):
        return load(self.target)(**self.kwargs)

    def _failed(self, slot, doing, error):
        place = {
            "slot": slot,
            "episode": self.episodes[slot],
            "seed": self.seeds[slot],
            "step": self.steps[slot],
            "doing": doing,
        }
        return SlotError(place, error)

    # ------------------------------------------------------------------------------------- calling

    def _call(self, slot, name, argument):
        """Reset or step an environment, with generators of its own if it uses the global ones."""
        function = getattr(self.envs[slot], name)
        if not self.global_random:
            return function(argument)
        return self._alone(slot, argument if name == "reset" else None, lambda: function(argument))

    def _alone(self, slot, seed, call):
        """Call with this slot's global generators, and put the others' back.

        seed: what they are seeded with anew; None: they go on.
        """
        before = _generators()
        try:
            if seed is None:
                _set_generators(self.random[slot])
            else:
                random.seed(seed)
                np.random.seed(seed)
            return call()
        finally:
            self.random[slot] = _generators()
            _set_generators(before)

    def _scaled(self, action):
        """Discrete: a copy. Continuous: each agent's numbers, from [-1, 1] to its own box."""
        if self.bounds is None:
            return action.copy()
        scaled = []
        for numbers, (low, high) in zip(action, self.bounds):
            share = (np.clip(numbers[: len(low)], -1, 1) + 1) / 2
            scaled.append(low + share * (high - low))
        return scaled

    # ------------------------------------------------------------------------------------- writing
    # This is the cost of the bridge: numpy calls are counted here, a microsecond each.

    def _write(self, slot, results, first):
        """Put what an environment showed into its row; True if the episode has ended.

        first: whether it is what a reset showed.
        """
        view = self.views[slot]
        self._write_obs(view, results["obs"])
        self._write_state(view, results)
        _write_reward(view["reward"], results.get("reward", 0.0))

        # everything is available, and everybody alive, until the environment says otherwise
        for name in ("avail", "alive"):
            if results.get(name) is not None:
                _fill(view[name], results[name], name)
            elif first:
                view[name].fill(1)
        if self.info:
            info = results.get("info", {})
            view["info"][:] = [info.get(name, 0.0) for name in self.info]

        # the time limit is ours
        if first:
            view["ends"].fill(0)
            return False
        terminated = bool(results.get("terminated", False))
        truncated = bool(results.get("truncated", False)) or self.steps[slot] >= self.limit
        if terminated or truncated:
            view["ends"][:] = terminated, not terminated
        return terminated or truncated

    def _write_obs(self, view, obs):
        if len(obs) != self.num_agents:
            raise ValueError(f"obs of {len(obs)} agents, but {self.num_agents} were declared")
        if [np.shape(values) for values in obs] == self.obs_shapes:
            np.concatenate(obs, out=view["flat"], casting="same_kind")
            return

        # short rows are padded
        (width,) = self.obs_shapes[0]
        for row, values in zip(view["obs"], obs):
            shape = np.shape(values)
            if len(shape) != 1 or shape[0] > width:
                raise ValueError(f"obs of shape {shape}, but at most ({width},) was declared")
            row[: shape[0]] = values
            row[shape[0] :] = 0

    def _write_state(self, view, results):
        state = results.get("state")
        if state is not None:
            _fill(view["state"], state, "state")
        elif self.state_is_obs:
            view["state"][:] = view["flat"]
        else:
            np.concatenate(results["obs"], out=view["state"], casting="same_kind")

    # ------------------------------------------------------------------------------------ checking

    def _check(self, doing):
        """Raise SlotError for numbers that would spoil the training without a word, in any slot.

        They are looked for once a call, which is cheap.
        """
        block = self.block
        sound = np.isfinite(block).all()
        if sound and self.bounds is None:
            sound = block[:, self.avail].reshape(self.avail_shape).any(2).all()
        if sound:
            return
        for slot in self.numbers:
            try:
                self._check_row(self.views[slot])
            except ValueError as error:
                raise self._failed(slot, doing, error) from error

    def _check_row(self, view):
        for agent, row in enumerate(view["obs"]):
            if not np.isfinite(row).all():
                raise ValueError(f"obs of agent {agent} is not finite (nan or inf)")
        for name in ("state", "reward", "avail", "alive", "info"):
            if not np.isfinite(view[name]).all():
                raise ValueError(f"{name} is not finite (nan or inf)")
        if self.bounds is None and not view["avail"].any(1).all():
            agent = int(view["avail"].any(1).argmin())
            raise ValueError(f"agent {agent} has no available action")


def close_env(env):
    """Close an environment, whatever it says."""
    try:
        getattr(env, "close", lambda: None)()
    except FAILURES:
        traceback.print_exc()


def _bounds(about):
    """(low, high) of each agent's box."""
    bounds = []
    for low, high in zip(about["low"], about["high"]):
        bounds.append((np.asarray(low, np.float32), np.asarray(high, np.float32)))
    return bounds


def _generators():
    """The states of the global generators."""
    return random.getstate(), np.random.get_state()


def _set_generators(states):
    random.setstate(states[0])
    np.random.set_state(states[1])


def _write_reward(view, reward):
    """A reward of the team, or one of each agent."""
    if isinstance(reward, list) and len(reward) == len(view):
        view[:] = reward
        return
    reward = np.asarray(reward)
    view[:] = reward if reward.ndim == 0 else _checked(reward, view, "reward")


def _fill(view, values, name):
    view[...] = _checked(values, view, name)


def _checked(values, view, name):
    if np.shape(values) != view.shape:
        raise ValueError(f"{name} of shape {np.shape(values)}, but {view.shape} was declared")
    return values
