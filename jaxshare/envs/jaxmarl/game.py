"""A game of jaxmarl by its id, whose own limit is out of reach."""

from __future__ import annotations

import importlib.util
import math
import warnings
from dataclasses import dataclass
from typing import Any, NamedTuple

from jaxshare.envs._jaxmarl import import_jaxmarl, import_registration, lenient
from jaxshare.envs.jaxmarl.ids import BRAX, IDS, LEARNED, REMEDY, ROBOTARIUM
from jaxshare.registry import suggest
from jaxshare.settings.fields import flag, free_table, free_text, time_limit
from jaxshare.types import RefusedError

Game = Any  # jaxmarl's
REFUSALS = (ImportError, TypeError, ValueError, AssertionError, KeyError, AttributeError)


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


class Limited(NamedTuple):
    """A game, and the number of steps of an episode."""

    game: Game
    limit: int


def limited_game(config: Config) -> Limited:
    """The game of an id. Raises RefusedError for one that is unknown or cannot be made."""
    kwargs = _looked_up(config)
    game = _make(config.id, kwargs)
    limit = config.max_steps or _own_limit(game)

    # jaxmarl's own limit is moved out of reach
    if config.id in BRAX:
        ticks = (limit + 1) * game.action_repeat
        kwargs |= {"episode_length": ticks, "auto_reset": False}
        return Limited(_make(config.id, kwargs), limit)
    if hasattr(game, "num_inner_steps"):
        kwargs |= {"num_outer_steps": limit // game.num_inner_steps + 2}
        return Limited(_make(config.id, kwargs), limit)
    if hasattr(game, "max_steps"):
        inner = game._env if hasattr(game, "_env") else game
        inner.max_steps = limit + (config.id != "overcooked")
    return Limited(game, limit)


def _own_limit(game: Game) -> int:
    if hasattr(game, "max_steps"):
        return int(game.max_steps)
    if hasattr(game, "num_inner_steps"):
        return int(game.num_inner_steps * game.num_outer_steps)
    if hasattr(game, "episode_length"):
        return math.ceil(game.episode_length / game.action_repeat)

    # Hanabi: each turn draws a card, or spends a token; tokens come back by discards and by colours
    draws = int(game.deck_size) - game.num_agents * game.hand_size
    tokens = game.max_info_tokens + draws + game.num_colors
    return draws + tokens + 2 * game.num_agents + 2


def _looked_up(config: Config) -> dict[str, Any]:
    """`kwargs`, with the names that jaxmarl wants as objects replaced by them."""
    kwargs = dict(config.kwargs)

    # layouts of overcooked
    name = kwargs.get("layout")
    if config.id == "overcooked" and isinstance(name, str):
        known = import_jaxmarl("overcooked").overcooked_layouts
        if name not in known:
            raise RefusedError(
                f"env.kwargs.layout={name} is not known.{suggest(name, known)} Known: "
                f"{', '.join(known)}."
            )
        kwargs["layout"] = known[name]

    # scenarios of SMAX
    name = kwargs.get("scenario")
    if "SMAX" in config.id and isinstance(name, str):
        smax = import_jaxmarl("smax")
        try:
            kwargs["scenario"] = smax.map_name_to_scenario(name)
        except KeyError:
            raise RefusedError(
                f"env.kwargs.scenario={name} is not known to jaxmarl's SMAX."
            ) from None
    return kwargs


def _make(name: str, kwargs: dict[str, Any]) -> Game:
    if name == LEARNED:
        raise RefusedError(
            f"env.id={name} needs a trained network for the enemy; use env.id=HeuristicEnemySMAX."
        )
    if name not in IDS + BRAX + ROBOTARIUM:
        raise RefusedError(
            f"env.id={name} is not known.{suggest(name, IDS)} Known: {', '.join(IDS)}."
        )

    # whatever jaxmarl says against it
    package = import_registration()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            return lenient(package.make)(name, **kwargs)
    except REFUSALS as error:
        arguments = f" with env.kwargs={kwargs}" if kwargs else ""
        reason = str(error).rstrip(".")
        has_brax = name in BRAX and importlib.util.find_spec("brax") is not None
        remedy = "" if has_brax else REMEDY.get(name, "")
        raise RefusedError(f"env.id={name} cannot be made{arguments}: {reason}.{remedy}") from error
