"""What a run's reward ensemble says of every trajectory, that is (episode, agent), of a data set.

Letters: E episodes, N agents.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxshare import registry
from jaxshare.algos import _sit_reward, sit
from jaxshare.data.records import UNKNOWN, Dataset
from jaxshare.ops.decompose import mean_over_steps
from jaxshare.run.saved import SavedRun
from jaxshare.trees import Params
from jaxshare.types import Array, Context, Episode

Judgement = dict[str, np.ndarray]
"""reward, uncertainty (means over steps), priority, log_weight [E, N]; alpha [N], of each agent's
buffer."""


def judge(run: SavedRun, dataset: Dataset) -> list[Judgement]:
    """The judgement of each run of a checkpoint."""
    parts = registry.get("algo", "sit").make(run.settings.algo, run.program.env.spec)
    data = jax.device_put(dataset.episodes)

    @jax.jit
    def look(params: Params, data: Episode, floor: Array, ctx: Context) -> dict[str, Array]:
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
    for number, state in enumerate(run.restored.runs):
        params = {"reward": state.learner.params["reward"]}
        floor = state.learner.stats[sit.KEPT]["floor"]
        ctx = run.program.context(state, run.hparams(number), run.clock)
        judgements.append(jax.tree.map(np.asarray, look(params, data, floor, ctx)))
    return judgements


def known_levels(dataset: Dataset) -> np.ndarray:
    """Level of every (episode, agent), [E, N]; unknown for an episode without a step."""
    has_steps = np.asarray(dataset.episodes.mask).any(1, keepdims=True)
    return np.where(has_steps, dataset.level, UNKNOWN)
