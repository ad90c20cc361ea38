"""The decomposed rewards over the first stage, as a run has logged them."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxshare.results.curves import run_name

REWARDS = "sit/reward_agent_"  # and the number of the agent: what the first stage logs
LEAST = 0.01  # share of the first stage in a logged mean below which it says nothing about it

Curves = dict[str, tuple[list[float], np.ndarray]]
"""{run: (updates [P], decomposed rewards [P, N])}."""


def curves(records: list[dict[str, Any]], agents: int, first: int) -> Curves:
    """The curves of every run in the log.

    A logged mean over updates of both stages counts 0 for those of the other one: it is divided by
    the share of the first, which the mean of the stages' numbers (1 and 3) tells.

    records: of metrics.jsonl.
    agents: N.
    first: updates of the first stage.
    """
    updates: dict[str, list[float]] = {}
    values: dict[str, list[list[float]]] = {}
    for record in records:
        share = (3.0 - record.get("sit/stage", 3.0)) / 2.0
        if share < LEAST or f"{REWARDS}{agents - 1}" not in record:
            continue
        run = run_name(record)
        rewards = [record[f"{REWARDS}{i}"] / share for i in range(agents)]
        updates.setdefault(run, []).append(min(record["updates"], first))
        values.setdefault(run, []).append(rewards)
    return {run: (updates[run], np.array(values[run])) for run in updates}
