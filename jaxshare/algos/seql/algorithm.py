"""SEQL: shared-experience Q-learning, on IQL (Christianos et al. 2020, arXiv 2006.07169, app. D).

Every agent has a network of its own and learns from the experience of all agents of its type. With
e_j = (Q_i(o_j, a_j) - r_j - gamma (1 - d) max_a Q_i^-(o'_j, a))^2 of network i on experience j,
whoever's it is, the loss of agent i is

    uniform:          (1/M) sum_j e_j                                                        (paper)
    own_plus_lambda:  mean over its own e_j + lambda * mean over the e_j of the others       (code)

and the whole loss the mean over agents. No importance weights. The gradient of each agent's loss is
clipped by its own norm (code), so that what one agent met does not shorten the steps of the others.

With views=split an update reads from each episode one agent's view, the same for all, so that IQL
and SEQL learn from equally many samples (paper: M/N from each buffer). With views=all it reads all
of them, which is as many times the work; with lambda = 0 and clip=all that is IQL exactly.

A batch is of whole episodes, or with window=1 of single transitions, as in the paper and its code
(preset=seac/fig11_lbf, seac/fig11_rware); then M is batch_size. Recurrent networks learn from whole
episodes and start each view from their own zero state. Defaults are the code's, but for that;
preset=seql/recurrent has the family's network, optimiser, targets and exploration instead.

Departures: paper: one buffer per agent, ours: one of joint steps, of which an episode or transition
gives one agent's view, rotating from update to update. code: bootstraps through the end of an
episode, ours: does not. code: cannot run where M is no multiple of N, ours: can. ours: an agent-id
input, off by default, is the reader's, not the source's. code: one update per environment step,
epsilon decays in evaluations too; ours: settings of the run, and training steps only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax.numpy as jnp

from jaxshare.algos.seql import equations as sharing
from jaxshare.learners.learner import Learner
from jaxshare.learners.packed import packable
from jaxshare.learners.records import View
from jaxshare.learners.value import independent_learner
from jaxshare.learners.value_settings import IndependentConfig, ValueHParams
from jaxshare.ops import td
from jaxshare.ops.masking import masked_mean
from jaxshare.settings.fields import default, nested, static, swept
from jaxshare.training import packing
from jaxshare.trees import Tree
from jaxshare.types import Array, EnvSpec, Episode, Metrics

WEIGHTINGS = ("uniform", "own_plus_lambda")
VIEWS = ("split", "all")

CODE = "code: SEQL"


@dataclass(frozen=True)
class HParams(ValueHParams):
    """Swept scalars of the value family, with SEQL's values."""

    lr: float = default(1e-4, "code: SEQL; 5e-5 for RWARE")
    epsilon_end: float = default(0.01, CODE)
    grad_clip: float = default(
        0.5,
        CODE,
        help="largest L2 norm of a gradient, over what algo.clip says",
    )
    tau: float = default(0.05, CODE)
    share_coef: float = swept(
        1.0,
        least=0,
        note="0 is no sharing.",
        help="weight lambda of others' experience; only with weighting=own_plus_lambda",
        source=CODE,
    )


@dataclass(frozen=True)
class Config(IndependentConfig):
    """Settings of the value family, with SEQL's values, and of the sharing."""

    hidden_dim: int = default(128, CODE)
    recurrent: bool = default(False, "code: SEQL, two layers")
    share_params: str = default("none", "paper: SEAC, one network per agent")
    obs_last_action: bool = default(False, CODE)
    obs_agent_id: bool = default(
        False,
        CODE,
        help="agents read an index, one-hot: their network's, also on others' experience",
    )
    double_q: bool = default(False, CODE)
    optimizer: str = default("adam", CODE)
    target_update: str = default("soft", CODE)
    clip: str = default("agent", "code: SEQL; ours: all")
    weighting: str = static(
        "uniform",
        choices=WEIGHTINGS,
        help="how others' experience counts: as the agent's own (uniform), or by share_coef",
        source="paper: SEAC; code: own_plus_lambda",
    )
    views: str = static(
        "split",
        choices=VIEWS,
        help="what is learned from an episode: one agent's view of it (split), or all",
        source="paper: SEAC, as many samples as IQL",
    )
    hparams: HParams = nested(HParams)


def make(config: Config, spec: EnvSpec) -> Learner:
    """IQL on exchanged views."""
    return independent_learner("seql", config, spec, loss).extend(relabel=relabel)


@packable
def relabel(view: View) -> tuple[Episode, dict[str, Tree]]:
    """The batch, where each agent has the experience of the agent it learns from.

    That is obs, avail, alive, action and reward. views=split: as many episodes; views=all: each of
    them once for every member of the largest type.
    """
    batch = view.batch
    if view.config.views == "all":
        repeats = sharing.all_sources(view.spec.groups)[0].shape[0]
        batch = packing.repeated(batch, repeats)
    view = view.replace(batch=batch)
    slots = sources(view, slots=len(batch.obs))[0]
    steps = sources(view, slots=len(batch.mask))[0]

    # of slots, and of what agents did between them
    exchanged = {
        name: sharing.exchange(getattr(batch, name), slots) for name in ("obs", "avail", "alive")
    }
    exchanged |= {
        name: sharing.exchange(getattr(batch, name), steps) for name in ("action", "reward")
    }
    return batch.replace(**exchanged), view.stats


def sources(view: View, slots: int) -> tuple[Array, Array]:
    """Whose view agent i learns from in each episode of the relabelled batch, [1, B, N] i32.

    And whether it does, [1, B, N] bool. Of a packed batch both are of each of so many slots of its
    rows, [slots, B, N].
    """
    batch = view.batch
    episodes = packing.num_episodes(batch)
    groups = view.spec.groups
    if view.config.views == "split":
        source = sharing.split_sources(groups, episodes, view.clock.updates)
        used = jnp.ones(source.shape, bool)
    else:
        rounds, fresh = sharing.all_sources(groups)
        times = episodes // rounds.shape[0]
        source = jnp.asarray(rounds.repeat(times, axis=0))
        used = jnp.asarray(fresh.repeat(times, axis=0))
    of_slots = partial(packing.of_episodes, batch, slots=slots)
    return of_slots(source), of_slots(used)


@packable
def loss(view: View) -> tuple[Array, Metrics]:
    """Individual TD errors on anybody's experience, weighted."""
    batch = view.batch
    values = view.values
    source, used = sources(view, slots=len(batch.mask))
    mask = batch.mask[..., None] * used

    # the error of network i on what it is given
    discount = jnp.broadcast_to(values.discount[..., None], values.q_taken.shape)
    delta = td.td_error(batch.reward, discount, values.next_q, values.q_taken)
    square = jnp.square(jnp.where(mask > 0, delta, 0.0))
    is_own = source == jnp.arange(view.spec.num_agents)[None, None]
    if view.config.weighting == "uniform":
        total = sharing.uniform_mean(square, mask)
    else:
        total = sharing.own_plus_others(square, mask, is_own, view.hparams["share_coef"])

    # errors on one's own experience and on that of others
    size = jnp.abs(delta)
    mine = mask * is_own
    others = mask * ~is_own
    target = batch.reward + discount * values.next_q
    error_mean = masked_mean(size, mask)
    target_mean = masked_mean(target, mask)
    return total, {
        "loss/td": total,
        "td_error/abs_mean": error_mean,
        "q/target_mean": target_mean,
        "seql/own_error": masked_mean(size, mine),
        "seql/others_error": masked_mean(size, others),
    }
