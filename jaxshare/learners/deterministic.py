"""What learners of deterministic policies share, whose critics read actions: maddpg, facmac.

Discrete actions are one-hot vectors through which a gradient flows (ops/gumbel.py), continuous ones
are tanh of the actor's numbers in the action box mapped onto [-1, 1]. An update makes one step of
the critics, and then one of the actors with the new critics held fixed:

    critics:  the loss of the value family on Q(., a) and on Q'(., a') with a'_i = pi'_i(tau_i')
    actors:   L = - sum m Q(., pi) / sum m + c sum m pi^2 / sum m

Replay is of whole episodes, or of `window` steps from transitions that are all equally likely
(feed-forward actors).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp

from jaxshare.learners.deterministic_losses import (
    actor_loss,
    critic_metrics,
    individual_lambda_loss,
    team_lambda_loss,
)
from jaxshare.learners.deterministic_settings import DeterministicConfig
from jaxshare.learners.deterministic_values import compute_values
from jaxshare.learners.learner import Learner
from jaxshare.learners.records import (
    Acting,
    Chosen,
    Loss,
    Net,
    Optimizer,
    Phase,
    Policy,
    Step,
    Targets,
)
from jaxshare.learners.value_losses import (
    FAMILY_LOSSES,
    taken_utilities,
    team_td_loss,
)
from jaxshare.learners.windows import window_source
from jaxshare.models import inputs
from jaxshare.models.agents import FeedForwardQ, q_network, team_network
from jaxshare.models.base import sharing_sets
from jaxshare.models.inputs import Reads
from jaxshare.models.mixers import Mixer
from jaxshare.ops import cem
from jaxshare.ops.masking import masked_argmax
from jaxshare.ops.schedules import exploration_rate
from jaxshare.types import Array, Box, EnvSpec, RefusedError

# (obs [T, B, N, O], state [T, B, G], own, others [T, B, N, E]) -> [T, B, N, D], where critic i sees
# agent i's action from `own` and the others' from `others`; E is A or U
CriticInput = Callable[[Array, Array, Array, Array], Array]


@dataclass(frozen=True)
class Critics:
    """What critics are made of.

    reads: what they are given; input_dim: D of that; mixer: of the Q_i, or None: every critic is
    trained alone;
    others: whose actions the others take in the actors' loss, the buffer's or the current
    policies';
    weight: factor of both losses.
    """

    reads: CriticInput
    input_dim: int
    mixer: Mixer | None = None
    others: str = "current"
    weight: float = 1.0


def deterministic_learner(
    name: str, config: DeterministicConfig, spec: EnvSpec, critics: Critics, loss: Loss
) -> Learner:
    """A learner with the family's networks.

    loss: of the critics; of the family's the lambda form if settings say so. Raises RefusedError
    for what this task does not allow.
    """
    _check(name, config, spec)
    networks = _networks(config, spec, critics)

    # first the critics, then the actors with the new critics
    trained = tuple(network for network in networks if network != "actor")
    critic_step = Step(
        loss=team_td_loss,
        optimizer_groups={"critic": trained},
        rest="modules",
        compute=compute_values,
        rate="critic_lr",
        weight=critics.weight,
        report=critic_metrics,
    )
    actor_step = Step(
        loss=partial(actor_loss, critics.others),
        optimizer_groups={"actor": ("actor",)},
        weight=critics.weight,
    )
    phase = Phase(steps={"critic": critic_step, "actor": actor_step})
    clip = "set" if config.clip == "set" else "group"
    reads = Reads(spec, config.obs_last_action, config.obs_agent_id)
    policy = Policy(networks=("actor",), choose=choose)
    source = window_source(config.window, spec)
    learner = Learner(
        name=name,
        spec=spec,
        config=config,
        networks=networks,
        reads=reads,
        policy=policy,
        phases=(phase,),
        main="critic",
        source=source,
    )
    targets = Targets(update=config.target_update, period=config.target_update_period)
    learner = replace(
        learner,
        targets=targets,
        optimizer=Optimizer(kind="adam", clip=clip),
        utilities="critic",
        critic_reads=critics.reads,
        action_critics=True,
        inspect=(taken_utilities,),
    )

    if config.target == "td_lambda":
        return _with_lambda_targets(learner, loss)
    return learner.with_own_loss(loss, *FAMILY_LOSSES)


def _with_lambda_targets(learner: Learner, loss: Loss) -> Learner:
    """The family's loss with lambda-returns. Raises RefusedError for a loss of another kind."""
    if loss not in FAMILY_LOSSES:
        raise RefusedError(
            f"algo.target=td_lambda: algo={learner.name} brings a loss of its own. Use "
            "algo.target=one_step."
        )
    lambda_loss = team_lambda_loss if loss is team_td_loss else individual_lambda_loss
    fixed = "by one with one-step targets: use algo.target=one_step"
    return learner.with_main(loss=lambda_loss, fixed=fixed)


def _networks(config: DeterministicConfig, spec: EnvSpec, critics: Critics) -> dict[str, Net]:
    """Actors, critics, and the mixer of what critics say, if there is one."""
    param_sets = sharing_sets(config.share_params, spec.groups)
    reads = Reads(spec, config.obs_last_action, config.obs_agent_id)
    actor = q_network(
        input_dim=reads.dim,
        num_actions=inputs.action_dim(spec),
        hidden_dim=config.hidden_dim,
        recurrent=config.recurrent,
        param_sets=param_sets,
    )
    critic = team_network(FeedForwardQ(config.hidden_dim, 1), critics.input_dim, 0, param_sets)
    networks = {"actor": actor, "critic": critic}
    return networks if critics.mixer is None else {**networks, "mixer": critics.mixer}


def _check(name: str, config: DeterministicConfig, spec: EnvSpec) -> None:
    if not isinstance(spec.action, Box):
        return
    if config.target_action == "sample":
        raise RefusedError(
            f"algo.target_action=sample: the policies of algo={name} for continuous actions are "
            "deterministic. Use algo.target_action=greedy."
        )
    inputs.bounded(name, spec)


# ------------------------------------------------------------------------------------ acting


def choose(acting: Acting) -> Chosen:
    """What the actors do, [B, N] or [B, N, U] in the box.

    Exploring, discrete actions are samples of the policy, continuous ones have Gaussian noise on
    them; either are uniformly random with a rate of epsilon, and always for the first
    `uniform_steps`.
    """
    actor = acting.learner.networks["actor"]
    hidden, y = actor.unroll(acting.params["actor"], acting.memory["actor"], acting.x)
    action = _explored(acting, y[0]) if acting.explore else _best(acting, y[0])
    return Chosen(action=action, memory={"actor": hidden})


def _best(acting: Acting, y: Array) -> Array:
    box = acting.learner.spec.action
    if isinstance(box, Box):
        return inputs.decode(jnp.tanh(y), box)
    return masked_argmax(y, acting.timestep.avail)


def _explored(acting: Acting, y: Array) -> Array:
    ctx = acting.ctx
    h = ctx.hparams
    rate = exploration_rate(h, ctx.env_steps, ctx.total_env_steps)
    rate = jnp.where(ctx.env_steps < h["uniform_steps"], 1.0, rate)
    box = acting.learner.spec.action
    if isinstance(box, Box):
        return inputs.decode(cem.perturb(acting.key, jnp.tanh(y), h["action_noise"], rate), box)

    # a coin for each agent: a sample of its policy, or of all available actions
    coin_key, uniform_key, policy_key = jax.random.split(acting.key, 3)
    coin = jax.random.uniform(coin_key, y.shape[:-1]) < rate
    avail = acting.timestep.avail
    return jnp.where(
        coin, _sample(uniform_key, jnp.zeros_like(y), avail), _sample(policy_key, y, avail)
    )


def _sample(key: Array, logits: Array, avail: Array) -> Array:
    return jax.random.categorical(key, jnp.where(avail, logits, -jnp.inf), axis=-1)
