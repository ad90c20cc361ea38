"""What learners of utilities share: iql, vdn, qmix and others, with or without a mixer.

The agents' network says Q_i(tau_i, .) of every action. `compute_values` reads a batch with the
online and the target networks, a loss looks at the `Values`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field, replace
from functools import partial

import jax
import jax.numpy as jnp
from flax import struct

from jaxshare.learners.keys import values_apart
from jaxshare.learners.learner import Learner
from jaxshare.learners.packed import packable
from jaxshare.learners.records import (
    Loss,
    Net,
    Optimizer,
    Phase,
    Policy,
    Step,
    Targets,
    View,
)
from jaxshare.learners.utilities import (
    Utilities,
    agent_inputs,
    agent_network,
    all_utilities,
    greedy,
)
from jaxshare.learners.value_losses import (
    FAMILY_LOSSES,
    mean_utility,
    taken_utilities,
    team_td_loss,
)
from jaxshare.learners.value_settings import IndependentConfig, ValueConfig
from jaxshare.learners.windows import window_source
from jaxshare.models.agents import AgentNetwork
from jaxshare.models.inputs import Reads
from jaxshare.models.mixers import Mixer, MixerInputs, qmix_mixer
from jaxshare.ops import td
from jaxshare.settings.shared import HyperNetwork
from jaxshare.trees import Tree
from jaxshare.types import Array, EnvSpec, RefusedError

JOINT = "joint"  # the step, and its optimiser group of everything


class Values(struct.PyTreeNode):
    """What a loss looks at.

    `mix` maps taken utilities [T, B, N] to q_tot [T, B] with the online mixer.
    """

    q: Array  # [T+1, B, N, A] online utilities; of a segment [T, B, N, A]
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
    networks: dict[str, Net] = {"agent": agent}
    if mixer is not None:
        networks["mixer"] = mixer

    # one step of everything
    phase = Phase(steps={JOINT: step}, keys=values_apart)
    policy = Policy(networks=("agent",), choose=greedy)
    source = window_source(config.window, spec)
    targets = Targets(update=config.target_update, period=config.target_update_period)
    learner = Learner(
        name=name,
        spec=spec,
        config=config,
        networks=networks,
        reads=reads,
        policy=policy,
        phases=(phase,),
        main=JOINT,
        source=source,
        targets=targets,
        optimizer=Optimizer(kind=config.optimizer),
        utilities="agent",
        inspect=(taken_utilities,),
    )
    return learner.with_own_loss(loss, *FAMILY_LOSSES)


def independent_learner(name: str, config: IndependentConfig, spec: EnvSpec, loss: Loss) -> Learner:
    """A learner without a mixer. loss: the mean of the agents' own losses."""
    learner = value_learner(name, config, spec, mixer=None, loss=loss)
    if config.clip == "all":
        return learner
    return replace(learner, optimizer=replace(learner.optimizer, clip="agent"))


def monotone_mixer(config: HyperNetwork, spec: EnvSpec) -> Mixer:
    """QMIX's mixer of this size."""
    return qmix_mixer(
        spec.num_agents,
        spec.state_dim,
        config.embed_dim,
        config.hypernet_dim,
        config.hypernet_layers,
    )


# ------------------------------------------------------------------------------------ values


@packable
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
    team = view.spec.team_reward(batch.reward)
    return Values(
        q=says.q,
        q_taken=says.q_taken,
        next_q=says.next_q,
        q_tot=q_tot,
        next_q_tot=next_q_tot,
        discount=discounts(view),
        team_reward=team,
        mix=mix,
        target_q=says.target_q,
        next_action=says.next_action,
        features=says.features,
    )


def mix_with(mixer: Mixer, params: Tree, reads: MixerInputs, q: Array) -> Array:
    """Q_tot [T, B] of utilities [T, B, N]."""
    return mixer.apply(params, q, reads)


def no_mix(q: Array) -> Array:
    """In the place of a mixer [T, B, N] -> [T, B] that there is not."""
    raise RefusedError("this learner has no mixer")


def discounts(view: View) -> Array:
    """gamma * (1 - end), [T, B]."""
    batch = view.batch
    on_timeout = view.config.bootstrap_on_timeout
    return td.discounts(view.hparams["gamma"], batch.terminated, batch.truncated, on_timeout)
