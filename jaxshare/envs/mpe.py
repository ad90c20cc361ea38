"""Multi-agent particle environments: spread, tag, speaker-listener, and the particle tasks of single papers.

Sources: Lowe et al. 2017 (MADDPG). `spread`, `tag` and `speaker_listener` run jaxmarl 0.2.0's code; its physics,
observations and rewards agree with those of mpe2 to 3e-6 from the same state. The others run on own code for the same
physics (`_particle`).

Faithful in `spread`, `tag`, `speaker_listener`: physics, start states, observations, rewards.
Departs, on purpose:

* `max_steps` is exact (25 by default, as in mpe2). jaxmarl plays one step more than it is told.
* The only end is the time limit, and that is `truncated`, never `terminated` (but for the catch in `sparse_tag`).
* Observations are padded with zeros, and actions with unavailable ones, to the largest of any agent. In
  speaker-listener the speaker has three actions (words), the listener five (moves).
* tag: the original is a competition, whose prey learns too. Here the predators are the team, all with the same reward,
  and the prey is part of the environment: `prey=flee` takes the move that ends farthest from the nearest predator and
  inside the arena, `prey=random` moves at random. Returns are therefore not those of the competitive game.
* The state is the observations of the agents, one after the other.

spread: each agent pays for its own collisions (share `local_ratio`), all pay for uncovered landmarks (the rest).
Rewards are therefore individual unless `local_ratio` is 0.

`pred_prey_3a`, `pred_prey_6a`, `pred_prey_9a`: FACMAC's predator-prey, the one task here with continuous actions (two
numbers per agent); see `_pred_prey`. `prey=flee` is FACMAC's prey.

`sparse_tag`: the sparse predator-prey of SEAC (Christianos et al. 2020). paper: three predators, a slowly moving prey;
"if at least two predators are adjacent to the prey, then they succeed and each receive a reward of one"; agents pay for
leaving the map; all else is 0; individual rewards. Its best policies return 1.93 and 2.04, its untrained ones about
-0.04, sums over the predators. No code was published. ours:

* "They" are the adjacent ones, and success ends the episode (`terminated`): so the best returns lie between 2 and 3.
* Adjacent means that less than `catch_distance` lies between the two bodies.
* A predator pays `boundary_penalty` for every step that it ends outside the map (a coordinate beyond ±1), and nothing
  inside. Predators and prey start within ±0.7, so that leaving the map takes a few steps.
* Bodies, obstacles and observations are those of tag. Speeds are at most `predator_speed` and `prey_speed`.
* Distance, charge and the prey's speed were chosen by what scripted predators return and by whether SEAC learns
  (`tests/envs/hunters.py`): random play -0.08, standing still 0.03, a straight chase 1.9. With a distance of 0.1 and
  a prey of 0.5, catches before any learning are nearly all given by the start, and in 1.5 million steps SEAC learned to
  stay inside and nothing else.
* The prey of the paper was trained with MADDPG and dense rewards to avoid the predators; this one follows `prey`: by
  default tag's rule, which looks one move ahead, away from the nearest predator, and keeps off the edge.
* `info` says whether there was a catch (`caught`).

`sparse_tag_dense_penalty`: what was called sparse_tag before. The same, except that every predator gets +1 on every
step with a catch, nothing ends an episode but the limit, all start anywhere in the map, and a predator pays
simple_tag's charge: 0 up to 0.9 from the centre line, 1 at 1.0, more outside. That charge outweighs all there is to
win: standing still returns about -11, and who catches the prey on 2.6 steps of an episode still has -7. Its distance
(0.1), charge and speeds (1 and 0.5) are fixed.

`CN_3ls3l`, `CN_4ls4l`: cooperative navigation of SIT (Tian et al. 2023). paper: spread with three or four agents and
as many landmarks; an agent sees itself, one other agent and two landmarks. ours: those are the nearest ones (agent,
then landmarks, the nearest first). All receive the sum over the agents of what each earned in the first version of
spread, unweighted, without the constant -1 that it charged an agent for touching itself: only then are the returns that
the paper reports possible (-37 for its best policy). It is twice the sum of what `spread` gives with `local_ratio` 0.5.

`PP_3p1p`: the predator-prey of SIT. paper: three slower predators, one faster prey that always moves straight away from
the nearest predator (`prey=flee`; nothing keeps it in the arena); a predator sees itself, one other predator and the
prey. ours: the nearest other; the prey's velocity is seen, tag's two obstacles are there and are not. The reward is not
in the paper, only that returns are negative: all receive - (sum of the predators' distances to the prey) + 10 for each
predator that touches it. Random play returns -156 here and about -270 there (it returns -159 and -244 in the two
navigations, inside the paper's ranges): compare methods on this task, not numbers with the paper.

In the tasks of SIT the state is the whole world (all velocities, positions and landmarks).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxshare.envs import _particle_tasks, _pred_prey, _raster
from jaxshare.envs._jaxmarl import import_jaxmarl, lenient
from jaxshare.envs._particle import NUM_MOVES, PICTURE, flee_action
from jaxshare.settings.fields import static, time_limit
from jaxshare.settings.validate import check_record
from jaxshare.types import Array, Discrete, Env, EnvSpec, RefusedError, TimeStep

ACTIONS = "discrete or continuous"
FROM_JAXMARL = ("spread", "tag", "speaker_listener")
HUNTS = {
    "sparse_tag": _particle_tasks.sparse_tag,
    "sparse_tag_dense_penalty": _particle_tasks.sparse_tag_dense_penalty,
}
SCENARIOS = (*FROM_JAXMARL, *HUNTS, *_particle_tasks.SEEKERS, "PP_3p1p", *_pred_prey.SIZES)
PREYS = ("flee", "random")
AGENTS = 100  # ours: they are traced one by one


@dataclass(frozen=True)
class Config:
    """Settings of the particle environments."""

    scenario: str = static("spread", choices=SCENARIOS, help="which task", source="ours")
    num_agents: int | None = static(
        None,
        least=1,
        most=AGENTS,
        help="agents; null: 3 in spread, tag and sparse_tag*; fixed in all others",
        source="code: mpe2; SEAC in sparse_tag*",
    )
    local_ratio: float = static(
        0.5,
        least=0,
        most=1,
        help="weight of an agent's own collisions, 0 for a purely common reward; spread only",
        source="code: mpe2",
    )
    prey: str = static(
        "flee",
        choices=PREYS,
        help="how prey moves: it flees, by rules of the task's authors, or at random",
        source="ours in tag and sparse_tag*; FACMAC's in pred_prey_*; SIT's in PP_3p1p",
    )
    view_radius: float = static(
        1.5,
        least=0,
        note="It is a distance: 1e9 to see all.",
        help="an agent sees what is no farther than this; pred_prey_* only",
        source="code: FACMAC",
    )
    catch_distance: float = static(
        0.15,
        least=0,
        help="distance between the bodies of adjacent ones; sparse_tag only",
        source="ours",
    )
    boundary_penalty: float = static(
        0.05,
        least=0,
        help="what each step costs that a predator ends outside the map; sparse_tag only",
        source="ours",
    )
    predator_speed: float = static(
        1.0,
        least=0,
        help="largest speed of predators; sparse_tag only",
        source="code: mpe2's simple_tag",
    )
    prey_speed: float = static(
        0.3,
        least=0,
        help="largest speed of prey; sparse_tag only",
        source='ours; paper: SEAC, "slowly moving"',
    )
    max_steps: int = time_limit(25, source="code: mpe2's max_cycles, and FACMAC's limit")


def scenarios() -> tuple[str, ...]:
    """Names of the tasks, without importing jaxmarl."""
    return SCENARIOS


def make(config: Config) -> Env:
    """One particle environment. Raises RefusedError for an unknown task or prey and for impossible sizes."""
    _check(config)
    if config.scenario not in FROM_JAXMARL:
        return _own(config)
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
    check_record(config, "env.")
    _num_agents(config)


def _own(config: Config) -> Env:
    if config.scenario in _pred_prey.SIZES:
        return _pred_prey.make(config.scenario, config.view_radius, config.prey, config.max_steps)
    if config.scenario in _particle_tasks.SEEKERS:
        return _particle_tasks.navigation(config.scenario, config.max_steps)
    if config.scenario == "PP_3p1p":
        return _particle_tasks.pursuit(config.prey, config.max_steps)
    hunt = _particle_tasks.Hunt(_num_agents(config), config.prey, config.max_steps)
    if config.scenario == "sparse_tag":
        hunt = replace(
            hunt,
            distance=config.catch_distance,
            penalty=config.boundary_penalty,
            predator_speed=config.predator_speed,
            prey_speed=config.prey_speed,
        )
    return HUNTS[config.scenario](hunt)


def _num_agents(config: Config) -> int:
    open_ended = {
        "spread": (2, 3, None),
        "tag": (1, 3, None),
        **dict.fromkeys(HUNTS, (_particle_tasks.NEEDED, 3, None)),
    }
    sizes = {"speaker_listener": 2, "PP_3p1p": 3} | _particle_tasks.SEEKERS | _pred_prey.SIZES
    fixed = {name: (size, size, size) for name, size in sizes.items()}
    least, usual, most = (open_ended | fixed)[config.scenario]
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
        return mpe.SimpleSpreadMPE(
            num_agents=n, num_landmarks=n, local_ratio=config.local_ratio, max_steps=limit
        )
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
        group_names=("speaker", "listener")
        if pair
        else ("predator",)
        if config.scenario == "tag"
        else ("agent",),
        common_reward=config.scenario != "spread" or config.local_ratio == 0.0,
    )
    return team, spec


def _reset(game: Any, team: list[str], spec: EnvSpec) -> Callable[[Array], tuple[Any, TimeStep]]:
    show = _show(game, team, spec)

    @lenient
    def reset(key: Array) -> tuple[Any, TimeStep]:
        obs, state = game.reset(key)
        state = jax.tree.map(
            lambda x: jax.lax.convert_element_type(x, x.dtype), state
        )  # its counter is weakly typed
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


def _show(
    game: Any, team: list[str], spec: EnvSpec
) -> Callable[[dict[str, Array], Array, Array], TimeStep]:
    assert isinstance(spec.action, Discrete)
    choices = np.array([game.action_spaces[agent].n for agent in team])
    avail = np.arange(spec.action.num_actions)[None, :] < choices[:, None]

    def show(obs: dict[str, Array], reward: Array, truncated: Array) -> TimeStep:
        padded = jnp.stack(
            [jnp.pad(obs[agent], (0, spec.obs_dim - obs[agent].shape[0])) for agent in team]
        )
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
            agent: jax.random.randint(jax.random.fold_in(key, i), (), 0, NUM_MOVES)
            for i, agent in enumerate(others)
        }

    def flee(state: Any, key: Array) -> dict[str, Array]:
        predators = state.p_pos[: len(team)]
        return {agent: flee_action(state.p_pos[game.a_to_i[agent]], predators) for agent in others}

    return flee if policy == "flee" else random


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
