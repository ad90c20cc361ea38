"""What learners of utilities share: iql, vdn, qmix and others, with or without a mixer.

The agents' network says Q_i(tau_i, .) of every action. `compute_values` reads a batch with the
online and the target networks, a loss looks at the `Values`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxshare.learners.keys import values_apart
from jaxshare.learners.learner import Learner
from jaxshare.learners.records import (
    Acting,
    Chosen,
    Loss,
    Optimizer,
    Phase,
    Policy,
    Step,
    Targets,
    View,
)
from jaxshare.models.agents import AgentNetwork, q_network
from jaxshare.models.base import sharing_sets
from jaxshare.models.inputs import Reads, last_actions
from jaxshare.models.mixers import Mixer, MixerInputs, qmix_mixer
from jaxshare.ops import td
from jaxshare.ops.masking import (
    masked_argmax,
    masked_max,
    masked_mean,
    masked_mean_square,
    take_last,
)
from jaxshare.ops.policy import epsilon_greedy
from jaxshare.ops.schedules import exploration_rate
from jaxshare.settings.fields import default, flag, nested
from jaxshare.settings.shared import (
    PYMARL,
    SWEPT,
    Adam,
    Agents,
    Averaging,
    Epsilon,
    HyperNetwork,
    Learning,
    RMSprop,
    TargetNetworks,
)
from jaxshare.settings.shared import Optimizer as OptimizerSettings
from jaxshare.settings.validate import check_record
from jaxshare.trees import Params
from jaxshare.types import Array, Discrete, EnvSpec, Episode, Metrics, RefusedError

DIFFER = "paper: DIFFER appendix B; code: PyMARL's default.yaml"
JOINT = "joint"  # the step, and its optimiser group of everything


@dataclass(frozen=True)
class ValueHParams(Averaging, Adam, RMSprop, Epsilon, Learning):
    """Swept scalars of the value family. paper: DIFFER appendix B; code: PyMARL's default.yaml."""

    lr: float = default(5e-4, DIFFER)
    gamma: float = default(0.99, DIFFER)
    epsilon_start: float = default(1.0, DIFFER)
    epsilon_end: float = default(0.05, DIFFER)
    epsilon_anneal_steps: float = default(50_000.0, DIFFER)


@dataclass(frozen=True)
class ValueConfig(OptimizerSettings, TargetNetworks, Agents):
    """Static settings of the value family."""

    hidden_dim: int = default(64, DIFFER)
    double_q: bool = flag(True, help="the online networks choose the next actions", source=PYMARL)
    hparams: ValueHParams = nested(ValueHParams, help=SWEPT)

    def __post_init__(self) -> None:
        check_record(self, "algo.")


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


class Values(struct.PyTreeNode):
    """What a loss looks at.

    `mix` maps taken utilities [T, B, N] to q_tot [T, B] with the online mixer.
    """

    q: Array  # [T+1, B, N, A] online utilities
    q_taken: Array  # [T, B, N]
    next_q: Array  # [T, B, N] target utilities of the next greedy actions
    q_tot: Array  # [T, B]; zeros where there is no mixer
    next_q_tot: Array  # [T, B]
    discount: Array  # [T, B] gamma * (1 - end)
    team_reward: Array  # [T, B]
    mix: Callable[[Array], Array] = struct.field(pytree_node=False)
    target_q: Array | None = None  # [T+1, B, N, A] utilities of the target networks
    next_action: Array | None = None  # [T, B, N(, U)] the next greedy actions
    # [T+1, B, N, E] what the agents' network gives besides utilities; E = 0 as a rule
    features: Array | None = None
    # what a `shaping` leaves for the losses
    extras: dict[str, Array] = field(default_factory=dict)


def value_learner(
    name: str,
    config: ValueConfig,
    spec: EnvSpec,
    mixer: Mixer | None,
    loss: Loss,
    agent: AgentNetwork | None = None,
) -> Learner:
    """A learner of utilities with the family's network, unless another is given.

    A loss that is none of the family's is the algorithm's own. Raises RefusedError for continuous
    actions if no network is given.
    """
    reads = Reads(spec, config.obs_last_action, config.obs_agent_id)
    if agent is None:
        agent = agent_network(name, config, spec)
    step = Step(
        loss=team_td_loss,
        optimizer_groups={},
        rest=JOINT,
        compute=partial(compute_values, all_utilities),
        report=mean_utility,
    )
    learner = Learner(
        name=name,
        spec=spec,
        config=config,
        networks={"agent": agent} if mixer is None else {"agent": agent, "mixer": mixer},
        reads=reads,
        policy=Policy(networks=("agent",), choose=greedy),
        phases=(Phase(steps={JOINT: step}, keys=values_apart),),
        main=JOINT,
        targets=Targets(update=config.target_update, period=config.target_update_period),
        optimizer=Optimizer(kind=config.optimizer),
        utilities="agent",
        inspect=(taken_utilities,),
    )
    return learner.with_own_loss(loss, *FAMILY_LOSSES)


def agent_network(name: str, config: ValueConfig, spec: EnvSpec) -> AgentNetwork:
    """The family's network of A utilities. Raises RefusedError for continuous actions."""
    return q_network(
        input_dim=Reads(spec, config.obs_last_action, config.obs_agent_id).dim,
        num_actions=num_choices(name, spec),
        hidden_dim=config.hidden_dim,
        recurrent=config.recurrent,
        param_sets=sharing_sets(config.share_params, spec.groups),
    )


def monotone_mixer(config: HyperNetwork, spec: EnvSpec) -> Mixer:
    """QMIX's mixer of this size."""
    return qmix_mixer(
        spec.num_agents,
        spec.state_dim,
        config.embed_dim,
        config.hypernet_dim,
        config.hypernet_layers,
    )


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
    ctx = acting.ctx
    epsilon = jnp.float32(0.0)
    if acting.explore:
        epsilon = exploration_rate(ctx.hparams, ctx.env_steps, ctx.total_env_steps)
    action = epsilon_greedy(acting.key, q, acting.timestep.avail, epsilon)
    return Chosen(action=action, memory={"agent": hidden})


# ------------------------------------------------------------------------------------ values


def compute_values(utilities: Callable[[View, Array], Utilities], view: View) -> Values:
    """What the losses look at.

    utilities: (view, the agents' inputs [T+1, B, N, D]) -> Utilities.
    """
    batch = view.batch
    mixer = view.learner.mixer
    says = utilities(view, agent_inputs(view))

    # Q_tot of what was done, and of the best next actions
    mix: Callable[[Array], Array] = no_mix
    q_tot = jnp.zeros(batch.mask.shape)
    next_q_tot = jnp.zeros(batch.mask.shape)
    if mixer is not None:
        now = MixerInputs(says.q_max, batch.action, batch.state[:-1])
        later = MixerInputs(says.next_q_max, says.next_action, batch.state[1:])
        mix = partial(mix_with, mixer, view.params["mixer"], now)
        q_tot = mix(says.q_taken)
        slow = mixer.apply(view.target_params["mixer"], says.next_q, later)
        next_q_tot = jax.lax.stop_gradient(slow)
    return Values(
        q=says.q,
        q_taken=says.q_taken,
        next_q=says.next_q,
        q_tot=q_tot,
        next_q_tot=next_q_tot,
        discount=discounts(view),
        team_reward=team_reward(view.spec, batch),
        mix=mix,
        target_q=says.target_q,
        next_action=says.next_action,
        features=says.features,
    )


def agent_inputs(view: View) -> Array:
    """What the agents read in every slot of a batch, [T+1, B, N, D]."""
    batch = view.batch
    previous = last_actions(batch.action, view.spec, batch.mask)
    return view.learner.reads.build(batch.obs, previous)


def all_utilities(view: View, x: Array, noise_dim: int = 0) -> Utilities:
    """Discrete actions: one unroll gives the utilities of all, x [T+1, B, N, D].

    noise_dim: so many standard normals are appended to each input, zeros where somebody only looks.
    """
    batch = view.batch
    target_x = x
    if noise_dim:
        keys = (None, None) if view.key is None else jax.random.split(view.key)
        target_x = with_noise(x, keys[1], noise_dim)
        x = with_noise(x, keys[0], noise_dim)
    q, features = split(view.learner, unrolled(view, "agent", view.params, x))
    # code: the target network is unrolled from t = 0 as well; starting it at t = 1 gives it another
    # history
    slow = jax.lax.stop_gradient(unrolled(view, "agent", view.target_params, target_x))
    target_q, _ = split(view.learner, slow)
    frozen_q = jax.lax.stop_gradient(q)
    double_q = view.config.double_q
    return Utilities(
        q=q,
        q_taken=take_last(q[:-1], batch.action),
        next_q=td.next_q(frozen_q, target_q, batch.avail, double_q),
        target_q=target_q,
        features=features,
        q_max=masked_max(frozen_q[:-1], batch.avail[:-1]),
        next_q_max=masked_max(target_q[1:], batch.avail[1:]),
        next_action=masked_argmax((frozen_q if double_q else target_q)[1:], batch.avail[1:]),
    )


def unrolled(view: View, name: str, params: Params, x: Array) -> Array:
    """What a network of the agents says of inputs [T, B, N, D] from an empty memory on,
    [T, B, N, Y].
    """
    network = view.learner.networks[name]
    return network.unroll(params[name], network.initial_carry(x.shape[1]), x)[1]


def with_noise(x: Array, key: Array | None, noise_dim: int) -> Array:
    """x [T, B, N, D] and `noise_dim` standard normals, or zeros without a key."""
    shape = (*x.shape[1:-1], noise_dim)
    if key is None:
        return jnp.concatenate([x, jnp.zeros((x.shape[0], *shape), x.dtype)], axis=-1)
    # a key for each step: cropping a batch keeps its draws
    keys = jax.vmap(lambda t: jax.random.fold_in(key, t))(jnp.arange(x.shape[0]))
    noise = jax.vmap(lambda k: jax.random.normal(k, shape, x.dtype))(keys)
    return jnp.concatenate([x, noise], axis=-1)


def split(learner: Learner, y: Array) -> tuple[Array, Array]:
    """What an agents' network gives, as utilities [..., A] and features [..., E]."""
    action = learner.spec.action
    actions = action.num_actions if isinstance(action, Discrete) else y.shape[-1]
    return y[..., :actions], y[..., actions:]


def mix_with(mixer: Mixer, params: Any, reads: MixerInputs, q: Array) -> Array:
    """Q_tot [T, B] of utilities [T, B, N]."""
    return mixer.apply(params, q, reads)


def no_mix(q: Array) -> Array:
    """In the place of a mixer that there is not."""
    raise RefusedError("this learner has no mixer")


def discounts(view: View) -> Array:
    """gamma * (1 - end), [T, B]."""
    batch = view.batch
    on_timeout = view.config.bootstrap_on_timeout
    return td.discounts(view.hparams["gamma"], batch.terminated, batch.truncated, on_timeout)


def team_reward(spec: EnvSpec, experience: Episode) -> Array:
    """The common reward once, or the sum over agents: reward [..., N] -> [...]."""
    return experience.reward[..., 0] if spec.common_reward else experience.reward.sum(-1)


# ------------------------------------------------------------------------------------ losses


def team_td_loss(view: View) -> tuple[Array, Metrics]:
    """sum m delta^2 / sum m with delta = R + discount * Q_tot' - Q_tot (Rashid et al. 2018, eq. 6,
    as a mean).
    """
    values = view.values
    mask = view.batch.mask
    delta = td.td_error(values.team_reward, values.discount, values.next_q_tot, values.q_tot)
    loss = masked_mean_square(delta, mask)
    target = values.team_reward + values.discount * values.next_q_tot
    return loss, {
        "loss/td": loss,
        "td_error/abs_mean": masked_mean(jnp.abs(delta), mask),
        "q/tot_mean": masked_mean(values.q_tot, mask),
        "q/target_mean": masked_mean(target, mask),
    }


def individual_td_loss(view: View) -> tuple[Array, Metrics]:
    """sum m (Q_i - y_i)^2 / (N sum m): every agent alone, on its own reward (the team's, if rewards
    are common).
    """
    values = view.values
    batch = view.batch
    shape = values.q_taken.shape
    discount = jnp.broadcast_to(values.discount[..., None], shape)
    mask = jnp.broadcast_to(batch.mask[..., None], shape)
    delta = td.td_error(batch.reward, discount, values.next_q, values.q_taken)
    loss = masked_mean_square(delta, mask)
    return loss, {
        "loss/td": loss,
        "td_error/abs_mean": masked_mean(jnp.abs(delta), mask),
        "q/target_mean": masked_mean(batch.reward + discount * values.next_q, mask),
    }


FAMILY_LOSSES = (team_td_loss, individual_td_loss)


def mean_utility(view: View, loss: Array) -> Metrics:
    """The mean utility of what was done, which every learner of the family reports."""
    q = view.values.q_taken
    return {"q/taken_mean": masked_mean(q, jnp.broadcast_to(view.batch.mask[..., None], q.shape))}


def taken_utilities(view: View) -> dict[str, Array]:
    """Utilities of what was done, [T, B, N], for people to look at."""
    return {"q_taken": view.values.q_taken}
