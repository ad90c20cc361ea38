"""Utility networks Q_i(tau_i, .) of the value family: recurrent or not, lifted to a team."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxshare.models.base import (
    Linear,
    add_bias,
    apply_of,
    first_params,
    lift_apply,
    lift_init,
    num_sets,
    orthogonal,
    uniform_fan,
)
from jaxshare.models.products import products
from jaxshare.models.recurrent import Gates, GRUWeights, gru_unroll
from jaxshare.ops.spread import is_spread
from jaxshare.trees import Tree

GATES = ("reset", "update", "new")
# kernels that torch has as one matrix: of a linear layer, and of the two halves of a GRU
ONE_MATRIX = (
    ("kernel",),
    tuple(f"hidden_{gate}_kernel" for gate in GATES),
    tuple(f"input_{gate}_kernel" for gate in GATES),
)
Kept = tuple[jax.Array, jax.Array]  # inputs [T, ..., D], and what is kept of memory [T, ..., 1]


@dataclass(frozen=True)
class AgentNetwork:
    """The utilities of a team.

    init: key -> params; initial_carry: B -> [B, N, H] zeros (every episode starts there);
    unroll: (params, carry [B, N, H], inputs [T, B, N, D]) -> (carry, q [T, B, N, A]);
    param_sets: parameter set of each agent;
    unroll_kept: (params, carry, (inputs, keep [T, B, N, 1])) -> the same as `unroll`, where memory
    is emptied before steps with keep 0, else 1; None: it cannot be emptied.
    """

    init: Callable[[jax.Array], Any]
    initial_carry: Callable[[int], jax.Array]
    unroll: Callable[[Any, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
    param_sets: tuple[int, ...]
    unroll_kept: Callable[[Any, jax.Array, Kept], tuple[jax.Array, jax.Array]] | None = None


class RecurrentQ(nn.Module):
    """x -> Linear(H) -> ReLU -> GRU(H) -> Linear(A): the agent of PyMARL (Rashid et al. 2018,
    appendix C).

    carry [rows, H], x [T, rows, D] -> (carry, q [T, rows, A]).
    """

    hidden_dim: int
    num_actions: int

    @nn.compact
    def __call__(
        self, carry: jax.Array, x: jax.Array, keep: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Unroll over the leading axis. keep: [T, rows, 1] as in `gru_unroll`."""
        x = nn.relu(Linear(self.hidden_dim, name="embed")(x))
        hidden = GRU(self.hidden_dim, name="gru")(carry, x, keep)
        return hidden[-1], Linear(self.num_actions, name="head")(hidden)


class GRU(nn.Module):
    """torch's GRU: biases on both halves of all gates, U(-1/sqrt(H), 1/sqrt(H)).

    [T, rows, D] -> [T, rows, H].
    """

    hidden_dim: int

    @nn.compact
    def __call__(
        self,
        carry: jax.Array,
        x: jax.Array,
        keep: jax.Array | None = None,
        after: jax.Array | None = None,
    ) -> Tree:
        """All hidden states [T, rows, H]; keep [T, rows, 1] as in `gru_unroll`.

        With `after` [T, rows, D] a pair: also the states that one more step would give, from each,
        with these inputs.
        """
        init = uniform_fan(self.hidden_dim)
        square = (self.hidden_dim, self.hidden_dim)
        wide = (x.shape[-1], self.hidden_dim)
        vector = (self.hidden_dim,)

        # the recurrent half of each gate, then the half that reads x
        bias = {g: self.param(f"hidden_{g}_bias", init, vector) for g in GATES}
        recurrent = {g: self.param(f"hidden_{g}_kernel", init, square) for g in GATES}
        weights = GRUWeights(**recurrent, new_bias=bias["new"])
        kernel = {g: self.param(f"input_{g}_kernel", init, wide) for g in GATES}
        half_bias = {g: self.param(f"input_{g}_bias", init, vector) for g in GATES}

        def gates(x: jax.Array) -> Gates:
            reset, update, new = products(x, [kernel["reset"], kernel["update"], kernel["new"]])
            reset = add_bias(reset, half_bias["reset"] + bias["reset"])
            update = add_bias(update, half_bias["update"] + bias["update"])
            return Gates(reset=reset, update=update, new=add_bias(new, half_bias["new"]))

        hidden = gru_unroll(weights, gates(x), carry, keep)
        if after is None:
            return hidden

        # one more step from each: of all steps at once, but rows stay on the devices they lie on
        if is_spread():
            one_step = jax.vmap(lambda x, h: gru_unroll(weights, gates(x[None]), h)[0])
            return hidden, one_step(after, hidden)

        # as rows
        def as_rows(y: jax.Array) -> jax.Array:
            return y.reshape(1, -1, y.shape[-1])

        later = gru_unroll(weights, gates(as_rows(after)), as_rows(hidden)[0])
        return hidden, later.reshape(hidden.shape)


class FeedForwardQ(nn.Module):
    """x -> Linear(H) -> ReLU -> Linear(H) -> ReLU -> Linear(A): the feed-forward agent of EPyMARL.

    Keeps no memory.
    """

    hidden_dim: int
    num_actions: int

    @nn.compact
    def __call__(self, carry: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Act on each step alone; the carry passes through."""
        x = nn.relu(Linear(self.hidden_dim, name="embed")(x))
        x = nn.relu(Linear(self.hidden_dim, name="body")(x))
        return carry, Linear(self.num_actions, name="head")(x)


def q_network(
    input_dim: int, num_actions: int, hidden_dim: int, recurrent: bool, param_sets: tuple[int, ...]
) -> AgentNetwork:
    """The utility network of a team whose agent i uses parameter set param_sets[i]."""
    module = (RecurrentQ if recurrent else FeedForwardQ)(hidden_dim, num_actions)
    carry_dim = hidden_dim if recurrent else 0
    return team_network(module, input_dim, carry_dim, param_sets, forgets=recurrent)


def team_network(
    module: nn.Module,
    input_dim: int,
    carry_dim: int,
    param_sets: tuple[int, ...],
    forgets: bool = False,
) -> AgentNetwork:
    """A network of one agent, lifted to a team.

    module: (carry [rows, H], x [T, rows, D]) -> (carry, y [T, rows, A]);
    forgets: it also takes keep [T, rows, 1], see `AgentNetwork`. Without memory (H = 0) it need
    not.
    """
    apply = apply_of(module)

    def init(key: jax.Array) -> Tree:
        return first_params(module, key, jnp.zeros((1, carry_dim)), jnp.zeros((1, 1, input_dim)))

    def initial_carry(batch: int) -> jax.Array:
        return jnp.zeros((batch, len(param_sets), carry_dim))

    # what only networks with a memory that can be emptied are given
    def apply_kept(params: Tree, carry: jax.Array, at: Kept) -> tuple[jax.Array, jax.Array]:
        x, keep = at
        return apply(params, carry, x, keep) if forgets else apply(params, carry, x)

    can_forget = forgets or carry_dim == 0
    return AgentNetwork(
        init=lift_init(init, param_sets),
        initial_carry=initial_carry,
        unroll=lift_apply(apply, param_sets),
        param_sets=param_sets,
        unroll_kept=lift_apply(apply_kept, param_sets) if can_forget else None,
    )


def drawn_orthogonally(network: AgentNetwork) -> AgentNetwork:
    """The network with other first parameters: see `orthogonal_params`."""

    def init(key: jax.Array) -> Tree:
        shapes = jax.eval_shape(network.init, key)
        if num_sets(network) > 1:
            # of one parameter set
            shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), shapes)
        return orthogonal_params(key, shapes)

    return replace(network, init=lift_init(init, network.param_sets))


def orthogonal_params(key: jax.Array, shapes: Tree) -> Tree:
    """First parameters of layers of these shapes, {layer: {tensor: shape}}: orthonormal kernels,
    biases of 0.

    As torch does it (code: PPS, gain 1): the kernels of a GRU's three gates are columns of one
    matrix, one for what it reads and one for its memory. key: [].
    """
    keys = jax.random.split(key, len(shapes))
    pairs = zip(shapes.items(), keys, strict=True)
    return {name: _orthogonal_layer(layer_key, layer) for (name, layer), layer_key in pairs}


def _orthogonal_layer(
    key: jax.Array, shapes: dict[str, jax.ShapeDtypeStruct]
) -> dict[str, jax.Array]:
    """One layer: {tensor: shape} -> {tensor: array}. key: []."""
    params = {name: jnp.zeros(x.shape, x.dtype) for name, x in shapes.items()}
    for i, names in enumerate(ONE_MATRIX):
        if names[0] not in shapes:
            continue
        # the columns of all of them
        inputs, units = shapes[names[0]].shape
        columns = orthogonal(1.0)(jax.random.fold_in(key, i), (inputs, len(names) * units))
        params |= dict(zip(names, jnp.split(columns, len(names), axis=1), strict=True))
    return params
