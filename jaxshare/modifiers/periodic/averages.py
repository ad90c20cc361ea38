"""The modifier that A-PPS, RS-PPS and PP-PPS are: averages of the agents' parameters, from time to
time.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp

from jaxshare.learners.learner import Learner
from jaxshare.learners.packed import packable
from jaxshare.learners.records import Net, View
from jaxshare.modifiers.periodic import scores
from jaxshare.modifiers.periodic.settings import PeriodicConfig
from jaxshare.modifiers.periodic.sharing import (
    AVERAGES,
    Sharing,
    decided,
    refuse,
    shared_moments,
    shared_params,
)
from jaxshare.ops import pps
from jaxshare.ops.schedules import crossed
from jaxshare.settings.fields import swept_values
from jaxshare.trees import Tree
from jaxshare.types import Array, LearnerState, Metrics


def periodic(name: str, config: PeriodicConfig, learner: Learner) -> Learner:
    """Average the agents' parameters from time to time.

    Raises RefusedError if they have none of their own.
    """
    refuse(name, config, learner)
    hparams = {f"{name}.{key}": value for key, value in swept_values(config).items()}
    learner = replace(learner, owners={**learner.owners, AVERAGES: name}).extend(hparams=hparams)
    if learner.spec.num_agents == 1:
        return learner  # the mean of one is that one
    sharing = decided(name, config, learner)
    for network in sharing.tensors:
        started = _starting(config, learner.networks[network])
        learner = learner.with_network(network, started)
    learner = learner.extend(
        stats={name: _first_stats(sharing)}, after_update=partial(average_if_due, sharing)
    )
    if sharing.source == "own":
        return learner.extend(observe=partial(scores.observe, sharing))
    if sharing.source == "solo":
        return learner.extend(before_update=partial(scores.play_alone, sharing))
    return learner


def _starting(config: PeriodicConfig, network: Net) -> Net:
    """The network with first parameters as `init` says."""
    return replace(network, init=lambda key: start(config, network.init(key)))


def start(config: PeriodicConfig, params: Tree) -> Tree:
    """The agents' first parameters, leaves [N, ...].

    ours: averaging networks of different draws would shrink them.
    """
    if config.init == "common":
        return jax.tree.map(lambda x: jnp.broadcast_to(x[:1], x.shape), params)
    if config.init == "average":
        return jax.tree.map(lambda x: jnp.broadcast_to(x.mean(0, keepdims=True), x.shape), params)
    return params


def _first_stats(sharing: Sharing) -> dict[str, Array]:
    agents = len(sharing.groups)
    score = jnp.zeros(agents)
    weight = pps.group_weights(score, sharing.groups, "uniform")
    stats = {
        "score": score,
        "weight": weight,
        "distance_before": jnp.float32(0),
        "distance_after": jnp.float32(0),
    }
    if sharing.source == "own":
        stats["returns"] = jnp.zeros((sharing.scored.buffer, agents))
    if sharing.source == "solo":
        stats["solo_steps"] = jnp.int32(0)
    return stats


@packable
def average_if_due(sharing: Sharing, view: View) -> tuple[LearnerState, Metrics]:
    """Average if it is time, and report the last average."""
    updates = view.clock.updates
    due = crossed(updates, updates + 1, sharing.config.period)

    def average() -> LearnerState:
        return aggregate(sharing, view, scores.scores(sharing, view))

    state = jax.lax.cond(due, average, lambda: view.state)

    # what the last average was made with
    name = sharing.name
    last = state.stats[name]
    metrics = {f"{name}/{key}": last[key] for key in ("distance_before", "distance_after")}
    agents = range(len(sharing.groups))
    for key in ("weight", "score") if sharing.source else ("weight",):
        metrics |= {f"{name}/{key}/agent_{i}": last[key][i] for i in agents}
    if sharing.source == "solo":
        metrics[f"{name}/solo_steps"] = last["solo_steps"].astype(jnp.float32)
    return state, metrics


def aggregate(sharing: Sharing, view: View, score: Array) -> LearnerState:
    """Average the shared tensors with weights from scores [N].

    Distances and weights go into the statistics.
    """
    config = sharing.config
    name = sharing.name
    state = view.state
    temperature = view.hparams.get(f"{name}.temperature", 1.0)
    weight = pps.group_weights(score, sharing.groups, sharing.rule, temperature)

    def mean(x: Array) -> Array:
        return pps.average(x, weight, sharing.groups)

    before = {network: state.params[network] for network in sharing.tensors}
    after = shared_params(before, sharing.tensors, mean)

    # target networks and the optimiser's moments, if they are averaged too
    target = state.target_params
    opt_state = state.opt_state
    if config.targets == "aggregate":
        target = shared_params(target, sharing.tensors, mean)
    if config.moments != "keep":
        change = mean if config.moments == "average" else jnp.zeros_like
        opt_state = shared_moments(opt_state, sharing.tensors, change)

    distances = {"distance_before": pps.distance(before), "distance_after": pps.distance(after)}
    stats = {**state.stats[name], "score": score, "weight": weight, **distances}
    return state.replace(
        params={**state.params, **after},
        target_params=target,
        opt_state=opt_state,
        stats={**state.stats, name: stats},
    )
