"""Rings of episodes of given lengths, and batches of them: one a row, and packed."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from combinations import FAST

from jaxshare.training import packing, replay
from jaxshare.types import Discrete, Episode

LENGTHS = (1, 4, 3, 4, 2, 1, 4)  # one step, as long as may be, and between; of a limit of 4


def ring_of(spec, lengths, seed=0):
    """A ring that holds episodes of these lengths, every other one cut by the time limit, with deaths."""
    rng = np.random.default_rng(seed)
    count, limit = len(lengths), spec.episode_limit
    length = np.array(lengths)[:, None]
    slot = np.arange(limit + 1)[None]
    reached, real = slot <= length, slot[:, :-1] < length
    last = slot[:, :-1] == length - 1
    cut = last & (np.arange(count)[:, None] % 2 == 0)
    alive = reached[..., None] & (slot[..., None] < rng.integers(1, 2 * limit, (count, 1, spec.num_agents)))
    continuous = not isinstance(spec.action, Discrete)
    actions = 0 if continuous else spec.action.num_actions
    avail = rng.random((count, limit + 1, spec.num_agents, 0 if continuous else actions)) < 0.6
    if continuous:
        action = rng.uniform(-1, 1, (count, limit, spec.num_agents, spec.action.dim)).astype(np.float32)
    else:
        avail[..., 0] = True
        avail |= ~reached[..., None, None]
        action = np.where(avail, rng.random(avail.shape), -1).argmax(-1)[:, :-1]
    reward = rng.normal(size=(count, limit, spec.num_agents)) * real[..., None]
    if spec.common_reward:
        reward = np.broadcast_to(reward[..., :1], reward.shape)
    return Episode(
        obs=jnp.asarray(rng.normal(size=(*alive.shape, spec.obs_dim)) * reached[..., None, None], jnp.float32),
        state=jnp.asarray(rng.normal(size=(count, limit + 1, spec.state_dim)) * reached[..., None], jnp.float32),
        avail=jnp.asarray(avail), alive=jnp.asarray(alive),
        action=jnp.asarray(action) * (real[..., None, None] if continuous else real[..., None]),
        reward=jnp.asarray(reward, jnp.float32), terminated=jnp.asarray(last & ~cut), truncated=jnp.asarray(cut),
        mask=jnp.asarray(real),
    )  # fmt: skip


def both(ring, index, shape=None):
    """The episodes at `index` one a row, and packed in this shape."""
    shape = shape or (ring.mask.shape[1], len(index) - 1)
    rows, *batches = _both(shape, ring, index)
    assert int(rows) <= shape[1]
    return batches


@partial(jax.jit, static_argnums=0, compiler_options=FAST)
def _both(shape, ring, index):
    length = packing.lengths(ring, index)
    places = packing.first_fit(length, shape[0])
    where = packing.packing_of(length, places, shape, ring.mask.shape[1])
    return places.rows, replay.gather(ring, index), replay.gather_packed(ring, index, where)
