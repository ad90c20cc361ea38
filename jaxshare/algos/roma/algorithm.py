"""ROMA: roles that emerge, on QMIX (Wang et al. 2020, ICML, arXiv 2003.08039).

QMIX's hyper-networks have one layer.

From its inputs x_i every agent draws a role rho_i ~ p_i = N(mu(x_i), var(x_i)) at each step, acting
or learning, and the last layer of its utilities is generated from it:

    Q_i = h_i W(rho_i) + b(rho_i)

To QMIX's loss is added, as a mean over steps and in the form of the authors' code, L_I + w_D L_D
with

    L_I = log(1 + exp(min(2000, w_H H(p_i) + w_KL KL(p_i || q_i))))
    L_D = (sum_ij dis_ij - w_s sum_ij min(mi_ij + dis_ij, 1)) / N^2

    q_i:    inferred from (h_i before the step, x_i)
    mi_ij  = sum_d max(log p_i(rho_j)_d + 13.9, -13.9) / D
    dis_ij = |D(rho_i, rho_j)|,   both over the N^2 pairs of a step, and scaled to [0, 1]

L_I makes roles identifiable by behaviour; L_D wants pairs that are either of one role or unlike. As
w_H H + w_KL KL is small, L_I is near log 2 and half of its gradient arrives.

With modifiers=[differ] the roles belong to the agents, the two other networks to neither group.

Departures: code: batch normalisation that uses statistics of the acting environments' rows too,
ours: layer normalisation (`norm=batch` for the code's, where padding then counts in the
statistics). code: padded steps are in both losses, ours: they are not (`mask_padding=false` for the
code's). code: anneals epsilon in 50 steps, ours: 50 000, as everybody else. code: the step after
the last action is in the losses as well. code: 20 million steps of 8 environments, one update per 8
episodes: settings of the run. What `inspect` shows is of the mean role.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp

from jaxshare.algos.roma import equations
from jaxshare.algos.roma.networks import (
    NORMS,
    Roles,
    RoleSizes,
    inference_network,
    role_network,
    unlikeness_network,
)
from jaxshare.learners.learner import Learner
from jaxshare.learners.packed import packable
from jaxshare.learners.records import Policy, View
from jaxshare.learners.utilities import agent_inputs, all_utilities, greedy, num_choices
from jaxshare.learners.value import compute_values, monotone_mixer, value_learner
from jaxshare.learners.value_losses import team_td_loss
from jaxshare.learners.value_settings import ValueConfig, ValueHParams
from jaxshare.models.base import Network, sharing_sets
from jaxshare.models.inputs import Reads
from jaxshare.ops.masking import masked_mean
from jaxshare.settings.fields import default, flag, nested, size, static, swept
from jaxshare.settings.shared import HyperNetwork
from jaxshare.training import packing
from jaxshare.types import Array, EnvSpec, Metrics, RefusedError


@dataclass(frozen=True)
class HParams(ValueHParams):
    """Swept scalars of the value family, and ROMA's."""

    entropy_coef: float = swept(
        1e-4,
        least=0,
        help="weight w_H of the roles' entropy",
        source="code: ROMA; its README: 5e-2",
    )
    kl_coef: float = swept(
        1e-4,
        least=0,
        help="weight w_KL of roles that can be told from trajectories",
        source="code: ROMA",
    )
    diversity_coef: float = swept(
        1e-3,
        least=0,
        help="weight w_D of roles that differ",
        source="code: ROMA",
    )
    diversity_start: float = swept(
        0.0,
        least=0,
        help="environment steps after which w_D counts",
        source="code: ROMA",
    )
    soft_coef: float = swept(
        1.0,
        least=0,
        help="weight w_s of the soft constraint in w_D's term",
        source="code: ROMA",
    )


@dataclass(frozen=True)
class Config(HyperNetwork, ValueConfig):
    """Settings of the value family, of QMIX's mixer, and of the roles."""

    embed_dim: int = default(32, "code: ROMA")
    hypernet_layers: int = default(1, "code: ROMA; QMIX's own has 2")
    role_dim: int = size(3, help="numbers of a role", source="code: ROMA")
    role_hidden_dim: int = size(
        16,
        help="hidden units of all role networks",
        source="code: ROMA, 12 to 16",
    )
    var_floor: float = static(
        0.002,
        above=0,
        note="It keeps roles from collapsing.",
        help="least variance of a role",
        source="code: ROMA; its README: 1e-4",
    )
    norm: str = static(
        "layer",
        choices=NORMS,
        help="normalisation in the role networks: layer, batch or none",
        source="ours: layer; code: ROMA has batch",
    )
    mask_padding: bool = flag(
        True, help="steps after an episode's end are left out", source="ours; code: ROMA has false"
    )
    hparams: HParams = nested(HParams)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.recurrent:
            raise RefusedError(
                "algo.recurrent=false leaves algo=roma nothing to infer roles from: leave it true."
            )
        if self.init != "torch":
            raise RefusedError(
                f"algo.init={self.init}: the networks of roles of algo=roma are drawn as torch "
                "does. Use algo.init=torch, or an algorithm without roles, such as qmix."
            )


def make(config: Config, spec: EnvSpec) -> Learner:
    """QMIX with agents that have roles, and two networks to train them by."""
    sizes = RoleSizes(config.role_dim, config.role_hidden_dim, config.var_floor, config.norm)
    reads = Reads(spec, config.obs_last_action, config.obs_agent_id)
    agent = role_network(
        sizes,
        reads.dim,
        num_choices("roma", spec),
        config.hidden_dim,
        sharing_sets(config.share_params, spec.groups),
    )
    mixer = monotone_mixer(config, spec)
    learner = value_learner("roma", config, spec, mixer, team_td_loss, agent)

    # roles are drawn from noise beside what the agents read, acting and learning
    utilities = partial(all_utilities, noise_dim=config.role_dim)
    learner = learner.with_main(compute=partial(compute_values, utilities))
    choose = partial(greedy, noise_dim=config.role_dim)
    learner = replace(learner, policy=Policy(networks=("agent",), choose=choose))

    inference = inference_network(sizes, reads.dim + config.hidden_dim)
    unlikeness = unlikeness_network(sizes)
    learner = replace(learner, whole_rows=_why_whole(config))
    return learner.extend(
        networks={"inference": inference, "unlikeness": unlikeness},
        aux=partial(role_loss, inference, unlikeness),
        inspect=mean_roles,
    )


def _why_whole(config: Config) -> str:
    """Why batches cannot be packed, as a clause, or nothing."""
    if config.norm == "batch":
        return "algo.norm=batch is over the episodes at one step"
    return "" if config.mask_padding else "algo.mask_padding=false learns from padding"


@packable
def role_loss(inference: Network, unlikeness: Network, view: View) -> tuple[Array, Metrics]:
    """L_I + w_D L_D, mean over steps at which an episode is still on."""
    h = view.hparams
    config = view.config
    roles = roles_of(view)
    mask = view.batch.mask if config.mask_padding else jnp.ones_like(view.batch.mask)
    drawn = partial(packing.as_drawn, view.batch)  # what is of all episodes at one step
    of_steps = drawn(mask)

    # L_I: roles that can be told from behaviour
    inferred_mean, inferred_var = _infer(inference, view, roles)
    entropies = equations.entropy(roles.var)
    divergences = equations.kl(roles.mean, roles.var, inferred_mean, inferred_var)
    identity = equations.identity_loss(
        drawn(entropies), drawn(divergences), of_steps, h["entropy_coef"], h["kl_coef"]
    )

    # L_D: pairs of one role, or unlike
    fit = equations.role_fit(roles.role, roles.mean, roles.var)
    unlike = _unlike(unlikeness, view, roles.role)
    apart = equations.diversity_loss(fit, unlike, h["soft_coef"])
    diversity = equations.step_mean(drawn(apart), of_steps)
    coef = h["diversity_coef"] * (view.env_steps >= h["diversity_start"])
    on = of_steps.max(1)
    each = jnp.broadcast_to(mask[..., None], entropies.shape)
    total = masked_mean(identity + coef * diversity, on)

    # means over real steps
    spread = roles.mean.std(-2).mean(-1)
    distance = unlike.mean((0, -1))
    losses = {
        "roma/identity_loss": masked_mean(identity, on),
        "roma/diversity_loss": masked_mean(diversity, on),
    }
    information = {
        "roma/entropy": masked_mean(entropies, each),
        "roma/kl": masked_mean(divergences, each),
    }
    differences = {
        "roma/unlikeness": masked_mean(distance, mask),
        "roma/role_spread": masked_mean(spread, mask),
    }
    return total, {**losses, **information, **differences}


def roles_of(view: View) -> Roles:
    """Of every agent at every step, [T, B, N, ...]."""
    return Roles.split(view.values.features[:-1], view.config.role_dim)


def _infer(inference: Network, view: View, roles: Roles) -> tuple[Array, Array]:
    """Mean and variance of q_i, [T, B, N, D]."""
    x = agent_inputs(view)[:-1]
    history = jnp.concatenate([jax.lax.stop_gradient(roles.before), x], axis=-1)
    # batch normalisation is over all rows of a step
    rows = history.reshape(history.shape[0], -1, history.shape[-1])
    mean, var = inference.apply(view.params["inference"], rows)
    return mean.reshape(roles.mean.shape), var.reshape(roles.mean.shape)


def _unlike(unlikeness: Network, view: View, role: Array) -> Array:
    """dis of all pairs, [N, T, B, N], ordered as `equations.others`."""
    other = equations.others(role)
    pair = jnp.concatenate([jnp.broadcast_to(role[None], other.shape), other], axis=-1)
    rows = pair.reshape(*pair.shape[:2], -1, pair.shape[-1])
    return unlikeness.apply(view.params["unlikeness"], rows).reshape(other.shape[:-1])


def mean_roles(view: View) -> dict[str, Array]:
    """Each number of the mean role, [T, B, N]."""
    mean = roles_of(view).mean
    return {f"role_{k}": mean[..., k] for k in range(view.config.role_dim)}
