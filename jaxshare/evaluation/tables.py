"""The tables of an evaluation that a person sees."""

from __future__ import annotations

import re
from typing import Any

from rich.table import Table

from jaxshare.results.curves import run_name
from jaxshare.run import BEST
from jaxshare.training.playing import BEST_AGENT, WORST_AGENT

NAMES = (
    "return", "win_rate", "length", "stochastic_return", "stochastic_win_rate", "selected_return",
    BEST_AGENT, WORST_AGENT,
)  # fmt: skip


def tables(result: dict[str, Any]) -> list[Table]:
    """A table of what `scores.evaluation` returns.

    And one of the final checkpoint, if it has that.
    """
    which = "greedy and stochastic" if result["policy"] == "both" else result["policy"]
    played = f"{result['episodes']} {which} episodes per run (seed {result['eval_seed']})"
    if result["checkpoint"] != BEST:
        return [_table(played, result)]

    on = result["selected_on"]
    chosen = f"{on['episodes']} {on['policy']} episodes of seed {on['eval_seed']}"
    title = f"best parameters by the mean return of {chosen}\nplayed: {played}"
    both = [_table(title, result)]
    if "final" in result:
        both.append(_table(f"final checkpoint\nplayed: {played}", result["final"]))
    return both


def _table(title: str, result: dict[str, Any]) -> Table:
    table = Table(title=title)
    columns = [name for name in NAMES if name in result["mean"]]
    for name in ("run", "env steps", *columns):
        # may be broken there
        heading = re.sub("^(stochastic|selected)_", r"\1 ", name).removeprefix("return/")
        table.add_column(heading, justify="right")
    for run in result["runs"]:
        cells = [f"{run[name]:.3f}" for name in columns]
        table.add_row(run_name(run), f"{run['env_steps']:,}", *cells)
    table.add_section()
    mean = result["mean"]
    cells = [f"{mean[name]:.3f}" for name in columns]
    table.add_row("mean", f"{mean['env_steps']:,.0f}", *cells)
    return table
