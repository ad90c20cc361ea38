"""A hosted environment for tests of the bridge: it shows what it was given, and fails as it is told to."""

import os
import random
import subprocess
import sys
import threading
import time

import numpy as np


class Fake:
    """Two agents. obs: seed / 2^32, step, own action, agent. state: a random number, is jax here?, pid.

    length: the step that ends the episode as terminated (0: none). pays: an agent's reward is its action.
    The others: when to do what.
    """

    def __init__(
        self, limit=6, length=0, box=None, wrong=None, raise_at=-1, die_at=-1, hang=False, random_numbers=False,
        nan_at=-1, only_seed=None, marker="", agents=2, leave_at=-1, game="", bad_close=False, pays=False,
    ):  # fmt: skip
        self.__dict__.update(locals())
        self.global_random = random_numbers
        self.child = None

    def describe(self):
        actions = {"num_actions": 3} if self.box is None else {"low": self.box[0], "high": self.box[1]}
        about = {"num_agents": self.agents, "obs_dim": 4, "state_dim": 3, "episode_limit": self.limit, **actions}
        return {**about, "info": ["won"], "group_names": ["one", "other"], "groups": [0, 1]}

    def reset(self, seed):
        if self.game:
            self.restart_game()
        if self.hang:
            time.sleep(1000)
        self.seed, self.time = seed, 0
        return self.shown([0, 0], 0.0)

    def step(self, action):
        self.time += 1
        if self.only_seed in (None, self.seed) and not (self.marker and os.path.exists(self.marker)):
            if self.time == self.raise_at:
                raise ValueError("the sky fell")
            if self.time == self.leave_at:
                threading.Thread(target=time.sleep, args=(1000,)).start()
                sys.exit("enough")
            if self.time == self.die_at:
                print("last words", flush=True)
                os._exit(7)
        sums = [float(np.sum(a)) for a in action]
        return self.shown(sums, sums if self.pays else [1.0, 2.0])

    def shown(self, action, reward):
        obs = [[self.seed / 2**32, self.time, action[i], i][: 4 - i] for i in range(2)]  # the second is one shorter
        if self.time == self.nan_at:
            obs[1][0] = np.nan
        state = [random.random() + np.random.rand() if self.random_numbers else 0.5, "jax" in sys.modules, os.getpid()]
        found = {"obs": obs, "state": np.array(state, float), "reward": reward, "info": {"won": float(self.time == 2)}}
        found |= {"terminated": self.time == self.length > 0, "alive": [True, self.time < 3]}
        if self.box is None:
            found["avail"] = [[True, True, False], [True, False, True]]
        return {**found, **(self.wrong or {})}

    def restart_game(self):
        """A process of its own, as StarCraft's; its pid goes to a file."""
        if self.child:
            self.child.terminate()
            self.child.wait(10)
        self.child = subprocess.Popen(["sleep", "1000"])
        with open(self.game, "a") as file:
            file.write(f"{self.child.pid}\n")

    def close(self):
        if self.bad_close:
            raise RuntimeError("cannot close")

    def render(self):
        return np.full((4, 4, 3), self.time)
