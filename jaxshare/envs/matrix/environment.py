"""Small games with known values: one-step matrix games, the two-step game, and a memory probe.

Matrix games have one step, a constant observation and a constant state; entry [i][j] is paid when
the first agent plays i and the second j. `env.game=custom env.payoff=[[1,5],[5,9]]` plays any
table; its depth is the number of agents, and agents with fewer actions than others have the rest
masked.

linear, monotonic: from Albrecht, Christianos and Schäfer's lecture on their book. climbing: also
from there; Claus and Boutilier (1998) have it transposed. penalty: Claus and Boutilier. stag_hunt:
the textbook game, the only one with a reward per agent. nm1, nm2: the non-monotonic games shipped
with QPLEX (Wang et al. 2021). or, and stag_hunt_sum (the sum of both agents' stag_hunt): ours.

two_step: section 5 of the QMIX paper (Rashid et al. 2018). The first agent's first action chooses
the second step's table: 7 everywhere, or [[0, 1], [1, 8]]. The best return is 8, and VDN settles
for 7. The state is shown, one-hot, to both agents. two_step_b is its second table alone.

recall: ours. Each agent sees a cue of its own (one of two) in the first step only, and `delay`
steps later the team is paid 1 if both name their cues. The best return is 1 with memory and 1/4
without.

All agents are of one type: where their tables differ, they are told apart by the agent id among the
network's inputs.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from jaxshare.envs.matrix.games import one_step, recall, two_step
from jaxshare.envs.matrix.tables import STAG_HUNT, TABLES, parse_payoff, penalty_table
from jaxshare.settings.fields import STEPS, free_text, static
from jaxshare.settings.validate import check_record
from jaxshare.types import Env, RefusedError

ACTIONS = "discrete"
GAMES = (*TABLES, "penalty", "stag_hunt", "two_step", "recall")
Payoff = Any  # nested lists, which no type of a setting can say


@dataclass(frozen=True)
class Config:
    """Settings of the small games."""

    game: str = static(
        "climbing",
        choices=(*GAMES, "custom"),
        help="which game",
        source="ours: the classic trap for value decomposition",
    )
    payoff: Payoff = free_text(None, help="the table of game=custom, as nested lists of numbers")
    penalty: float = static(
        -100.0,
        least=-1e6,
        most=1e6,
        help="what misses cost; only with game=penalty",
        source="paper: Claus and Boutilier 1998 vary it from 0 to -100",
    )
    delay: int = static(
        2,
        least=1,
        most=STEPS,
        note="With 0 there is nothing to remember.",
        help="steps between cue and answer; only with game=recall",
        source="ours",
    )


def scenarios() -> tuple[str, ...]:
    """Names of the games that need no table of their own."""
    return GAMES


def make(config: Config) -> Env:
    """One game. Raises RefusedError for an unknown game and for a table that is not one."""
    # a node of OmegaConf has the fields, but is no dataclass
    check_record(Config(**{f.name: getattr(config, f.name) for f in fields(Config)}), "env.")
    game = config.game
    if (config.payoff is not None) != (game == "custom"):
        raise RefusedError(
            f"env.game={game}: env.payoff=[[1,5],[5,9]] goes with env.game=custom, and only with "
            "it."
        )

    # games of several steps, or with a reward per agent
    if game == "two_step":
        return two_step()
    if game == "recall":
        return recall(config.delay)
    if game == "stag_hunt":
        return one_step(game, np.array(STAG_HUNT, np.float32), common_reward=False)

    # all others pay the same to everybody
    table = _table(config)
    return one_step(game, np.repeat(table[..., None], table.ndim, axis=-1))


def _table(config: Config) -> np.ndarray:
    """The common payoff [A1, ..., AN] of a matrix game."""
    if config.game == "penalty":
        return penalty_table(config.penalty)
    return np.array(parse_payoff(TABLES.get(config.game, config.payoff)), np.float32)
