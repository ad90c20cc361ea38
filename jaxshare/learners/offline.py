"""What learners from a data set share: bc, mabcq, macql, icq.

They learn from whole episodes and never play to learn. An update is a few steps in their order; all
else of the learner is constant in the loss of a step, and what earlier steps have changed is
already new.

Where data have no true successor of a truncated step, the mask of that step is 0, and no target
looks past it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp

from jaxshare.learners import utilities
from jaxshare.learners.keys import hooks_first
from jaxshare.learners.learner import ALGORITHM, Learner
from jaxshare.learners.records import (
    Acting,
    Chosen,
    Net,
    Optimizer,
    Phase,
    Policy,
    Source,
    Step,
    Targets,
    View,
)
from jaxshare.models import inputs
from jaxshare.models.agents import AgentNetwork, q_network
from jaxshare.models.base import sharing_sets
from jaxshare.models.inputs import Reads
from jaxshare.ops import offline, returns, td
from jaxshare.ops.masking import masked_argmax, masked_mean, take_last
from jaxshare.settings.fields import default, nested
from jaxshare.settings.shared import SWEPT, Agents, Learning, MixerWidth, RMSprop, TargetPeriod
from jaxshare.settings.validate import check_record
from jaxshare.training import packing
from jaxshare.trees import Params
from jaxshare.types import Array, Box, Discrete, EnvSpec, Metrics

SIT = "paper: SIT Table 11"


@dataclass(frozen=True)
class OfflineHParams(RMSprop, Learning):
    """Swept scalars. paper: SIT (Tian et al. 2023), Table 11."""

    lr: float = default(5e-4, SIT)
    gamma: float = default(0.99, SIT)
    grad_clip: float = default(10.0, SIT)
    rms_decay: float = default(0.99, "code: PyMARL; paper: SIT names RMSprop only")


@dataclass(frozen=True)
class OfflineConfig(Agents):
    """Static settings. paper: SIT (Tian et al. 2023), Table 11."""

    hidden_dim: int = default(64, SIT)
    share_params: str = default("all", "code: ICQ")
    obs_last_action: bool = default(True, "code: PyMARL, ICQ")
    obs_agent_id: bool = default(True, "code: PyMARL, ICQ")
    hparams: OfflineHParams = nested(OfflineHParams, help=SWEPT)

    def __post_init__(self) -> None:
        check_record(self, "algo.")


@dataclass(frozen=True)
class TeamConfig(TargetPeriod, MixerWidth, OfflineConfig):
    """What learners of a team's value add: a mixer and target networks."""

    embed_dim: int = default(32, "paper: SIT Table 11; code: ICQ")
    target_update_period: int = default(100, SIT)


Choose = Callable[[Acting, dict[str, Array]], Array]


def offline_learner(
    name: str,
    config: OfflineConfig,
    spec: EnvSpec,
    networks: dict[str, Net],
    steps: dict[str, Step],
) -> Learner:
    """A learner of these networks by these steps, in order.

    It acts by its actors, likeliest action first. What agents act by, and what `unrolled` is called
    for, reads observation, own last action and index. The first step is the main one. Nothing has
    target networks.
    """
    reads = Reads(spec, config.obs_last_action, config.obs_agent_id)
    main = next(iter(steps))
    steps = {**steps, main: replace(steps[main], rest="modules")}
    phase = Phase(steps=steps, keys=hooks_first)

    # nothing plays, and nothing has a target network
    return Learner(
        name=name,
        spec=spec,
        config=config,
        networks=networks,
        reads=reads,
        policy=acting_by(from_policy, "actor"),
        phases=(phase,),
        main=main,
        source=Source(experience="dataset"),
        targets=Targets(networks=()),
        optimizer=Optimizer(kind="rmsprop"),
        owners={"loss": ALGORITHM},
    )


def acting_by(choose: Choose, *networks: str) -> Policy:
    """The policy of agents that ask these networks. choose: (acting, what they say [B, N, A] by
    name) -> action.
    """

    def act(acting: Acting) -> Chosen:
        memory = {}
        says = {}
        for name in networks:
            unroll = acting.learner.networks[name].unroll
            memory[name], y = unroll(acting.params[name], acting.memory[name], acting.x)
            says[name] = y[0]
        action = choose(acting, says)
        if isinstance(acting.learner.spec.action, Discrete):
            action = action.astype(jnp.int32)
        return Chosen(action=action, memory=memory)

    return Policy(networks=networks, choose=act)


def slow(config: TeamConfig, *networks: str) -> Targets:
    """Copies of these networks, made every `target_update_period` updates."""
    return Targets(networks=networks, update="hard", period=config.target_update_period)


def policy_network(name: str, config: OfflineConfig, spec: EnvSpec) -> AgentNetwork:
    """The family's network of A numbers per agent, or U numbers of continuous actions.

    Raises RefusedError for continuous actions without finite bounds.
    """
    if isinstance(spec.action, Box):
        inputs.bounded(name, spec)
    return agent_network(config, spec, outputs=inputs.action_dim(spec))


def agent_network(config: OfflineConfig, spec: EnvSpec, outputs: int) -> AgentNetwork:
    """A network of the family's kind and size that says so many numbers of each agent."""
    reads = Reads(spec, config.obs_last_action, config.obs_agent_id)
    return q_network(
        input_dim=reads.dim,
        num_actions=outputs,
        hidden_dim=config.hidden_dim,
        recurrent=config.recurrent,
        param_sets=sharing_sets(config.share_params, spec.groups),
    )


# ------------------------------------------------------------------------------------ acting


def best(acting: Acting, says: dict[str, Array]) -> Array:
    """The action of the highest value, also where others would explore: `agent` [B, N, A]
    -> [B, N].
    """
    return masked_argmax(says["agent"], acting.timestep.avail)


def from_policy(acting: Acting, says: dict[str, Array]) -> Array:
    """The likeliest action, or one drawn to explore: `actor` [B, N, A] -> [B, N].

    Of continuous actions the mean of the policy, with its noise to explore: [B, N, U] in the box.
    """
    y = says["actor"]
    box = acting.learner.spec.action
    if isinstance(box, Box):
        action = jnp.tanh(y)
        if acting.explore:
            action = offline.noisy(acting.key, action, acting.ctx.hparams["action_std"])
        return inputs.decode(action, box)
    log_pi = offline.log_policy(y, acting.timestep.avail)
    if acting.explore:
        return jax.random.categorical(acting.key, log_pi, axis=-1)
    return masked_argmax(log_pi, acting.timestep.avail)


# ------------------------------------------------------------------------- what networks say


def unrolled(view: View, name: str, params: Params) -> Array:
    """What a network of the agents says in every slot, [T+1, B, N, A]."""
    batch = view.batch
    previous = inputs.last_actions(batch.action, view.spec, first=packing.first_slots(batch))
    x = view.learner.reads.build(batch.obs, previous)
    return utilities.unrolled(view, name, params, x)


def per_agent(view: View, x: Array) -> Array:
    """[T, B] for every agent, [T, B, N]."""
    return jnp.broadcast_to(x[..., None], (*x.shape, view.spec.num_agents))


def log_probability(view: View, y: Array) -> Array:
    """log pi_i(a_i | tau_i) of the data's actions, [T, B, N], from what the actors say, y
    [T, B, N, A or U].

    Discrete: softmax over available actions. Continuous: a Gaussian around tanh y with a fixed
    deviation.
    """
    batch = view.batch
    if isinstance(view.spec.action, Discrete):
        return take_last(offline.log_policy(y, batch.avail[:-1]), batch.action)
    encoded = inputs.encode(batch.action, view.spec)
    return offline.log_density(encoded, jnp.tanh(y), view.hparams["action_std"])


def taken_utilities(view: View) -> dict[str, Array]:
    """Of the actions taken, for people to look at: `agent`'s, [T, B, N]."""
    q = unrolled(view, "agent", view.params)
    return {"q_taken": take_last(q[:-1], view.batch.action)}


# ----------------------------------------------------------------------------- targets, losses


def discounts(view: View) -> Array:
    """gamma * (1 - terminated), [T, B]: what is truncated goes on."""
    batch = view.batch
    gamma = view.hparams["gamma"]
    return td.discounts(gamma, batch.terminated, batch.truncated, bootstrap_on_timeout=True)


def lambda_target(view: View, next_value: Array) -> Array:
    """TD(lambda) targets of the team, [T, B]: next_value [T, B] of the true successor of each step;
    a constant.

    A step whose own successor is not in the data (mask 0, not after the end) is no part of the sum
    before it.
    """
    batch = view.batch
    follows = jnp.concatenate([batch.mask[1:], jnp.ones_like(batch.mask[:1])]) > 0
    end = batch.terminated | batch.truncated | ~follows
    reward = view.spec.team_reward(batch.reward)
    decay = view.hparams["td_lambda"]
    target = returns.td_lambda(reward, discounts(view), next_value, end, decay)
    return jax.lax.stop_gradient(target)


def one_step_target(view: View, next_value: Array) -> Array:
    """R + discount * v' of the team, [T, B]; a constant."""
    reward = view.spec.team_reward(view.batch.reward)
    return jax.lax.stop_gradient(reward + discounts(view) * next_value)


def cloning_loss(view: View, name: str) -> tuple[Array, Array]:
    """-mean log pi_i(a_i | tau_i) over valid steps and agents, and what the network says,
    [T, B, N, A or U].
    """
    y = unrolled(view, name, view.params)[:-1]
    return -masked_mean(log_probability(view, y), per_agent(view, view.batch.mask)), y


def td_metrics(view: View, target: Array, q_tot: Array, q_taken: Array) -> Metrics:
    """The metrics of a team's value: target and q_tot [T, B], q_taken [T, B, N]."""
    mask = view.batch.mask
    error_mean = masked_mean(jnp.abs(target - q_tot), mask)
    tot_mean = masked_mean(q_tot, mask)
    target_mean = masked_mean(target, mask)
    taken_mean = masked_mean(q_taken, per_agent(view, mask))
    return {
        "td_error/abs_mean": error_mean,
        "q/tot_mean": tot_mean,
        "q/target_mean": target_mean,
        "q/taken_mean": taken_mean,
    }
