"""What the agents' networks of the value family say and do."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import struct
from jax.typing import DTypeLike

from jaxshare.learners.learner import Learner
from jaxshare.learners.packed import packable
from jaxshare.learners.records import (
    Acting,
    Chosen,
    View,
)
from jaxshare.learners.value_settings import ValueConfig
from jaxshare.models.agents import AgentNetwork, drawn_orthogonally, q_network
from jaxshare.models.base import sharing_sets
from jaxshare.models.inputs import Reads, last_actions
from jaxshare.ops import offline, td
from jaxshare.ops.masking import (
    masked_argmax,
    masked_max,
    take_last,
)
from jaxshare.ops.policy import epsilon_greedy
from jaxshare.ops.schedules import exploration_rate
from jaxshare.training import packing
from jaxshare.trees import Batch, Params, Tree
from jaxshare.types import Array, Discrete, EnvSpec, RefusedError


class Utilities(struct.PyTreeNode):
    """What the agents' networks say about a batch.

    Fields that `Values` has too mean the same there.
    """

    q: Array  # [T+1, B, N, A]; [T+1, B, N, 0] for continuous actions
    q_taken: Array  # [T, B, N]
    next_q: Array  # [T, B, N]
    target_q: Array  # [T+1, B, N, A]; [T+1, B, N, 0] for continuous actions
    features: Array  # [T+1, B, N, E]
    q_max: Array  # [T, B, N] best available online utility, a constant
    next_q_max: Array  # [T, B, N] best available target utility of the next slot
    next_action: Array  # [T, B, N(, U)] next greedy actions, whose utilities are next_q


def agent_network(name: str, config: ValueConfig, spec: EnvSpec) -> AgentNetwork:
    """The family's network of A utilities. Raises RefusedError for continuous actions."""
    reads = Reads(spec, config.obs_last_action, config.obs_agent_id)
    num_actions = num_choices(name, spec)
    network = q_network(
        input_dim=reads.dim,
        num_actions=num_actions,
        hidden_dim=config.hidden_dim,
        recurrent=config.recurrent,
        param_sets=sharing_sets(config.share_params, spec.groups),
    )
    return drawn(config, network)


def drawn(config: ValueConfig, network: AgentNetwork) -> AgentNetwork:
    """The network with first parameters as settings say."""
    return drawn_orthogonally(network) if config.init == "orthogonal" else network


def num_choices(name: str, spec: EnvSpec) -> int:
    """A. Raises RefusedError for continuous actions."""
    if not isinstance(spec.action, Discrete):
        raise RefusedError(
            f"algo={name} needs discrete actions; env={spec.name} has continuous ones (use "
            "algo=comix)."
        )
    return spec.action.num_actions


# ------------------------------------------------------------------------------------ acting


def greedy(acting: Acting, noise_dim: int = 0) -> Chosen:
    """Epsilon-greedy on the utilities of all actions. noise_dim: as of `all_utilities`."""
    x = acting.x
    if noise_dim:
        # splitting a key in two folds in 0 and 1
        x = with_noise(x, jax.random.fold_in(acting.key, 2), noise_dim)
    agent = acting.learner.networks["agent"]
    hidden, y = agent.unroll(acting.params["agent"], acting.memory["agent"], x)
    q, _ = split(acting.learner, y[0])
    return Chosen(action=explored(acting, q), memory={"agent": hidden})


def explored(acting: Acting, q: Array) -> Array:
    """The best available actions by utilities [B, N, A], or while learning at times random ones.

    [B, N] i32.
    """
    ctx = acting.ctx
    epsilon = jnp.float32(0.0)
    if acting.explore:
        epsilon = exploration_rate(ctx.hparams, ctx.env_steps, ctx.total_env_steps)
    return epsilon_greedy(acting.key, q, acting.timestep.avail, epsilon)


def agent_inputs(view: View) -> Array:
    """What the agents read in every slot of a batch, [T+1, B, N, D]."""
    batch = view.batch
    first = packing.first_slots(batch)
    previous = last_actions(batch.action, view.spec, batch.mask, first)
    return view.learner.reads.build(batch.obs, previous)


@packable
def all_utilities(view: View, x: Array, noise_dim: int = 0) -> Utilities:
    """Discrete actions: one unroll gives the utilities of all, x [T+1, B, N, D].

    noise_dim: so many standard normals are appended to each input, zeros where somebody only looks.
    """
    batch = view.batch
    target_x = x
    if noise_dim:
        keys = (None, None) if view.key is None else jax.random.split(view.key)
        target_x = with_noise(x, keys[1], noise_dim, batch)
        x = with_noise(x, keys[0], noise_dim, batch)
    q, features = split(view.learner, unrolled(view, "agent", view.params, x))
    # code: the target network is unrolled from t = 0 as well; starting it at t = 1 gives it another
    # history
    slow = jax.lax.stop_gradient(unrolled(view, "agent", view.target_params, target_x))
    target_q, _ = split(view.learner, slow)
    frozen_q = jax.lax.stop_gradient(q)

    # of what was done, and of the greedy actions after it
    double_q = view.config.double_q
    q_taken = take_last(q[:-1], batch.action)
    next_q = td.next_q(frozen_q, target_q, batch.avail, double_q)

    # of the best actions now, and after it
    now = batch.avail[:-1]
    later = batch.avail[1:]
    q_max = masked_max(frozen_q[:-1], now)
    next_q_max = masked_max(target_q[1:], later)
    next_action = masked_argmax((frozen_q if double_q else target_q)[1:], later)
    return Utilities(
        q=q,
        q_taken=q_taken,
        next_q=next_q,
        target_q=target_q,
        features=features,
        q_max=q_max,
        next_q_max=next_q_max,
        next_action=next_action,
    )


def unrolled(view: View, name: str, params: Params, x: Array) -> Array:
    """What a network of the agents says of inputs [T, B, N, D] from an empty memory on,
    [T, B, N, Y].

    x: of the first T slots of the view's batch. Memory is emptied where an episode begins.
    """
    network = view.learner.networks[name]
    empty = network.initial_carry(x.shape[1])
    first = packing.first_slots(view.batch)
    if first is None or empty.size == 0:
        return network.unroll(params[name], empty, x)[1]
    keep = jnp.where(first[: len(x), :, None, None], 0.0, jnp.ones((1, 1, x.shape[2], 1)))
    return network.unroll_kept(params[name], empty, (x, keep))[1]


def with_noise(x: Array, key: Array | None, noise_dim: int, batch: Batch = None) -> Array:
    """x [T, B, N, D] and `noise_dim` standard normals, or zeros without a key.

    batch: what x is of, in all its slots. A packed one has the draws of whole episodes.
    """
    if key is None:
        zeros = jnp.zeros((*x.shape[:-1], noise_dim), x.dtype)
        return jnp.concatenate([x, zeros], axis=-1)
    shape = x.shape if batch is None else packing.drawn_shape(batch, x)
    noise = normals(key, (*shape[:-1], noise_dim), x.dtype)
    noise = noise if batch is None else packing.as_packed(batch, noise)
    return jnp.concatenate([x, noise], axis=-1)


def normals(key: Array, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """Standard normals [T, ...]: a key for each step, so that cropping a batch keeps its draws."""
    keys = jax.vmap(lambda t: jax.random.fold_in(key, t))(jnp.arange(shape[0]))
    return jax.vmap(lambda k: jax.random.normal(k, shape[1:], dtype))(keys)


def samples_per_step(view: View, draw: Callable[..., Tree], *by_step: Array) -> Tree:
    """What `offline.per_step` draws of arrays [T, B, ...] by the view's key, samples first.

    draw: (key, of one step [B, ...], …) -> [K, B, ...]. Packed batches have the draws of whole
    episodes. -> [K, T, B, ...].
    """
    batch = view.batch
    whole = [packing.as_drawn(batch, x) for x in by_step]
    drawn = offline.per_step(view.key, len(whole[0]), draw, *whole)

    def samples_first(x: Array) -> Array:
        place = partial(packing.as_packed, batch)
        return jax.vmap(place, in_axes=1)(x)

    if packing.packing_in(batch) is None:
        return jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), drawn)
    return jax.tree.map(samples_first, drawn)


def three_ways_per_step(view: View, mean: Array, std: Array, samples: int) -> tuple[Array, Array]:
    """`offline.three_ways` in every step, constants: around what actors mean now, and next.

    mean [T+1, B, N, U], std [] -> actions [3 samples, T, B, N, U], log densities
    [3 samples, T, B, N].
    """

    def draw(key: Array, now: Array, then: Array) -> tuple[Array, Array]:
        """Of one step, [B, N, U] each."""
        return offline.three_ways(key, (now, then), std, samples)

    mean = jax.lax.stop_gradient(mean)
    action, density = samples_per_step(view, draw, mean[:-1], mean[1:])
    return action, density


def split(learner: Learner, y: Array) -> tuple[Array, Array]:
    """What an agents' network gives, as utilities [..., A] and features [..., E]."""
    action = learner.spec.action
    actions = action.num_actions if isinstance(action, Discrete) else y.shape[-1]
    return y[..., :actions], y[..., actions:]
