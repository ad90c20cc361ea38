"""SIT's first stage: rewards of single agents."""

from __future__ import annotations

import jax.numpy as jnp

from jaxshare.algos.sit import equations
from jaxshare.algos.sit.settings import NO_DECOMPOSITION
from jaxshare.learners.records import Settings, View
from jaxshare.models import inputs
from jaxshare.ops.masking import masked_mean
from jaxshare.training import replay
from jaxshare.types import Array, EnvSpec, Episode, Metrics, RefusedError


def draw(view: View, batch_size: int) -> View:
    """Episodes drawn uniformly; all members of the ensemble see the same ones (ours)."""
    data = view.batch
    check_batch_size(data, batch_size)
    count = data.mask.shape[0]
    index = replay.uniform_without_replacement(
        view.key, jnp.int32(count), count, batch_size, view.ctx
    )
    return view.replace(batch=replay.gather(data, index))


def check_batch_size(data: Episode, batch_size: int) -> None:
    """Raise RefusedError for more episodes than there are."""
    episodes = data.mask.shape[0]
    if batch_size > episodes:
        raise RefusedError(
            f"batch_size={batch_size} is more than the {episodes} episodes of the data set. Use "
            f"batch_size={episodes}."
        )


def own_inputs(spec: EnvSpec, batch: Episode) -> Array:
    """Observation and encoded action of every agent, [T, B, N, D]."""
    return jnp.concatenate([batch.obs[:-1], inputs.encode(batch.action, spec)], axis=-1)


def loss(view: View) -> tuple[Array, Metrics]:
    """Eq. 3 of the ensemble."""
    batch = view.batch
    agents = view.spec.num_agents
    floor = view.tables["floor"]
    team = view.spec.team_reward(batch.reward) - floor
    ensemble = view.learner.networks["reward"]
    x = own_inputs(view.spec, batch)
    contribution, total = ensemble.apply(view.params["reward"], batch.state[:-1], x)
    error = equations.ensemble_loss(total, team, batch.mask)

    # what it says of each agent
    mean, spread = equations.ensemble_moments(contribution)
    mean = mean + floor / agents
    metrics = {
        "loss/reward": error,
        "sit/stage": jnp.float32(1),
        "sit/reward_mean": _agent_mean(mean, batch.mask),
        "sit/uncertainty_mean": _agent_mean(spread, batch.mask),
    }
    for i in range(agents):
        metrics[f"sit/reward_agent_{i}"] = masked_mean(mean[..., i], batch.mask)
    return error, metrics


def _agent_mean(x: Array, mask: Array) -> Array:
    return masked_mean(x, jnp.broadcast_to(mask[..., None], x.shape))


def least_reward(config: Settings, spec: EnvSpec, data: Episode) -> Array:
    """The least team reward of a data set [E, T, ...], [].

    Or 0, if that is less or nothing is lifted.
    """
    if not config.lift_rewards:
        return jnp.float32(0)
    reward = jnp.where(data.mask > 0, spec.team_reward(data.reward), 0.0)
    return jnp.min(reward, initial=0.0)


def individual(view: View, floor: Array) -> tuple[Array, Array]:
    """r [T, B, N] and u [T, B, N] of a batch (eqs. 4, 5), 0 under mask 0.

    r_tot and 0 without a decomposition. floor: what the ensemble learned without, of which each
    agent gets an equal part back.
    """
    batch = view.batch
    mask = batch.mask[..., None] > 0
    if view.config.decomposition == NO_DECOMPOSITION:
        team = view.spec.team_reward(batch.reward)[..., None]
        reward = jnp.broadcast_to(team, batch.reward.shape)
        return jnp.where(mask, reward, 0.0), jnp.zeros_like(reward)
    ensemble = view.learner.networks["reward"]
    x = own_inputs(view.spec, batch)
    contribution, _ = ensemble.apply(view.params["reward"], batch.state[:-1], x)
    mean, spread = equations.ensemble_moments(contribution)
    mean = mean + floor / view.spec.num_agents
    return jnp.where(mask, mean, 0.0), jnp.where(mask, spread, 0.0)
