"""Environments of one worker: they read actions from a shared block of numbers and write what they show into it.

This file runs in worker processes, perhaps under another Python interpreter, and in the trainer itself when there are
no workers. It therefore imports neither jax nor jaxshare.

A hosted environment is any object with

* `describe()` -> dict: num_agents, obs_dim, state_dim, num_actions (or low, high [N][U] for continuous actions),
  episode_limit, and optionally info (names), groups, group_names, common_reward;
* `reset(seed)` and `step(action)` -> dict: obs [N][<= O] (short rows are padded), reward (a number or [N]), terminated,
  truncated, and, always or never, state (otherwise the observations, one after the other), avail, alive, info;
* optionally `render()` -> uint8 [height, width, 3], `close()`, and `global_random = True` if it draws from the
  generators of `random` or `numpy.random`, which are then its own while it is called.
"""

import importlib
import importlib.util
import mmap
import os
import pickle
import random
import signal
import sys
import threading
import time
import traceback
from multiprocessing.connection import Connection

import numpy as np


def load(target):
    """'file.py:Class' or 'package.module:attribute' -> the object."""
    where, _, name = target.rpartition(":")
    if where.endswith(".py"):
        spec = importlib.util.spec_from_file_location(os.path.basename(where)[:-3] + "_hosted", where)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(where)
    for part in name.split("."):
        module = getattr(module, part)
    return module


class Columns:
    """Where each number of a slot lies in its row of the shared block [slots, width] of float32."""

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
        self.slices, start = {}, 0
        for name in self.FIELDS:
            size = int(np.prod(self.shapes[name], dtype=int))
            self.slices[name] = slice(start, start + size)
            start += size
        self.width = start

    def views(self, row):
        """The fields of one row, as views of it; "ends" are terminated and truncated."""
        found = {name: row[self.slices[name]].reshape(self.shapes[name]) for name in self.FIELDS}
        found["obs"] = list(found["obs"])
        return {**found, "ends": row[self.slices["terminated"].start : self.slices["truncated"].stop]}


class SlotError(Exception):
    """Something went wrong in an environment: what, where, and the traceback as text."""

    def __init__(self, slot, episode, seed, step, doing, error):
        super().__init__(str(error))
        self.facts = {
            "slot": slot,
            "episode": episode,
            "seed": seed,
            "step": step,
            "doing": doing,
            "pid": os.getpid(),
            "error": f"{type(error).__name__}: {error}",
            "traceback": "".join(traceback.format_exception(type(error), error, error.__traceback__)),
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
        self.block = arrays["block"][self.mine[0] : self.mine[-1] + 1]  # slots of a worker lie side by side
        self.avail, self.avail_shape = columns.slices["avail"], (len(self.mine), *columns.shapes["avail"])
        self.envs, self.running, self.steps, self.random = {}, {}, {}, {}
        self.episodes, self.seeds = dict.fromkeys(self.mine, 0), {}
        self.limit, self.info = about["episode_limit"], tuple(about.get("info", ()))
        self.bounds, self.global_random = None, False
        if not about.get("num_actions"):
            pairs = zip(about["low"], about["high"])
            self.bounds = [(np.asarray(low, np.float32), np.asarray(high, np.float32)) for low, high in pairs]

    def reset(self):
        """Start an episode in every slot, each from its seed."""
        for slot in self.mine:
            seed = int(self.arrays["seed"][slot])
            self.seeds[slot], self.steps[slot] = seed, 0
            self.episodes[slot] += 1
            try:
                if slot not in self.envs:
                    self.envs[slot] = self.make()
                    self.global_random = getattr(self.envs[slot], "global_random", False)
                shown = self._call(slot, "reset", seed)
                self._write(slot, shown, True)
            except Exception as error:
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
            except Exception as error:
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
            try:
                getattr(env, "close", lambda: None)()
            except Exception:
                traceback.print_exc()

    def _failed(self, slot, doing, error):
        return SlotError(slot, self.episodes[slot], self.seeds[slot], self.steps[slot], doing, error)

    def _call(self, slot, name, argument):
        """Reset or step an environment, with generators of its own if it uses the global ones."""
        env = self.envs[slot]
        if not self.global_random:
            return getattr(env, name)(argument)
        before = random.getstate(), np.random.get_state()
        try:
            if name == "reset":
                random.seed(argument)
                np.random.seed(argument)
            else:
                random.setstate(self.random[slot][0])
                np.random.set_state(self.random[slot][1])
            return getattr(env, name)(argument)
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
        """Put what an environment showed into its row; True if the episode has ended."""
        view, obs = self.views[slot], shown["obs"]
        rows, width = view["obs"], self.about["obs_dim"]
        if len(obs) != len(rows):
            raise ValueError(f"obs of {len(obs)} agents, but {len(rows)} were declared")
        for row, values in zip(rows, obs):
            shape = values.shape if isinstance(values, np.ndarray) else np.shape(values)
            if shape == (width,):
                row[:] = values
            elif len(shape) == 1 and shape[0] < width:
                row[: shape[0]], row[shape[0] :] = values, 0
            else:
                raise ValueError(f"obs of shape {shape}, but at most ({width},) was declared")
        state, reward = shown.get("state"), np.asarray(shown.get("reward", 0.0))
        if state is None:
            np.concatenate(obs, out=view["state"], casting="same_kind")
        else:
            _fill(view["state"], state, "state")
        view["reward"][:] = reward if reward.ndim == 0 else _checked(reward, view["reward"], "reward")
        for name in ("avail", "alive"):
            if shown.get(name) is not None:
                _fill(view[name], shown[name], name)
            elif first:
                view[name].fill(1)
        terminated = bool(shown.get("terminated", False))
        ended = terminated or bool(shown.get("truncated", False)) or (not first and self.steps[slot] >= self.limit)
        view["ends"][:] = terminated, ended and not terminated
        if self.info:
            found = shown.get("info", {})
            view["info"][:] = [found.get(name, 0.0) for name in self.info]
        return ended

    def _check(self, doing):
        """Numbers that would spoil the training without a word, in any slot: looked for once a call, which is cheap."""
        block = self.block
        sound = np.isfinite(block).all()
        if sound and (self.bounds is not None or block[:, self.avail].reshape(self.avail_shape).any(2).all()):
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
            raise ValueError("agent {} has no available action".format(int(view["avail"].any(1).argmin())))


def _fill(view, values, name):
    view[...] = _checked(values, view, name)


def _checked(values, view, name):
    if np.shape(values) != view.shape:
        raise ValueError(f"{name} of shape {np.shape(values)}, but {view.shape} was declared")
    return values


# ------------------------------------------------------------------------------------------------------- the process


def main(descriptor, memory, parent):
    """Serve one pool over an inherited socket until told to quit or until the trainer is gone.

    memory: descriptor of the shared block, or -1 for a worker that only describes.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # the trainer saves first, then tells us
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
    connection = Connection(descriptor)
    server = Server(memory)
    try:
        while True:
            try:
                name, args = pickle.loads(connection.recv_bytes())
            except EOFError:
                return
            if name == "quit":
                return
            try:
                reply = ("ok", getattr(server, name)(*args))
            except Exception as error:
                failed = error if isinstance(error, SlotError) else SlotError(None, None, None, None, name, error)
                reply = ("error", failed.facts)
            connection.send_bytes(pickle.dumps(reply, protocol=4))
    finally:
        server.close()


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
            getattr(env, "close", lambda: None)()

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
    return {"seed": ((slots,), "uint32"), "action": action, "block": ((slots, Columns(about).width), "float32")}


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


def _leave_with(parent):
    """A worker never outlives its trainer, not even one that was killed while the worker was busy."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os.killpg(0, signal.SIGKILL)  # with the games that it has started


if __name__ == "__main__":
    main(*[int(argument) for argument in sys.argv[1:4]])
