"""What a run's reward ensemble says of every trajectory, that is (episode, agent), of a data set.

Letters: E episodes, N agents.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxshare import registry
from jaxshare.algos.sit import sets, tables
from jaxshare.algos.sit.equations import mean_over_steps
from jaxshare.data.records import UNKNOWN, Dataset
from jaxshare.learners.records import View
from jaxshare.run.saved import SavedRun
from jaxshare.types import Array, Context, Episode, LearnerState

Judgement = dict[str, np.ndarray]
"""reward, uncertainty (means over steps), priority, log_weight [E, N]; alpha [N], of each agent's
buffer."""


def judge(run: SavedRun, dataset: Dataset) -> list[Judgement]:
    """The judgement of each run of a checkpoint."""
    config = run.settings.algo
    spec = run.program.env.spec
    learner = registry.get("algo", "sit").make(config, spec)
    teams = sets.sets_of(config, spec)
    data = jax.device_put(dataset.episodes)

    @jax.jit
    def look(state: LearnerState, data: Episode, ctx: Context) -> dict[str, Array]:
        view = View(learner, state, state.params, data, ctx, key=None)
        judgement = tables.judged(teams, view, state.stats[tables.NAME]["floor"])
        ones = jnp.broadcast_to(data.mask[..., None], judgement["reward"].shape)
        mask = jnp.moveaxis(ones.astype(jnp.float32), 1, 0)  # [T, E, N]
        means = {}
        for name in ("reward", "uncertainty"):
            means[name] = mean_over_steps(jnp.moveaxis(judgement[name], 1, 0), mask)
        return {
            **means,
            "priority": judgement["priority"],
            "log_weight": judgement["log_weight"],
            "alpha": judgement["alpha"][jnp.array(teams.buffers)],
        }

    judgements = []
    for number, state in enumerate(run.restored.runs):
        ctx = run.program.context(state, run.hparams(number), run.clock)
        judgements.append(jax.tree.map(np.asarray, look(state.learner, data, ctx)))
    return judgements


def known_levels(dataset: Dataset) -> np.ndarray:
    """Level of every (episode, agent), [E, N]; unknown for an episode without a step."""
    has_steps = np.asarray(dataset.episodes.mask).any(1, keepdims=True)
    return np.where(has_steps, dataset.level, UNKNOWN)
