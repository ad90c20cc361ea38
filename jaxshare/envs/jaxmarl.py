"""Any environment of jaxmarl 0.2.0, by its id: `env=jaxmarl env.id=overcooked`.

Source: jaxmarl (Rutherford et al. 2023), stepped by its non-resetting `step_env`. For SMAX and the particle tasks
prefer `env=smax` and `env=mpe`, which know more about them (wins, normalised state, scripted prey).

Faithful: dynamics, start states, observations, rewards, available actions; all are jaxmarl's own.
Departs, on purpose:

* Every agent that jaxmarl names is a learner, opponents too (`MPE_simple_tag_v3`, `SMAX`): there the sum of the
  rewards says little.
* Observations are flattened (images too) and padded with zeros to the largest of any agent.
* Discrete actions are masked: by jaxmarl's masks where it has them (SMAX, and Hanabi's legal moves), else up to each
  agent's number. Continuous ones are padded to the largest size and clipped; where two agents' bounds differ,
  the action lies in [-1, 1] and is scaled to each agent's box. An id with both kinds is refused.
* The state is jaxmarl's `world_state` if it has one number list for all (SMAX: raw), else the observations in a row.
* Agents are of one type if their names agree but for the number, and their sizes too.
* `alive` is false for the dead of SMAX and for the gone of jaxnav with `evaporating`; all others always live.
* `max_steps` is exact. jaxmarl's own limit is moved out of reach (but for overcooked, whose observations count down to
  it and which has no other end), so that what it still calls done is a terminal state; the limit of this module is
  `truncated`. None takes jaxmarl's number (MPE 25, SMAX 100, overcooked 400, jaxnav 500, switch_riddle 4N-6, coin_game
  100, storm 152, brax 1000). Hanabi has none: None takes a number of turns that no game can reach.
* coin_game and storm are chains of inner games, which start anew by themselves: the observation after the last step of
  one is the first of the next. jaxmarl pays nothing on that step.
* `common_reward=True` gives every agent the sum; ids whose agents share one reward anyway stay as they are.
* `kwargs` goes to `jaxmarl.make`; the names of an overcooked layout and of a SMAX scenario are looked up.
* `render` draws the observations, not the world: jaxmarl's painters need whole sequences of states, or a display.

Not here: `LearnedPolicyEnemySMAX` (needs a network), and what needs another package: `ant_4x2`, `halfcheetah_6x1`,
`hopper_3x1`, `humanoid_9|8`, `walker2d_2x3` (brax: they work once it is installed, though they are not listed; jaxmarl
maps the observations of halfcheetah and humanoid wrongly) and `JaxRobotarium_*`. The `MPE_simple_facmac*` ids run, but
with five faults: prefer `env=mpe env.scenario=pred_prey_3a`.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxshare.envs import _raster
from jaxshare.envs._jaxmarl import import_jaxmarl, import_registration, lenient
from jaxshare.envs.hosted.errors import is_here
from jaxshare.registry import suggest
from jaxshare.settings.fields import flag, free_table, free_text, time_limit
from jaxshare.settings.validate import check_record
from jaxshare.types import Array, Box, Discrete, Env, EnvSpec, RefusedError, TimeStep

ACTIONS = "discrete or continuous"
IDS = (
    "switch_riddle",
    "hanabi",
    "overcooked",
    "overcooked_v2",
    "coin_game",
    "storm",
    "storm_2p",
    "storm_np",
    "jaxnav",
    "SMAX",
    "HeuristicEnemySMAX",
    "MPE_simple_v3",
    "MPE_simple_tag_v3",
    "MPE_simple_world_comm_v3",
    "MPE_simple_spread_v3",
    "MPE_simple_crypto_v3",
    "MPE_simple_speaker_listener_v4",
    "MPE_simple_push_v3",
    "MPE_simple_adversary_v3",
    "MPE_simple_reference_v3",
    "MPE_simple_facmac_v1",
    "MPE_simple_facmac_3a_v1",
    "MPE_simple_facmac_6a_v1",
    "MPE_simple_facmac_9a_v1",
)
BRAX = ("ant_4x2", "halfcheetah_6x1", "hopper_3x1", "humanoid_9|8", "walker2d_2x3")
ROBOTARIUM = (
    "JaxRobotarium_navigation",
    "JaxRobotarium_discovery",
    "JaxRobotarium_material_transport",
    "JaxRobotarium_warehouse",
    "JaxRobotarium_arctic_transport",
    "JaxRobotarium_foraging",
    "JaxRobotarium_rware",
    "JaxRobotarium_predator_prey",
)
LEARNED = "LearnedPolicyEnemySMAX"
SHARED_REWARD = (
    "switch_riddle",
    "hanabi",
    "overcooked",
    "overcooked_v2",
    "HeuristicEnemySMAX",
    "MPE_simple_v3",
    "MPE_simple_speaker_listener_v4",
    *BRAX,
)
REMEDY = dict.fromkeys(BRAX, " Remedy: pip install 'jaxmarl[mabrax]'") | dict.fromkeys(
    ROBOTARIUM, " Remedy: install the submodules of jaxmarl from a checkout of its source"
)


@dataclass(frozen=True)
class Config:
    """Settings of any jaxmarl environment."""

    id: str = free_text("switch_riddle", help="which environment", source="ours: the smallest")
    max_steps: int | None = time_limit(
        None,
        help="most steps of an episode; null: jaxmarl's own limit",
    )
    common_reward: bool = flag(
        False,
        help="every agent receives the sum; false: each its own",
        source="code: jaxmarl",
    )
    kwargs: dict[str, Any] = free_table(help="for jaxmarl.make, as in env.kwargs={num_agents:5}")


@struct.dataclass
class State:
    """jaxmarl's state, the steps made, and what the agents saw (for `render`)."""

    game: Any
    step: Array  # [] i32
    obs: Array  # [N, O] f32


@dataclass(frozen=True)
class Facts:
    """What is static about a game, and how its parts are read."""

    game: Any
    spec: EnvSpec
    decode: Callable[[Array], list[Array]]  # action -> one per agent, as the game wants it
    choices: tuple[int, ...]  # number of actions of each agent; empty for continuous ones
    mask: Callable[[Any], dict[Any, Array]] | None  # game state -> available actions
    whole: Callable[[Any, Any], Array] | None  # (obs, game state) -> global state
    template: Any  # shapes and types of the game's state
    share: bool  # every agent receives the sum of the rewards
    mortal: bool  # an agent's own `done` means that it is dead
    terminal: bool  # `done` of all means a terminal state


def scenarios() -> tuple[str, ...]:
    """Ids that can be made with jaxmarl alone, without importing it."""
    return IDS


def make(config: Config) -> Env:
    """The environment with this id. Raises RefusedError for one that is unknown or cannot be made."""
    facts = _facts(config)
    return Env(spec=facts.spec, reset=_reset(facts), step=_step(facts), render=_render)


def _facts(config: Config) -> Facts:
    check_record(config, "env.")
    game, limit = _game(config)
    obs, state = jax.eval_shape(lenient(game.reset), jax.random.key(0))
    sizes = [view.shape[0] for view in jax.eval_shape(lambda o: _views(game, o), obs)]
    spaces = [game.action_space(agent) for agent in game.agents]
    action, decode, choices = _actions(config.id, spaces)
    whole = _whole(game, obs, state)
    groups, group_names = _groups(
        game.agents, [(size, _width(space)) for size, space in zip(sizes, spaces, strict=True)]
    )
    shared = config.id in SHARED_REWARD
    spec = EnvSpec(
        name=f"jaxmarl/{config.id}",
        num_agents=len(game.agents),
        obs_dim=max(sizes),
        state_dim=len(game.agents) * max(sizes)
        if whole is None
        else jax.eval_shape(whole, obs, state).shape[0],
        action=action,
        episode_limit=limit,
        groups=groups,
        group_names=group_names,
        common_reward=shared or config.common_reward,
    )
    return Facts(
        game=game,
        spec=spec,
        decode=decode,
        choices=choices,
        mask=_mask(game, state) if choices else None,
        whole=whole,
        template=state,
        share=config.common_reward and not shared,
        mortal="SMAX" in config.id or bool(getattr(game, "evaporating", False)),
        terminal=config.id != "overcooked",
    )


def _game(config: Config) -> tuple[Any, int]:
    """The game, its own limit out of reach, and the number of steps of an episode."""
    kwargs = _looked_up(config)
    game = _made(config.id, kwargs)
    limit = config.max_steps or _own_limit(game)
    if config.id in BRAX:
        ticks = (limit + 1) * game.action_repeat
        return _made(config.id, kwargs | {"episode_length": ticks, "auto_reset": False}), limit
    if hasattr(game, "num_inner_steps"):
        return _made(
            config.id, kwargs | {"num_outer_steps": limit // game.num_inner_steps + 2}
        ), limit
    if hasattr(game, "max_steps"):
        getattr(game, "_env", game).max_steps = limit + (config.id != "overcooked")
    return game, limit


def _own_limit(game: Any) -> int:
    if hasattr(game, "max_steps"):
        return int(game.max_steps)
    if hasattr(game, "num_inner_steps"):
        return int(game.num_inner_steps * game.num_outer_steps)
    if hasattr(game, "episode_length"):
        return math.ceil(game.episode_length / game.action_repeat)
    # Hanabi: each turn draws a card, or spends a token; tokens come back by discards and by finished colours
    draws = int(game.deck_size) - game.num_agents * game.hand_size
    return draws + (game.max_info_tokens + draws + game.num_colors) + 2 * game.num_agents + 2


def _looked_up(config: Config) -> dict[str, Any]:
    """`kwargs`, with the names that jaxmarl wants as objects replaced by them."""
    kwargs = dict(config.kwargs)
    if config.id == "overcooked" and isinstance(kwargs.get("layout"), str):
        known = import_jaxmarl("overcooked").overcooked_layouts
        name = kwargs["layout"]
        if name not in known:
            raise RefusedError(
                f"env.kwargs.layout={name} is not known.{suggest(name, known)} Known: {', '.join(known)}."
            )
        kwargs["layout"] = known[name]
    if "SMAX" in config.id and isinstance(kwargs.get("scenario"), str):
        smax = import_jaxmarl("smax")
        try:
            kwargs["scenario"] = smax.map_name_to_scenario(kwargs["scenario"])
        except KeyError:
            raise RefusedError(
                f"env.kwargs.scenario={kwargs['scenario']} is not known to jaxmarl's SMAX."
            ) from None
    return kwargs


def _made(name: str, kwargs: dict[str, Any]) -> Any:
    if name == LEARNED:
        raise RefusedError(
            f"env.id={name} needs a trained network for the enemy; use env.id=HeuristicEnemySMAX."
        )
    if name not in IDS + BRAX + ROBOTARIUM:
        raise RefusedError(
            f"env.id={name} is not known.{suggest(name, IDS)} Known: {', '.join(IDS)}."
        )
    package = import_registration()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            return lenient(package.make)(name, **kwargs)
    except (ImportError, TypeError, ValueError, AssertionError, KeyError, AttributeError) as error:
        given = f" with env.kwargs={kwargs}" if kwargs else ""
        reason = str(error).rstrip(".")
        remedy = "" if name in BRAX and is_here("brax") else REMEDY.get(name, "")
        raise RefusedError(f"env.id={name} cannot be made{given}: {reason}.{remedy}") from error


def _width(space: Any) -> int:
    """How many actions, or how many numbers one action has."""
    return int(np.prod(space.shape)) if hasattr(space, "low") else int(getattr(space, "n", 0))


def _actions(
    name: str, spaces: Sequence[Any]
) -> tuple[Discrete | Box, Callable[[Array], list[Array]], tuple[int, ...]]:
    """The common action space, its translation, and the number of choices of each agent (none if continuous)."""
    kinds = {type(space).__name__ for space in spaces}
    if kinds == {"Discrete"}:
        choices = tuple(_width(space) for space in spaces)
        return Discrete(max(choices)), list, choices
    if kinds != {"Box"}:
        raise RefusedError(
            f"env.id={name} has {' and '.join(sorted(kinds))} actions; Discrete or Box for all is needed."
        )
    lows, highs = ([_bounds(space, side) for space in spaces] for side in ("low", "high"))
    if not np.isfinite(np.concatenate(lows + highs)).all():
        raise RefusedError(
            f"env.id={name} has actions without bounds, which cannot be scaled or explored."
        )
    dim = max(len(low) for low in lows)
    pairs = [
        {(low[k], high[k]) for low, high in zip(lows, highs, strict=True) if k < len(low)}
        for k in range(dim)
    ]
    same = all(len(found) == 1 for found in pairs)
    common = [found.pop() for found in pairs] if same else [(-1.0, 1.0)] * dim
    box = Box(dim, tuple(float(low) for low, _ in common), tuple(float(high) for _, high in common))

    def decode(action: Array) -> list[Array]:
        given = jnp.clip(
            action, np.array(box.low, np.float32)[None], np.array(box.high, np.float32)[None]
        )
        parts = []
        for i, (low, high) in enumerate(zip(lows, highs, strict=True)):
            part = given[i, : len(low)]
            parts.append(
                (part if same else low + (part + 1) / 2 * (high - low)).reshape(spaces[i].shape)
            )
        return parts

    return box, decode, ()


def _bounds(space: Any, side: str) -> np.ndarray:
    return np.broadcast_to(np.asarray(getattr(space, side), np.float32), space.shape).reshape(-1)


def _groups(
    agents: Sequence[Any], sizes: Sequence[tuple[int, int]]
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Agents with the same name but for the number, and the same sizes, are of one type."""
    kinds = [
        (re.sub(r"_?\d+$", "", str(agent)) or "agent", *size)
        for agent, size in zip(agents, sizes, strict=True)
    ]
    present = list(dict.fromkeys(kinds))
    stems = [kind[0] for kind in present]
    names = [stem if stems.count(stem) == 1 else f"{stem}_{i}" for i, stem in enumerate(stems)]
    return tuple(present.index(kind) for kind in kinds), tuple(names)


def _mask(game: Any, state: Any) -> Callable[[Any], dict[Any, Array]] | None:
    for name in ("get_avail_actions", "get_legal_moves"):
        method = getattr(game, name, None)
        if method is None:
            continue
        try:
            jax.eval_shape(lenient(method), state)
        except NotImplementedError:
            continue
        return method
    return None


def _whole(game: Any, obs: Any, state: Any) -> Callable[[Any, Any], Array] | None:
    """Where the global state comes from, if jaxmarl has one that is a single list of numbers."""
    if isinstance(obs, dict) and "world_state" in obs:
        return lambda obs, state: obs["world_state"].astype(jnp.float32)
    method = getattr(game, "get_world_state", None)
    if method is None:
        return None
    offered = jax.eval_shape(lenient(method), state)
    if not isinstance(offered, jax.ShapeDtypeStruct) or len(offered.shape) != 1:
        return None
    return lambda obs, state: method(state).astype(jnp.float32)


def _views(game: Any, obs: Any) -> list[Array]:
    """What each agent sees, flattened."""
    if (
        isinstance(obs, dict) and game.agents[0] not in obs
    ):  # code: storm: one picture each, and a table of inventories
        table = obs[
            "inventory"
        ]  # [5, N]: own red, own blue, ready, and the two that the frozen show
        shown = table[3:].reshape(-1)
        views = [(obs["observations"][i], table[:, i], shown) for i in range(len(game.agents))]
    elif isinstance(obs, dict):
        views = [obs[agent] for agent in game.agents]
    else:
        views = [obs[i] for i in range(len(game.agents))]
    return [
        jnp.concatenate([x.reshape(-1).astype(jnp.float32) for x in jax.tree.leaves(view)])
        for view in views
    ]


def _reset(facts: Facts) -> Callable[[Array], tuple[State, TimeStep]]:
    n = facts.spec.num_agents

    @lenient
    def reset(key: Array) -> tuple[State, TimeStep]:
        obs, state = facts.game.reset(key)
        no = jnp.zeros((), bool)
        start = State(
            game=_typed(facts.template, state),
            step=jnp.zeros((), jnp.int32),
            obs=_padded(facts, obs),
        )
        return start, _show(facts, start, obs, jnp.zeros(n, jnp.float32), jnp.ones(n, bool), no)

    return reset


def _step(facts: Facts) -> Callable[[State, Array, Array], tuple[State, TimeStep]]:
    agents, n = facts.game.agents, facts.spec.num_agents

    @lenient
    def step(state: State, action: Array, key: Array) -> tuple[State, TimeStep]:
        parts = facts.decode(action)
        # code: storm_2p unpacks its actions, and from a dictionary it would get the keys
        actions = (
            tuple(parts)
            if facts.spec.name == "jaxmarl/storm_2p"
            else dict(zip(agents, parts, strict=True))
        )
        obs, game, rewards, dones, _ = facts.game.step_env(key, state.game, actions)
        each = [
            rewards[agent] if isinstance(rewards, dict) else rewards[i]
            for i, agent in enumerate(agents)
        ]
        reward = jnp.stack([jnp.asarray(r, jnp.float32).reshape(()) for r in each])
        if facts.share:
            reward = jnp.broadcast_to(jnp.sum(reward), (n,))
        alive = (
            ~jnp.stack([dones[agent] for agent in agents]) if facts.mortal else jnp.ones(n, bool)
        )
        terminated = (
            dones["__all__"].astype(bool).reshape(()) if facts.terminal else jnp.zeros((), bool)
        )
        state = State(
            game=_typed(facts.template, game), step=state.step + 1, obs=_padded(facts, obs)
        )
        return state, _show(facts, state, obs, reward, alive, terminated)

    return step


def _show(
    facts: Facts, state: State, obs: Any, reward: Array, alive: Array, terminated: Array
) -> TimeStep:
    return TimeStep(
        obs=state.obs,
        state=state.obs.reshape(-1) if facts.whole is None else facts.whole(obs, state.game),
        avail=_available(facts, state.game),
        alive=alive,
        reward=reward,
        terminated=terminated,
        truncated=~terminated & (state.step >= facts.spec.episode_limit),
        info={},
    )


def _available(facts: Facts, game_state: Any) -> Array:
    if not facts.choices:
        return jnp.zeros((facts.spec.num_agents, 0), bool)
    most = max(facts.choices)
    if facts.mask is None:
        return jnp.asarray(np.arange(most)[None] < np.array(facts.choices)[:, None])
    masks = facts.mask(game_state)
    rows = [jnp.asarray(masks[agent]).astype(bool) for agent in facts.game.agents]
    return jnp.stack([jnp.pad(row, (0, most - row.shape[0])) for row in rows])


def _padded(facts: Facts, obs: Any) -> Array:
    views = _views(facts.game, obs)
    return jnp.stack([jnp.pad(view, (0, facts.spec.obs_dim - view.shape[0])) for view in views])


def _typed(template: Any, state: Any) -> Any:
    """`state` with the types of the first one, none of them weak, as a scan asks of its carry."""

    def convert(want: Any, x: Any) -> Array:
        return (
            x
            if jnp.issubdtype(want.dtype, jax.dtypes.prng_key)
            else jax.lax.convert_element_type(x, want.dtype)
        )

    return jax.tree.map(convert, template, state)


def _render(state: State) -> np.ndarray:
    """What the agents see as uint8 [300, 300, 3]: a band for each from top to bottom, one cell for each number.

    White is 0, blue is positive, red is negative; the strongest colour is the largest number, or 1.
    """
    picture = _raster.canvas(0.0, 1.0).image
    obs = np.asarray(state.obs, np.float64)
    bands = np.array_split(np.arange(picture.shape[0]), len(obs))
    for rows, view in zip(bands, obs / max(1.0, np.abs(obs).max()), strict=True):
        across = math.ceil(math.sqrt(len(view) * picture.shape[1] / len(rows)))
        down = math.ceil(len(view) / across)
        cells = np.zeros((down, across))
        cells.reshape(-1)[: len(view)] = view
        y, x = (
            np.arange(len(rows)) * down // len(rows),
            np.arange(picture.shape[1]) * across // picture.shape[1],
        )
        strength = cells[y][:, x]
        colour = np.where(strength[..., None] > 0, np.array(_raster.BLUE), np.array(_raster.RED))
        picture[rows] = (255 + np.abs(strength)[..., None] * (colour - 255)).astype(np.uint8)
        picture[rows[-1]] = _raster.GREY  # between two agents
    return picture
