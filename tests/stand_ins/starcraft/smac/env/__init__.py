"""A stand-in for oxwhirl's StarCraft2Env: its whole interface and its errors, on battles of a few dozen lines.

Written from the interface's documentation and behaviour. What it keeps: argument names and defaults, attributes,
shapes and order of observations, masks (0: no-op, for the dead only; 1: stop; 2-5: north, south, east, west; 6 and on:
targets within 6), rewards and their scale, death trackers that stand still when rewards are sparse, "episode_limit" in
the info only with continuing_episode, an empty info after a lost connection, an AssertionError for a masked action,
numbers of battles, and one game process per launch (counted in GAMES).
"""

import os

import numpy as np

MAPS = {"3m": (3, 3, 60), "8m": (8, 8, 120), "5m_vs_6m": (5, 6, 70)}
GAMES = []  # [seed, map, is running] of every game that was started
MOVES = {2: (0, 2), 3: (0, -2), 4: (2, 0), 5: (-2, 0)}
LOST = "SMAC_STAND_IN_LOSES_CONNECTION_AT"  # a step, in the environment of the process


class Unit:
    def __init__(self, x, y):
        self.pos = np.array([x, y], float)
        self.health_max = self.health = 45.0
        self.shield = 0.0


class MultiAgentEnv:
    """The interface."""


class StarCraft2Env(MultiAgentEnv):
    def __init__(
        self, map_name="8m", step_mul=None, move_amount=2, difficulty="7", game_version=None, seed=None,
        continuing_episode=False, obs_all_health=True, obs_own_health=True, obs_last_action=False,
        obs_pathing_grid=False, obs_terrain_height=False, obs_instead_of_state=False, obs_timestep_number=False,
        state_last_action=True, state_timestep_number=False, reward_sparse=False, reward_only_positive=True,
        reward_death_value=10, reward_win=200, reward_defeat=0, reward_negative_scale=0.5, reward_scale=True,
        reward_scale_rate=20, replay_dir="", replay_prefix="", window_size_x=1920, window_size_y=1200,
        heuristic_ai=False, heuristic_rest=False, debug=False,
    ):  # fmt: skip
        self.map_name = map_name
        self.n_agents, self.n_enemies, self.episode_limit = MAPS[map_name]
        self.n_actions = 6 + self.n_enemies
        self._seed, self.continuing_episode, self.difficulty = seed, continuing_episode, difficulty
        self.reward_sparse, self.reward_win, self.reward_defeat = reward_sparse, reward_win, reward_defeat
        self.reward_death_value, self.reward_scale, self.reward_scale_rate = (
            reward_death_value, reward_scale, reward_scale_rate,
        )  # fmt: skip
        self.obs_last_action, self.state_last_action = obs_last_action, state_last_action
        self.max_reward = self.n_enemies * (reward_death_value + 45.0) + reward_win
        self.agents, self.enemies = {}, {}
        self._episode_count = self._episode_steps = self._total_steps = 0
        self.battles_won = self.battles_game = self.timeouts = self.force_restarts = 0
        self.last_action = np.zeros((self.n_agents, self.n_actions))
        self._game = None

    # ------------------------------------------------------------------------------------------------------- episodes

    def _launch(self):
        self._game = [self._seed, self.map_name, True]
        GAMES.append(self._game)
        self._random = np.random.RandomState(self._seed)

    def reset(self):
        self._episode_steps = 0
        if self._episode_count == 0:
            self._launch()  # as in the original: whatever game was there is forgotten, not ended
        self.death_tracker_ally = np.zeros(self.n_agents)
        self.death_tracker_enemy = np.zeros(self.n_enemies)
        self.last_action = np.zeros((self.n_agents, self.n_actions))
        place = self._random.uniform(-1, 1, (self.n_agents + self.n_enemies, 2))
        self.agents = {i: Unit(9 + place[i, 0], 16 + i + place[i, 1]) for i in range(self.n_agents)}
        enemies = place[self.n_agents :]
        self.enemies = {i: Unit(23 + enemies[i, 0], 16 + i + enemies[i, 1]) for i in range(self.n_enemies)}
        return self.get_obs(), self.get_state()

    def full_restart(self):
        self._game[2] = False
        self._launch()
        self.force_restarts += 1

    def step(self, actions):
        actions = [int(a) for a in actions]
        self.last_action = np.eye(self.n_actions)[np.array(actions)]
        for i, action in enumerate(actions):
            assert self.get_avail_agent_actions(i)[action] == 1, f"Agent {i} cannot perform action {action}"
        if self._episode_steps + 1 == int(os.environ.get(LOST, -1)):
            self.full_restart()
            return 0, True, {}
        self._total_steps += 1
        self._episode_steps += 1
        before = sum(e.health for e in self.enemies.values())
        self._fight(actions)
        reward = 0 if self.reward_sparse else before - sum(e.health for e in self.enemies.values()) + self._deaths()
        allies, enemies = (any(u.health > 0 for u in side.values()) for side in (self.agents, self.enemies))
        info, terminated = {"battle_won": False, "dead_allies": 0, "dead_enemies": 0}, False
        info["dead_allies"] = sum(u.health == 0 for u in self.agents.values())
        info["dead_enemies"] = sum(u.health == 0 for u in self.enemies.values())
        if not (allies and enemies):
            terminated = True
            self.battles_game += 1
            if allies:
                self.battles_won += 1
                info["battle_won"] = True
                reward = 1 if self.reward_sparse else reward + self.reward_win
            else:
                reward = -1 if self.reward_sparse else reward + self.reward_defeat
        elif self._episode_steps >= self.episode_limit:
            terminated = True
            if self.continuing_episode:
                info["episode_limit"] = True
            self.battles_game += 1
            self.timeouts += 1
        self._episode_count += terminated
        if self.reward_scale:
            reward /= self.max_reward / self.reward_scale_rate
        return reward, terminated, info

    def _fight(self, actions):
        for i, action in enumerate(actions):
            unit = self.agents[i]
            if action in MOVES:
                unit.pos = np.clip(unit.pos + MOVES[action], 0, 31)
            elif action >= 6:
                self._hit(self.enemies[action - 6], 9.0)
        for enemy in self.enemies.values():
            near = [u for u in self.agents.values() if u.health > 0]
            if enemy.health == 0 or not near:
                continue
            target = min(near, key=lambda u: np.linalg.norm(u.pos - enemy.pos))
            gap = target.pos - enemy.pos
            if np.linalg.norm(gap) <= 6:
                self._hit(target, 7.0)
            else:
                enemy.pos = enemy.pos + gap / np.linalg.norm(gap)

    def _hit(self, unit, damage):
        unit.health = max(0.0, unit.health - damage)

    def _deaths(self):
        """Called for dense rewards only, as in the original."""
        new = 0
        for tracker, units in ((self.death_tracker_ally, self.agents), (self.death_tracker_enemy, self.enemies)):
            for i, unit in units.items():
                if unit.health == 0 and not tracker[i]:
                    tracker[i] = 1
                    new += units is self.enemies
        return new * self.reward_death_value

    # --------------------------------------------------------------------------------------------------- what is seen

    def get_unit_by_id(self, a_id):
        return self.agents[a_id]

    def get_obs(self):
        return [self.get_obs_agent(i) for i in range(self.n_agents)]

    def get_obs_agent(self, agent_id):
        unit = self.agents[agent_id]
        move, enemy, ally, own = (
            np.zeros(4),
            np.zeros((self.n_enemies, 5)),
            np.zeros((self.n_agents - 1, 5)),
            np.zeros(1),
        )
        if unit.health > 0:
            avail = self.get_avail_agent_actions(agent_id)
            move[:] = avail[2:6]
            own[0] = unit.health / unit.health_max
            for e, other in self.enemies.items():
                enemy[e] = self._seen(unit, other, avail[6 + e])
            others = [a for i, a in self.agents.items() if i != agent_id]
            for i, other in enumerate(others):
                ally[i] = self._seen(unit, other, 1)
        return np.concatenate([move, enemy.ravel(), ally.ravel(), own]).astype(np.float32)

    def _seen(self, unit, other, first):
        gap = other.pos - unit.pos
        distance = np.linalg.norm(gap)
        if distance >= 9 or other.health == 0:
            return np.zeros(5)
        return np.array([first, distance / 9, *(gap / 9), other.health / other.health_max])

    def get_obs_size(self):
        return 4 + 5 * self.n_enemies + 5 * (self.n_agents - 1) + 1

    def get_state(self):
        units = [*self.agents.values(), *self.enemies.values()]
        rows = [[u.health / u.health_max, *((u.pos - 16) / 32)] if u.health > 0 else [0, 0, 0] for u in units]
        state = np.ravel(rows)
        if self.state_last_action:
            state = np.append(state, self.last_action.ravel())
        return state.astype(np.float32)

    def get_state_size(self):
        return 3 * (self.n_agents + self.n_enemies) + self.state_last_action * self.n_agents * self.n_actions

    def get_avail_actions(self):
        return [self.get_avail_agent_actions(i) for i in range(self.n_agents)]

    def get_avail_agent_actions(self, agent_id):
        unit = self.agents[agent_id]
        if unit.health == 0:
            return [1] + [0] * (self.n_actions - 1)
        moves = [int(np.all((unit.pos + move >= 0) & (unit.pos + move <= 31))) for move in MOVES.values()]
        reach = [int(e.health > 0 and np.linalg.norm(e.pos - unit.pos) <= 6) for e in self.enemies.values()]
        return [0, 1, *moves, *reach]

    def get_total_actions(self):
        return self.n_actions

    def get_env_info(self):
        return {
            "state_shape": self.get_state_size(),
            "obs_shape": self.get_obs_size(),
            "n_actions": self.get_total_actions(),
            "n_agents": self.n_agents,
            "episode_limit": self.episode_limit,
            "agent_features": ["health", "energy/cooldown", "x", "y"],
            "enemy_features": ["health", "x", "y"],
        }

    def get_stats(self):
        return {
            "battles_won": self.battles_won,
            "battles_game": self.battles_game,
            "battles_draw": self.timeouts,
            "win_rate": self.battles_won / self.battles_game,
            "timeouts": self.timeouts,
            "restarts": self.force_restarts,
        }

    def seed(self):
        return self._seed

    def render(self):
        return None

    def save_replay(self):
        return None

    def close(self):
        if self._game is not None:
            self._game[2] = False
