"""OW-QMIX: QMIX with less weight on joint actions that are not worth more than thought (Rashid et al. 2020).

y = R + discount Q*'(s', u'),   L = mean[w (y - Q_tot)^2] + mean[(y - Q*)^2],   w = 1 where Q_tot < y, else alpha
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxshare.learners.utilities import agent_inputs, agent_network, unrolled
from jaxshare.learners.value import monotone_mixer, value_learner
from jaxshare.learners.value_settings import ValueConfig, ValueHParams
from jaxshare.models.base import Linear, Network
from jaxshare.ops.masking import masked_mean, take_last
from jaxshare.settings.fields import nested, swept
from jaxshare.settings.shared import HyperNetwork


@dataclass(frozen=True)
class HParams(ValueHParams):
    alpha: float = swept(0.5, least=0, most=1, help="weight of what is worth less", source="paper")


@dataclass(frozen=True)
class Config(HyperNetwork, ValueConfig):
    hparams: HParams = nested(HParams)


class Mix(nn.Module):
    @nn.compact
    def __call__(self, q, state):
        x = nn.relu(Linear(256)(jnp.concatenate([state, q], axis=-1)))
        return Linear(1)(nn.relu(Linear(256)(x)))[..., 0]


def make(config, spec):
    mix = Mix()
    example = (jnp.zeros((1, spec.num_agents)), jnp.zeros((1, spec.state_dim)))
    mixer = Network(
        init=lambda key: mix.init(key, *example)["params"],
        apply=lambda params, q, state: mix.apply({"params": params}, q, state),
    )
    learner = value_learner("ow_qmix", config, spec, monotone_mixer(config, spec), loss)
    central = agent_network("ow_qmix", config, spec)
    return learner.extend(networks={"central": central, "central_mixer": mixer})


def loss(view):
    batch = view.batch
    values = view.values
    mix = view.learner.networks["central_mixer"].apply

    # Q* of what was done, and of the greedy actions that follow
    x = agent_inputs(view)
    q = take_last(unrolled(view, "central", view.params, x)[:-1], batch.action)
    next_q = take_last(unrolled(view, "central", view.target_params, x)[1:], values.next_action)
    central = mix(view.params["central_mixer"], q, batch.state[:-1])
    next_value = mix(view.target_params["central_mixer"], next_q, batch.state[1:])
    y = jax.lax.stop_gradient(values.team_reward + values.discount * next_value)

    weight = jnp.where(values.q_tot < y, 1.0, view.hparams["alpha"])
    team = masked_mean(weight * jnp.square(y - values.q_tot), batch.mask)
    error = masked_mean(jnp.square(y - central), batch.mask)
    metrics = {"loss/td": team, "loss/central": error, "q/target_mean": masked_mean(y, batch.mask)}
    metrics["td_error/abs_mean"] = masked_mean(jnp.abs(y - values.q_tot), batch.mask)
    return team + error, metrics
