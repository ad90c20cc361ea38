"""lbforaging's and rware's environments: agents on a grid."""

import numpy as np

from .tuples import Tuples


class Foraging(Tuples):
    """lbforaging's environments.

    A seeded reset depends on the seed alone, and a time limit is one.
    """

    global_random = False

    def __init__(self, id, max_steps, kwargs=None, common_reward=False, mask_actions=False):
        super().__init__(id, max_steps, kwargs, ("lbforaging",), common_reward)
        self.mask_actions = mask_actions
        # code: its own limit looks like the end of the food
        self.game._max_episode_steps = max_steps + 1
        self.own_limit = None

    def describe(self):
        """See `hosted.slots`."""
        return {**super().describe(), "info": ("food_eaten",), "draws_if_asked": False}

    def one_reward(self):
        """It gives one to every agent."""
        return False

    def reset(self, seed):
        """See `hosted.slots`."""
        for player in self.game.players:
            player.position = None  # code: where players stood before would keep new ones away
        return super().reset(seed)

    def step(self, action):
        """See `hosted.slots`. Past Gymnasium's wrappers, which only check."""
        return self.shown(*self.game.step(action.tolist())[:4])

    def shown(self, obs, reward, terminated, truncated):
        """The record of one step; info: the share of the foods that were eaten in it."""
        left = int(np.count_nonzero(self.game.field))
        if self.game.current_step == 0:
            self.spawned = left
            self.left = left

        # foods that were there before, and are no more
        eaten = self.left - left
        self.left = left
        eaten_share = eaten / max(self.spawned, 1)
        results = {
            "obs": obs,
            "reward": np.sum(reward) if self.common_reward else reward,
            "terminated": terminated,
            "info": {"food_eaten": eaten_share},
        }
        if self.mask_actions:
            results["avail"] = np.array([self.valid(player) for player in self.game.players])
        return results

    def valid(self, player):
        """Whether each action is valid for a player."""
        numbers = {action.value for action in self.game._valid_actions[player]}
        return [action in numbers for action in range(6)]

    def render(self):
        """See `hosted.slots`."""
        return drawn(self.game, "lbf")


class Warehouse(Tuples):
    """rware's environments.

    The time limit is ours, since rware reports its own as the end of the task.
    """

    global_random = False

    def __init__(self, id, max_steps, kwargs=None, common_reward=False):
        super().__init__(id, max_steps, kwargs, ("rware",), common_reward)
        self.game.max_steps = None
        self.own_limit = None

    def describe(self):
        """See `hosted.slots`."""
        about = {"info": ("deliveries",), "group_names": ("robot",), "draws_if_asked": False}
        return {**super().describe(), **about}

    def one_reward(self):
        """It gives one to every agent."""
        return False

    def step(self, action):
        """See `hosted.slots`. Past Gymnasium's wrappers, which only check."""
        obs, reward, _, _, _ = self.game.step(action.tolist())
        return self.shown(obs, reward, False, False)

    def shown(self, obs, reward, terminated, truncated):
        """The record of one step; info: rewards are deliveries, unless kwargs say otherwise."""
        team = float(np.sum(reward))
        return {
            "obs": obs,
            "reward": team if self.common_reward else reward,
            "info": {"deliveries": team},
        }

    def render(self):
        """See `hosted.slots`."""
        return drawn(self.game, "rware")


def drawn(game, ours):
    """The package's own picture, which opens a window."""
    try:
        return game.render(mode="rgb_array")  # code: not among the modes that it declares
    except Exception as error:
        raise RuntimeError(
            f"it needs a display ({error}); env={ours} is the same task and draws without one"
        ) from error
