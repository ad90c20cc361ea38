"""Plays of lbforaging, any version, as inputs and outputs. Version 1.x runs on a stand-in of the old gym."""

import importlib.util
import pathlib
import sys
import types
from collections import Counter
from itertools import combinations
from typing import NamedTuple

import gymnasium
import jax
import numpy as np

from jaxshare.envs.lbf.rules import EAST, LOAD, NORTH, SOUTH, WEST
from jaxshare.envs.lbf.state import State
from jaxshare.envs.lbf.task import parse

RULES = {"1.0.15": "v1", "1.1.1": "v2", "2.0.0": "v3"}
LACKS = {"1.0.15": ("penalty", "grid_observation"), "1.1.1": (), "2.0.0": ()}  # settings that a version does not know
EPISODES, STEPS = 8, 30


class Unchecked(gymnasium.spaces.Space):
    def contains(self, x):
        return True


def unchecked(foraging):
    """The original, without its own check of observations: it wrongly fails for oblong grids and for layers."""

    class Foraging(foraging.ForagingEnv):
        def _get_observation_space(self):
            foods = self.max_num_food if hasattr(self, "max_num_food") else self.max_food
            return Unchecked((3 * (foods + len(self.players)),), np.float32)

    return Foraging


def newest(foraging, config):
    """A game of lbforaging 2.0.0."""
    task = parse(config.scenario, config.sight)
    return unchecked(foraging)(
        players=task.players,
        min_player_level=config.min_player_level,
        max_player_level=config.max_player_level,
        min_food_level=1,
        max_food_level=config.max_food_level,
        field_size=(task.rows, task.cols),
        max_num_food=task.foods,
        sight=task.sight,
        max_episode_steps=config.max_steps,
        force_coop=task.coop,
        normalize_reward=config.normalize_reward,
        grid_observation=config.grid_observation,
        penalty=config.penalty,
    )


def older(foraging, config, lacks):
    """A game of lbforaging 1.x, whose highest player level is never drawn; `lacks` names what it does not know."""
    task = parse(config.scenario, config.sight)
    options = {"penalty": config.penalty, "grid_observation": config.grid_observation}
    return unchecked(foraging)(
        players=task.players,
        max_player_level=config.max_player_level + 1,
        field_size=(task.rows, task.cols),
        max_food=task.foods,
        sight=task.sight,
        max_episode_steps=config.max_steps,
        force_coop=task.coop,
        normalize_reward=config.normalize_reward,
        **{key: value for key, value in options.items() if key not in lacks},
    )


def version_in(folder):
    """The version of lbforaging in a folder made by `pip install --target`."""
    return next(pathlib.Path(folder).glob("lbforaging-*.dist-info")).name.split("-")[1].removesuffix(".dist")


def load_older(folder):
    """The module of lbforaging 1.x in a folder, on a stand-in of the little that it uses of the old gym."""
    gym = types.ModuleType("gym")
    gym.Env = object
    gym.spaces = gymnasium.spaces
    utils = types.ModuleType("gym.utils")
    utils.seeding = types.SimpleNamespace(np_random=lambda seed=None: (np.random.RandomState(seed), seed))
    stand_ins = {"gym": gym, "gym.utils": utils}
    before = {name: sys.modules.get(name) for name in stand_ins}
    path = pathlib.Path(folder) / "lbforaging" / "foraging" / "environment.py"
    spec = importlib.util.spec_from_file_location("lbforaging_" + version_in(folder).replace(".", "_"), path)
    module = importlib.util.module_from_spec(spec)
    sys.modules.update(stand_ins)
    try:
        spec.loader.exec_module(module)
    finally:
        for name, earlier in before.items():
            if earlier is None:
                del sys.modules[name]
            else:
                sys.modules[name] = earlier
    return module


def without(settings, version):
    """The settings that a version knows."""
    return {key: value for key, value in settings.items() if key not in LACKS[version]}


# -------------------------------------------------------------------------------------------------------------- plays


class Play(NamedTuple):
    """Episodes of the original: starts [B, ...] and, by step, actions and what they led to [T, B, ...]."""

    start: State
    action: np.ndarray  # [T, B, N]
    obs: np.ndarray  # [T, B, N, O]
    reward: np.ndarray  # [T, B, N]
    done: np.ndarray  # [T, B]
    empty: np.ndarray  # [T, B]: no food is left
    valid: np.ndarray  # [T, B, N, 6]
    position: np.ndarray  # [T, B, N, 2]


def fresh(game):
    """A start that does not depend on the last episode: the original's reset avoids the players' old cells."""
    for player in game.players:
        player.position = None
    game.reset()
    return game


def state_of(game):
    """What lbf keeps of the original's present state, as a start."""
    row, col = np.nonzero(game.field)
    foods = game.max_num_food if hasattr(game, "max_num_food") else game.max_food
    absent = foods - len(row)
    i32 = np.int32
    return State(
        row=np.array([p.position[0] for p in game.players], i32),
        col=np.array([p.position[1] for p in game.players], i32),
        level=np.array([p.level for p in game.players], i32),
        food_row=np.append(row, [-1] * absent).astype(i32),
        food_col=np.append(col, [-1] * absent).astype(i32),
        food_level=np.append(game.field[row, col], [0] * absent).astype(i32),
        num_spawned=i32(len(row)),
        spawned_level=i32(game.field.sum()),
        step=i32(0),
    )


def starts(game, count):
    """`count` starts of the original: State [B, ...]. Makes it unfit for play."""
    game._make_gym_obs = lambda *_: ((), (), (), ())
    return jax.tree.map(lambda *x: np.stack(x), *[state_of(fresh(game)) for _ in range(count)])


def greedy(game, rng):
    """Load beside food; else one step towards the nearest food along rows or columns; sometimes anything."""
    actions = []
    for player in game.players:
        (row, col), food = player.position, np.argwhere(game.field)
        if rng.random() < 0.2 or not len(food):
            actions.append(rng.integers(6))
            continue
        down, right = min((food - (row, col)).tolist(), key=lambda d: abs(d[0]) + abs(d[1]))
        vertical = abs(down) > abs(right) if rng.random() < 0.8 else down != 0
        move = (SOUTH if down > 0 else NORTH) if vertical else (EAST if right > 0 else WEST)
        actions.append(LOAD if abs(down) + abs(right) == 1 else move)
    return np.array(actions, np.int32)


def episode(game, rng, events):
    """One episode, beginning with nobody moving: (start, list over steps of {field of Play: value})."""
    start, rows = state_of(fresh(game)), []
    careful = rng.random() < 0.6
    for t in range(STEPS):
        action = greedy(game, rng) if careful else rng.integers(0, 6, len(game.players)).astype(np.int32)
        action = action if t else np.zeros_like(action)
        before, food = [p.position for p in game.players], np.count_nonzero(game.field)
        obs, reward, done = game.step(action)[:3]
        after = [p.position for p in game.players]
        count_events(events, before, after, reward, food - np.count_nonzero(game.field))
        valid = [np.isin(range(6), [a.value for a in game._valid_actions[p]]) for p in game.players]
        rows.append(
            {
                "action": action,
                "obs": np.stack(obs).reshape(len(obs), -1),
                "reward": reward,
                "done": np.all(done),
                "empty": game.field.sum() == 0,
                "valid": valid,
                "position": after,
            }
        )
    return start, rows


def count_events(events, before, after, reward, eaten):
    pairs = list(combinations(range(len(before)), 2))
    events.update(
        moved=sum(a != b for a, b in zip(before, after, strict=True)),
        entered=sum(a != b and a in before for b, a in zip(before, after, strict=True)),
        swapped=sum(after[i] == before[j] != before[i] == after[j] for i, j in pairs),
        met=sum(after[i] == after[j] for i, j in pairs) > sum(before[i] == before[j] for i, j in pairs),
        eaten=int(eaten),
        eaten_together=int(sum(r > 0 for r in reward) > eaten > 0),
        fined=sum(r < 0 for r in reward),
    )


def play(game, seed):
    """EPISODES x STEPS of the original, and what happened, counted."""
    rng, events = np.random.default_rng(seed), Counter()
    episodes = [episode(game, rng, events) for _ in range(EPISODES)]
    start = jax.tree.map(lambda *x: np.stack(x), *[first for first, _ in episodes])
    columns = {}
    for name in Play._fields[1:]:
        by_episode = [np.stack([row[name] for row in rows]) for _, rows in episodes]
        columns[name] = np.stack(by_episode, axis=1)
    return Play(start, **columns), events
