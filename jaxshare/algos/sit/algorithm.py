"""SIT: shared individual trajectories, offline, in three stages (Tian et al. 2023).

https://arxiv.org/abs/2211.15612.

"Learning from Good Trajectories in Offline Multi-Agent Reinforcement Learning", from the paper
alone: there is no public code.

I. The first `stage1_updates` train M networks that say what each agent contributes to the team
reward:

    lambda_i = softmax_i((W_q e_s) . (W_k e_i)),   r_tot = sum_i lambda_i f(o_i, a_i)    (eqs. 1, 2)
    L = (1/M) sum_m (r_tot,m - r_tot)^2                                                     (eq. 3)

II. Before the next update every (episode k, agent i) of the data gets a reward, an uncertainty, and
a priority:

    r_i = mean_m lambda_i,m r_i,m,   u_i = std_m lambda_i,m r_i,m                        (eqs. 4, 5)
    g_t = sum_{t' >= t} gamma^(t'-t) r_t',   p = mean_t g_t mapped onto [0, 20]            (eq. 6)
    P(k, i) ~ e^(p / alpha)                                                                 (eq. 7)

with one buffer for each type of agents, which holds indices and no copies.

III. All further updates: each policy learns from trajectories drawn from its type's buffer, whoever
of the type played them. The critic sees them with the observations of the agents who played along
(networks.py).

    L_critic = mean omega (r_i + gamma Q'(tau', a', o'_-i) - Q(tau, a, o_-i))^2              (eq. 9)
    L_actor  = - mean omega F log pi(a | tau),   F = e^(X / beta) / Z                       (eq. 10)

a, a' are the data's actions, omega = eta / u, Z is made of the minibatch. Critics go first. One
stage after the other from one command; the clock says which it is, and everything is in
checkpoints.

Departures. paper: eq. 10 has Q for log pi, whose gradient is 0; eq. 6 has gamma^(t-t'); eq. 9
bootstraps after terminal states; eta / u has no bound; X = Q mixes the value of a state into the
choice of actions. Ours repairs all of them, and `literal_actor`, `literal_return`,
`literal_bootstrap`, `literal_weight`, `filter=q` undo that. paper: alpha on [0, 20] leaves a
handful of trajectories of bell-shaped priorities: ours raises it to `min_ess`, and shows it. ours:
where the time limit cuts an episode there is no next action in the data, so the policy's mean value
is used; F has mean 1; a policy for each type (`share_params=none`: for each agent, as in the
paper). ours: the ensemble decomposes r_tot less the least reward of the data, if that is below 0,
and each agent gets an equal part of it back (`lift_rewards`): attention gives most of r_tot to
those whose inputs tell most about it, and where rewards are costs that blames the good agents
(benchmarks/studies/offline.yaml). paper: silent about an agent's id; ours: none is added to
observations. A monotone mixer in the place of attention is the paper's negative example (app. E.1).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax.numpy as jnp

from jaxshare.algos.sit import policies, rewards, tables, trajectories
from jaxshare.algos.sit.networks import Decomposition, Question, decomposition_ensemble
from jaxshare.algos.sit.sets import sets_of, shared_network
from jaxshare.algos.sit.settings import NO_DECOMPOSITION, Config
from jaxshare.algos.sit.tables import NAME, check_capacity
from jaxshare.learners.keys import undivided
from jaxshare.learners.learner import ALGORITHM, Learner
from jaxshare.learners.records import Optimizer, Phase, Policy, Source, Step, Targets, View
from jaxshare.models import inputs
from jaxshare.models.base import Network
from jaxshare.models.inputs import Reads
from jaxshare.types import Array, Clock, EnvSpec, RefusedError

# paper: 20,000 of stage I (Table 10), 15,000 of III (Table 11)
RUN = {"total_updates": 35_000, "eval": {"every": 1000}}
__all__ = ["RUN", "Config", "fitted", "make"]


def fitted(config: Config, num_episodes: int, total_updates: int) -> Config:
    """The settings for a data set of `num_episodes`, with `capacity` resolved.

    Raises RefusedError if it is too small, or if the run ends in the first stage (ending just after
    it is allowed). The tables are part of the learner's state, whose shapes must be known where
    there is no data set, as when a run is evaluated.
    """
    check_capacity(config.capacity or num_episodes, num_episodes)
    if total_updates < config.stage1_updates:
        raise RefusedError(
            f"total_updates={total_updates} ends before "
            f"algo.stage1_updates={config.stage1_updates}: no policy would learn. Use a smaller "
            f"algo.stage1_updates, or total_updates={config.stage1_updates + total_updates}."
        )
    return replace(config, capacity=config.capacity or num_episodes)


def make(config: Config, spec: EnvSpec) -> Learner:
    """The networks and the phases of all three stages."""
    sets = sets_of(config, spec)
    networks = {
        "reward": _ensemble(config, spec),
        "critic": shared_network("critic", config, spec),
        "actor": shared_network("actor", config, spec),
    }

    def first_stage(clock: Clock) -> Array:
        return clock.updates < config.stage1_updates

    # first rewards are decomposed, then policies learn by them
    reward = Step(rewards.loss, {"reward": ("reward",)}, rate="reward_lr", rest="modules")
    critic = Step(partial(policies.critic_loss, sets), {"critic": ("critic",)}, rate="critic_lr")
    actor = Step(None, {"actor": ("actor",)}, advance=partial(policies.advance_actors, sets))
    decomposition = Phase(
        steps={"reward": reward},
        draw=rewards.draw,
        due=first_stage,
        hooks=False,
        keys=undivided,
    )
    policy_learning = Phase(
        steps={"critic": critic, "actor": actor},
        draw=partial(trajectories.draw, sets),
        prepare=partial(trajectories.prepare, sets),
        relabels=False,
    )
    reads = Reads(spec, last_action=True, agent_id=False)
    policy = Policy(networks=("actor",), choose=policies.choose)
    source = Source(experience="dataset", sample=None)
    learner = Learner(
        name=NAME,
        spec=spec,
        config=config,
        networks=networks,
        reads=reads,
        policy=policy,
        phases=(decomposition, policy_learning),
        main="reward",
        source=source,
    )
    period = config.target_update_period
    targets = Targets(networks=("critic",), period=period, start=config.stage1_updates)
    optimizer = Optimizer(kind="rmsprop", clip="set", largest_norm=True)
    stats = {NAME: partial(tables.first, sets, config, spec)}
    return replace(
        learner,
        targets=targets,
        optimizer=optimizer,
        stats=stats,
        tables=partial(tables.tables, sets),
        checks=(_check_relabelling,),
        owners={"loss": ALGORITHM},
        inspect=(judgement,),
    )


def _ensemble(config: Config, spec: EnvSpec) -> Network:
    """The networks that say what each agent contributes."""
    kind = "sum" if config.decomposition == NO_DECOMPOSITION else config.decomposition
    module = Decomposition(kind, config.reward_dim, config.attention_dim, config.scaled_attention)
    own_dim = spec.obs_dim + inputs.action_dim(spec)
    return decomposition_ensemble(module, config.ensemble, spec.state_dim, spec.num_agents, own_dim)


def _check_relabelling(learner: Learner) -> None:
    if learner.relabel and learner.config.decomposition == NO_DECOMPOSITION:
        raise RefusedError(
            "algo.decomposition=none has no first stage, and modifiers such as standardise change "
            "rewards there only. Leave them out."
        )
    if learner.relabel and learner.config.lift_rewards:
        raise RefusedError(
            "modifiers such as standardise change the rewards that algo=sit decomposes, and "
            "algo.lift_rewards=true goes by the least one of the data. Use algo.lift_rewards=false."
        )


def judgement(view: View) -> dict[str, Array]:
    """Decomposed rewards and their uncertainty, and what the critics say of the actions taken.

    [T, B, N] each, for people to look at.
    """
    batch = view.batch
    reward, uncertainty = rewards.individual(view, view.stats[NAME]["floor"])
    encoded = inputs.encode(batch.action, view.spec)
    previous = inputs.last_actions(batch.action, view.spec)[:-1]
    obs = batch.obs[:-1]
    shape = reward.shape

    # every agent is asked about what it did
    history = jnp.concatenate([obs, previous], axis=-1)
    everybody = jnp.broadcast_to(obs[:, :, None], (*shape, *obs.shape[2:]))
    index = jnp.broadcast_to(jnp.arange(shape[-1]), shape)
    asked = Question(history=history, action=encoded[..., None, :], obs=everybody, index=index)
    critic = view.learner.networks["critic"]
    memory = critic.initial_carry(shape[1])
    q = critic.unroll(view.params["critic"], memory, asked)[1][..., 0]
    return {"individual_reward": reward, "individual_uncertainty": uncertainty, "q_taken": q}
