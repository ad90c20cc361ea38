"""SIT's second stage: buffers of single agents' trajectories.

What it leaves in the learner's statistics are numbers by (episode, agent); observations stay in the
data set, and nobody's view of the others is copied.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxshare.algos.sit import equations
from jaxshare.algos.sit.rewards import individual, least_reward
from jaxshare.algos.sit.sets import Sets
from jaxshare.algos.sit.settings import Config
from jaxshare.learners.records import View
from jaxshare.training import replay, sum_tree
from jaxshare.types import Array, EnvSpec, RefusedError

NAME = "sit"  # of the learner, and of its tables among the statistics
SLICE = 64  # episodes of the data set that are looked at together


def first(sets: Sets, config: Config, spec: EnvSpec) -> dict[str, Array]:
    """What `tables` gives, empty.

    reward, uncertainty [C, T, N] f32; priority [C, N] f32, rescaled; by buffer [K]: median
    (of the uncertainty), alpha (after min_ess), ess; floor: `least_reward`; tree_<k>: nodes of the
    sum-tree over the trajectories (episode, k-th buffer's agent). Raises RefusedError without a
    capacity.
    """
    capacity = config.capacity
    if not capacity:
        raise RefusedError(
            "algo.capacity=0 stands for as many episodes as the data set has, which jaxshare.train "
            "puts in its place. Elsewhere give algo.capacity that number."
        )
    agents = spec.num_agents
    steps = (capacity, spec.episode_limit, agents)
    shapes = {
        "reward": steps,
        "uncertainty": steps,
        "priority": (capacity, agents),
        "floor": (),
    }
    empty = {name: jnp.zeros(shape) for name, shape in shapes.items()}

    # one of each for a buffer, and its tree
    empty |= {name: jnp.zeros(len(sets.names)) for name in ("median", "alpha", "ess")}
    for k, members in enumerate(sets.members):
        empty[f"tree_{k}"] = sum_tree.init(capacity * len(members)).nodes
    return empty


def tables(sets: Sets, view: View) -> dict[str, Array]:
    """Everything that the last stage reads besides the data.

    It is made in one pass over the data set, between the stages.
    """
    _check(view)
    updates = view.clock.updates
    last_of_first = view.config.stage1_updates
    before = view.stats[NAME]
    in_first = updates <= last_of_first
    floor_of_data = partial(least_reward, view.config, view.spec, view.batch)
    floor = jax.lax.cond(in_first, floor_of_data, lambda: before["floor"])
    before = {**before, "floor": floor}
    build = partial(_built, sets, view, floor)
    return jax.lax.cond(updates == last_of_first, build, lambda: before)


def _check(view: View) -> None:
    episodes, steps = view.batch.mask.shape
    check_capacity(view.config.capacity, episodes)
    limit = view.spec.episode_limit
    if steps > limit:
        raise RefusedError(
            f"The data set has episodes of {steps} steps, and env={view.spec.name} ends them after "
            f"{limit}. Choose the environment that it was collected in."
        )


def check_capacity(capacity: int, episodes: int) -> None:
    """Raise RefusedError for more episodes than there are tables for."""
    if episodes > capacity:
        raise RefusedError(
            f"algo.capacity={capacity} is less than the {episodes} episodes of the data set. Use "
            f"algo.capacity={episodes}, or leave it out."
        )


def _built(sets: Sets, view: View, floor: Array) -> dict[str, Array]:
    """The tables, filled up to their capacity."""
    data = view.batch
    config = view.config
    judgement = judged(sets, view, floor)
    weight = jnp.exp(judgement.pop("log_weight"))

    # tables are as long as the capacity and the episode limit
    room = config.capacity - data.mask.shape[0]
    longer = view.spec.episode_limit - data.mask.shape[1]
    for name in ("reward", "uncertainty"):
        judgement[name] = jnp.pad(judgement[name], ((0, room), (0, longer), (0, 0)))
    judgement["priority"] = jnp.pad(judgement["priority"], ((0, room), (0, 0)))

    # a tree for each buffer
    for k, members in enumerate(sets.members):
        leaves = weight[:, jnp.array(members)].ravel()
        judgement[f"tree_{k}"] = sum_tree.build(config.capacity * len(members), leaves).nodes
    return {**judgement, "floor": floor}


def judged(sets: Sets, view: View, floor: Array) -> dict[str, Array]:
    """What the ensemble says of every trajectory of a data set.

    The view's batch: in the layout of a replay, any size.

    reward, uncertainty [E, T, N]; priority [E, N], rescaled; log_weight [E, N], of eq. 7 up to a
    constant of each buffer; by buffer [K]: median (of the uncertainty), alpha (after min_ess), ess.
    """
    data = view.batch
    reward, uncertainty = _look_at_all(view, floor)
    mask = jnp.broadcast_to(data.mask[..., None].astype(jnp.float32), reward.shape)
    raw = _raw_priority(view, reward, mask)  # [E, N]
    valid = mask.any(1)

    # each buffer by itself; then its columns go to their agents
    empty = jnp.zeros(0)
    priorities = [empty] * view.spec.num_agents
    log_weights = [empty] * view.spec.num_agents
    by_buffer = []
    for members in sets.members:
        agents = jnp.array(members)
        buffer = _buffer(raw[:, agents], valid[:, agents], view)
        median = equations.masked_median(uncertainty[..., agents], mask[..., agents])
        by_buffer.append({"alpha": buffer.alpha, "ess": buffer.ess, "median": median})
        for place, agent in enumerate(members):
            priorities[agent] = buffer.priority[:, place]
            log_weights[agent] = buffer.log_weight[:, place]
    priority = jnp.stack(priorities, axis=1)
    log_weight = jnp.stack(log_weights, axis=1)
    of_buffers = jax.tree.map(lambda *x: jnp.stack(x), *by_buffer)
    return {
        "reward": reward,
        "uncertainty": uncertainty,
        "priority": priority,
        "log_weight": log_weight,
        **of_buffers,
    }


def _look_at_all(view: View, floor: Array) -> tuple[Array, Array]:
    """`individual` of the whole data set: twice [E, T, N]."""
    data = view.batch
    count = data.mask.shape[0]

    # slices of episodes, the last one filled up with the last episode
    size = min(SLICE, count)
    index = jnp.arange(-(-count // size) * size)
    index = jnp.minimum(index, count - 1).reshape(-1, size)

    def look(at: Array) -> tuple[Array, Array]:
        return individual(view.replace(batch=replay.gather(data, at)), floor)

    reward, uncertainty = jax.lax.map(look, index)  # [slices, T, size, N]

    def flat(x: Array) -> Array:
        return jnp.moveaxis(x, 1, 2).reshape(-1, x.shape[1], x.shape[3])[:count]

    return flat(reward), flat(uncertainty)


def _raw_priority(view: View, reward: Array, mask: Array) -> Array:
    """p [E, N] before it is rescaled; reward and mask [E, T, N]."""
    config = view.config
    if config.priority == "uniform":
        return jnp.zeros(reward.shape[::2])
    gamma = view.hparams["gamma"]
    by_step = jnp.swapaxes(reward, 0, 1)
    gain = equations.returns_to_go(by_step, gamma=gamma, literal=config.literal_return)
    if config.priority == "return":
        return gain[0]
    return equations.mean_over_steps(gain, jnp.swapaxes(mask, 0, 1))


class Buffer(struct.PyTreeNode):
    """Of one buffer with the trajectories of n agents."""

    priority: Array  # [E, n] rescaled
    log_weight: Array  # [E, n] of eq. 7 up to a constant
    alpha: Array  # []
    ess: Array  # []


def _buffer(raw: Array, valid: Array, view: View) -> Buffer:
    """raw, valid [E, n]."""
    h = view.hparams
    valid = valid.ravel()
    priority = equations.rescaled(raw.ravel(), valid, h["priority_range"])
    alpha = equations.wide_enough(priority, valid, h["alpha"], h["min_ess"])
    log_weight = equations.log_weights(priority, valid, alpha)
    return Buffer(
        priority=priority.reshape(raw.shape),
        log_weight=log_weight.reshape(raw.shape),
        alpha=alpha,
        ess=equations.effective_size(log_weight),
    )


def drawn(sets: Sets, view: View, batch_size: int) -> tuple[Array, Array]:
    """(episode, agent), each [B, S] i32: `batch_size` trajectories for every parameter set from its
    buffer.

    Stratified draws from the sum-tree, with replacement.
    """
    keys = jax.random.split(view.key, sets.num_sets)
    episode: list[Any] = []
    agent: list[Any] = []
    for k, key in zip(sets.set_buffers, keys, strict=True):
        members = sets.members[k]
        size = view.config.capacity * len(members)
        tree = sum_tree.SumTree(view.tables[f"tree_{k}"], size)
        index = sum_tree.sample(tree, key, batch_size)
        episode.append(index // len(members))
        agent.append(jnp.array(members)[index % len(members)])
    return jnp.stack(episode, axis=1), jnp.stack(agent, axis=1)
