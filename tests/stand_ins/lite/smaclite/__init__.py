"""A stand-in for SMAClite: its Gymnasium interface and its errors, on a battle that is over in a few steps."""

import gymnasium
import numpy as np

for name in ("2s3z", "custom"):
    gymnasium.register(f"smaclite/{name}-v0", entry_point="smaclite:SMACliteEnv", kwargs={"name": name})


class SMACliteEnv(gymnasium.Env):
    def __init__(self, name, map_file=None):
        if name == "custom" and map_file is None:
            raise ValueError("map_file must be provided")
        self.n_agents, self.n_enemies, self.n_actions, self.obs_size, self.state_size = 5, 5, 11, 7, 9
        self.observation_space = gymnasium.spaces.Tuple([gymnasium.spaces.Box(-1, 1, (7,))] * 5)
        self.action_space = gymnasium.spaces.Tuple([gymnasium.spaces.Discrete(11)] * 5)

    def reset(self, seed=None, options=None):
        self.time, self.agents, self.enemy_health = 0, dict.fromkeys(range(5)), 20
        return self._obs(), {}

    def step(self, actions):
        assert len(actions) == self.n_agents
        assert all(type(action) is int for action in actions)
        masks = self.get_avail_actions()
        for i, action in enumerate(actions):
            if i not in self.agents:
                assert action == 0
            elif not masks[i][action]:
                raise ValueError(f"Invalid action for agent {i}: {action}")
        self.time += 1
        hits = min(self.enemy_health, sum(action >= 6 for action in actions))
        self.enemy_health -= hits
        if self.time == 2:
            del self.agents[3]
        if self.time == 30:
            self.agents.clear()
        won = self.enemy_health == 0
        return self._obs(), hits / 2 + 10.0 * won, won or not self.agents, False, {"battle_won": won}

    def get_avail_actions(self):
        dead = np.eye(11)[0]
        return [np.array([0] + [1] * 10) if i in self.agents else dead for i in range(5)]

    def get_state(self):
        return np.full(9, self.time / 30, np.float32)

    def get_obs(self):
        return self._obs()

    def _obs(self):
        return tuple(np.full(7, i / 5, np.float32) for i in range(5))
