"""A run in shards: K pieces into which its environments, its ring and its batches are dealt.

Each shard has num_envs / K neighbouring environments, a ring of its own for their episodes, and
gives batch_size / K of them to every batch. So nothing but sums passes between devices that have
whole shards. One shard is a ring without a leading axis, drawn from as if there were no shards.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxshare.ops.spread import spread
from jaxshare.training import replay
from jaxshare.trees import Tree
from jaxshare.types import Array, Clock, Episode

Sample = Callable[[Array, Array, int, int], Array]  # key, stored, capacity, count -> index


def first_rings(episode: Episode, capacity: int, dtype: str, shards: int) -> Episode:
    """Empty rings for episodes of these shapes, [K, C / K, T(+1), ...], or one [C, T(+1), ...]."""
    if shards == 1:
        return replay.init(episode, capacity, dtype)

    def empty(shape: jax.ShapeDtypeStruct) -> Array:
        return jnp.zeros((shards, *shape.shape), shape.dtype)

    return spread(jax.tree.map(empty, replay.storage(episode, capacity // shards, dtype)))


def slots_axis(rings: Tree) -> int:
    """Which axis of rings, arrays or shapes, counts slots: the first, or with shards the second.

    Of what is no Episode, it is the first.
    """
    return rings.mask.ndim - 2 if isinstance(rings, Episode) else 0


def first_slots(rings: Tree, episodes: int | None) -> Tree:
    """Rings, or None, with the slots that hold the first `episodes` only; None: with all."""
    if rings is None or episodes is None:
        return rings
    if slots_axis(rings) == 0:
        return jax.tree.map(lambda x: x[:episodes], rings)
    of_each = episodes // rings.mask.shape[0]
    return jax.tree.map(lambda x: x[:, :of_each], rings)


def add(rings: Episode, episode: Episode, clock: Clock) -> Episode:
    """Write the B episodes of a rollout, fields [T(+1), B, ...], into the rings of their shards."""
    if slots_axis(rings) == 0:
        return replay.add(rings, episode, clock)
    shards = rings.mask.shape[0]
    # all rings are written at the same place
    clock = clock._replace(stored=clock.stored // shards)
    pieces = jax.tree.map(lambda x: jnp.moveaxis(cut(x, shards, 1), 1, 0), episode)
    return spread(jax.vmap(replay.add, in_axes=(0, 0, None))(rings, pieces, clock))


def draw(rings: Episode, clock: Clock, key: Array, batch_size: int, sample: Sample) -> Episode:
    """A batch of whole episodes, [T(+1), B, ...], as many from each ring as from any other."""
    capacity = rings.mask.shape[slots_axis(rings)]
    if slots_axis(rings) == 0:
        index = sample(key, replay.num_stored(clock, capacity), capacity, batch_size)
        return replay.gather(rings, index)

    # each ring's own draws
    shards = rings.mask.shape[0]
    stored = jnp.minimum(clock.stored // shards, capacity)

    def draw_one(ring: Episode, key: Array) -> Episode:
        return replay.gather(ring, sample(key, stored, capacity, batch_size // shards))

    keys = spread(jax.random.split(key, shards))
    pieces = jax.vmap(draw_one)(rings, keys)
    return spread(jax.tree.map(lambda x: joined(jnp.moveaxis(x, 0, 1), 1), pieces), 1)


def cut(x: Array, shards: int, axis: int) -> Array:
    """An array [..., B, ...] as [..., K, B / K, ...]."""
    shape = (*x.shape[:axis], shards, x.shape[axis] // shards, *x.shape[axis + 1 :])
    return x.reshape(shape)


def joined(x: Array, axis: int) -> Array:
    """An array [..., K, B / K, ...] as [..., B, ...]: `cut` undone."""
    count = x.shape[axis] * x.shape[axis + 1]
    return x.reshape(*x.shape[:axis], count, *x.shape[axis + 2 :])


def rows_of(tree: Tree, rows: Array, axis: int) -> Tree:
    """Some streams of arrays [..., B, ...].

    rows: [B'] i32, or with shards [K, B' / K] i32, places within each shard.
    """
    if rows.ndim == 1:
        return jax.tree.map(lambda x: x[(slice(None),) * axis + (rows,)], tree)
    take = jax.vmap(lambda x, index: jnp.take(x, index, axis=axis), (axis, 0), axis)

    def of_shards(x: Array) -> Array:
        return joined(take(cut(x, rows.shape[0], axis), rows), axis)

    return spread(jax.tree.map(of_shards, tree), axis)
