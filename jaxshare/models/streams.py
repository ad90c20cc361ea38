"""Networks of the actor-critics: they read pieces of streams of episodes, so that memory is emptied
in between.

    x -> Linear(H) -> act [-> GRU(H)] [-> Linear(H) -> act] -> Linear(Y)

Feed-forward both linear layers (SEAC, Christianos et al. 2020, Table 2); recurrent with the second
one (JaxMARL) or without it (EPyMARL).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from jaxshare.models.agents import GRU
from jaxshare.models.base import (
    Linear,
    add_bias,
    apply_of,
    first_params,
    lift_apply,
    lift_every,
    lift_init,
    orthogonal,
)
from jaxshare.models.products import product
from jaxshare.trees import Tree

Activation = Callable[[jax.Array], jax.Array]
ACTIVATIONS: dict[str, Activation] = {"relu": nn.relu, "tanh": nn.tanh}


class Stream(struct.PyTreeNode):
    """What a network reads."""

    x: jax.Array  # [T, B, N, D]
    # [T, B, N, 1]: 0 where memory is emptied before the step, else 1; None: all 1
    keep: jax.Array | None = None
    after: jax.Array | None = None  # [T, B, N, D]: what it would read next, before any reset


class Read(struct.PyTreeNode):
    """What it says."""

    y: jax.Array  # [T, B, N, Y]
    after: jax.Array | None = None  # [T, B, N, Y] about Stream.after


@dataclass(frozen=True)
class StreamNetwork:
    """A network of a team. param_sets: parameter set of each agent.

    init: key -> params; initial_carry: B -> [B, N, H] zeros (H = 0 without memory);
    unroll: (params, carry [B, N, H], Stream) -> (carry, Read);
    every: (params, carry, Stream) -> Read with leading [S]: what each of the S parameter sets says
    about every agent.
    """

    init: Callable[[jax.Array], Any]
    initial_carry: Callable[[int], jax.Array]
    unroll: Callable[[Any, jax.Array, Stream], tuple[jax.Array, Read]]
    every: Callable[[Any, jax.Array, Stream], Read]
    param_sets: tuple[int, ...]


@dataclass(frozen=True)
class Shape:
    """How a network is built."""

    hidden_dim: int
    recurrent: bool
    out_dim: int
    body: bool = True  # the second linear layer; a feed-forward network always has it
    activation: str = "relu"
    init: str = "torch"  # torch (uniform) | orthogonal (gain sqrt 2, biases 0)
    body_gain: float = 2**0.5  # orthogonal only
    head_gain: float = 1.0  # orthogonal only
    log_std: int = 0  # so many trainable numbers of their own after Y, starting at 0 (a Gaussian's)


class Dense(nn.Module):
    """x [..., D] -> [..., features], initialised as torch's Linear or orthogonally."""

    features: int
    scheme: str  # of INITS
    gain: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Affine map of the last axis."""
        if self.scheme == "torch":
            return Linear(self.features, name="linear")(x)
        kernel = self.param("kernel", orthogonal(self.gain), (x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return add_bias(product(x, kernel), bias)


class Torso(nn.Module):
    """The network of one agent.

    carry [rows, H], Stream of [T, rows, ...] -> (carry, Read of [T, rows, ...]).
    """

    shape: Shape

    @nn.compact
    def __call__(self, carry: jax.Array, stream: Stream) -> tuple[jax.Array, Read]:
        """Unroll over the leading axis."""
        s = self.shape
        act = ACTIVATIONS[s.activation]

        # embed what is read, now and next
        embed = Dense(s.hidden_dim, s.init, 2**0.5, name="embed")
        x = act(embed(stream.x))
        after = None if stream.after is None else act(embed(stream.after))

        # remember
        if s.recurrent:
            gru = GRU(s.hidden_dim, name="gru")
            carry, x, after = remembered(gru, carry, x, stream.keep, after)

        # the layers behind memory, for both alike
        layers: list[Callable[[jax.Array], jax.Array]] = []
        if s.body or not s.recurrent:
            body = Dense(s.hidden_dim, s.init, s.body_gain, name="body")
            layers.append(lambda x: act(body(x)))
        layers.append(Dense(s.out_dim, s.init, s.head_gain, name="head"))
        if s.log_std:
            log_std = self.param("log_std", nn.initializers.zeros, (s.log_std,))
            layers.append(lambda y: _appended(y, log_std))
        for layer in layers:
            x = layer(x)
            after = None if after is None else layer(after)
        return carry, Read(y=x, after=after)


def remembered(
    gru: GRU, carry: jax.Array, x: jax.Array, keep: jax.Array | None, after: jax.Array | None
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """The memory behind the last step [rows, H], of all steps, and of what would be read next.

    x, and after if there is any: [T, rows, D] -> [T, rows, H]; keep: [T, rows, 1], see `GRU`.
    """
    if after is None:
        hidden = gru(carry, x, keep)
    else:
        hidden, after = gru(carry, x, keep, after)
    return hidden[-1], hidden, after


def _appended(y: jax.Array, numbers: jax.Array) -> jax.Array:
    """y [..., Y] and the same numbers [K] after each: [..., Y + K]."""
    everywhere = add_bias(jnp.zeros((*y.shape[:-1], len(numbers))), numbers)
    return jnp.concatenate([y, everywhere], -1)


def stream_network(shape: Shape, input_dim: int, param_sets: tuple[int, ...]) -> StreamNetwork:
    """The network of a team whose agent i uses parameter set param_sets[i]."""
    carry_dim = shape.hidden_dim if shape.recurrent else 0
    return team_stream(Torso(shape), input_dim, carry_dim, param_sets)


def team_stream(
    module: nn.Module, input_dim: int, carry_dim: int, param_sets: tuple[int, ...]
) -> StreamNetwork:
    """A network of one agent that reads streams, lifted to a team.

    module: (carry [rows, H], Stream of [T, rows, ...]) -> (carry, Read of [T, rows, ...]).
    """
    apply = apply_of(module)

    # what a new network is drawn for: one step of one row
    def init(key: jax.Array) -> Tree:
        stream = Stream(x=jnp.zeros((1, 1, input_dim)))
        return first_params(module, key, jnp.zeros((1, carry_dim)), stream)

    def initial_carry(batch: int) -> jax.Array:
        return jnp.zeros((batch, len(param_sets), carry_dim))

    return StreamNetwork(
        init=lift_init(init, param_sets),
        initial_carry=initial_carry,
        unroll=lift_apply(apply, param_sets),
        every=lift_every(apply, param_sets),
        param_sets=param_sets,
    )
