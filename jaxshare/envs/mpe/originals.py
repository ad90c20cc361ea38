"""Spread, tag and speaker-listener: jaxmarl's own games.

Source: jaxmarl 0.2.0; see `environment`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxshare.envs import _raster
from jaxshare.envs._jaxmarl import import_jaxmarl, lenient
from jaxshare.envs.base import team_spec, time_step
from jaxshare.envs.mpe.particles import NUM_MOVES
from jaxshare.envs.mpe.picture import HALF_WIDTH
from jaxshare.envs.mpe.prey import flee_action
from jaxshare.envs.mpe.settings import Config
from jaxshare.types import Array, Discrete, Env, EnvSpec, TimeStep

Game = Any  # jaxmarl's
State = Any  # its
Prey = Callable[[State, Array], dict[str, Array]]  # (state, key) -> {name: [] i32}
GROUPS = {"tag": ("predator",), "speaker_listener": ("speaker", "listener")}


@dataclass(frozen=True)
class Team:
    """The learners of a game."""

    game: Game
    names: list[str]  # in jaxmarl
    spec: EnvSpec


def make(config: Config, num_agents: int) -> Env:
    """One of jaxmarl's games, whose prey is part of it."""
    game = _game(config, num_agents)
    team = _team(game, config)
    show = _showing(team)
    move_prey = prey_moves(game, team.names, config.prey)

    # traced with what jaxmarl's code needs
    @lenient
    def reset(key: Array) -> tuple[State, TimeStep]:
        obs, state = game.reset(key)

        # its counter is weakly typed
        state = jax.tree.map(lambda x: jax.lax.convert_element_type(x, x.dtype), state)
        return state, show(obs, state, jnp.zeros(team.spec.num_agents))

    @lenient
    def step(state: State, action: Array, key: Array) -> tuple[State, TimeStep]:
        key_prey, key_game = jax.random.split(key)
        moves = {agent: action[i] for i, agent in enumerate(team.names)}
        actions = moves | move_prey(state, key_prey)
        obs, state, rewards, _, _ = game.step_env(key_game, state, actions)
        reward = jnp.stack([rewards[agent] for agent in team.names])
        return state, show(obs, state, reward)

    return Env(team.spec, reset, step, render=_painting(game))


def _game(config: Config, num_agents: int) -> Game:
    mpe = import_jaxmarl("mpe")
    limit = config.max_steps - 1  # code: jaxmarl tests the limit before it counts the step
    if config.scenario == "spread":
        return mpe.SimpleSpreadMPE(
            num_agents=num_agents,
            num_landmarks=num_agents,
            local_ratio=config.local_ratio,
            max_steps=limit,
        )
    if config.scenario == "tag":
        return mpe.SimpleTagMPE(num_adversaries=num_agents, num_good_agents=1, max_steps=limit)
    return mpe.SimpleSpeakerListenerMPE(max_steps=limit)


def _team(game: Game, config: Config) -> Team:
    names = list(game.adversaries if config.scenario == "tag" else game.agents)
    num_agents = len(names)

    # code: the observation sizes that jaxmarl declares for tag hold for 3 predators only
    obs, _ = jax.eval_shape(lenient(game.reset), jax.random.key(0))
    obs_dim = max(obs[agent].shape[0] for agent in names)
    num_actions = max(game.action_spaces[agent].n for agent in names)
    group_names = GROUPS.get(config.scenario, ("agent",))
    groups = (0,) * num_agents if len(group_names) == 1 else (0, 1)

    # in spread a share of the reward is an agent's alone
    common_reward = config.scenario != "spread" or config.local_ratio == 0.0
    name = f"mpe/{config.scenario}"
    spec = team_spec(
        name,
        num_agents,
        obs_dim=obs_dim,
        action=Discrete(num_actions),
        episode_limit=config.max_steps,
        groups=groups,
        group_names=group_names,
        common_reward=common_reward,
    )
    return Team(game, names, spec)


def _showing(team: Team) -> Callable[[dict[str, Array], State, Array], TimeStep]:
    """A function of observations, state and rewards [N]."""
    spec = team.spec
    assert isinstance(spec.action, Discrete)
    choices = np.array([team.game.action_spaces[agent].n for agent in team.names])
    avail = np.arange(spec.action.num_actions)[None, :] < choices[:, None]

    def show(obs: dict[str, Array], state: State, reward: Array) -> TimeStep:
        rows = []
        for agent in team.names:
            missing = spec.obs_dim - obs[agent].shape[0]
            rows.append(jnp.pad(obs[agent], (0, missing)))
        return time_step(spec, jnp.stack(rows), time=state.step, reward=reward, avail=avail)

    return show


def prey_moves(game: Game, team: list[str], policy: str) -> Prey:
    """Moves of whoever is not in the team."""
    others = [agent for agent in game.agents if agent not in team]

    def random(state: State, key: Array) -> dict[str, Array]:
        keys = [jax.random.fold_in(key, i) for i in range(len(others))]
        moves = [jax.random.randint(key, (), 0, NUM_MOVES) for key in keys]
        return dict(zip(others, moves, strict=True))

    def flee(state: State, key: Array) -> dict[str, Array]:
        predators = state.p_pos[: len(team)]
        return {agent: flee_action(state.p_pos[game.a_to_i[agent]], predators) for agent in others}

    return flee if policy == "flee" else random


def _painting(game: Game) -> Callable[[State], np.ndarray]:
    """The painter of a game."""
    radii = np.asarray(game.rad)
    colours = [_raster.BLUE] * game.num_agents + [_raster.GREY] * game.num_landmarks
    for agent in getattr(game, "good_agents", ()):
        colours[game.a_to_i[agent]] = _raster.GREEN

    def paint(state: State) -> np.ndarray:
        """The arena as uint8 [300, 300, 3]: agents blue, prey green, landmarks grey.

        The target of the words is red.
        """
        positions = np.asarray(state.p_pos)
        now = list(colours)
        if state.goal is not None:
            now[game.num_agents + int(state.goal)] = _raster.RED
        picture = _raster.canvas(-HALF_WIDTH, HALF_WIDTH)
        for i in reversed(range(len(now))):  # agents over landmarks
            x, y = positions[i]
            picture.disc(x, y, radii[i], now[i])
        return picture.image

    return paint
