"""SIT's first two stages (see sit.py): rewards of single agents, and buffers of single agents' trajectories.

What the second stage leaves in the learner's `stats` under "sit" are numbers by (episode, agent); observations stay in
the data set, and nobody's view of the others is copied.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxshare import replay, sum_tree
from jaxshare.algos._parts import relabelled, team_reward
from jaxshare.algos._sit_parts import NO_DECOMPOSITION, SitLearner, own_inputs, step
from jaxshare.ops import decompose
from jaxshare.ops.masking import masked_mean
from jaxshare.types import Array, Context, Episode, LearnerState, Metrics

SLICE = 64  # episodes of the data set that are looked at together in the second stage


def learn_reward(
    parts: SitLearner,
    learner: LearnerState,
    data: Episode,
    floor: Array,
    ctx: Context,
    key: Array,
    batch_size: int,
) -> tuple[LearnerState, Metrics]:
    """One update of the ensemble, on episodes drawn uniformly; all members see the same ones (ours)."""
    count = data.mask.shape[0]
    index = replay.uniform_without_replacement(key, jnp.int32(count), count, batch_size, ctx)
    batch, learner = relabelled(parts, learner, replay.gather(data, index), ctx)
    team, own = team_reward(parts.spec, batch) - floor, own_inputs(parts, batch)

    def loss_fn(params: Any) -> tuple[Array, Array]:
        found, total = parts.reward.apply(params, batch.state[:-1], own)
        return decompose.ensemble_loss(total, team, batch.mask), found

    (loss, found), grads = jax.value_and_grad(loss_fn, has_aux=True)(learner.params["reward"])
    learner, norm = step(parts, learner, "reward", grads, ctx)
    mean, spread = decompose.ensemble_moments(found)
    mean = mean + floor / parts.spec.num_agents
    metrics = {
        "loss/reward": loss,
        "sit/stage": jnp.float32(1),
        "sit/reward_mean": _agent_mean(mean, batch.mask),
        "sit/uncertainty_mean": _agent_mean(spread, batch.mask),
        **{
            f"sit/reward_agent_{i}": masked_mean(mean[..., i], batch.mask)
            for i in range(parts.spec.num_agents)
        },
        **norm,
    }
    return learner, metrics


def _agent_mean(x: Array, mask: Array) -> Array:
    return masked_mean(x, jnp.broadcast_to(mask[..., None], x.shape))


def least_reward(parts: SitLearner, data: Episode) -> Array:
    """The least team reward of a data set [E, T, ...], or 0 if that is less or nothing is lifted, []."""
    if not parts.config.lift_rewards:
        return jnp.float32(0)
    return jnp.min(jnp.where(data.mask > 0, team_reward(parts.spec, data), 0.0), initial=0.0)


def individual(
    parts: SitLearner, params: dict[str, Any], batch: Episode, floor: Array
) -> tuple[Array, Array]:
    """r [T, B, N] and u [T, B, N] of a batch (eqs. 4, 5), 0 under mask 0; r_tot and 0 without a decomposition.

    floor: what the ensemble learned without, of which each agent gets an equal part back.
    """
    mask = batch.mask[..., None] > 0
    if parts.config.decomposition == NO_DECOMPOSITION:
        reward = jnp.broadcast_to(team_reward(parts.spec, batch)[..., None], batch.reward.shape)
        return jnp.where(mask, reward, 0.0), jnp.zeros_like(reward)
    found, _ = parts.reward.apply(params["reward"], batch.state[:-1], own_inputs(parts, batch))
    mean, spread = decompose.ensemble_moments(found)
    mean = mean + floor / parts.spec.num_agents
    return jnp.where(mask, mean, 0.0), jnp.where(mask, spread, 0.0)


# ------------------------------------------------------------------------------------------------------------- stage II


def first_tables(parts: SitLearner) -> dict[str, Any]:
    """What `tables` gives, empty.

    reward, uncertainty [C, T, N] f32; priority [C, N] f32, rescaled; by buffer [K]: median (of the uncertainty), alpha
    (after min_ess), ess; floor: `least_reward`; tree_<k>: nodes of the sum-tree over the trajectories (episode, k-th
    buffer's agent).
    """
    capacity, agents, num = parts.config.capacity, parts.spec.num_agents, len(parts.names)
    shape = (capacity, parts.spec.episode_limit, agents)
    trees = {
        f"tree_{k}": sum_tree.init(capacity * len(own)).nodes for k, own in enumerate(parts.members)
    }
    by_buffer = {name: jnp.zeros(num) for name in ("median", "alpha", "ess")}
    return {
        "reward": jnp.zeros(shape), "uncertainty": jnp.zeros(shape), "priority": jnp.zeros((capacity, agents)),
        "floor": jnp.zeros(()), **by_buffer, **trees,
    }  # fmt: skip


def judged(
    parts: SitLearner, params: dict[str, Any], data: Episode, floor: Array, ctx: Context
) -> dict[str, Array]:
    """What the ensemble says of every trajectory of a data set; data: in the layout of a replay, of any size.

    reward, uncertainty [E, T, N]; priority [E, N], rescaled; log_weight [E, N], of eq. 7 up to a constant of each
    buffer; by buffer [K]: median (of the uncertainty), alpha (after min_ess), ess.
    """
    reward, uncertainty = _look_at_all(parts, params, data, floor)
    mask = jnp.broadcast_to(data.mask[..., None].astype(jnp.float32), reward.shape)
    raw, valid = _raw_priority(parts, reward, mask, ctx), mask.any(1)  # [E, N]
    columns, by_buffer = [(jnp.zeros(0), jnp.zeros(0))] * parts.spec.num_agents, []
    for members in parts.members:
        own = jnp.array(members)
        priority, log_weight, found = _buffer(raw[:, own], valid[:, own], ctx)
        median = decompose.masked_median(uncertainty[..., own], mask[..., own])
        by_buffer.append({**found, "median": median})
        for place, agent in enumerate(members):
            columns[agent] = priority[:, place], log_weight[:, place]
    priority, log_weight = (jnp.stack(column, axis=1) for column in zip(*columns, strict=True))
    each = {
        "reward": reward,
        "uncertainty": uncertainty,
        "priority": priority,
        "log_weight": log_weight,
    }
    return {**each, **jax.tree.map(lambda *x: jnp.stack(x), *by_buffer)}


def tables(
    parts: SitLearner, params: dict[str, Any], data: Episode, floor: Array, ctx: Context
) -> dict[str, Any]:
    """Everything that the last stage reads besides the data: one pass over the data set, in slices."""
    found: dict[str, Any] = {**judged(parts, params, data, floor, ctx), "floor": floor}
    weight = jnp.exp(found.pop("log_weight"))
    room = parts.config.capacity - data.mask.shape[0]
    longer = parts.spec.episode_limit - data.mask.shape[1]
    for name in ("reward", "uncertainty"):
        found[name] = jnp.pad(found[name], ((0, room), (0, longer), (0, 0)))
    found["priority"] = jnp.pad(found["priority"], ((0, room), (0, 0)))
    for k, members in enumerate(parts.members):
        leaves = weight[:, jnp.array(members)].ravel()
        found[f"tree_{k}"] = sum_tree.build(parts.config.capacity * len(members), leaves).nodes
    return found


def _look_at_all(
    parts: SitLearner, params: dict[str, Any], data: Episode, floor: Array
) -> tuple[Array, Array]:
    """`individual` of the whole data set: twice [E, T, N]."""
    count = data.mask.shape[0]
    size = min(SLICE, count)
    index = jnp.minimum(jnp.arange(-(-count // size) * size), count - 1).reshape(-1, size)
    found = jax.lax.map(
        lambda at: individual(parts, params, replay.gather(data, at), floor), index
    )  # [slices, T, size, N]
    flat = lambda x: jnp.moveaxis(x, 1, 2).reshape(-1, x.shape[1], x.shape[3])[:count]  # noqa: E731
    return flat(found[0]), flat(found[1])


def _raw_priority(parts: SitLearner, reward: Array, mask: Array, ctx: Context) -> Array:
    """p [E, N] before it is rescaled; reward and mask [E, T, N]."""
    if parts.config.priority == "uniform":
        return jnp.zeros(reward.shape[::2])
    to_go = partial(
        decompose.returns_to_go, gamma=ctx.hparams["gamma"], literal=parts.config.literal_return
    )
    first = lambda x: jnp.swapaxes(x, 0, 1)  # noqa: E731
    gain = to_go(first(reward))
    return (
        gain[0]
        if parts.config.priority == "return"
        else decompose.mean_over_steps(gain, first(mask))
    )


def _buffer(raw: Array, valid: Array, ctx: Context) -> tuple[Array, Array, dict[str, Array]]:
    """Of one buffer: rescaled priorities and log weights of eq. 7 up to a constant, each [E, n], and {alpha, ess}."""
    h, shape = ctx.hparams, raw.shape
    priority, valid = (
        decompose.rescaled(raw.ravel(), valid.ravel(), h["priority_range"]),
        valid.ravel(),
    )
    alpha = decompose.wide_enough(priority, valid, h["alpha"], h["min_ess"])
    log_weight = decompose.log_weights(priority, valid, alpha)
    found = {"alpha": alpha, "ess": decompose.effective_size(log_weight)}
    return priority.reshape(shape), log_weight.reshape(shape), found


def draw(
    parts: SitLearner, kept: dict[str, Any], key: Array, batch_size: int
) -> tuple[Array, Array]:
    """(episode, agent), each [B, S] i32: `batch_size` trajectories for every parameter set from its buffer.

    Stratified draws from the sum-tree, with replacement.
    """
    keys = jax.random.split(key, parts.num_sets)
    episode, agent = [], []
    for k, key in zip(parts.set_buffers, keys, strict=True):
        members = parts.members[k]
        tree = sum_tree.SumTree(kept[f"tree_{k}"], parts.config.capacity * len(members))
        index = sum_tree.sample(tree, key, batch_size)
        episode.append(index // len(members))
        agent.append(jnp.array(members)[index % len(members)])
    return jnp.stack(episode, axis=1), jnp.stack(agent, axis=1)
