"""Multi-agent particle environments: spread, tag and speaker-listener, from jaxmarl 0.2.0.

Sources: Lowe et al. 2017 (MADDPG), as rewritten in jaxmarl; its physics, observations and rewards agree with those of
mpe2 to 3e-6 from the same state.

Faithful: physics, start states, observations, rewards.
Departs, on purpose:

* `max_steps` is exact (25 by default, as in mpe2). jaxmarl plays one step more than it is told.
* The only end is the time limit, and that is `truncated`, never `terminated`.
* Observations are padded with zeros, and actions with unavailable ones, to the largest of any agent. In
  speaker-listener the speaker has three actions (words), the listener five (moves).
* tag: the original is a competition, whose prey learns too. Here the predators are the team, all with the same reward,
  and the prey is part of the environment: `prey=flee` takes the move that ends farthest from the nearest predator and
  inside the arena, `prey=random` moves at random. Returns are therefore not those of the competitive game.
* The state is the observations of the agents, one after the other.

spread: each agent pays for its own collisions (share `local_ratio`), all pay for uncovered landmarks (the rest).
Rewards are therefore individual unless `local_ratio` is 0.
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
from jaxshare.registry import suggest
from jaxshare.types import Array, Discrete, Env, EnvSpec, RefusedError, TimeStep

ACTIONS = "discrete"
SCENARIOS = ("spread", "tag", "speaker_listener")
PREYS = ("flee", "random")
DIRECTIONS = (
    (0.0, 0.0),
    (-1.0, 0.0),
    (1.0, 0.0),
    (0.0, -1.0),
    (0.0, 1.0),
)  # what jaxmarl's actions 0 to 4 push towards
NUM_MOVES = len(DIRECTIONS)
REACH = 0.2  # ours: how far ahead the fleeing prey looks; it covers at most 0.13 in one step
ARENA = 1.0  # start states lie within ±1, and the original charges the prey for leaving that square
PICTURE = 1.5  # ours: half the width of the rendered square


@dataclass(frozen=True)
class Config:
    """Settings of the particle environments."""

    scenario: str = "spread"  # ours
    num_agents: int | None = None  # mpe2: 3 agents and landmarks in spread, 3 predators in tag; 2 in speaker_listener
    local_ratio: float = 0.5  # mpe2; spread only: weight of an agent's own collisions, 0 for a purely common reward
    prey: str = "flee"  # ours; tag only: "flee" or "random"
    max_steps: int = 25  # mpe2's max_cycles


def scenarios() -> tuple[str, ...]:
    """Names of the tasks, without importing jaxmarl."""
    return SCENARIOS


def make(config: Config) -> Env:
    """One particle environment. Raises RefusedError for an unknown task or prey and for impossible sizes."""
    _check(config)
    game = _game(config)
    team, spec = _team_and_spec(game, config)
    prey = _prey(game, team, config.prey)
    return Env(
        spec=spec,
        reset=_reset(game, team, spec),
        step=_step(game, team, spec, prey),
        render=_render(game),
    )


def _check(config: Config) -> None:
    for key, value, known in (("scenario", config.scenario, SCENARIOS), ("prey", config.prey, PREYS)):
        if value not in known:
            raise RefusedError(f"env.{key}={value} is not known.{suggest(value, known)} Known: {', '.join(known)}.")
    if config.max_steps < 1:
        raise RefusedError(f"env.max_steps={config.max_steps}: an episode needs at least one step.")
    _num_agents(config)
    if not 0.0 <= config.local_ratio <= 1.0:
        raise RefusedError(f"env.local_ratio={config.local_ratio} must lie between 0 and 1.")


def _num_agents(config: Config) -> int:
    least, usual, most = {"spread": (2, 3, None), "tag": (1, 3, None), "speaker_listener": (2, 2, 2)}[config.scenario]
    n = usual if config.num_agents is None else config.num_agents
    if n < least or (most is not None and n > most):
        bound = f"exactly {least}" if most == least else f"at least {least}"
        raise RefusedError(f"env.num_agents={n}: {config.scenario} needs {bound}.")
    return n


def _game(config: Config) -> Any:
    mpe = import_jaxmarl("mpe")
    limit = config.max_steps - 1  # code: jaxmarl tests the limit before it counts the step
    n = _num_agents(config)
    if config.scenario == "spread":
        return mpe.SimpleSpreadMPE(num_agents=n, num_landmarks=n, local_ratio=config.local_ratio, max_steps=limit)
    if config.scenario == "tag":
        return mpe.SimpleTagMPE(num_adversaries=n, num_good_agents=1, max_steps=limit)
    return mpe.SimpleSpeakerListenerMPE(max_steps=limit)


def _team_and_spec(game: Any, config: Config) -> tuple[list[str], EnvSpec]:
    """The learners' names in jaxmarl, and what is static about the environment."""
    team = list(game.adversaries if config.scenario == "tag" else game.agents)
    # code: the observation sizes that jaxmarl declares for tag hold for 3 predators only
    obs, _ = jax.eval_shape(lenient(game.reset), jax.random.key(0))
    obs_dim = max(obs[agent].shape[0] for agent in team)
    pair = config.scenario == "speaker_listener"
    spec = EnvSpec(
        name=f"mpe/{config.scenario}",
        num_agents=len(team),
        obs_dim=obs_dim,
        state_dim=len(team) * obs_dim,
        action=Discrete(max(game.action_spaces[agent].n for agent in team)),
        episode_limit=config.max_steps,
        groups=(0, 1) if pair else (0,) * len(team),
        group_names=("speaker", "listener") if pair else ("predator",) if config.scenario == "tag" else ("agent",),
        common_reward=config.scenario != "spread" or config.local_ratio == 0.0,
    )
    return team, spec


def _reset(game: Any, team: list[str], spec: EnvSpec) -> Callable[[Array], tuple[Any, TimeStep]]:
    show = _show(game, team, spec)

    @lenient
    def reset(key: Array) -> tuple[Any, TimeStep]:
        obs, state = game.reset(key)
        state = jax.tree.map(lambda x: jax.lax.convert_element_type(x, x.dtype), state)  # its counter is weakly typed
        return state, show(obs, jnp.zeros(spec.num_agents, jnp.float32), jnp.zeros((), bool))

    return reset


def _step(
    game: Any, team: list[str], spec: EnvSpec, prey: Callable[[Any, Array], dict[str, Array]]
) -> Callable[[Any, Array, Array], tuple[Any, TimeStep]]:
    show = _show(game, team, spec)

    @lenient
    def step(state: Any, action: Array, key: Array) -> tuple[Any, TimeStep]:
        key_prey, key_game = jax.random.split(key)
        actions = {agent: action[i] for i, agent in enumerate(team)} | prey(state, key_prey)
        obs, state, rewards, _, _ = game.step_env(key_game, state, actions)
        reward = jnp.stack([rewards[agent] for agent in team]).astype(jnp.float32)
        return state, show(obs, reward, state.step >= spec.episode_limit)

    return step


def _show(game: Any, team: list[str], spec: EnvSpec) -> Callable[[dict[str, Array], Array, Array], TimeStep]:
    assert isinstance(spec.action, Discrete)
    choices = np.array([game.action_spaces[agent].n for agent in team])
    avail = np.arange(spec.action.num_actions)[None, :] < choices[:, None]

    def show(obs: dict[str, Array], reward: Array, truncated: Array) -> TimeStep:
        padded = jnp.stack([jnp.pad(obs[agent], (0, spec.obs_dim - obs[agent].shape[0])) for agent in team])
        return TimeStep(
            obs=padded,
            state=padded.reshape(-1),
            avail=jnp.asarray(avail),
            alive=jnp.ones(spec.num_agents, bool),
            reward=reward,
            terminated=jnp.zeros((), bool),
            truncated=truncated,
            info={},
        )

    return show


def _prey(game: Any, team: list[str], policy: str) -> Callable[[Any, Array], dict[str, Array]]:
    """Actions of whoever is not in the team: (state, key) -> {agent: [] i32}."""
    others = [agent for agent in game.agents if agent not in team]

    def random(state: Any, key: Array) -> dict[str, Array]:
        return {
            agent: jax.random.randint(jax.random.fold_in(key, i), (), 0, NUM_MOVES) for i, agent in enumerate(others)
        }

    def flee(state: Any, key: Array) -> dict[str, Array]:
        predators = state.p_pos[: len(team)]
        return {agent: flee_action(state.p_pos[game.a_to_i[agent]], predators) for agent in others}

    return flee if policy == "flee" else random


def flee_action(position: Array, predators: Array) -> Array:
    """The move that ends farthest from the nearest predator and inside the arena. position [2], predators [P, 2]."""
    ends = position[None] + REACH * jnp.array(DIRECTIONS)
    nearest = jnp.min(jnp.linalg.norm(ends[:, None] - predators[None], axis=-1), axis=1)
    outside = jnp.sum(jnp.maximum(jnp.abs(ends) - ARENA, 0.0), axis=1)
    return jnp.argmax(nearest - 10.0 * outside).astype(
        jnp.int32
    )  # ours: the walls weigh as in the original's 10 per unit


def _render(game: Any) -> Callable[[Any], np.ndarray]:
    radii = np.asarray(game.rad)

    def render(state: Any) -> np.ndarray:
        """The arena as uint8 [300, 300, 3]: agents blue, prey green, landmarks grey (the target of the words red)."""
        positions, goal = np.asarray(state.p_pos), state.goal
        picture = _raster.canvas(-PICTURE, PICTURE)
        colours = [_raster.BLUE] * game.num_agents + [_raster.GREY] * game.num_landmarks
        for agent in getattr(game, "good_agents", ()):
            colours[game.a_to_i[agent]] = _raster.GREEN
        if goal is not None:
            colours[game.num_agents + int(goal)] = _raster.RED
        for i in reversed(range(len(colours))):  # agents over landmarks
            picture.disc(positions[i, 0], positions[i, 1], radii[i], colours[i])
        return picture.image

    return render
