"""The episode ring: whole episodes, stored compactly, episode first.

The only transposition of the project is here.

What is drawn are whole episodes, or windows: pieces of them whose first steps are uniform over all
stored transitions.

A slot is written as a whole, tail included, so no step of an older, longer episode stays behind.
The write position comes from the un-batched clock, so a ring under vmap is written in one place for
all runs.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxshare.training.packing import PackedEpisode, Packing
from jaxshare.trees import Tree
from jaxshare.types import Array, Clock, Context, Episode, RefusedError

DTYPES = ("float32", "bfloat16", "float16")
RING_DTYPES = (*DTYPES, "int8")
LOSSY = ("obs", "state")  # stored in replay.dtype; everything else is exact
# of a bfloat16: on a CPU a scatter into bfloat16 makes a float32 copy of the whole ring
BITS = jnp.uint16
INT8_ONE = 126  # what 1.0 is stored as in int8, so that -1, 0 and 1 stay exact
INT8_OUTSIDE = 127  # with either sign: the value was not within [-1, 1]
# of dtypes with a smaller range than float32's
RANGES = {"int8": "[-1, 1]", "float16": "[-65504, 65504]"}


def storage_dtype(name: str, episode: Episode, leaf: Array | np.ndarray, dtype: str) -> jnp.dtype:
    """The dtype in which a field of an Episode, arrays or shapes, is stored."""
    if name in LOSSY:
        return jnp.dtype(dtype)
    if name == "mask":
        return jnp.dtype(bool)
    if name == "action" and jnp.issubdtype(leaf.dtype, jnp.integer):
        return jnp.dtype(jnp.uint8 if episode.avail.shape[-1] <= 256 else jnp.int32)
    return leaf.dtype


def storage(episode: Episode, capacity: int, dtype: str) -> Episode:
    """Shapes of a ring for such episodes, as ShapeDtypeStructs.

    [T(+1), B, ...] -> [C, T(+1), ...]. Raises RefusedError for a dtype that there is not.
    """
    if dtype not in RING_DTYPES:
        raise RefusedError(f"replay.dtype={dtype} is not one of {', '.join(RING_DTYPES)}.")

    def slot(path: tuple[jax.tree_util.GetAttrKey, ...], leaf: Array) -> jax.ShapeDtypeStruct:
        shape = (capacity, leaf.shape[0], *leaf.shape[2:])
        stored = storage_dtype(path[0].name, episode, leaf, dtype)
        return jax.ShapeDtypeStruct(shape, BITS if stored == jnp.bfloat16 else stored)

    return jax.tree_util.tree_map_with_path(slot, episode)


def num_bytes(arrays: Tree) -> int:
    """Bytes of a ring, or of any tree of arrays or shapes."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(arrays))


def init(episode: Episode, capacity: int, dtype: str) -> Episode:
    """An empty ring for episodes of these shapes."""
    return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), storage(episode, capacity, dtype))


def add(ring: Episode, episode: Episode, clock: Clock) -> Episode:
    """Write the B episodes of a rollout at clock.stored, ..., clock.stored + B - 1 (modulo C)."""
    capacity = jax.tree.leaves(ring)[0].shape[0]
    batch = episode.mask.shape[1]
    slot = (clock.stored + jnp.arange(batch)) % capacity

    def write(stored: Array, new: Array) -> Array:
        episode_first = jnp.swapaxes(new, 0, 1)
        return stored.at[slot].set(_stored(episode_first, stored.dtype), unique_indices=True)

    return jax.tree.map(write, ring, episode)


def _stored(x: Array, dtype: DTypeLike) -> Array:
    """x in a dtype of storage.

    int8: steps of 1 / INT8_ONE; what is not within [-1, 1] is marked, not cut.
    """
    if dtype == BITS:
        return jax.lax.bitcast_convert_type(x.astype(jnp.bfloat16), BITS)
    if dtype != jnp.int8 or x.dtype == jnp.int8:
        return x.astype(dtype)
    inside = jnp.round(jnp.clip(x, -1.0, 1.0) * INT8_ONE)
    return jnp.where(jnp.abs(x) <= 1.0, inside, INT8_OUTSIDE).astype(dtype)


def _read(x: Array) -> Array:
    """obs or state as float32.

    Marks of int8 are NaN, so that training stops instead of learning from them.
    """
    if x.dtype == BITS:
        x = jax.lax.bitcast_convert_type(x, jnp.bfloat16)
    if x.dtype != jnp.int8:
        return x.astype(jnp.float32)
    return jnp.where(jnp.abs(x) == INT8_OUTSIDE, jnp.nan, x.astype(jnp.float32) / INT8_ONE)


def any_outside(ring: Episode) -> Array:
    """Whether a ring holds observations or states beyond the range of its dtype, [] bool.

    They are marks of int8, or infinity. A bfloat16 has the range of float32.
    """
    stored = [x for x in (ring.obs, ring.state) if x.dtype in (jnp.int8, jnp.float16)]
    marks = [(INT8_OUTSIDE if x.dtype == jnp.int8 else jnp.inf) for x in stored]

    # by the extremes: comparing every number would make an array as large as the ring
    def reaches(x: Array, mark: float) -> Array:
        return (x.max() == mark) | (x.min() == -mark)

    pairs = zip(stored, marks, strict=True)
    outside = [reaches(x, mark) for x, mark in pairs if x.size]
    return jnp.stack(outside).any() if outside else jnp.bool_(False)


def gather(ring: Episode, index: Array) -> Episode:
    """The episodes at index [B], time first again and in computing dtypes."""
    return _computing(jax.tree.map(lambda stored: jnp.swapaxes(stored[index], 0, 1), ring))


def _computing(batch: Episode) -> Episode:
    """Stored fields in the dtypes of computing."""
    obs = _read(batch.obs)
    state = _read(batch.state)
    mask = batch.mask.astype(jnp.float32)
    action = batch.action
    if jnp.issubdtype(action.dtype, jnp.integer):
        action = action.astype(jnp.int32)
    return batch.replace(obs=obs, state=state, mask=mask, action=action)


def steps_stored(ring: Episode) -> Array:
    """How many transitions every slot holds, [C] i32; none where nothing was written yet."""
    return ring.mask.sum(1, dtype=jnp.int32)


def uniform_transitions(key: Array, steps: Array, batch_size: int) -> tuple[Array, Array]:
    """(slot, step), each [batch_size] i32, of transitions that are all equally likely.

    They are drawn with replacement. steps: [C] from `steps_stored`. A transition is found by its
    rank among all, by bisection of the running sum.
    """
    until = jnp.cumsum(steps)
    rank = jax.random.randint(key, (batch_size,), 0, jnp.maximum(until[-1], 1))
    slot = jnp.searchsorted(until, rank, side="right").astype(jnp.int32)
    return slot, rank - (until - steps)[slot]


def gather_windows(ring: Episode, slot: Array, step: Array, window: int) -> Episode:
    """`window` steps from `step` [B] of the episodes at slot [B].

    An Episode of fields [window(+1), B, ...]. Steps after the end of an episode have mask 0. Where
    a window cuts one off, nothing is terminated or truncated.
    """
    limit = ring.mask.shape[1]
    at = step[None] + jnp.arange(window + 1)[:, None]  # [window + 1, B]

    def read(stored: Array) -> Array:
        slots = at if stored.shape[1] == limit + 1 else at[:-1]
        return stored[slot[None], jnp.minimum(slots, stored.shape[1] - 1)]

    batch = jax.tree.map(read, ring)
    return _computing(batch.replace(mask=batch.mask & (at[:-1] < limit)))


def gather_packed(ring: Episode, index: Array, packing: Packing) -> PackedEpisode:
    """The episodes at index [B] where a packing has them, fields [L(+1), R, ...].

    What stands behind the last step of an episode, and where there is none, has mask 0.
    """
    slot = jnp.arange(len(packing.step))[:, None]
    row = jnp.arange(packing.step.shape[1])[None]
    episode = packing.episode
    is_mine = (packing.start[episode] + packing.step == slot) & (packing.row[episode] == row)
    is_step = is_mine & (packing.step < packing.length[episode])

    def read(stored: Array) -> Array:
        slots = slice(None) if stored.shape[1] > packing.limit else slice(-1)
        step = jnp.minimum(packing.step[slots], stored.shape[1] - 1)
        return stored[index[episode[slots]], step]

    batch = _computing(jax.tree.map(read, ring))
    mask = batch.mask * is_step[:-1]
    return PackedEpisode(**{**vars(batch), "mask": mask}, packing=packing)


def crop(batch: Episode, limit: int) -> Episode:
    """The first `limit` steps of a batch (limit + 1 slots where there are T + 1)."""
    longer = {
        name: getattr(batch, name)[: limit + 1] for name in ("obs", "state", "avail", "alive")
    }
    return jax.tree.map(lambda x: x[:limit], batch).replace(**longer)


def num_stored(clock: Clock, capacity: int) -> Array:
    """How many slots hold an episode, [] i32."""
    return jnp.minimum(clock.stored, capacity)


def uniform_without_replacement(
    key: Array, stored: Array, capacity: int, batch_size: int, ctx: Context
) -> Array:
    """Different slots out of the first `stored`, all equally likely: [batch_size] i32."""
    score = jnp.where(jnp.arange(capacity) < stored, jax.random.uniform(key, (capacity,)), -1.0)
    return jax.lax.top_k(score, batch_size)[1]
