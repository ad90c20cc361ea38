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
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxshare.learners.learner import Learner
from jaxshare.learners.records import (
    Acting,
    Chosen,
    Loss,
    Optimizer,
    Phase,
    Policy,
    Source,
    Step,
    Targets,
    View,
)
from jaxshare.learners.value import (
    FAMILY_LOSSES,
    Values,
    discounts,
    mean_utility,
    no_mix,
    taken_utilities,
    team_reward,
    team_td_loss,
)
from jaxshare.models import inputs
from jaxshare.models.agents import FeedForwardQ, q_network, team_network
from jaxshare.models.base import sharing_sets
from jaxshare.models.inputs import Reads
from jaxshare.models.mixers import Mixer, MixerInputs
from jaxshare.ops import cem, gumbel, returns
from jaxshare.ops.masking import NEG, masked_argmax, masked_mean, masked_mean_square
from jaxshare.ops.schedules import exploration_rate
from jaxshare.settings.fields import STEPS, default, nested, static, swept
from jaxshare.settings.shared import (
    SWEPT,
    Adam,
    Agents,
    Averaging,
    CriticRate,
    Epsilon,
    Lambda,
    Learning,
    Noise,
    TargetNetworks,
)
from jaxshare.settings.validate import check_record
from jaxshare.training.replay import uniform_without_replacement
from jaxshare.trees import Params
from jaxshare.types import Array, Box, Discrete, EnvSpec, Metrics, RefusedError

MADDPG = "code: EPyMARL's maddpg.yaml"


@dataclass(frozen=True)
class DeterministicHParams(Noise, Epsilon, Lambda, Averaging, Adam, CriticRate, Learning):
    """Swept scalars. code: EPyMARL's maddpg.yaml and default.yaml."""

    lr: float = default(5e-4, MADDPG, help="learning rate of the actors")
    critic_lr: float = default(5e-4, MADDPG)
    gamma: float = default(0.99, MADDPG)
    tau: float = default(0.01, "code: openai/maddpg")
    grad_clip: float = default(10.0, MADDPG)
    action_reg: float = swept(
        1e-3,
        least=0,
        help="weight of the mean square of available logits, or of continuous actions",
        source=MADDPG,
    )
    temperature: float = swept(
        1.0,
        above=0,
        help="temperature of the Gumbel-softmax",
        source=MADDPG,
    )
    td_lambda: float = default(
        0.8,
        "code: FACMAC's facmac_smac.yaml",
        help="lambda of the lambda-returns; only with target=td_lambda",
    )
    epsilon_start: float = default(0.0, "code: EPyMARL has none but the policy's own samples")
    epsilon_end: float = default(0.0, "code: EPyMARL has none but the policy's own samples")
    epsilon_anneal_steps: float = default(50_000.0, "code: FACMAC's facmac_smac.yaml")


@dataclass(frozen=True)
class DeterministicConfig(TargetNetworks, Agents):
    """Static settings. code: EPyMARL's maddpg.yaml, where it has them."""

    hidden_dim: int = default(128, MADDPG, help="units of the actors' and critics' layers")
    recurrent: bool = default(True, MADDPG, help="a GRU in the actors; critics have none")
    obs_last_action: bool = default(False, MADDPG)
    obs_agent_id: bool = default(True, MADDPG)
    window: int = static(
        0,
        least=0,
        most=STEPS,
        help="steps of the pieces that batch_size counts; 0: whole episodes",
        source="code: EPyMARL",
    )
    target: str = static(
        "one_step",
        choices=("one_step", "td_lambda"),
        help="targets of the critics: of one step, or lambda-returns",
        source="code: EPyMARL; FACMAC has td_lambda in SMAC",
    )
    target_action: str = static(
        "greedy",
        choices=("greedy", "sample"),
        help="discrete actions in the targets: the likeliest, or samples",
        source="code: EPyMARL; openai/maddpg samples",
    )
    relaxation: str = static(
        "hard",
        choices=("hard", "soft"),
        help="discrete actions in the actors' loss: one-hot, straight through (hard), or soft",
        source="code: EPyMARL; openai/maddpg has soft",
    )
    bootstrap_on_timeout: bool = default(True, "code: EPyMARL, a time limit is no terminal state")
    clip: str = static(
        "all",
        choices=("all", "set"),
        help="over what gradients are clipped: each optimiser group, or each parameter set",
        source="code: EPyMARL; openai/maddpg has set",
    )
    target_update: str = default("hard", MADDPG)
    target_update_period: int = default(200, MADDPG)
    hparams: DeterministicHParams = nested(DeterministicHParams, help=SWEPT)

    def __post_init__(self) -> None:
        check_record(self, "algo.")
        self._check_window()

    def _check_window(self) -> None:
        if self.window and self.recurrent:
            raise RefusedError(
                f"algo.window={self.window}: recurrent actors need what went before. Use "
                "algo.recurrent=false, or algo.window=0 to learn from whole episodes."
            )
        if self.window and self.obs_last_action:
            raise RefusedError(
                f"algo.window={self.window}: the action before a window is not read. Use "
                "algo.obs_last_action=false, or algo.window=0 to learn from whole episodes."
            )
        if self.window == 1 and self.target == "td_lambda":
            raise RefusedError(
                "algo.target=td_lambda: with algo.window=1 there is no step to look ahead to. Use "
                "algo.target=one_step, a larger algo.window, or 0 for whole episodes."
            )


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
    """A learner with the family's networks. loss: of the critics; of the family's the lambda form
    if settings say so.

    Raises RefusedError for what this task does not allow.
    """
    _check(name, config, spec)
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
    networks: dict[str, Any] = {"actor": actor, "critic": critic}
    if critics.mixer is not None:
        networks["mixer"] = critics.mixer
    critic_step = Step(
        loss=team_td_loss,
        optimizer_groups={"critic": tuple(network for network in networks if network != "actor")},
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
    learner = Learner(
        name=name,
        spec=spec,
        config=config,
        networks=networks,
        reads=reads,
        policy=Policy(networks=("actor",), choose=choose),
        phases=(Phase(steps={"critic": critic_step, "actor": actor_step}),),
        main="critic",
        source=Source(
            sample=None if config.window else uniform_without_replacement, window=config.window
        ),
        targets=Targets(update=config.target_update, period=config.target_update_period),
        optimizer=Optimizer(kind="adam", clip="set" if config.clip == "set" else "group"),
        utilities="critic",
        critic_reads=critics.reads,
        action_critics=True,
        inspect=(taken_utilities,),
    )
    if config.target == "td_lambda" and loss in FAMILY_LOSSES:
        lambda_loss = team_lambda_loss if loss is team_td_loss else individual_lambda_loss
        fixed = "by one with one-step targets: use algo.target=one_step"
        return learner.with_main(loss=lambda_loss, fixed=fixed)
    return learner.with_own_loss(loss, *FAMILY_LOSSES)


def _check(name: str, config: DeterministicConfig, spec: EnvSpec) -> None:
    if config.window > spec.episode_limit:
        raise RefusedError(
            f"algo.window={config.window} is longer than an episode of env={spec.name} "
            f"({spec.episode_limit} steps). Use algo.window=0 to learn from whole episodes."
        )
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


# ------------------------------------------------------------------------------------ actions


def actor_input(view: View) -> Array:
    """What the actors read, [T+1, B, N, D]."""
    batch = view.batch
    previous = inputs.last_actions(batch.action, view.spec)  # of a window nobody reads it
    return view.learner.reads.build(batch.obs, previous)


def greedy_actions(spec: EnvSpec, y: Array, avail: Array) -> Array:
    """The best action of every policy, encoded: y [..., N, E], avail [..., N, A] -> [..., N, E]."""
    if isinstance(spec.action, Discrete):
        return gumbel.first_maximum(jnp.where(avail, y, NEG))
    return jnp.tanh(y)


def drawn_actions(view: View, y: Array, avail: Array) -> Array:
    """What the policies do, encoded, with a gradient.

    y [T, B, N, E], avail [T, B, N, A] -> [T, B, N, E].
    """
    if not isinstance(view.spec.action, Discrete):
        return jnp.tanh(y)
    noise = gumbel.noise_per_step(view.key, y.shape)
    soft = gumbel.relaxed(y, avail, noise, view.hparams["temperature"])
    return soft if view.config.relaxation == "soft" else gumbel.straight_through(soft)


def next_actions(view: View) -> Array:
    """Target actions of the slots after the first, [T, B, N, E]; without a key the best ones."""
    x = actor_input(view)
    actor = view.learner.networks["actor"]
    # code: EPyMARL starts its target's memory at t = 1; ours: at t = 0, as the actors that played
    recurrent = view.config.recurrent
    start = actor.initial_carry(x.shape[1])
    _, y = actor.unroll(view.target_params["actor"], start, x if recurrent else x[1:])
    y = y[1:] if recurrent else y
    avail = view.batch.avail[1:]
    if view.config.target_action == "sample" and view.key is not None:
        return drawn_actions(view, y, avail)
    return greedy_actions(view.spec, y, avail)


# ------------------------------------------------------------------------------------ values


@dataclass(frozen=True)
class Actions:
    """Encoded actions [T, B, N, E] in the slots after, ..., after + T - 1.

    own: of each critic's agent; others: of all others.
    """

    own: Array
    others: Array
    after: int = 0


def action_values(view: View, params: Params, actions: Actions) -> Array:
    """Q_i [T, B, N] of actions by the critics of `params`."""
    batch = view.batch
    critic = view.learner.networks["critic"]
    steps = slice(actions.after, actions.after + len(actions.own))
    reads = view.learner.critic_reads
    assert reads is not None
    x = reads(batch.obs[steps], batch.state[steps], actions.own, actions.others)
    return critic.unroll(params["critic"], critic.initial_carry(x.shape[1]), x)[1][..., 0]


def mixed(view: View, params: Params, q: Array, after: int = 0) -> Array:
    """Q_tot [T, B] of q [T, B, N] in the slots after, ..., after + T - 1."""
    mixer = view.learner.mixer
    if mixer is None:
        return no_mix(q)
    batch = view.batch
    unread = jnp.full_like(q, jnp.nan)  # no mixer of this family looks at a maximum
    reads = MixerInputs(unread, batch.action, batch.state[after : after + len(q)])
    return mixer.apply(params["mixer"], q, reads)


def compute_values(view: View) -> Values:
    """What the critics' loss looks at: the `Values` of the value family with Q_i for utilities,
    without columns.

    What is made for a mixer of utilities (differ) works on it too. Without a key target actions are
    the best ones.
    """
    batch = view.batch
    target = view.target_params
    taken = inputs.encode(batch.action, view.spec)
    later = next_actions(view)
    q_taken = action_values(view, view.params, Actions(taken, taken))
    next_q = jax.lax.stop_gradient(action_values(view, target, Actions(later, later, after=1)))
    q_tot = jnp.zeros(batch.mask.shape)
    next_q_tot = jnp.zeros(batch.mask.shape)
    if view.learner.mixer is not None:
        q_tot = mixed(view, view.params, q_taken)
        next_q_tot = jax.lax.stop_gradient(mixed(view, target, next_q, after=1))
    nothing = jnp.zeros((*batch.avail.shape[:-1], 0))
    return Values(
        q=nothing,
        q_taken=q_taken,
        next_q=next_q,
        q_tot=q_tot,
        next_q_tot=next_q_tot,
        discount=discounts(view),
        team_reward=team_reward(view.spec, batch),
        mix=partial(mixed, view, view.params),
        target_q=nothing,
        features=nothing,
    )


# ------------------------------------------------------------------------------------ losses


def team_lambda_loss(view: View) -> tuple[Array, Metrics]:
    """The mean of (G - Q_tot)^2 over valid steps; G = `returns.td_lambda` of the target Q_tot.

    code: build_td_lambda_targets of PyMARL's COMA, on FACMAC's Q_tot.
    """
    values = view.values
    batch = view.batch
    end = batch.terminated | batch.truncated
    target = returns.td_lambda(
        values.team_reward, values.discount, values.next_q_tot, end, view.hparams["td_lambda"]
    )
    return _lambda_loss(target, values.q_tot, batch.mask)


def individual_lambda_loss(view: View) -> tuple[Array, Metrics]:
    """The same of every agent's Q_i on its own reward, a mean over agents."""
    values = view.values
    batch = view.batch

    def wide(x: Array) -> Array:
        return jnp.broadcast_to(x[..., None], values.q_taken.shape)

    end = wide(batch.terminated | batch.truncated)
    target = returns.td_lambda(
        batch.reward, wide(values.discount), values.next_q, end, view.hparams["td_lambda"]
    )
    return _lambda_loss(target, values.q_taken, wide(batch.mask))


def _lambda_loss(target: Array, value: Array, mask: Array) -> tuple[Array, Metrics]:
    delta = jax.lax.stop_gradient(target) - value
    loss = masked_mean_square(delta, mask)
    return loss, {
        "loss/td": loss,
        "td_error/abs_mean": masked_mean(jnp.abs(delta), mask),
        "q/target_mean": masked_mean(target, mask),
    }


def critic_metrics(view: View, loss: Array) -> Metrics:
    """What the critics report whatever their loss is."""
    return {"loss/critic": loss, **mean_utility(view, loss)}


def actor_loss(whose: str, view: View) -> tuple[Array, Metrics]:
    """- mean of Q(., pi) + c mean of pi^2, over valid steps: a gradient for the actors only.

    With a mixer all policies are varied at once, Q_tot(pi_1, ..., pi_N); without, each in its own
    Q_i. whose: actions that the others take, as `Critics.others`.
    """
    batch = view.batch
    x = actor_input(view)[:-1]
    avail = batch.avail[:-1]
    actor = view.learner.networks["actor"]
    _, y = actor.unroll(view.params["actor"], actor.initial_carry(x.shape[1]), x)

    # what all do, and what each critic takes the others to do
    own = drawn_actions(view, y, avail)
    if whose == "buffer":
        others = inputs.encode(batch.action, view.spec)
    else:
        others = jax.lax.stop_gradient(own)
    q = action_values(view, view.params, Actions(own, others))

    # code: FACMAC's continuous learners and EPyMARL take the mean over padding as well
    if view.learner.mixer is None:
        best = masked_mean(q, jnp.broadcast_to(batch.mask[..., None], q.shape))
    else:
        best = masked_mean(mixed(view, view.params, q), batch.mask)
    if isinstance(view.spec.action, Discrete):
        size = gumbel.mean_square_logit(y, avail, batch.mask)
    else:
        each = jnp.broadcast_to(batch.mask[..., None, None], own.shape)
        size = masked_mean(jnp.square(own), each)
    loss = -best + view.hparams["action_reg"] * size
    return loss, {"loss/actor": loss, "q/policy_mean": best, "policy/mean_square": size}
