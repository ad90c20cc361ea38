"""What A-PPS, RS-PPS and PP-PPS share: agents that keep their own parameters and average them from time to time.

Zhang et al. 2024, "PPS-QMIX: Periodically Parameter Sharing for Accelerating Convergence of Multi-Agent Reinforcement
Learning". After every `period`-th update, for every tensor j of the shared set,

    w_{i,j} <- sum_k w_k w_{k,j}    with weights w_k of ops/pps.py made from the scores R_k         (secs. 4.1 to 4.3)

The average is a branch on the clock that all runs have in common, so that it is not computed in between. Scores:
`own` are the agents' rewards in the episodes last collected; `solo` are returns of greedy episodes in which one agent's
network plays every agent; `individual` are DIFFER's decomposed rewards (Hu et al. 2023, eq. 2) on the update's batch.

Of an actor-critic (ours) actors and critics are averaged, or one of them (`networks`), with the same weights; what all
agents have in common already, such as a central critic, stays as it is. A learner from segments has seen no whole
episodes: there `own` scores are rewards summed over the pieces of streams, which is what the paper's interval says.

Departures. paper, code: the average stands before the gradient step of update 300, ours: after it; either way before
the copy of the targets that falls on the same update. code: in a solo episode all agents pass through one hidden state,
which is not reset; ours: each has its own, new in every episode, and its own id, and all networks meet the same
episodes. code: epsilon-greedy with one coin for the team, evaluations that write into the replay and other defects of
the released file are not repeated. Not done: the orthogonal initialisation of the paper's Table 1.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from jaxshare.algos._value import Values
from jaxshare.ops import differ, pps, td
from jaxshare.ops.masking import masked_sum
from jaxshare.ops.schedules import crossed
from jaxshare.settings.fields import COUNT, free_text, static, swept, swept_values
from jaxshare.settings.validate import check_record
from jaxshare.types import (
    Array,
    Clock,
    Context,
    EnvSpec,
    Episode,
    LearnerState,
    Metrics,
    RefusedError,
)

Parts = Any  # of a family: a ValueLearner, an ActorCritic, ...
Scores = Callable[[LearnerState, Episode, Context], Array]  # (learner, batch, ctx) -> R [N]
AVERAGES = "averaging of the agents"  # what one modifier of this family owns
SETS = ("all", "head", "body")


@dataclass(frozen=True)
class PeriodicConfig:
    """When and what is averaged."""

    period: int = static(
        300,
        least=1,
        most=COUNT,
        help="updates between averages",
        source="paper: PPS Table 1",
    )
    share: Any = free_text(
        "all",
        help="what is averaged: all, head, body (all else), or names, as [embed,gru.*_kernel]",
        source="paper: PPS",
    )
    networks: Any = free_text(
        "all",
        help="which networks are averaged: all, or names, as [actor] of [actor,critic]",
        source="ours",
    )
    within: str = static(
        "team",
        choices=("team", "type"),
        help="who averages among themselves: the team, or agents of one type",
        source="paper: PPS; ours: type",
    )
    init: str = static(
        "common",
        choices=("common", "average", "own"),
        help="first parameters: one draw for all (common), the average of draws, or each its own",
        source="ours: common; code: PPS has average (A-, RS-) and own (PP-)",
    )
    moments: str = static(
        "keep",
        choices=("keep", "average", "reset"),
        help="the optimiser's moments of the shared tensors",
        source="code: PPS; ours: average, reset",
    )
    targets: str = static(
        "keep",
        choices=("keep", "aggregate"),
        help="the target networks: as they are, or averaged too",
        source="code: PPS; ours: aggregate",
    )

    def __post_init__(self) -> None:
        for key, known in (
            ("share", "all, head, body, or names of modules"),
            ("networks", "all, or names of networks"),
        ):
            given = getattr(self, key)
            object.__setattr__(self, key, given if isinstance(given, str) else tuple(given))
            if not given or not all(isinstance(part, str) for part in given):
                self._refuse(key, f"must be {known}")
        check_record(self, f"{_name(self)}.")

    def _refuse(self, key: str, reason: str) -> None:
        raise RefusedError(f"{_name(self)}.{key}={getattr(self, key)} {reason}.")


@dataclass(frozen=True)
class ScoredConfig(PeriodicConfig):
    """What RS-PPS and PP-PPS add: who counts for more."""

    score: str = static(
        "auto",
        choices=("auto", "own", "solo", "individual"),
        help="scores: own reward, return alone (solo), or share of it; auto: own if there is one",
        source="paper: PPS has own; its code solo; ours: individual",
    )
    rule: str = static(
        "shifted_ratio",
        choices=pps.RULES,
        help="weights from scores; ratio stops at scores below 0",
        source="ours: shifted_ratio; paper: PPS has ratio; its code softmax",
    )
    temperature: float = swept(
        1.0, above=0, help="temperature of the weights; only with rule=softmax", source="code: PPS"
    )
    buffer: int = static(
        96,
        least=1,
        most=COUNT,
        help="episodes, or pieces of streams, that score=own is the mean of",
        source="paper: PPS Table 1",
    )
    solo_episodes: int = static(
        10, least=1, most=COUNT, help="episodes of each agent, with score=solo", source="code: PPS"
    )

    def __post_init__(self) -> None:
        if self.score == "team":
            self._refuse(
                "score",
                "gives all agents the same score, so that the weighted mean is the plain one: use modifiers=[a_pps], "
                "or a score that tells agents apart (own, solo, individual)",
            )
        super().__post_init__()


def _name(config: PeriodicConfig) -> str:
    """The modifier whose settings these are."""
    return type(config).__module__.rsplit(".", 1)[-1]


@dataclass(frozen=True)
class Sharing:
    """What is decided before a run."""

    name: str  # of the modifier
    config: PeriodicConfig
    spec: EnvSpec
    groups: tuple[int, ...]  # agents of one group average among themselves
    tensors: dict[
        str, frozenset[str]
    ]  # network -> dotted names of what is shared, such as "gru.hidden_new_kernel"
    personal: tuple[str, ...]  # all networks that agents have for themselves
    updates_per_batch: (
        int  # optimiser steps on what was collected once; 1 of a learner with a replay
    )
    source: str | None  # of the scores: own, solo, individual; None: all agents count the same
    rule: str
    scores: Scores

    @property
    def scored(self) -> ScoredConfig:
        """The settings of a modifier that has scores."""
        assert isinstance(self.config, ScoredConfig)
        return self.config


def make(name: str, config: PeriodicConfig, parts: Parts) -> Parts:
    """Average the agents' parameters from time to time. Raises RefusedError if they have none of their own."""
    _refuse(name, config, parts)
    hparams = {f"{name}.{key}": value for key, value in swept_values(config).items()}
    parts = replace(parts, owners={**parts.owners, AVERAGES: name}).extend(hparams=hparams)
    if parts.spec.num_agents == 1:
        return parts  # the mean of one is that one
    sharing = _sharing(name, config, parts)
    parts = _started(config, parts, sharing.tensors).extend(
        stats={name: _first_stats(sharing)},
        after_update=lambda *args: _after_update(sharing, *args),
    )
    if sharing.source == "own":
        return parts.extend(observe=lambda *args: observe(sharing, *args))
    if sharing.source == "solo":
        return parts.extend(before_update=lambda *args: play_alone(sharing, *args))
    return parts


def _started(config: PeriodicConfig, parts: Parts, names: Iterable[str]) -> Parts:
    """The parts with first parameters of these networks as `init` says."""
    modules = getattr(parts, "modules", {})
    for name in names:
        network = _starting(config, parts.networks[name])
        modules = {**modules, name: network} if name in modules else modules
        parts = (
            replace(parts, modules=modules)
            if name in modules
            else replace(parts, **{name: network})
        )
    return parts


def _starting(config: PeriodicConfig, network: Any) -> Any:
    """The network with first parameters as `init` says."""
    return replace(network, init=lambda key: start(config, network.init(key)))


def _sharing(name: str, config: PeriodicConfig, parts: Parts) -> Sharing:
    source = _source(config, parts)
    return Sharing(
        name=name,
        config=config,
        spec=parts.spec,
        groups=parts.spec.groups if config.within == "type" else (0,) * parts.spec.num_agents,
        tensors=_tensors(name, config, parts),
        personal=_personal(parts),
        updates_per_batch=getattr(parts.config, "epochs", 1)
        * getattr(parts.config, "minibatches", 1),
        source=source,
        rule=getattr(config, "rule", "uniform"),
        scores=individual_scores(parts)
        if source == "individual"
        else lambda *args: _kept_scores(name, source, *args),
    )


def _personal(parts: Parts) -> tuple[str, ...]:
    """Names of the networks of which every agent has its own parameters."""
    alone = tuple(range(parts.spec.num_agents))
    return tuple(name for name, network in parts.networks.items() if network.groups == alone)


def _source(config: PeriodicConfig, parts: Parts) -> str | None:
    if not isinstance(config, ScoredConfig) or config.rule == "uniform":
        return None
    return config.score if config.score != "auto" else "solo" if parts.spec.common_reward else "own"


def _first_stats(sharing: Sharing) -> dict[str, Array]:
    agents = sharing.spec.num_agents
    stats = {
        "score": jnp.zeros(agents),
        "weight": pps.group_weights(jnp.zeros(agents), sharing.groups, "uniform"),
        "distance_before": jnp.float32(0),
        "distance_after": jnp.float32(0),
    }
    if sharing.source == "own":
        stats["returns"] = jnp.zeros((sharing.scored.buffer, agents))
    if sharing.source == "solo":
        stats["solo_steps"] = jnp.int32(0)
    return stats


def _refuse(name: str, config: PeriodicConfig, parts: Parts) -> None:
    """Raise RefusedError for what cannot be averaged or scored."""
    used = f"modifiers=[{name}] cannot be used with algo={parts.name}"
    if other := parts.owners.get(AVERAGES):
        raise RefusedError(
            f"modifiers {other} and {name} both average the parameters of the agents of {parts.name}: the second would "
            "average what is the same already, or undo what the first keeps personal. Use one."
        )
    if parts.config.share_params != "none":
        raise RefusedError(
            f"algo.share_params={parts.config.share_params}: modifiers=[{name}] averages parameters that every agent "
            "has for itself. Use algo.share_params=none."
        )
    if config.targets == "aggregate" and getattr(parts.config, "target_update", None) == "none":
        raise RefusedError(
            f"{name}.targets=aggregate: algo={parts.name} with algo.target_update=none has no target networks. Use "
            f"{name}.targets=keep, or another algo.target_update."
        )
    spec, score, source = parts.spec, getattr(config, "score", None), _source(config, parts)
    if source == "own" and spec.common_reward:
        raise RefusedError(
            f"{name}.score=own: env={spec.name} gives all agents the same reward, so that the weighted mean is the "
            f"plain one. Use {name}.score=solo, or individual where there is a mixer, or modifiers=[a_pps]."
        )
    if source == "individual" and getattr(parts, "mixer", None) is None:
        raise RefusedError(
            f"{used} and {name}.score=individual: without a mixer there is no dQ_tot/dQ_i to decompose the team reward "
            f"by. Use {name}.score=solo or own, or an algorithm with a mixer of utilities, such as vdn or qmix."
        )
    if source == "solo" and not spec.pure:
        raise RefusedError(
            f"{name}.score={score}: solo episodes are played inside the compiled program, and env={spec.name} is on "
            f"the host. Use {name}.score=individual where there is a mixer, own where every agent has a reward of its "
            "own, or modifiers=[a_pps]."
        )


def start(config: PeriodicConfig, params: Any) -> Any:
    """The agents' first parameters, leaves [N, ...]. ours: averaging networks of different draws would shrink them."""
    if config.init == "common":
        return jax.tree.map(lambda x: jnp.broadcast_to(x[:1], x.shape), params)
    if config.init == "average":
        return jax.tree.map(lambda x: jnp.broadcast_to(x.mean(0, keepdims=True), x.shape), params)
    return params


# ------------------------------------------------------------------------------------------------------ the shared set


def _tensors(name: str, config: PeriodicConfig, parts: Parts) -> dict[str, frozenset[str]]:
    """Dotted names of the shared tensors of each network. Raises RefusedError for names that there are not."""
    personal = _personal(parts)
    if config.networks == "all":
        _refuse_nobodys(name, parts, personal)
    chosen = personal if config.networks == "all" else config.networks
    chosen = (chosen,) if isinstance(chosen, str) else chosen
    for network in chosen:
        if network not in personal:
            raise RefusedError(
                f"{name}.networks={network}: agents have no such network of their own in algo={parts.name}. Use "
                f"all, or names out of {', '.join(personal)}."
            )
    known = {network: _names(parts.networks[network]) for network in chosen}
    if config.share in SETS:
        return {network: _named_set(config.share, tensors) for network, tensors in known.items()}
    found: dict[str, set[str]] = {network: set() for network in chosen}
    for pattern in (config.share,) if isinstance(config.share, str) else config.share:
        for network, tensors in known.items():
            found[network] |= {
                t for t in tensors if t.startswith(f"{pattern}.") or fnmatch.fnmatchcase(t, pattern)
            }
        if not any(
            t.startswith(f"{pattern}.") or fnmatch.fnmatchcase(t, pattern)
            for ts in known.values()
            for t in ts
        ):
            tensors = list(dict.fromkeys(t for ts in known.values() for t in ts))
            modules = dict.fromkeys(t.split(".")[0] for t in tensors)
            raise RefusedError(
                f"{name}.share={pattern} is no part of the agents' network. Use all, head, body, or names out of "
                f"{', '.join(modules)} (tensors: {', '.join(tensors)})."
            )
    return {network: frozenset(tensors) for network, tensors in found.items()}


def _refuse_nobodys(name: str, parts: Parts, personal: tuple[str, ...]) -> None:
    """Raise RefusedError for a module that looks like the agents' own and does not say whose it is."""
    agents = parts.spec.num_agents
    for module, network in getattr(parts, "modules", {}).items():
        if module in parts.networks:
            continue
        shapes = jax.tree.leaves(jax.eval_shape(network.init, jax.random.key(0)))
        if shapes and all(x.ndim > 1 and x.shape[0] == agents for x in shapes):
            raise RefusedError(
                f"modifiers=[{name}] cannot tell whether agents have {module} of algo={parts.name} for themselves: "
                f"all its tensors begin with an axis of {agents}, as many as there are agents, but it has no `groups`. "
                f"Use {name}.networks=[{','.join(personal)}] to leave it as it is."
            )


def _names(network: Any) -> list[str]:
    """Dotted names of the tensors of a network."""
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    return [_dotted(path) for path, _ in jax.tree_util.tree_flatten_with_path(shapes)[0]]


def _named_set(share: str, tensors: list[str]) -> frozenset[str]:
    """One of SETS."""
    head = {t for t in tensors if t.split(".")[0] == "head"}
    return frozenset({"all": set(tensors), "head": head, "body": set(tensors) - head}[share])


def _dotted(path: Any) -> str:
    return ".".join(str(key.key) for key in path if isinstance(key, jax.tree_util.DictKey))


def shared_params(
    params: Any, tensors: dict[str, frozenset[str]], fn: Callable[[Array], Array]
) -> Any:
    """Parameters by network, {network: {module: {tensor: [N, ...]}}}, with `fn` applied to the shared tensors."""
    names = {f"{network}.{tensor}" for network, own in tensors.items() for tensor in own}
    return jax.tree_util.tree_map_with_path(
        lambda path, x: fn(x) if _dotted(path) in names else x, params
    )


def shared_moments(
    opt_state: Any, tensors: dict[str, frozenset[str]], fn: Callable[[Array], Array]
) -> Any:
    """`shared_params` of the optimiser's moments of the agents, in whatever group other modifiers have put them."""
    return {group: shared_params(state, tensors, fn) for group, state in opt_state.items()}


# --------------------------------------------------------------------------------------------------------- the average


def _after_update(
    sharing: Sharing, learner: LearnerState, batch: Episode, ctx: Context, key: Array
) -> tuple[LearnerState, Metrics]:
    """Average if it is time, and report the last average."""
    due = crossed(ctx.clock.updates, ctx.clock.updates + 1, sharing.config.period)
    average = lambda: aggregate(sharing, learner, sharing.scores(learner, batch, ctx), ctx)  # noqa: E731
    learner = jax.lax.cond(due, average, lambda: learner)
    name, last = sharing.name, learner.stats[sharing.name]
    metrics = {f"{name}/{key}": last[key] for key in ("distance_before", "distance_after")}
    shown = ("weight", "score") if sharing.source else ("weight",)
    metrics |= {
        f"{name}/{key}/agent_{i}": last[key][i]
        for key in shown
        for i in range(sharing.spec.num_agents)
    }
    if sharing.source == "solo":
        metrics[f"{name}/solo_steps"] = last["solo_steps"].astype(jnp.float32)
    return learner, metrics


def aggregate(sharing: Sharing, learner: LearnerState, scores: Array, ctx: Context) -> LearnerState:
    """Average the shared tensors with weights from scores [N]; distances and weights go into the statistics."""
    config, name = sharing.config, sharing.name
    weight = pps.group_weights(
        scores, sharing.groups, sharing.rule, ctx.hparams.get(f"{name}.temperature", 1.0)
    )
    mean = lambda x: pps.average(x, weight, sharing.groups)  # noqa: E731
    before = {network: learner.params[network] for network in sharing.tensors}
    after, target, opt_state = (
        shared_params(before, sharing.tensors, mean),
        learner.target_params,
        learner.opt_state,
    )
    if config.targets == "aggregate":
        target = shared_params(target, sharing.tensors, mean)
    if config.moments != "keep":
        opt_state = shared_moments(
            opt_state, sharing.tensors, mean if config.moments == "average" else jnp.zeros_like
        )
    distances = {"distance_before": pps.distance(before), "distance_after": pps.distance(after)}
    seen = {**learner.stats[name], "score": scores, "weight": weight, **distances}
    return learner.replace(  # type: ignore[attr-defined]
        params={**learner.params, **after},
        target_params=target,
        opt_state=opt_state,
        stats={**learner.stats, name: seen},
    )


# -------------------------------------------------------------------------------------------------------------- scores


def observe(sharing: Sharing, stats: dict[str, Any], episode: Any, clock: Clock) -> dict[str, Any]:
    """Write each agent's return of the episodes (or pieces of streams) just collected into the ring [buffer, N]."""
    own = stats[sharing.name]
    ring = own["returns"]
    returns = jnp.where(episode.mask[..., None] > 0, episode.reward, 0.0).sum(0)  # [B, N]
    kept = min(ring.shape[0], returns.shape[0])
    slot = (clock.episodes + returns.shape[0] - kept + jnp.arange(kept)) % ring.shape[0]
    return {
        **stats,
        sharing.name: {**own, "returns": ring.at[slot].set(returns[-kept:], unique_indices=True)},
    }


def _kept_scores(
    name: str, source: str | None, learner: LearnerState, batch: Episode, ctx: Context
) -> Array:
    kept = learner.stats[name]
    return own_scores(kept["returns"], ctx.clock) if source == "own" else kept["score"]


def own_scores(ring: Array, clock: Clock) -> Array:
    """Mean return of each agent over what is in the ring: [buffer, N] -> [N]. The ratio is that of the sums."""
    return ring.sum(0) / jnp.clip(clock.episodes, 1, ring.shape[0]).astype(jnp.float32)


def play_alone(
    sharing: Sharing, learner: LearnerState, play: Callable[..., Any], ctx: Context, key: Array
) -> LearnerState:
    """If it is time to average, play `solo_episodes` with each agent's network in everybody's place."""
    due = crossed(
        ctx.clock.updates, ctx.clock.updates + sharing.updates_per_batch, sharing.config.period
    )
    episodes, last = sharing.scored.solo_episodes, learner.stats[sharing.name]
    own = {network: learner.params[network] for network in sharing.personal}

    def alone(one: Any) -> tuple[Array, Array]:
        everybody = jax.tree.map(lambda x, all_: jnp.broadcast_to(x, all_.shape), one, own)
        episode = play({**learner.params, **everybody}, key, episodes).episode
        team = episode.reward[..., 0] if sharing.spec.common_reward else episode.reward.sum(-1)
        return masked_sum(team, episode.mask) / episodes, episode.mask.sum().astype(jnp.int32)

    def score() -> dict[str, Array]:
        returns, steps = jax.vmap(alone)(own)
        return {**last, "score": returns, "solo_steps": last["solo_steps"] + steps.sum()}

    found = jax.lax.cond(due, score, lambda: last)
    return learner.replace(stats={**learner.stats, sharing.name: found})  # type: ignore[attr-defined]


def individual_scores(parts: Parts) -> Scores:
    """R_i: the sum of agent i's decomposed rewards over an episode, mean over the batch's. ours."""

    def decomposed(values: Values, batch: Episode, ctx: Context) -> dict[str, Array]:
        q_tot, pullback = jax.vjp(values.mix, values.q_taken)
        gradient = pullback(jnp.ones_like(q_tot))[0]
        delta = td.td_error(values.team_reward, values.discount, values.next_q_tot, q_tot)
        died = batch.alive[:-1] & ~batch.alive[1:]
        discount = jnp.where(
            died, 0.0, jnp.broadcast_to(values.discount[..., None], gradient.shape)
        )
        return {
            "reward": differ.individual_reward(
                delta, gradient, values.q_taken, values.next_q, discount
            )
        }

    shown = replace(parts, inspect=(decomposed,)).assemble()

    def scores(learner: LearnerState, batch: Episode, ctx: Context) -> Array:
        real = (batch.mask[..., None] > 0) & batch.alive[:-1]
        reward = jnp.where(real, shown.inspect(learner, batch, ctx)["reward"], 0.0)
        return reward.sum((0, 1)) / batch.mask.shape[1]

    return scores
