"""Environments of one worker: they read actions from a shared block of numbers and write what they show into it.

This file runs in worker processes, perhaps under another Python interpreter, and in the trainer itself when there are
no workers. It therefore imports neither jax nor jaxshare.

A hosted environment is any object with

* `describe()` -> dict: num_agents, obs_dim, state_dim, num_actions (or low, high [N][U] for continuous actions),
  episode_limit, and optionally info (names), groups, group_names, common_reward, draws_if_asked (True: its class takes
  `draw=True`, said where pictures are wanted);
* `reset(seed)` and `step(action)` -> dict: obs [N][<= O] (short rows are padded), reward (a number or [N]), terminated,
  truncated, and, always or never, state (otherwise the observations, one after the other), avail, alive, info;
* optionally `render()` -> uint8 [height, width, 3], `close()`, and `global_random = True` if it may draw from the
  generators of `random` or `numpy.random`, which are then its own while it is made or called.

An exception with an attribute `plain = True` is a sentence for the user: it is shown without a traceback.
"""

import importlib
import importlib.util
import mmap
import os
import random
import runpy
import signal
import sys
import threading
import traceback
from multiprocessing.connection import Connection

import numpy as np

MESSAGES = runpy.run_path(
    os.path.join(os.path.dirname(__file__), "messages.py")
)  # no package here: a worker has none
FAILURES = (Exception, SystemExit)  # of an environment
FACTS = (
    "slot",
    "episode",
    "seed",
    "step",
    "doing",
    "pid",
    "error",
    "missing",
    "traceback",
)  # that a SlotError holds


def load(target):
    """'file.py:Class' or 'package.module:attribute' -> the object."""
    where, _, name = target.rpartition(":")
    if where.endswith(".py"):
        spec = importlib.util.spec_from_file_location(
            os.path.basename(where)[:-3] + "_hosted", where
        )
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(where)
    for part in name.split("."):
        module = getattr(module, part)
    return module


class Columns:
    """Where each number of a slot lies in its row of the shared block [slots, width] of float32.

    The first column is the pool's own: the token, an int32.
    """

    FIELDS = ("obs", "state", "reward", "avail", "alive", "terminated", "truncated", "info")

    def __init__(self, about):
        n, actions = about["num_agents"], about.get("num_actions") or 0
        self.shapes = {
            "obs": (n, about["obs_dim"]),
            "state": (about["state_dim"],),
            "reward": (n,),
            "avail": (n, actions),
            "alive": (n,),
            "terminated": (),
            "truncated": (),
            "info": (len(about.get("info", ())),),
        }
        self.slices, start = {}, 1
        for name in self.FIELDS:
            size = int(np.prod(self.shapes[name], dtype=int))
            self.slices[name] = slice(start, start + size)
            start += size
        self.width = start

    def views(self, row):
        """The fields of one row, as views of it; "ends" are terminated and truncated."""
        found = {name: row[self.slices[name]].reshape(self.shapes[name]) for name in self.FIELDS}
        found["obs"] = list(found["obs"])
        found["flat"] = row[self.slices["obs"]]
        return {
            **found,
            "ends": row[self.slices["terminated"].start : self.slices["truncated"].stop],
        }


def words_of(error):
    """What an error says, with its kind unless it is a sentence for the user."""
    return str(error) if getattr(error, "plain", False) else f"{type(error).__name__}: {error}"


def missing_module(error):
    """What an error, or what led to it, could not import because it is not here; None if there is nothing.

    A package if the whole of it is missing, else the module within it.
    """
    while error is not None:
        name = error.name if isinstance(error, ImportError) else None
        if name and not is_here(name):
            package = name.partition(".")[0]
            return name if is_here(package) else package
        error = error.__cause__ or error.__context__
    return None


def is_here(name):
    """Whether there is a module of this name, sound or not."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # of a parent, or of what has no specification
        return False


class SlotError(Exception):
    """Something went wrong in an environment: what, where, and the traceback as text."""

    def __init__(self, slot, episode, seed, step, doing, error):
        super().__init__(str(error))
        lines = traceback.format_exception(type(error), error, error.__traceback__)
        self.facts = {
            "slot": slot,
            "episode": episode,
            "seed": seed,
            "step": step,
            "doing": doing,
            "pid": os.getpid(),
            "error": words_of(error),
            "missing": missing_module(error),
            "traceback": "" if getattr(error, "plain", False) else "".join(lines),
        }


class Slots:
    """Some environments of a pool and their rows of the shared arrays.

    action: [slots, N] int32 or [slots, N, U] float32; seed: [slots] uint32; block: [slots, width] float32.
    """

    def __init__(self, target, kwargs, about, mine, arrays):
        self.make = lambda: load(target)(**kwargs)
        self.about, self.mine, self.arrays = about, list(mine), arrays
        columns = Columns(about)
        self.views = {s: columns.views(arrays["block"][s]) for s in self.mine}
        self.block = arrays["block"][
            self.mine[0] : self.mine[-1] + 1
        ]  # slots of a worker lie side by side
        self.avail, self.avail_shape = (
            columns.slices["avail"],
            (len(self.mine), *columns.shapes["avail"]),
        )
        self.envs, self.running, self.steps, self.random = {}, {}, {}, {}
        self.episodes, self.seeds = dict.fromkeys(self.mine, 0), {}
        self.obs_shapes = [(about["obs_dim"],)] * about["num_agents"]
        self.state_is_obs = about["state_dim"] == about["num_agents"] * about["obs_dim"]
        self.limit, self.info = about["episode_limit"], tuple(about.get("info", ()))
        self.bounds, self.global_random = None, False
        if not about.get("num_actions"):
            pairs = zip(about["low"], about["high"])
            self.bounds = [
                (np.asarray(low, np.float32), np.asarray(high, np.float32)) for low, high in pairs
            ]

    def reset(self):
        """Start an episode in every slot, each from its seed."""
        for slot in self.mine:
            seed = int(self.arrays["seed"][slot])
            self.seeds[slot], self.steps[slot] = seed, 0
            self.episodes[slot] += 1
            try:
                if slot not in self.envs:
                    self.envs[slot] = self._alone(slot, seed, self.make)
                    self.global_random = getattr(self.envs[slot], "global_random", False)
                shown = self._call(slot, "reset", seed)
                self._write(slot, shown, True)
            except FAILURES as error:
                raise self._failed(slot, "reset", error) from error
            self.running[slot] = True
        self._check("reset")

    def step(self):
        """Take one step in every slot whose episode has not ended; the others keep what they show."""
        for slot in self.mine:
            if not self.running[slot]:
                continue
            self.steps[slot] += 1
            try:
                shown = self._call(slot, "step", self._scaled(self.arrays["action"][slot]))
                self.running[slot] = not self._write(slot, shown, False)
            except FAILURES as error:
                raise self._failed(slot, "step", error) from error
        self._check("step")

    def render(self, slot):
        """The picture of one slot, or None."""
        env = self.envs[slot]
        return np.asarray(env.render(), np.uint8) if hasattr(env, "render") else None

    def close(self):
        """Close all environments, whatever they say."""
        envs, self.envs = self.envs, {}
        for env in envs.values():
            closed(env)

    def _failed(self, slot, doing, error):
        return SlotError(
            slot, self.episodes[slot], self.seeds[slot], self.steps[slot], doing, error
        )

    def _call(self, slot, name, argument):
        """Reset or step an environment, with generators of its own if it uses the global ones."""
        function = getattr(self.envs[slot], name)
        if not self.global_random:
            return function(argument)
        return self._alone(slot, argument if name == "reset" else None, lambda: function(argument))

    def _alone(self, slot, seed, call):
        """Call with this slot's global generators, seeded anew unless the seed is None; the others' are put back."""
        before = random.getstate(), np.random.get_state()
        try:
            if seed is None:
                random.setstate(self.random[slot][0])
                np.random.set_state(self.random[slot][1])
            else:
                random.seed(seed)
                np.random.seed(seed)
            return call()
        finally:
            self.random[slot] = random.getstate(), np.random.get_state()
            random.setstate(before[0])
            np.random.set_state(before[1])

    def _scaled(self, action):
        """Discrete: a copy. Continuous: each agent's numbers, from [-1, 1] to its own box."""
        if self.bounds is None:
            return action.copy()
        return [
            low + (np.clip(numbers[: len(low)], -1, 1) + 1) / 2 * (high - low)
            for numbers, (low, high) in zip(action, self.bounds)
        ]

    def _write(self, slot, shown, first):
        """Put what an environment showed into its row; True if the episode has ended.

        This is the cost of the bridge: numpy calls are counted here, a microsecond each.
        """
        view, obs = self.views[slot], shown["obs"]
        self._write_obs(view, obs)
        state, reward = shown.get("state"), shown.get("reward", 0.0)
        if state is not None:
            _fill(view["state"], state, "state")
        elif self.state_is_obs:
            view["state"][:] = view["flat"]
        else:
            np.concatenate(obs, out=view["state"], casting="same_kind")
        if isinstance(reward, list) and len(reward) == len(obs):
            view["reward"][:] = reward
        else:
            reward = np.asarray(reward)
            view["reward"][:] = (
                reward if reward.ndim == 0 else _checked(reward, view["reward"], "reward")
            )
        for name in ("avail", "alive"):
            if shown.get(name) is not None:
                _fill(view[name], shown[name], name)
            elif first:
                view[name].fill(1)
        ended = False
        if first:
            view["ends"].fill(0)
        else:
            terminated = bool(shown.get("terminated", False))
            ended = (
                terminated or bool(shown.get("truncated", False)) or self.steps[slot] >= self.limit
            )
            if ended:
                view["ends"][:] = terminated, not terminated
        if self.info:
            found = shown.get("info", {})
            view["info"][:] = [found.get(name, 0.0) for name in self.info]
        return ended

    def _write_obs(self, view, obs):
        if len(obs) != self.about["num_agents"]:
            raise ValueError(
                "obs of {} agents, but {} were declared".format(len(obs), self.about["num_agents"])
            )
        if [np.shape(values) for values in obs] == self.obs_shapes:
            np.concatenate(obs, out=view["flat"], casting="same_kind")
            return
        (width,) = self.obs_shapes[0]
        for row, values in zip(view["obs"], obs):
            shape = np.shape(values)
            if len(shape) != 1 or shape[0] > width:
                raise ValueError(f"obs of shape {shape}, but at most ({width},) was declared")
            row[: shape[0]], row[shape[0] :] = values, 0

    def _check(self, doing):
        """Numbers that would spoil the training without a word, in any slot: looked for once a call, which is cheap."""
        block = self.block
        sound = np.isfinite(block).all()
        if sound and (
            self.bounds is not None or block[:, self.avail].reshape(self.avail_shape).any(2).all()
        ):
            return
        for slot in self.mine:
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
            raise ValueError(
                "agent {} has no available action".format(int(view["avail"].any(1).argmin()))
            )


def _fill(view, values, name):
    view[...] = _checked(values, view, name)


def _checked(values, view, name):
    if np.shape(values) != view.shape:
        raise ValueError(f"{name} of shape {np.shape(values)}, but {view.shape} was declared")
    return values


# ------------------------------------------------------------------------------------------------------- the process


def main(descriptor, memory, lifeline):
    """Serve one pool over an inherited socket until told to quit or until the trainer is gone.

    memory: descriptor of the shared block, or -1 for a worker that only describes; lifeline: of a pipe that ends with
    the trainer.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        # the trainer saves first, then tells us; a handler, since games would inherit that a signal is ignored
        signal.signal(number, lambda *_: None)
    threading.Thread(target=_leave_with, args=(lifeline,), daemon=True).start()
    connection = Connection(descriptor)
    server = Server(memory)
    try:
        while True:
            try:
                name, args = MESSAGES["decode"](connection.recv_bytes())
            except EOFError:
                return
            if name == "quit":
                return
            try:
                reply = MESSAGES["encode"]("ok", getattr(server, name)(*(args or ())))
            except FAILURES as error:
                failed = (
                    error
                    if isinstance(error, SlotError)
                    else SlotError(None, None, None, None, name, error)
                )
                reply = MESSAGES["encode"]("error", failed.facts)
            connection.send_bytes(reply)
    finally:
        server.close()


def closed(env):
    """Close an environment, whatever it says."""
    try:
        getattr(env, "close", lambda: None)()
    except FAILURES:
        traceback.print_exc()


class Server:
    """The commands of a worker."""

    def __init__(self, memory):
        self.memory, self.slots = memory, None

    def describe(self, target, kwargs):
        """What one environment says of itself; it is closed again."""
        env = load(target)(**kwargs)
        try:
            return env.describe()
        finally:
            closed(env)

    def open(self, target, kwargs, about, mine, layout):
        """Take over the slots `mine` of the shared block."""
        arrays = arrays_in(mmap.mmap(self.memory, size_of(layout)), layout)
        self.slots = Slots(target, kwargs, about, mine, arrays)

    def reset(self):
        """See `Slots.reset`."""
        self.slots.reset()

    def step(self):
        """See `Slots.step`."""
        self.slots.step()

    def render(self, slot):
        """See `Slots.render`."""
        return self.slots.render(slot)

    def close(self):
        """Close all environments."""
        if self.slots is not None:
            self.slots.close()


def layout_of(about, slots):
    """The shared arrays of a pool: {name: (shape, dtype)}."""
    n = about["num_agents"]
    discrete = bool(about.get("num_actions"))
    action = ((slots, n), "int32") if discrete else ((slots, n, box_dim(about)), "float32")
    return {
        "seed": ((slots,), "uint32"),
        "action": action,
        "block": ((slots, Columns(about).width), "float32"),
    }


def box_dim(about):
    """Numbers per agent of a continuous action: the most that any agent has."""
    return max(len(low) for low in about["low"])


def size_of(layout):
    """Bytes of the shared arrays."""
    return sum(4 * int(np.prod(shape, dtype=int)) for shape, _ in layout.values())


def arrays_in(buffer, layout):
    """The shared arrays, one after the other in a buffer; each number takes four bytes."""
    arrays, offset = {}, 0
    for name, (shape, dtype) in layout.items():
        count = int(np.prod(shape, dtype=int))
        arrays[name] = np.frombuffer(buffer, dtype, count, offset).reshape(shape)
        offset += 4 * count
    return arrays


def _leave_with(lifeline):
    """A worker never outlives its trainer, not even one that was killed while the worker was busy."""
    os.read(lifeline, 1)  # returns when the other end is closed
    os.killpg(0, signal.SIGKILL)  # with the games that it has started


if __name__ == "__main__":
    main(*[int(argument) for argument in sys.argv[1:4]])
