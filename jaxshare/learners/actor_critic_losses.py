"""What on-policy actor-critics aim at, and their loss."""

from __future__ import annotations

from functools import partial

import jax.numpy as jnp
from flax import struct

from jaxshare.learners.actor_critic_streams import policies, taken, values
from jaxshare.learners.records import View
from jaxshare.ops import ppo, returns
from jaxshare.ops.masking import masked_mean
from jaxshare.types import Array, Metrics, Segment


class Aims(struct.PyTreeNode):
    """What an update aims at; made with the parameters before it."""

    returns: Array  # [T, B, N]
    advantage: Array  # [T, B, N]
    log_prob: Array  # [T, B, N] of the action taken
    value: Array  # [T, B, N]


# ------------------------------------------------------------------------------------- aims


def discounts(view: View) -> Array:
    """gamma * (1 - terminated), [T, B, N]."""
    segment = view.batch
    discount = view.hparams["gamma"] * (1.0 - segment.terminated.astype(jnp.float32))
    return jnp.broadcast_to(discount[..., None], segment.reward.shape)


def over_agents(x: Array, segment: Segment) -> Array:
    """A field of steps for every agent: [T, B] -> [T, B, N]."""
    return jnp.broadcast_to(x[..., None], (*x.shape, segment.reward.shape[-1]))


def returns_of(view: View, next_value: Array) -> Array:
    """n-step returns along every agent's rewards, [T, B, N]."""
    segment = view.batch
    n = view.config.n_step or segment.mask.shape[0]
    end = over_agents(segment.end, segment)
    return returns.n_step(segment.reward, discounts(view), next_value, end, n)


def own_aims(view: View) -> Aims:
    """Aims of every agent from its own rewards and its own critic.

    Bootstrapped by the target critic, if there is one.
    """
    segment = view.batch
    value, next_value = values(view, view.params["critic"])
    if view.config.target_update != "none":
        _, next_value = values(view, view.target_params["critic"])

    # what each step was worth, and how much better than expected
    if view.config.returns == "gae":
        end = over_agents(segment.end, segment)
        advantage = returns.gae(
            segment.reward, discounts(view), value, next_value, end, view.hparams["gae_lambda"]
        )
        target = advantage + value
    else:
        target = returns_of(view, next_value)
        advantage = target - value
    log_prob = jnp.zeros_like(value)
    return Aims(returns=target, advantage=advantage, log_prob=log_prob, value=value)


def prepare_own(view: View) -> Aims:
    """`own_aims`, with standardised advantages and what the policies said, as settings ask for."""
    aims = own_aims(view)
    segment = view.batch
    if view.config.standardise_advantage:
        aims = aims.replace(advantage=standardised(view, aims.advantage))
    if view.config.epochs * view.config.minibatches > 1:
        aims = aims.replace(log_prob=policies(view).log_prob(taken(segment)))
    return aims


def standardised(view: View, advantage: Array) -> Array:
    """Advantages [T, B, N] with mean 0 and deviation 1 over all valid steps."""
    return ppo.standardise(advantage, over_agents(view.batch.mask, view.batch))


# ------------------------------------------------------------------------------------ losses


def agent_means(view: View, x: Array) -> Array:
    """Mean over valid steps of each agent, then the sum or the mean over agents.

    [T, B, N] -> [].
    """
    mask = view.batch.mask
    total = jnp.where(mask[..., None] > 0, x, 0.0).sum((0, 1))
    each = total / jnp.maximum(mask.sum(), 1.0)
    return each.sum() if view.config.over_agents == "sum" else each.mean()


def a2c_loss(view: View) -> tuple[Array, Metrics]:
    """sum_i {-mean[sg(A_i) log pi_i(a_i)] + c_v mean[(R_i - V_i)^2] - c_e mean[H(pi_i)]}.

    Mnih et al. 2016, sec. 4.3. The lecture's slides leave the minus sign of the first term out.
    """
    h = view.hparams
    aims: Aims = view.targets
    policy = policies(view)
    value, _ = values(view, view.params["critic"], after=False)
    mean = partial(agent_means, view)
    actor = mean(-aims.advantage * policy.log_prob(taken(view.batch)))
    critic = mean(jnp.square(aims.returns - value))
    entropy = mean(policy.entropy())
    loss = actor + h["value_coef"] * critic - h["entropy_coef"] * entropy
    return loss, report(view, aims, actor=actor, critic=critic, entropy=entropy)


def report(view: View, aims: Aims, **losses: Array) -> Metrics:
    """The metrics that all losses of the family have. losses: actor, critic, entropy."""
    mask = over_agents(view.batch.mask, view.batch)
    names = {"actor": "loss/actor", "critic": "loss/critic", "entropy": "policy/entropy"}
    scale = 1.0 / view.spec.num_agents if view.config.over_agents == "sum" else 1.0
    metrics = {names[name]: value * scale for name, value in losses.items()}
    value_mean = masked_mean(aims.value, mask)
    target_mean = masked_mean(aims.returns, mask)
    advantage_mean = masked_mean(jnp.abs(aims.advantage), mask)
    return {
        **metrics,
        "value/mean": value_mean,
        "value/target_mean": target_mean,
        "advantage/abs_mean": advantage_mean,
    }
