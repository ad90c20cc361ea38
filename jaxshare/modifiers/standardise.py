"""Running standardisation of rewards, as EPyMARL has it (Papoudakis et al. 2021, arXiv 2006.07869).

    r <- (r - mean) / sqrt(var)

with the moments of all rewards that the learner has met, this batch included (ops/moments.py).

For any learner: its `standardise_rewards`, on in EPyMARL's ia2c, maa2c, vdn, qmix and others.
Agents with rewards of their own have moments of their own; a common reward has one pair. Of a
learner with a replay the moments are, as in EPyMARL, those of the batches that it draws, so that a
reward counts as often as it is learned from. Only what is learned from changes: logs, evaluations,
and the scores `own` and `solo` of rs_pps and pp_pps have the environment's rewards.

`centre`: subtracting the mean adds the same number to every step. Where what the agents do decides
how long an episode lasts, that is another task: with a positive mean every further step costs
something, with a negative one it pays. `centre=false` only scales, which changes the order of no
two policies.

Departures. code: EPyMARL counts the zeros of the padding as rewards; ours: never. code: of
individual rewards its actor-critics keep one pair of moments for all agents, its Q-learners one for
each; ours: one for each.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax.numpy as jnp

from jaxshare.learners.learner import Learner
from jaxshare.learners.packed import packable
from jaxshare.learners.records import View
from jaxshare.ops import moments
from jaxshare.settings.fields import flag

NAME = "standardise"  # of its moments among the statistics


@dataclass(frozen=True)
class Config:
    """Settings of standardise."""

    centre: bool = flag(
        True,
        help="the mean is subtracted; false: scale only, where episodes differ in length",
        source="code: EPyMARL",
    )


def make(config: Config, learner: Learner) -> Learner:
    """Replace the rewards of every batch."""
    spec = learner.spec
    first = moments.start(1 if spec.common_reward else spec.num_agents)
    return learner.extend(stats={NAME: first}, relabel=partial(relabel, config))


@packable
def relabel(config: Config, view: View) -> tuple[Any, dict[str, Any]]:
    """The batch (reward [T, B, N], mask [T, B]) with standardised rewards, zeros under mask 0, and
    the new moments.
    """
    batch = view.batch
    raw = batch.reward[..., :1] if view.spec.common_reward else batch.reward
    now = moments.merge(view.stats[NAME], raw, batch.mask)
    standard = moments.standardise(now, raw, config.centre)
    reward = jnp.where(batch.mask[..., None] > 0, standard, 0.0)
    batch = batch.replace(reward=jnp.broadcast_to(reward, batch.reward.shape))
    return batch, {**view.stats, NAME: now}
