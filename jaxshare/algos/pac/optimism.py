"""PAC's Q+: what an agent can hope for if the others do what is best for it."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
from flax import struct

from jaxshare.learners import central
from jaxshare.learners.records import Settings, View
from jaxshare.models.streams import Read, Stream, StreamNetwork
from jaxshare.ops import pareto
from jaxshare.ops.masking import take_last
from jaxshare.trees import Tree
from jaxshare.types import Array, EnvSpec, RefusedError

# joint actions of the others to enumerate; ours: five agents with eight actions, six with five
MOST = 4096
ROWS = 2**16  # inputs of the critic at a time in a maximum; ours: some tens of MB


class Asked(struct.PyTreeNode):
    """What is asked about, [T, B, N, ...]."""

    z: Array  # [T, B, N, D]
    action: Array  # [T, B, N] what each agent does
    avail: Array  # [T, B, N, A] what it could do


def enumerates(config: Settings, spec: EnvSpec) -> bool:
    """Whether all joint actions of the others are looked at. config: PAC's settings.

    Raises RefusedError if there are too many.
    """
    actions = central.num_choices("pac", spec)
    others = spec.num_agents - 1
    if config.enumerate == "all" and actions**others > MOST:
        raise RefusedError(
            f"algo.enumerate=all: {others} others with {actions} actions have {actions**others} "
            f"joint actions, more than {MOST}. Use algo.enumerate=sample, which looks at "
            f"algo.samples={config.samples} of them."
        )
    return config.enumerate != "sample" and actions**others <= MOST


def both(value: StreamNetwork, joint: StreamNetwork) -> StreamNetwork:
    """V to the family, with the parameters of Q beside its own: {"value", "joint"}."""

    def init(key: Array) -> dict[str, Tree]:
        value_key, joint_key = jax.random.split(key)
        return {"value": value.init(value_key), "joint": joint.init(joint_key)}

    def unroll(params: Tree, carry: Array, stream: Stream) -> tuple[Array, Read]:
        return value.unroll(params["value"], carry, stream)

    def every(params: Tree, carry: Array, stream: Stream) -> Read:
        return value.every(params["value"], carry, stream)

    return replace(value, init=init, unroll=unroll, every=every)


def optimistic(joint: StreamNetwork, view: View, params: Tree, asked: Asked) -> Array:
    """Q+ of the actions taken, [T, B, N]; params of Q."""
    config = view.config
    spec = view.spec
    actions = central.num_choices("pac", spec)
    agents = spec.num_agents
    batch = asked.z.shape[1]
    everything = pareto.all_joint_actions(actions, agents) if enumerates(config, spec) else None
    count = config.samples if everything is None else len(everything)

    def others_of(at: Asked, key: Array) -> Array:
        """The others' actions one-hot, [count, B, N, N * A]."""
        if everything is None:
            drawn = pareto.drawn_joint_actions(key, at.action, at.avail, count)
            return pareto.others_only(drawn, actions)
        others = pareto.without_own(jnp.asarray(everything), actions)[:, None]
        return jnp.broadcast_to(others, (count, batch, *others.shape[2:]))

    def fold(x: Array) -> Array:
        """Joint actions into the rows: [count, B, ...] -> [1, count * B, ...]."""
        return x.reshape(1, count * batch, *x.shape[2:])

    def at_step(step: tuple[Asked, Array]) -> Array:
        at, key = step
        others = others_of(at, key)
        z = jnp.broadcast_to(at.z[None], (count, *at.z.shape))
        q = central.ask(joint, params, fold(z), fold(others))
        q = q.reshape(count, batch, agents, actions)
        taken = jnp.broadcast_to(at.action[None], (count, *at.action.shape))
        return pareto.best(take_last(q, taken), pareto.possible(others, at.avail))

    # some steps at a time
    steps = len(asked.z)
    keys = jax.random.split(view.key, steps)
    size = max(1, ROWS // (count * batch * agents))
    return jax.lax.map(at_step, (asked, keys), batch_size=min(size, steps))
