"""What a run's reward ensemble says of every trajectory, that is (episode, agent), of a data set.

Letters: E episodes, N agents.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxshare import registry
from jaxshare.algos import _sit_reward, sit
from jaxshare.checkpoint import Restored
from jaxshare.config import Settings
from jaxshare.data.records import UNKNOWN, Dataset
from jaxshare.evaluation.scores import hparams_at
from jaxshare.ops.decompose import mean_over_steps

if TYPE_CHECKING:
    from jaxshare.runner import Program

Judgement = dict[str, np.ndarray]
"""reward, uncertainty (means over steps), priority, log_weight [E, N]; alpha [N], of each agent's
buffer."""


def judge(settings: Settings, program: Program, dataset: Dataset, restored: Restored) -> list[Judgement]:
    """The judgement of each run of a checkpoint."""
    parts = registry.get("algo", "sit").make(settings.algo, program.env.spec)
    data = jax.device_put(dataset.episodes)

    @jax.jit
    def look(params: Any, data: Any, floor: Any, ctx: Any) -> dict[str, Any]:
        judgement = _sit_reward.judged(parts, params, data, floor, ctx)
        ones = jnp.broadcast_to(data.mask[..., None], judgement["reward"].shape)
        mask = jnp.moveaxis(ones.astype(jnp.float32), 1, 0)  # [T, E, N]
        means = {}
        for name in ("reward", "uncertainty"):
            means[name] = mean_over_steps(jnp.moveaxis(judgement[name], 1, 0), mask)
        return {
            **means,
            "priority": judgement["priority"],
            "log_weight": judgement["log_weight"],
            "alpha": judgement["alpha"][jnp.array(parts.buffers)],
        }

    judgements = []
    for state, (_, point) in zip(restored.runs, settings.runs(), strict=True):
        params = {"reward": state.learner.params["reward"]}
        floor = state.learner.stats[sit.KEPT]["floor"]
        ctx = program.context(state, hparams_at(program, point), restored.clock)
        judgements.append(jax.tree.map(np.asarray, look(params, data, floor, ctx)))
    return judgements


def known_levels(dataset: Dataset) -> np.ndarray:
    """Level of every (episode, agent), [E, N]; unknown for an episode without a step."""
    mask: Any = dataset.episodes.mask
    return np.where(mask.any(1, keepdims=True), dataset.level, UNKNOWN)
