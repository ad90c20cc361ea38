"""PQN's agents: layers with layer norm, then a GRU or none, then utilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
from flax import linen as nn

from jaxshare.models.agents import GRU
from jaxshare.models.base import Linear
from jaxshare.models.streams import Read, Stream, StreamNetwork, remembered, team_stream

NORM_EPS = 1e-6  # code: flax's


@dataclass(frozen=True)
class Sizes:
    """How the network is built. layers: before the GRU; norm: whether they have layer norm."""

    hidden_dim: int
    layers: int
    recurrent: bool
    norm: bool


class NormedLayer(nn.Module):
    """x [..., D] -> Linear(H) -> LayerNorm -> ReLU: [..., H]."""

    hidden_dim: int
    norm: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Act on the last axis."""
        x = Linear(self.hidden_dim, name="linear")(x)
        if self.norm:
            x = nn.LayerNorm(epsilon=NORM_EPS, name="norm")(x)
        return nn.relu(x)


class NormedQ(nn.Module):
    """Utilities of one agent, x [-> Linear(H) -> LayerNorm -> ReLU]* [-> GRU(H)] -> Linear(A).

    carry [rows, H], Stream of [T, rows, ...] -> (carry, Read of [T, rows, A]). What is said of
    `Stream.after` is a constant: nothing learns through what is aimed at.
    """

    sizes: Sizes
    num_actions: int

    @nn.compact
    def __call__(self, carry: jax.Array, stream: Stream) -> tuple[jax.Array, Read]:
        """Unroll over the leading axis."""
        sizes = self.sizes
        names = [f"embed_{i}" for i in range(sizes.layers)]
        embed = [NormedLayer(sizes.hidden_dim, sizes.norm, name=name) for name in names]
        head = Linear(self.num_actions, name="head")

        # embed what is read, now and next
        x = through(embed, stream.x)
        after = None if stream.after is None else through(embed, stream.after)

        # remember
        if sizes.recurrent:
            gru = GRU(sizes.hidden_dim, name="gru")
            carry, x, after = remembered(gru, carry, x, stream.keep, after)

        # no gradient through what is next: said here, so that a backward pass over blocks skips it
        if after is None:
            return carry, Read(y=head(x))
        return carry, Read(y=head(x), after=jax.lax.stop_gradient(head(after)))


def through(layers: Sequence[Callable[[jax.Array], jax.Array]], x: jax.Array) -> jax.Array:
    """x [..., D] after all layers, [..., H]."""
    for layer in layers:
        x = layer(x)
    return x


def normed_network(
    sizes: Sizes, num_actions: int, input_dim: int, param_sets: tuple[int, ...]
) -> StreamNetwork:
    """The utilities of a team whose agent i uses parameter set param_sets[i]."""
    carry_dim = sizes.hidden_dim if sizes.recurrent else 0
    return team_stream(NormedQ(sizes, num_actions), input_dim, carry_dim, param_sets)
