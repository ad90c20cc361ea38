"""A PettingZoo environment that plays a while and then breaks."""

import gymnasium
import numpy as np


class Breaking:
    possible_agents = ("one", "two")
    agents = ("one", "two")
    metadata = {"max_steps": 5}  # noqa: RUF012
    episodes = 0

    def observation_space(self, agent):
        return gymnasium.spaces.Box(0, 1, (2,))

    def action_space(self, agent):
        return gymnasium.spaces.Discrete(2)

    def reset(self, seed=None, options=None):
        Breaking.episodes += 1
        return dict.fromkeys(self.agents, np.zeros(2)), {agent: {} for agent in self.agents}

    def step(self, actions):
        if Breaking.episodes > 30:
            raise RuntimeError("out of moves")
        no = dict.fromkeys(self.agents, False)
        obs = dict.fromkeys(self.agents, np.ones(2))
        return obs, dict.fromkeys(self.agents, 1.0), no, no, {agent: {} for agent in self.agents}
