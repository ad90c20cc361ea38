"""Google Research Football's academy tasks.

Observations, rewards and ends are those of the literature, or its own.
"""

import importlib

import numpy as np

ACTIONS = 19
# rewards. code: CDS
GOAL = 100.0
OTHER_END = -1.0


# what is as in the literature unless it is said otherwise
VARIANTS = dict.fromkeys(("representation", "reward", "ends"), "literature")


class Academy:
    """One academy task as a hosted environment. See `jaxshare.envs.gfootball` for the settings."""

    global_random = True  # the game takes the seed of an episode from `random`

    def __init__(
        self,
        scenario,
        agents,
        opponents,
        max_steps=150,
        wings=(),
        **variants,
    ):
        self.agents = agents
        self.opponents = opponents
        self.max_steps = max_steps
        self.wings = wings
        self.steps = 0

        # representation, reward and ends
        chosen = {**VARIANTS, **variants}
        self.simple = chosen["representation"] == "simple115v2"
        self.controlled = chosen["representation"] == "controlled"
        self.literature = chosen["reward"] == "literature"
        self.retreat_ends = chosen["ends"] == "literature"
        self.env = importlib.import_module("gfootball.env").create_environment(
            env_name=scenario,
            representation="simple115v2" if self.simple else "raw",
            rewards="scoring",
            number_of_left_players_agent_controls=agents,
            render=False,
        )

    def describe(self):
        """See `hosted.slots`."""
        size = 115 if self.simple else 4 * self.agents + 4 * self.opponents + 6
        return {
            "num_agents": self.agents,
            "obs_dim": size,
            "state_dim": size,
            "num_actions": ACTIONS,
            "episode_limit": self.max_steps,
            "common_reward": True,
            "info": ("won",),
            **self.types(),
        }

    def types(self):
        """{"groups", "group_names"}."""
        if not self.wings:
            return {"group_names": ("player",)}
        groups = [int(i in self.wings) for i in range(self.agents)]
        return {"groups": groups, "group_names": ("middle", "wing")}

    def reset(self, seed):
        """See `hosted.slots`; the worker seeds `random`."""
        self.steps = 0
        # code: which team the engine moves first is drawn with the first episode of a game object
        # and kept; drawn anew, an episode depends on its seed alone
        self.env.unwrapped._config._values.pop("reverse_team_processing", None)
        return {
            **self.shown(self.env.reset()),
            "reward": 0.0,
            "terminated": False,
            "truncated": False,
        }

    def step(self, action):
        """See `hosted.slots`."""
        self.steps += 1
        obs, reward, done, info = self.env.step([int(a) for a in action])
        game = self.game()
        goal = float(np.ravel(reward)[0])

        # the engine's own limit, and other ends
        timeout = bool(done) and game["steps_left"] == 0 and info["score_reward"] == 0
        ended = (bool(done) and not timeout) or (self.retreat_ends and self.retreated(game))
        if self.literature:
            over = ended or timeout or self.steps >= self.max_steps
            goal = GOAL if goal > 0 else OTHER_END if over else 0.0
        won = {"won": float(info["score_reward"] > 0)}
        return {
            **self.shown(obs),
            "reward": goal,
            "terminated": ended,
            "truncated": timeout,
            "info": won,
        }

    def close(self):
        """See `hosted.slots`."""
        self.env.close()

    def game(self):
        """What the game says of itself to its first player."""
        return self.env.unwrapped.observation()[0]

    def retreated(self, game):
        """Whether the ball or one of our last players is in our half."""
        ball_x = game["ball"][0]
        our_x = game["left_team"][-self.agents :, 0]
        return bool(ball_x < 0 or (our_x < 0).any())

    def shown(self, obs):
        """{"obs", "state"}."""
        if self.simple:
            obs = np.reshape(obs, (self.agents, -1))
            return {"obs": obs, "state": obs[0]}  # all know the same, but for who they are
        games = self.env.unwrapped.observation()
        ours = [int(g["active"]) for g in games] if self.controlled else range(-self.agents, 0)
        return features(games[0], list(ours), self.opponents)


def features(game, ours, opponents):
    """CDS' observations and state, of our players and the first `opponents` of the other team.

    ours: numbers of our players.
    Observation: own position; the others' relative to it; own velocity, the others'; the other
    team's relative positions and velocities; the ball's relative position, height, and velocity.
    State: the same, absolute.
    """
    place = np.asarray(game["left_team"])[ours]
    speed = np.asarray(game["left_team_direction"])[ours]
    their_place = np.asarray(game["right_team"])[:opponents]
    their_speed = np.asarray(game["right_team_direction"])[:opponents]
    ball = np.asarray(game["ball"])
    ball_speed = np.asarray(game["ball_direction"])

    # each player's view
    obs = []
    for i, position in enumerate(place):
        mates = np.delete(place, i, 0) - position
        parts = [position, mates, speed[i], np.delete(speed, i, 0)]
        parts += [their_place - position, their_speed]
        parts += [ball[:2] - position, ball[2:], ball_speed]
        obs.append(np.concatenate([np.ravel(part) for part in parts]))
    state = np.concatenate(
        [np.ravel(x) for x in (place, speed, their_place, their_speed, ball, ball_speed)]
    )
    return {"obs": obs, "state": state}
