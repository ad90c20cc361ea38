"""The table of orders that a person sees, and what is to be known of it."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE
from rich.table import Table

from jaxshare.results.curves import run_name

COLUMNS = (
    "pairs", "reward\npairs", "reward\nall", "prio.\npairs", "prio.\nall", "drawn", "in set", "ESS",
)  # fmt: skip
NOTHING = "–"  # where a number is missing


def table(result: dict[str, Any]) -> Table:
    """A row for every type of every run, and one for the mean over runs."""
    # what it is, and its columns
    composition = result["composition"] or "levels not known"
    title = f"{result['environment']}: {composition}, {result['episodes']} episodes"
    title += "\nAUROC of better against random trajectories"
    table = Table(title=title, box=SIMPLE, collapse_padding=True)
    for name in ("run", "type"):
        table.add_column(name, no_wrap=True)
    for name in COLUMNS:
        table.add_column(name, justify="right")

    # its rows
    for run in result["runs"]:
        for name, numbers in run["types"].items():
            table.add_row(run_name(run), name, *_row(numbers))
    if len(result["runs"]) > 1:
        table.add_section()
        for name, numbers in result["mean"]["types"].items():
            table.add_row("mean", name, *_row(numbers))
    return table


def _row(numbers: dict[str, Any]) -> list[str]:
    cells = [f"{numbers['pairs']:,}"]
    for what in ("auroc_reward", "auroc_priority"):
        for over in ("pairs", "all"):
            score = numbers[what][over]
            cells.append(NOTHING if score is None else f"{score:.3f}")
    better = numbers["better"]
    for name in ("probability", "trajectories"):
        cells.append(f"{better[name]:.3f}" if better else NOTHING)
    return [*cells, f"{numbers['ess']:,.0f}"]


def remarks(result: dict[str, Any]) -> list[str]:
    """What a reader of the table must know.

    That the first stage is not finished, and why numbers are missing.
    """
    # how far the first stage is
    stage = result["stage1"]
    lines = []
    if not stage["finished"]:
        lines.append(
            f"stage I is not finished: update {stage['updates']:,} of {stage['of']:,}. These are "
            "the priorities that would be made now."
        )

    # what could not be counted
    names = {"pairs": "pairs", "all": "all trajectories"}
    for name, numbers in result["runs"][0]["types"].items():
        for what, reason in numbers["missing"].items():
            lines.append(f"{name}, {names[what]}: {reason}.")
    if result["settings"]["decomposition"] == "none":
        lines.append(
            "algo.decomposition=none: every agent has the whole team reward, and all orders are "
            "chance."
        )
    return lines
