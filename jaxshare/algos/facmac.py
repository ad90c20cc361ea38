"""FACMAC: a factored critic and one policy gradient for all agents (Peng et al. 2021).

https://arxiv.org/abs/2003.06709.

    Q_tot(s, a) = g(s, Q_1(o_1, a_1), ..., Q_N(o_N, a_N))                                 (sec. 4.1)
    y = R + discount Q'_tot(s', pi'_1(tau_1'), ..., pi'_N(tau_N'))
    L(Q) = sum m (y - Q_tot)^2 / sum m
    L(pi) = - sum m Q_tot(s, pi_1(tau_1), ..., pi_N(tau_N)) / sum m + c mean(pi^2)        (sec. 4.2)

All agents' actions are varied at once, and the gradient goes through g. g is QMIX's (mixer=qmix),
the same two layers with weights of any sign (free), or a sum (vdn); a single agent has none (code).
The utilities read the agent's observation and action and nothing else (code). Discrete actions are
hard Gumbel-softmax samples. The defaults are those of the code for predator-prey; presets
facmac/mamujoco and facmac/smax have its other two columns.

The utilities are COMIX's and their loss sees what that of the value family sees, so that
modifiers=[differ] shares out the reward among them (target=one_step only).

Departures. code: the actors' mean is over padding as well; ours: valid steps. code: of SMAC the
actors have no penalty, of the others c = 1e-3; `action_reg`. code: weight decay, double_q and a
recurrent critic are settings that nothing reads or that are off. Not done: vdn-s (a sum and a bias
of the state), Ornstein-Uhlenbeck noise, skip connections and gates of the mixer (all off in the
code's configurations).
"""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp

from jaxshare.learners.deterministic import Critics, deterministic_learner
from jaxshare.learners.deterministic_settings import DeterministicConfig, DeterministicHParams
from jaxshare.learners.learner import Learner
from jaxshare.learners.value_losses import team_td_loss
from jaxshare.models import inputs
from jaxshare.models.critics import free_mixer
from jaxshare.models.mixers import Mixer, qmix_mixer, vdn_mixer
from jaxshare.settings.fields import default, nested, static
from jaxshare.settings.shared import HyperNetwork
from jaxshare.types import Array, EnvSpec

MIXERS = ("qmix", "free", "vdn")

CODE = "code: facmac_pp.yaml"


@dataclass(frozen=True)
class HParams(DeterministicHParams):
    """Swept scalars. code: facmac_pp.yaml."""

    lr: float = default(1e-2, CODE)
    critic_lr: float = default(1e-2, CODE)
    gamma: float = default(0.85, CODE)
    tau: float = default(1e-3, CODE)
    grad_clip: float = default(0.5, CODE)
    adam_eps: float = default(1e-2, CODE)


@dataclass(frozen=True)
class Config(HyperNetwork, DeterministicConfig):
    """Settings of the family, and the mixer's. code: facmac_pp.yaml."""

    hidden_dim: int = default(64, CODE)
    obs_last_action: bool = default(True, CODE)
    target_update: str = default("soft", CODE)
    mixer: str = static(
        "qmix",
        choices=MIXERS,
        help="how utilities are mixed: by QMIX, with weights of any sign (free), or by a sum",
        source="code: facmac_pp.yaml; free is its qmix-nonmonotonic",
    )
    embed_dim: int = default(64, CODE)
    hypernet_dim: int = default(64, CODE)
    hypernet_layers: int = default(1, CODE)
    hparams: HParams = nested(HParams)


def make(config: Config, spec: EnvSpec) -> Learner:
    """Utilities of own actions, and a mixer."""
    critics = Critics(
        reads=critic_input,
        input_dim=spec.obs_dim + inputs.action_dim(spec),
        mixer=mixer_of(config, spec),
    )
    return deterministic_learner("facmac", config, spec, critics, team_td_loss)


def mixer_of(config: Config, spec: EnvSpec) -> Mixer:
    """g of this setting; a sum for one agent."""
    if config.mixer == "vdn" or spec.num_agents == 1:
        return vdn_mixer()
    make_mixer = qmix_mixer if config.mixer == "qmix" else free_mixer
    return make_mixer(
        spec.num_agents,
        spec.state_dim,
        config.embed_dim,
        config.hypernet_dim,
        config.hypernet_layers,
    )


def critic_input(obs: Array, state: Array, own: Array, others: Array) -> Array:
    """[o_i, a_i]: [T, B, N, O + E]."""
    return jnp.concatenate([obs, own], axis=-1)
