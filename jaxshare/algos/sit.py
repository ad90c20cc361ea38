"""SIT: shared individual trajectories, offline and in three stages (Tian et al. 2023, arXiv 2211.15612).

"Learning from Good Trajectories in Offline Multi-Agent Reinforcement Learning", from the paper alone: there is no
public code.

I. The first `stage1_updates` train M networks that say what each agent contributes to the team reward:

    lambda_i = softmax_i((W_q e_s) . (W_k e_i)),   r_tot = sum_i lambda_i f(o_i, a_i)                     (eqs. 1, 2)
    L = (1/M) sum_m (r_tot,m - r_tot)^2                                                                      (eq. 3)

II. Before the next update every (episode k, agent i) of the data gets a reward, an uncertainty, and a priority:

    r_i = mean_m lambda_i,m r_i,m,   u_i = std_m lambda_i,m r_i,m                                         (eqs. 4, 5)
    g_t = sum_{t' >= t} gamma^(t'-t) r_t',   p = mean_t g_t mapped onto [0, 20],   P(k, i) ~ e^(p / alpha)   (eqs. 6, 7)

with one buffer for each type of agents, which holds indices and no copies.

III. All further updates: each policy learns from trajectories drawn from its type's buffer, whoever of the type played
them. The critic sees them with the observations of the agents who played along (models/attention.py).

    L_critic = mean omega (r_i + gamma Q'(tau', a', o'_-i) - Q(tau, a, o_-i))^2                              (eq. 9)
    L_actor  = - mean omega F log pi(a | tau),   F = e^(X / beta) / Z                                       (eq. 10)

a, a' are the data's actions, omega = eta / u, Z is made of the minibatch. Critics go first. One stage after the other
from one command; the clock says which it is, and everything is in checkpoints.

Departures. paper: eq. 10 has Q for log pi, whose gradient is 0; eq. 6 has gamma^(t-t'); eq. 9 bootstraps after terminal
states; eta / u has no bound; X = Q mixes the value of a state into the choice of actions. Ours repairs all of them, and
`literal_actor`, `literal_return`, `literal_bootstrap`, `literal_weight`, `filter=q` undo that. paper: alpha on [0, 20]
leaves a handful of trajectories of bell-shaped priorities: ours raises it to `min_ess`, and shows it. ours: where the
time limit cuts an episode there is no next action in the data, so the policy's mean value is used; F has mean 1;
a policy for each type (`share_params=none`: for each agent, as in the paper). ours: the ensemble decomposes r_tot less
the least reward of the data, if that is below 0, and each agent gets an equal part of it back (`lift_rewards`):
attention gives most of r_tot to those whose inputs tell most about it, and where rewards are costs that blames the good
agents (benchmarks/studies/offline.yaml). paper: silent about an agent's id; ours: none is added to observations. A
monotone mixer in the place of attention is the paper's negative example (app. E.1).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from jaxshare.algos._parts import observing, preparing
from jaxshare.algos._sit_parts import NO_DECOMPOSITION, Config, SitLearner, first_opt_state
from jaxshare.algos._sit_policy import choose, learn_policy
from jaxshare.algos._sit_reward import first_tables, individual, learn_reward, least_reward, tables
from jaxshare.models import inputs
from jaxshare.models.agents import AgentNetwork, q_network
from jaxshare.models.attention import (
    Decomposition,
    GraphCritic,
    Question,
    decomposition_ensemble,
    first_question,
)
from jaxshare.models.base import lift_apply, lift_init, sharing_groups
from jaxshare.settings.fields import swept_values
from jaxshare.types import (
    Algorithm,
    Array,
    Context,
    EnvSpec,
    Episode,
    LearnerState,
    Metrics,
    RefusedError,
    TimeStep,
)

RUN = {
    "total_updates": 35_000,
    "eval": {"every": 1000},
}  # paper: 20,000 of stage I (Table 10), 15,000 of III (Table 11)
KEPT = "sit"  # what the second stage finds, among the learner's statistics
__all__ = ["RUN", "Config", "fitted", "make"]


def fitted(config: Config, num_episodes: int, total_updates: int) -> Config:
    """The settings for a data set of `num_episodes`, with `capacity` resolved. Raises RefusedError if it is too small,
    or if the run ends in the first stage (ending just after it is allowed).

    The tables are part of the learner's state, whose shapes must be known where there is no data set, as when a run is
    evaluated.
    """
    _check_capacity(config.capacity or num_episodes, num_episodes)
    if total_updates < config.stage1_updates:
        raise RefusedError(
            f"total_updates={total_updates} ends before algo.stage1_updates={config.stage1_updates}: no policy would "
            f"learn. Use a smaller algo.stage1_updates, or total_updates={config.stage1_updates + total_updates}."
        )
    return replace(config, capacity=config.capacity or num_episodes)


def make(config: Config, spec: EnvSpec) -> SitLearner:
    """The networks of all three stages."""
    groups = sharing_groups(config.share_params, spec.groups)
    sets = tuple(range(max(groups) + 1))
    size = inputs.action_dim(spec)
    kind = "sum" if config.decomposition == NO_DECOMPOSITION else config.decomposition
    module = Decomposition(kind, config.reward_dim, config.attention_dim, config.scaled_attention)
    asked = first_question(spec.num_agents, spec.obs_dim, size)
    critic = GraphCritic(config.critic_dim, config.graph)

    def judge(params: Any, carry: Array, question: Question) -> tuple[Array, Array]:
        return critic.apply({"params": params}, carry, question)  # type: ignore[return-value]

    def actor(groups: tuple[int, ...]) -> AgentNetwork:
        return q_network(
            spec.obs_dim + size, size, config.hidden_dim, recurrent=True, groups=groups
        )

    critics = AgentNetwork(
        init=lift_init(lambda key: critic.init(key, jnp.zeros((1, 0)), asked)["params"], groups),
        initial_carry=lambda batch: jnp.zeros((batch, spec.num_agents, 0)),
        unroll=lift_apply(judge, groups),
        groups=groups,
    )
    shared = config.share_params == "all"
    return SitLearner(
        name="sit",
        config=config,
        spec=spec,
        reward=decomposition_ensemble(
            module, config.ensemble, spec.state_dim, spec.num_agents, spec.obs_dim + size
        ),
        actor=actor(groups),
        critic=critics,
        critic_apply=judge,
        actor_sets=actor(sets),
        buffers=groups if shared else spec.groups,
        names=("all",) if shared else spec.group_names,
        assembly=assemble,
    )


def assemble(parts: SitLearner) -> Algorithm:
    """Where the parts meet: parts -> Algorithm."""

    if parts.relabel and parts.config.decomposition == NO_DECOMPOSITION:
        raise RefusedError(
            "algo.decomposition=none has no first stage, and modifiers such as standardise change rewards there only. "
            "Leave them out."
        )
    if parts.relabel and parts.config.lift_rewards:
        raise RefusedError(
            "modifiers such as standardise change the rewards that algo=sit decomposes, and algo.lift_rewards=true "
            "goes by the least one of the data. Use algo.lift_rewards=false."
        )

    def unused(*args: Any) -> Any:
        raise RefusedError(
            "algo=sit learns from a whole data set and takes no batches: name one, as in data=set.jds."
        )

    return Algorithm(
        name=parts.name,
        spec=parts.spec,
        hparams={**swept_values(parts.config.hparams), **parts.hparams},
        init=lambda key: _init(parts, key),
        initial_carry=lambda batch: _initial_carry(parts, batch),
        act=lambda *args: _act(parts, *args),
        sample=None,
        update=unused,
        inspect=lambda *args: _inspect(parts, *args),
        observe=observing(parts),
        before_update=preparing(parts),
        experience="dataset",
        update_from=lambda *args: update_from(parts, *args),
    )


def _init(parts: SitLearner, key: Array) -> LearnerState:
    if not parts.config.capacity:
        raise RefusedError(
            "algo.capacity=0 stands for as many episodes as the data set has, which jaxshare.train puts in its place. "
            "Elsewhere give algo.capacity that number."
        )
    inits = {"reward": parts.reward.init, "critic": parts.critic.init, "actor": parts.actor.init}
    keys = jax.random.split(key, len(inits))
    params = {name: init(k) for (name, init), k in zip(inits.items(), keys, strict=True)}
    hparams = {
        name: jnp.float32(value) for name, value in swept_values(parts.config.hparams).items()
    }
    return LearnerState(
        params=params,
        target_params={"critic": params["critic"]},
        opt_state=first_opt_state(parts, params, hparams),
        stats={**parts.stats, KEPT: first_tables(parts)},
    )


def update_from(
    parts: SitLearner,
    learner: LearnerState,
    data: Episode,
    ctx: Context,
    key: Array,
    batch_size: int,
) -> tuple[LearnerState, Metrics]:
    """One update of whichever stage it is; the clock is common to all runs, so that these are real branches.

    data: in the layout of a replay, fields [E, T(+1), ...]. The metrics of the other stage are 0.
    """
    _check(parts, data, batch_size)
    made, first = ctx.clock.updates, parts.config.stage1_updates
    kept = learner.stats[KEPT]
    floor = jax.lax.cond(
        made <= first, lambda: least_reward(parts, data), lambda: learner.stats[KEPT]["floor"]
    )
    kept = {**kept, "floor": floor}
    kept = jax.lax.cond(
        made == first, lambda: tables(parts, learner.params, data, floor, ctx), lambda: kept
    )
    # the tables go round the second branch: what passes through one is copied
    rest = learner.replace(  # type: ignore[attr-defined]
        stats={name: x for name, x in learner.stats.items() if name != KEPT}
    )
    stages = (
        lambda: learn_reward(parts, rest, data, floor, ctx, key, batch_size),
        lambda: learn_policy(parts, rest, kept, data, ctx, key, batch_size),
    )
    shapes = [jax.eval_shape(stage)[1] for stage in stages]
    blank = {name: jnp.zeros(s.shape, s.dtype) for found in shapes for name, s in found.items()}

    def run(stage: Any) -> tuple[LearnerState, Metrics]:
        learner, metrics = stage()
        return learner, {**blank, **metrics}

    learner, metrics = jax.lax.cond(made < first, lambda: run(stages[0]), lambda: run(stages[1]))
    return learner.replace(stats={**learner.stats, KEPT: kept}), metrics  # type: ignore[attr-defined]


def _check(parts: SitLearner, data: Episode, batch_size: int) -> None:
    episodes, steps = data.mask.shape
    limit = parts.spec.episode_limit
    _check_capacity(parts.config.capacity, episodes)
    if batch_size > episodes:
        raise RefusedError(
            f"batch_size={batch_size} is more than the {episodes} episodes of the data set. Use batch_size={episodes}."
        )
    if steps > limit:
        raise RefusedError(
            f"The data set has episodes of {steps} steps, and env={parts.spec.name} ends them after {limit}. Choose "
            "the environment that it was collected in."
        )


def _check_capacity(capacity: int, episodes: int) -> None:
    if episodes > capacity:
        raise RefusedError(
            f"algo.capacity={capacity} is less than the {episodes} episodes of the data set. Use "
            f"algo.capacity={episodes}, or leave it out."
        )


# --------------------------------------------------------------------------------------------------------------- acting


def _initial_carry(parts: SitLearner, batch: int) -> tuple[Array, Array]:
    previous = jnp.zeros((batch, parts.spec.num_agents, inputs.action_dim(parts.spec)))
    return parts.actor.initial_carry(batch), previous


def _act(
    parts: SitLearner, params: dict[str, Any], carry: tuple[Array, Array], timestep: TimeStep, ctx: Context,
    key: Array, explore: bool,
) -> tuple[tuple[Array, Array], Array, dict[str, Array]]:  # fmt: skip
    hidden, previous = carry
    x = jnp.concatenate([timestep.obs, previous], axis=-1)[None]
    hidden, y = parts.actor.unroll(params["actor"], hidden, x)
    action = choose(parts, y[0], timestep.avail, ctx, key, explore)
    return (hidden, inputs.encode(action, parts.spec)), action, {}


def _inspect(
    parts: SitLearner, learner: LearnerState, batch: Episode, ctx: Context
) -> dict[str, Array]:
    """Decomposed rewards and their uncertainty, and what the critics say about the actions taken, [T, B, N]."""
    reward, uncertainty = individual(parts, learner.params, batch, learner.stats[KEPT]["floor"])
    encoded = inputs.encode(batch.action, parts.spec)
    previous = inputs.last_actions(batch.action, parts.spec)[:-1]
    obs, shape = batch.obs[:-1], reward.shape
    asked = Question(
        history=jnp.concatenate([obs, previous], axis=-1),
        action=encoded[..., None, :],
        obs=jnp.broadcast_to(obs[:, :, None], (*shape, *obs.shape[2:])),
        index=jnp.broadcast_to(jnp.arange(shape[-1]), shape),
    )
    start: Any = parts.critic.initial_carry(shape[1])
    q = parts.critic.unroll(learner.params["critic"], start, asked)[1][..., 0]  # type: ignore[arg-type]
    found = {"individual_reward": reward, "individual_uncertainty": uncertainty, "q_taken": q}
    for part in parts.inspect:
        found.update(part(found, batch, ctx))
    return found
