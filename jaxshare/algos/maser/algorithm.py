"""MASER: subgoals from the replay buffer (Jeon et al. 2022, ICML, arXiv 2206.10607), on QMIX.

The equations are those of the authors' code. With u_i = Q_i^-(tau_i, argmax Q_i) and
U = Q_tot^-(u; s) of the target networks at the same step, every agent of an episode has a goal, the
observation at

    t*_i = argmax_t alpha u_i + (1 - alpha) U / N

and with an embedding phi, rewards for being near it:

    r_i = -|phi(o_i) - phi(o_i at t*_i)|,   r = mean_i r_i

Then

    L_team:  QMIX's loss with R' = R + lambda r in place of R
    L_ind  = sum m (Q_i - y_i)^2 / sum m
             y_i = R' softmax_i(Q'_1..Q'_N) + lambda r_i + gamma (1 - d) Q'_i
    L_dist = mean_t (|phi(o_i) - phi(goal)| - (1 - cos(q_i, q_i at t*_i)))^2
             q_i: target utilities of all actions
    L_expl = mean_{t >= t*} KL(softmax Q_i || uniform)
    L      = L_team + 0.001 (ind L_ind + mix mean(expl L_expl + dis L_dist))

With modifiers=[differ] DIFFER shares out R' instead of R: it replaces L_team, the other terms stay.

Departures: code: phi is in no optimiser and L_expl reads the target network, so that L_dist and
L_expl train nothing; ours: both train, unless `train_embedding=false` and `explore_online=false`.
code: unavailable actions count as -1e7 in cosine and softmax, and padded steps as steps; ours: both
are left out. code: rewards in place, hence R' in y_i: kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from jaxshare.algos.maser import equations
from jaxshare.learners.learner import Learner
from jaxshare.learners.packed import packable
from jaxshare.learners.records import View
from jaxshare.learners.utilities import num_choices
from jaxshare.learners.value import Values, monotone_mixer, value_learner
from jaxshare.learners.value_losses import team_td_loss
from jaxshare.learners.value_settings import ValueConfig, ValueHParams
from jaxshare.models.base import Network
from jaxshare.models.embedding import embedding_network
from jaxshare.models.mixers import MixerInputs
from jaxshare.ops import td
from jaxshare.ops.masking import (
    masked_argmax,
    masked_max,
    masked_mean,
    masked_mean_square,
    take_last,
)
from jaxshare.settings.fields import default, flag, nested, size, swept
from jaxshare.settings.shared import HyperNetwork
from jaxshare.training import packing
from jaxshare.types import Array, EnvSpec, Metrics, RefusedError

# in Values.extras: [B, N] i32, the step of each agent's goal, and [T, B, N]
GOAL = "maser.goal_step"
REWARD = "maser.reward"


@dataclass(frozen=True)
class HParams(ValueHParams):
    """Swept scalars of the value family, and MASER's."""

    intrinsic_scale: float = swept(
        0.03,
        least=0,
        help="weight lambda of the intrinsic reward",
        source="code: MASER",
    )
    goal_alpha: float = swept(
        0.5,
        least=0,
        most=1,
        help="weight alpha of the agent's utility against the team's, in the choice of its goal",
        source="code: MASER",
    )
    extra_scale: float = swept(
        0.001,
        least=0,
        help="weight of all losses but L_team",
        source="code: MASER",
    )
    individual_coef: float = swept(
        1.0,
        least=0,
        help="weight of L_ind",
        source="code: MASER's README; its yaml: 0.8",
    )
    mixed_coef: float = swept(
        1.0,
        least=0,
        help="weight of L_mix",
        source="code: MASER's README; its yaml: 0.2",
    )
    explore_coef: float = swept(
        1.0,
        least=0,
        help="weight of L_expl",
        source="code: MASER's README; its yaml: 0.3",
    )
    distance_coef: float = swept(
        1.0,
        least=0,
        help="weight of L_dis",
        source="code: MASER's README; its yaml: 0.7",
    )


@dataclass(frozen=True)
class Config(HyperNetwork, ValueConfig):
    """Settings of the value family, of QMIX's mixer, and of the embedding."""

    embed_dim: int = default(32, "code: MASER")
    hypernet_layers: int = default(1, "code: MASER; QMIX's own has 2")
    embedding_dim: int = size(128, help="hidden units of the embedding phi", source="code: MASER")
    train_embedding: bool = flag(
        True,
        help="phi is trained; false: it stays as initialised",
        source="ours; code: MASER has false",
    )
    explore_online: bool = flag(
        True,
        help="L_expl is of the online network; false: of the target network, which trains nothing",
        source="ours; code: MASER has false",
    )
    hparams: HParams = nested(HParams)

    def check_window(self) -> None:
        """Raise RefusedError for windows: goals are steps of whole episodes."""
        if self.window:
            raise RefusedError(
                f"algo.window={self.window}: goals of algo=maser are chosen out of whole episodes. "
                "Use algo.window=0."
            )


def make(config: Config, spec: EnvSpec) -> Learner:
    """QMIX with a shaped team reward and three further losses."""
    phi = embedding_network(spec.obs_dim, config.embedding_dim, num_choices("maser", spec))
    mixer = monotone_mixer(config, spec)
    learner = value_learner("maser", config, spec, mixer=mixer, loss=team_td_loss)
    return learner.extend(
        networks={"embedding": phi},
        shaping=partial(shape, phi),
        aux=partial(extra_loss, phi),
        inspect=intrinsic_rewards,
    )


def intrinsic_rewards(view: View) -> dict[str, Array]:
    """What each agent is paid for coming near its goal, [T, B, N]."""
    return {"intrinsic_reward": view.values.extras[REWARD]}


@packable
def shape(phi: Network, view: View) -> Values:
    """R' for R; goals and individual rewards into `extras`. Constants throughout."""
    values: Values = view.values
    batch = view.batch
    online = values.q[:-1]
    assert values.target_q is not None  # discrete actions have columns
    target = values.target_q[:-1]
    avail = batch.avail[:-1]

    # the best team value that the target networks see at each step
    greedy = masked_argmax(online if view.config.double_q else target, avail)
    best = take_last(target, greedy)
    reads = MixerInputs(masked_max(target, avail), greedy, batch.state[:-1])
    team = view.learner.mixer.apply(view.target_params["mixer"], best, reads)

    # each agent's goal, and what it is paid for coming near
    drawn = partial(packing.as_drawn, batch)
    alpha = view.hparams["goal_alpha"]
    goal = equations.goal_step(drawn(best), drawn(team), drawn(batch.mask), alpha)
    reward = -_to_goal(phi, view, goal)
    extras = jax.lax.stop_gradient({GOAL: goal, REWARD: reward})
    bonus = view.hparams["intrinsic_scale"] * extras[REWARD].mean(-1)
    return values.replace(
        team_reward=values.team_reward + bonus, extras={**values.extras, **extras}
    )


def _to_goal(phi: Network, view: View, step: Array) -> Array:
    """|phi(o_i) - phi(goal_i)|, [T, B, N]."""
    embedded = phi.apply(view.params["embedding"], view.batch.obs[:-1])
    return equations.distance(embedded, at_goal(view, embedded, step))


def at_goal(view: View, x: Array, step: Array) -> Array:
    """x [T, B, N, D] at the step [B, N] of each agent's goal, in all slots of its episode.

    -> [T, B, N, D], or [1, B, N, D] where every row is one episode.
    """
    batch = view.batch
    at = equations.at_step(packing.as_drawn(batch, x), step)
    return packing.of_episodes(batch, at, len(batch.mask))


@packable
def extra_loss(phi: Network, view: View) -> tuple[Array, Metrics]:
    """0.001 (ind L_ind + mix mean(expl L_expl + dis L_dist))."""
    h = view.hparams
    values = view.values
    mask = jnp.broadcast_to(view.batch.mask[..., None], values.q_taken.shape)
    individual = individual_loss(values, mask, h["intrinsic_scale"])

    # of each episode and agent, after its goal
    explore = _explore(view, mask)
    apart = _distance_error(phi, view, mask)
    valid = jnp.broadcast_to(packing.as_drawn(view.batch, mask).max(0), explore.shape)
    mixed = masked_mean(h["explore_coef"] * explore + h["distance_coef"] * apart, valid)
    loss = h["extra_scale"] * (h["individual_coef"] * individual + h["mixed_coef"] * mixed)

    # means over real steps, or over episodes and agents
    explore_mean = masked_mean(explore, valid)
    distance_mean = masked_mean(apart, valid)
    reward_mean = masked_mean(values.extras[REWARD], mask)
    goal_mean = masked_mean(values.extras[GOAL].astype(jnp.float32), valid)
    return loss, {
        "maser/individual_loss": individual,
        "maser/explore_loss": explore_mean,
        "maser/distance_loss": distance_mean,
        "maser/intrinsic_reward": reward_mean,
        "maser/goal_step": goal_mean,
    }


def individual_loss(values: Values, mask: Array, scale: Array) -> Array:
    """L_ind, summed over agents. mask [T, B, N], scale [] is lambda."""
    share = values.team_reward[..., None] * equations.reward_share(values.next_q)
    reward = share + scale * values.extras[REWARD]
    discount = jnp.broadcast_to(values.discount[..., None], reward.shape)
    delta = td.td_error(reward, discount, values.next_q, values.q_taken)
    return masked_mean_square(delta, mask) * mask.shape[-1]


def _explore(view: View, mask: Array) -> Array:
    """L_expl of each episode and agent, [B, N]."""
    values = view.values
    q = values.q if view.config.explore_online else values.target_q
    batch = view.batch
    goal = packing.of_episodes(batch, values.extras[GOAL], len(batch.mask))
    after = packing.steps_of(batch)[..., None] >= goal
    divergence = equations.kl_to_uniform(q[:-1], batch.avail[:-1])
    return mean_of_episodes(view, divergence, mask * after)


def mean_of_episodes(view: View, x: Array, mask: Array) -> Array:
    """`equations.mean_over_time` of each episode and agent: [T, B, N] twice -> [B, N]."""
    drawn = partial(packing.as_drawn, view.batch)
    return equations.mean_over_time(drawn(x), drawn(mask))


def _distance_error(phi: Network, view: View, mask: Array) -> Array:
    """L_dis of each episode and agent, [B, N]."""
    goal = view.values.extras[GOAL]
    q = view.values.target_q[:-1]
    avail = view.batch.avail[:-1]
    q_goal = at_goal(view, q, goal)
    avail_goal = at_goal(view, avail, goal)
    apart = _to_goal(phi, view, goal)
    if not view.config.train_embedding:
        apart = jax.lax.stop_gradient(apart)
    error = apart - equations.cosine_distance(q, avail, q_goal, avail_goal)
    return mean_of_episodes(view, jnp.square(jnp.where(mask > 0, error, 0.0)), mask)
