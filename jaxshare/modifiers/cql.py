"""CQL: critics that think little of actions that are not in the data (Kumar et al. 2020).

https://arxiv.org/abs/2006.04779.

For critics that read actions, which is maddpg and facmac. With a_i, a_-i the data's actions,

    L = L_TD + 2 w mean_i mean[P_i - Q(tau, a)]
    P_i = log of the integral of e^Q(tau, u, a_-i) over u                             (CQL, eq. 4)

over valid steps and agents: only agent i's action varies, in its own Q_i or, through the mixer, in
Q_tot (Shao et al. 2023, CFCQL, https://arxiv.org/abs/2309.12696, with equal lambda_i). A discrete
action is summed over exactly, available ones only. The integral over a continuous one is estimated
from actions u_k and their densities p_k:

    P_i = log mean_k e^(Q(tau, u_k, a_-i) - log p_k(u_k))                          (CQL, appendix F)

`samples` each of the uniform distribution, of N(pi_i(tau_i), s^2), and of N(pi_i(tau_i'), s^2) of
the next step, all in the box [-1, 1]. With vary=joint all agents' actions are drawn at once, p is
the product over agents, and P is that of the joint action (continuous actions only). From a data
set (`data=...`) or while playing; the actors learn as before.

Departures. paper: half the squared error, as in OG-MARL, and w is counted against that: hence the
2; code: CFCQL has the whole. code: OG-MARL and CFCQL clip what their Gaussians draw and take the
density before that, so that the weights 1 / p have no mean; ours: the Gaussian is cut off at the
bounds (ops/offline.py). code: OG-MARL draws all agents' actions at once and divides by the density
of agent i's alone, in its FACMAC before the mixer; ours: vary=own or joint, each with its density.
code: the logarithm of a sum, which differs by a constant. Not done: twin critics and the lower of
their two targets, a weight that adapts, CFCQL's lambda_i by how far each agent is from the data.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from jaxshare.learners.deterministic_values import Actions, action_values, actor_input
from jaxshare.learners.learner import Learner, offers
from jaxshare.learners.packed import packable
from jaxshare.learners.records import Loss, View
from jaxshare.learners.utilities import three_ways_per_step, unrolled
from jaxshare.models import inputs
from jaxshare.ops import offline
from jaxshare.ops.masking import masked_mean
from jaxshare.settings.fields import UNITS, static, swept, swept_values
from jaxshare.settings.validate import check_record
from jaxshare.types import Array, Discrete, Metrics, RefusedError


@dataclass(frozen=True)
class Config:
    """Settings of CQL. `sweep.cql.weight=[...]` varies what is `swept`, the others are static."""

    weight: float = swept(
        5.0,
        least=0,
        note="0 is the learner without CQL.",
        help="weight w of the penalty",
        source="code: OG-MARL's maddpg_cql.yaml; CFCQL has 1, of the whole squared error",
    )
    action_std: float = swept(
        0.2,
        above=0,
        help="standard deviation s of drawn actions; not with discrete ones",
        source="code: OG-MARL, CFCQL",
    )
    samples: int = static(
        10,
        least=1,
        most=UNITS,
        help="actions of each of the three distributions; not with discrete ones",
        source="code: OG-MARL, CFCQL",
    )
    vary: str = static(
        "own",
        choices=("own", "joint"),
        help="whose actions vary: one agent's at a time (own), or all at once",
        source="code: CFCQL; OG-MARL has joint",
    )

    def __post_init__(self) -> None:
        check_record(self, "cql.")


def make(config: Config, learner: Learner) -> Learner:
    """Add to the critics' loss. Raises RefusedError for a learner whose critics read no actions."""
    spec = learner.spec
    if "action_critics" not in offers(learner):
        raise RefusedError(
            f"modifiers=[cql] cannot be used with algo={learner.name}: it has no actors whose "
            "critics read their actions. Use it with maddpg or facmac; for discrete actions there "
            "is macql as well."
        )
    if config.vary == "joint" and isinstance(spec.action, Discrete):
        raise RefusedError(
            f"cql.vary=joint: env={spec.name} has discrete actions, and joint ones are too many "
            "for a sum. Use cql.vary=own, or algo=macql, whose mixer allows it."
        )
    if learner.config.target == "td_lambda":
        raise RefusedError(
            "algo.target=td_lambda: modifiers=[cql] is for one-step targets of "
            f"algo={learner.name}, as returns over several steps are those of the behaviour. Use "
            "algo.target=one_step."
        )

    # the loss that there is, and the penalty
    hparams = {f"cql.{name}": value for name, value in swept_values(config).items()}
    base = learner.steps[learner.main].loss
    assert base is not None
    learner = learner.claim("cql", wraps=("loss",), loss=partial(loss, config, base))
    return learner.extend(hparams=hparams)


@packable
def loss(config: Config, base: Loss, view: View) -> tuple[Array, Metrics]:
    """The learner's own loss and the penalty. base: the loss before this modifier."""
    value, metrics = base(view)
    penalty = excess(config, view.replace(key=jax.random.fold_in(view.key, 1)))
    mask = view.batch.mask
    rows = mask.reshape(mask.shape + (1,) * (penalty.ndim - 2))
    price = masked_mean(penalty, jnp.broadcast_to(rows, penalty.shape))
    weight = view.hparams["cql.weight"]
    return value + 2.0 * weight * price, {**metrics, "loss/conservative": price}


def excess(config: Config, view: View) -> Array:
    """P - Q(tau, a) of every step and agent, [T, B, N].

    Or of every step, [T, B], where one joint action is judged.
    """
    values = view.values
    taken = inputs.encode(view.batch.action, view.spec)
    team = view.learner.mixer is not None

    # a sum over all choices of one agent
    if isinstance(view.spec.action, Discrete):
        actions = taken.shape[-1]
        every = jnp.eye(actions)[:, None, None, None]
        every = jnp.broadcast_to(every, (actions, *taken.shape))
        q = jnp.moveaxis(own_values(view, every, taken), 0, -1)
        return offline.masked_logsumexp(q, view.batch.avail[:-1]) - _of_data(view)

    # an integral over drawn actions of one agent
    drawn, density = candidates(config, view)
    if config.vary == "own":
        q = own_values(view, drawn, taken)
        return offline.log_integral(q, density) - _of_data(view)

    # an integral over drawn joint actions
    q = jax.vmap(lambda action: action_values(view, view.params, Actions(action, action)))(drawn)
    density = density.sum(-1)
    if team:
        return offline.log_integral(jax.vmap(values.mix)(q), density) - values.q_tot
    wide = jnp.broadcast_to(density[..., None], q.shape)
    return offline.log_integral(q, wide) - values.q_taken


def _of_data(view: View) -> Array:
    """Q(tau, a) as each agent's action is judged, [T, B, N]."""
    values = view.values
    if view.learner.mixer is None:
        return values.q_taken
    return jnp.broadcast_to(values.q_tot[..., None], values.q_taken.shape)


def own_values(view: View, action: Array, taken: Array) -> Array:
    """Q of each agent's action beside the others' of the data.

    [K, T, B, N, E], [T, B, N, E] -> [K, T, B, N].
    """
    values = view.values
    q = jax.vmap(lambda own: action_values(view, view.params, Actions(own, taken)))(action)
    if view.learner.mixer is None:
        return q
    agents = jnp.eye(q.shape[-1], dtype=bool)

    def varied(agent: Array, q: Array) -> Array:
        """Q_tot [T, B] with one agent's Q_i."""
        return values.mix(jnp.where(agent[None, None], q, values.q_taken))

    of_agents = jax.vmap(varied, in_axes=(0, None), out_axes=-1)
    return jax.vmap(of_agents, in_axes=(None, 0))(agents, q)


def candidates(config: Config, view: View) -> tuple[Array, Array]:
    """Encoded actions of the three distributions and their log densities, constants.

    [K, T, B, N, U] and [K, T, B, N].
    """
    y = unrolled(view, "actor", view.params, actor_input(view))

    return three_ways_per_step(view, jnp.tanh(y), view.hparams["cql.action_std"], config.samples)
