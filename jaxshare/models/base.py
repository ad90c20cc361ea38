"""Initialisers with torch's distributions, and lifting a network to a team of agents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from jaxshare.models.products import products
from jaxshare.ops.spread import is_spread
from jaxshare.trees import Tree

SHARING = ("all", "type", "none")
INITS = ("torch", "orthogonal")


@dataclass(frozen=True)
class Network:
    """`init(key) -> params` and `apply(params, ...)`; parameters are plain dictionaries of arrays.

    param_sets: parameter set of each agent, if agents have it; (): it is nobody's; None: not said,
    taken for nobody's.
    """

    init: Callable[..., Any]
    apply: Callable[..., Any]
    param_sets: tuple[int, ...] | None = None


def num_sets(network: object) -> int:
    """How many parameter sets a network has."""
    sets = getattr(network, "param_sets", None)
    return max(sets) + 1 if sets else 1


def first_params(module: nn.Module, key: jax.Array, *inputs: Tree) -> Tree:
    """Parameters of a module that will read such inputs, drawn anew. key: []."""
    return module.init(key, *inputs)["params"]


def apply_of(module: nn.Module) -> Callable[..., Any]:
    """`apply(params, *inputs)` of a module, as if it were called with these inputs."""

    def apply(params: Tree, *inputs: Tree) -> Tree:
        return module.apply({"params": params}, *inputs)

    return apply


def uniform_fan(fan: int) -> Callable[..., jax.Array]:
    """U(-1/sqrt(fan), 1/sqrt(fan)): torch's default for Linear and GRU, weights and biases."""

    def init(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -1.0, 1.0) / jnp.sqrt(fan)

    return init


def orthogonal(gain: float) -> Callable[..., jax.Array]:
    """`gain` times a uniformly random matrix with orthonormal rows or columns, whichever are fewer
    (Saxe et al. 2014).

    ours: Gram-Schmidt on a Gaussian matrix, twice for precision. A vmapped QR is a batched LAPACK
    call, and two devices of a CPU that run one at the same time hang (jaxlib 0.10.2, two cores).
    """

    def init(key: jax.Array, shape: tuple[int, int], dtype: DTypeLike = jnp.float32) -> jax.Array:
        many = max(shape)
        few = min(shape)
        rows = jax.random.normal(key, (few, many), dtype)

        # each row less its parts along those that are done

        def step(done: jax.Array, at: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
            i, row = at
            for _ in range(2):
                row = row - (done @ row) @ done
            return done.at[i].set(row / jnp.linalg.norm(row)), None

        done, _ = jax.lax.scan(step, jnp.zeros_like(rows), (jnp.arange(few), rows))
        return gain * (done if shape[0] == few else done.T)

    return init


def add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
    """x [..., F] + bias [F], without implicit rank promotion."""
    return x + bias.reshape((1,) * (x.ndim - 1) + bias.shape)


class Linear(nn.Module):
    """x [..., D] -> [..., features], initialised as torch's Linear.

    flax's Dense differs in weights and biases.
    """

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Affine map of the last axis."""
        init = uniform_fan(x.shape[-1])
        kernel = self.param("kernel", init, (x.shape[-1], self.features))
        return add_bias(products(x, [kernel])[0], self.param("bias", init, (self.features,)))


def sharing_sets(share: str, types: tuple[int, ...]) -> tuple[int, ...]:
    """Parameter set of each agent. share: "all" (one set), "type" (one per agent type), "none"
    (one per agent).
    """
    if share not in SHARING:
        raise ValueError(f"share_params={share} is not one of {', '.join(SHARING)}")
    return {"all": (0,) * len(types), "type": types, "none": tuple(range(len(types)))}[share]


def lift_init(
    init: Callable[[jax.Array], Any], param_sets: tuple[int, ...]
) -> Callable[[jax.Array], Any]:
    """One parameter set if all agents share, else sets stacked along a leading axis."""
    count = max(param_sets) + 1
    if count == 1:
        return init
    return lambda key: jax.vmap(init)(jax.random.split(key, count))


def lift_apply(apply: Callable[..., Any], param_sets: tuple[int, ...]) -> Callable[..., Any]:
    """Run `apply(params, carry [rows, H], x [T, rows, D]) -> (carry, y [T, rows, A])` on a team.

    The lifted function takes carry [B, N, H] and x [T, B, N, D] and returns (carry [B, N, H], y
    [T, B, N, A]). Agents that share parameters are folded into the rows. x and y may be trees of
    such arrays.
    """
    apply = in_blocks(apply)
    count = max(param_sets) + 1
    if count == 1:
        return lambda params, carry, x: _folded(apply, params, carry, x)
    if param_sets == tuple(range(len(param_sets))):
        return jax.vmap(apply, in_axes=(0, 1, 2), out_axes=(1, 2))
    return lambda params, carry, x: _by_type(apply, param_sets, params, carry, x)


# rows x steps of a block; what an update keeps of them then stays in a core's cache
BLOCK = 1024


def in_blocks(apply: Callable[..., Any]) -> Callable[..., Any]:
    """The same `apply(params, carry [rows, H], x [T, rows, D]) -> (carry, y)`, on one CPU some
    steps at a time: over several devices each block would add up its own gradient.

    ours: on whole sequences most of the time goes into memory, not into products
    (benchmarks/README.md).
    """

    def blocked(params: Tree, carry: jax.Array, x: Tree) -> tuple[jax.Array, Tree]:
        steps, rows = jax.tree.leaves(x)[0].shape[:2]
        in_cache = jax.default_backend() == "cpu" and not is_spread()
        size = block_size(steps, rows) if in_cache else steps
        if size == steps:
            return apply(params, carry, x)

        # those that fill no block come first: what follows the last step must be the carry
        early = steps % size

        def as_blocks(a: jax.Array) -> jax.Array:
            """[T, ...] -> [blocks, size, ...], of the others."""
            return a[early:].reshape(-1, size, *a.shape[1:])

        def as_steps(a: jax.Array) -> jax.Array:
            """[blocks, size, ...] -> [blocks * size, ...]."""
            return a.reshape(-1, *a.shape[2:])

        parts = []
        if early:
            carry, y = apply(params, carry, jax.tree.map(lambda a: a[:early], x))
            parts.append(y)

        # all others, block by block
        blocks = jax.tree.map(as_blocks, x)
        carry, y = jax.lax.scan(lambda carry, block: apply(params, carry, block), carry, blocks)
        parts.append(jax.tree.map(as_steps, y))
        return carry, jax.tree.map(lambda *a: jnp.concatenate(a), *parts)

    return blocked


def block_size(steps: int, rows: int) -> int:
    """Steps of a block: BLOCK / rows to twice that, the first that leaves the fewest steps over
    (more to compile).
    """
    near = max(1, BLOCK // rows)
    if steps < 2 * near:
        return steps
    return min(range(near, 2 * near + 1), key=lambda size: steps % size)


def lift_every(apply: Callable[..., Any], param_sets: tuple[int, ...]) -> Callable[..., Any]:
    """As `lift_apply`, but every parameter set sees every agent: y [S, T, B, N, A], S = number of
    sets; no carry.
    """

    def folded(params: Tree, carry: jax.Array, x: Tree) -> Tree:
        return _folded(apply, params, carry, x)[1]

    if max(param_sets) == 0:
        return lambda params, carry, x: jax.tree.map(lambda y: y[None], folded(params, carry, x))
    return jax.vmap(folded, in_axes=(0, None, None))


def _folded(
    apply: Callable[..., Any], params: Tree, carry: jax.Array, x: Tree
) -> tuple[jax.Array, Tree]:
    """`apply` with agents folded into rows: carry [B, N, H], x [T, B, N, D]."""
    batch, agents = carry.shape[:2]

    def fold(a: jax.Array) -> jax.Array:
        return a.reshape(a.shape[0], batch * agents, *a.shape[3:])

    def unfold(a: jax.Array) -> jax.Array:
        return a.reshape(a.shape[0], batch, agents, *a.shape[2:])

    rows = carry.reshape(batch * agents, -1)
    carry, y = apply(params, rows, jax.tree.map(fold, x))
    return carry.reshape(batch, agents, -1), jax.tree.map(unfold, y)


def _by_type(
    apply: Callable[..., Any],
    param_sets: tuple[int, ...],
    params: Tree,
    carry: jax.Array,
    x: Tree,
) -> tuple[jax.Array, Tree]:
    """`_folded` for the agents of each parameter set in turn."""
    members: list[list[int]] = [[] for _ in range(max(param_sets) + 1)]
    for agent, param_set in enumerate(param_sets):
        members[param_set].append(agent)

    # each set with its agents
    parts = []
    for param_set, agents in enumerate(members):
        index = jnp.array(agents)
        of_set = jax.tree.map(lambda p, s=param_set: p[s], params)
        inputs = jax.tree.map(lambda a, i=index: a[:, :, i], x)
        parts.append(_folded(apply, of_set, carry[:, index], inputs))

    # back into the order of the team
    order = [agent for agents in members for agent in agents]
    back = jnp.array([order.index(agent) for agent in range(len(param_sets))])

    def joined(*y: jax.Array) -> jax.Array:
        return jnp.concatenate(y, axis=2)[:, :, back]

    carry = jnp.concatenate([part[0] for part in parts], axis=1)[:, back]
    return carry, jax.tree.map(joined, *[part[1] for part in parts])
