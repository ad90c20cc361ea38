"""Agents with roles (Wang et al. 2020, ROMA): the last layer of the utilities comes from a role
drawn at each step.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from jaxshare.models.agents import GRU, AgentNetwork, team_network
from jaxshare.models.base import Linear, Network, add_bias, apply_of, first_params, uniform_fan

NORMS = ("layer", "batch", "none")


@dataclass(frozen=True)
class RoleSizes:
    """Static facts of the role networks. norm: layer (per row) | batch (over the rows of a step) |
    none.
    """

    role_dim: int
    hidden_dim: int
    var_floor: float
    norm: str


@struct.dataclass
class Roles:
    """What a role agent shows besides its utilities, in this order."""

    mean: jax.Array  # [..., D]
    var: jax.Array  # [..., D]
    role: jax.Array  # [..., D] mean + sqrt(var) * noise
    before: jax.Array  # [..., H] hidden state before the step

    @classmethod
    def split(cls, features: jax.Array, role_dim: int) -> Roles:
        """From the features [..., 3 D + H] of `role_network`."""
        d = role_dim
        mean = features[..., :d]
        var = features[..., d : 2 * d]
        role = features[..., 2 * d : 3 * d]
        before = features[..., 3 * d :]
        return cls(mean, var, role, before)


class Hidden(nn.Module):
    """x -> Linear(H) -> norm -> LeakyReLU: [..., rows, D] -> [..., rows, H]."""

    sizes: RoleSizes

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply."""
        x = Linear(self.sizes.hidden_dim, name="linear")(x)
        if self.sizes.norm != "none":
            over = (-1,) if self.sizes.norm == "layer" else (-2,)
            x = nn.LayerNorm(
                epsilon=1e-5, reduction_axes=over, feature_axes=(-1,), use_fast_variance=False
            )(x)
        return nn.leaky_relu(x, 0.01)


class RoleEncoder(nn.Module):
    """A normal distribution of roles.

    x [..., rows, D_in] -> mean, var [..., rows, D], var >= var_floor.
    """

    sizes: RoleSizes

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Encode."""
        both = Linear(2 * self.sizes.role_dim, name="out")(Hidden(self.sizes, name="hidden")(x))
        mean = both[..., : self.sizes.role_dim]
        log_var = both[..., self.sizes.role_dim :]
        return mean, jnp.maximum(jnp.exp(log_var), self.sizes.var_floor)


class GeneratedHead(nn.Module):
    """Q = h W(role) + b(role): role [..., rows, D], h [..., rows, H] -> [..., rows, A].

    ours: W is linear in the decoder's c units, so h is multiplied by the c + 1 matrices first and W
    never formed: rows of (c + 1) A numbers instead of H A.
    """

    sizes: RoleSizes
    num_actions: int

    @nn.compact
    def __call__(self, role: jax.Array, h: jax.Array) -> jax.Array:
        """Generate the layer and apply it."""
        units = self.sizes.hidden_dim
        features = h.shape[-1]
        actions = self.num_actions
        code = Hidden(self.sizes, name="hidden")(role)
        init = uniform_fan(units)
        kernel = self.param("weight_kernel", init, (units, features, actions))
        fixed = self.param("weight_bias", init, (features, actions))
        each = h @ jnp.moveaxis(kernel, 1, 0).reshape(features, units * actions)
        by_unit = each.reshape(*h.shape[:-1], units, actions)
        y = (by_unit * code[..., None]).sum(-2) + h @ fixed
        bias = code @ self.param("bias_kernel", init, (units, actions))
        return y + add_bias(bias, self.param("bias_bias", init, (actions,)))


class RoleQ(nn.Module):
    """A recurrent agent whose head is generated from its role.

    carry [rows, H], x [T, rows, D_in + D], the last D standard normals -> carry,
    [T, rows, A + 3 D + H]: utilities and `Roles`.
    """

    sizes: RoleSizes
    hidden_dim: int
    num_actions: int

    @nn.compact
    def __call__(
        self, carry: jax.Array, x: jax.Array, keep: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Unroll over the leading axis. keep: [T, rows, 1] as in `gru_unroll`."""
        noise = x[..., -self.sizes.role_dim :]
        x = x[..., : -self.sizes.role_dim]
        gru = GRU(self.hidden_dim, name="gru")
        hidden = gru(carry, nn.relu(Linear(self.hidden_dim, name="embed")(x)), keep)
        mean, var = RoleEncoder(self.sizes, name="role_encoder")(x)
        role = mean + jnp.sqrt(var) * noise
        q = GeneratedHead(self.sizes, self.num_actions, name="head")(role, hidden)
        before = jnp.concatenate([carry[None], hidden[:-1]])
        before = before if keep is None else before * keep
        return hidden[-1], jnp.concatenate([q, mean, var, role, before], axis=-1)


class Unlikeness(nn.Module):
    """|D(role_i, role_j)|: [..., rows, 2 D] -> [..., rows]."""

    sizes: RoleSizes

    @nn.compact
    def __call__(self, pair: jax.Array) -> jax.Array:
        """Compare."""
        return jnp.abs(Linear(1, name="out")(Hidden(self.sizes, name="hidden")(pair))[..., 0])


def role_network(
    sizes: RoleSizes, input_dim: int, num_actions: int, hidden_dim: int, param_sets: tuple[int, ...]
) -> AgentNetwork:
    """The utility network of a team with roles; its inputs end with `role_dim` standard normals."""
    module = RoleQ(sizes, hidden_dim, num_actions)
    width = input_dim + sizes.role_dim
    return team_network(module, width, hidden_dim, param_sets, forgets=True)


def inference_network(sizes: RoleSizes, input_dim: int) -> Network:
    """apply(params, x [..., rows, input_dim]) -> mean, var [..., rows, D]."""
    return _network(RoleEncoder(sizes), input_dim)


def unlikeness_network(sizes: RoleSizes) -> Network:
    """apply(params, pair [..., rows, 2 D]) -> [..., rows], not negative."""
    return _network(Unlikeness(sizes), 2 * sizes.role_dim)


def _network(module: nn.Module, input_dim: int) -> Network:
    return Network(
        init=lambda key: first_params(module, key, jnp.zeros((1, input_dim))),
        apply=apply_of(module),
    )
