"""What is decided about an average before a run: which tensors, among whom, by whose scores."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import jax

from jaxshare.learners.learner import Learner, offers, personal_networks
from jaxshare.learners.records import Net
from jaxshare.modifiers.periodic.settings import PeriodicConfig, ScoredConfig
from jaxshare.trees import Params, Tree
from jaxshare.types import Array, RefusedError

AVERAGES = "averaging of the agents"  # what one modifier of this family owns
SETS = ("all", "head", "body")


@dataclass(frozen=True)
class Sharing:
    """What is decided before a run.

    name: of the modifier; groups: agents of one group average among themselves;
    tensors: of each network the dotted names of what is shared, such as "gru.hidden_new_kernel";
    personal: all networks that agents have for themselves;
    updates_per_batch: optimiser steps on what was collected once; 1 of a learner with a replay;
    source: of the scores, own, solo or individual; None: all agents count the same.
    """

    name: str
    config: PeriodicConfig
    groups: tuple[int, ...]
    tensors: dict[str, frozenset[str]]
    personal: tuple[str, ...]
    updates_per_batch: int
    source: str | None

    @property
    def rule(self) -> str:
        """How scores become weights."""
        return self.config.rule if isinstance(self.config, ScoredConfig) else "uniform"

    @property
    def scored(self) -> ScoredConfig:
        """The settings of a modifier that has scores."""
        assert isinstance(self.config, ScoredConfig)
        return self.config


def decided(name: str, config: PeriodicConfig, learner: Learner) -> Sharing:
    """All of it. Raises RefusedError for names that there are not."""
    spec = learner.spec
    phase = learner.phases[0]
    groups = spec.groups if config.within == "type" else (0,) * spec.num_agents

    # what is averaged, and by which scores
    tensors = _tensors(name, config, learner)
    personal = personal_networks(learner)
    source = _source(config, learner)
    return Sharing(
        name=name,
        config=config,
        groups=groups,
        tensors=tensors,
        personal=personal,
        updates_per_batch=phase.epochs * phase.minibatches,
        source=source,
    )


def refuse(name: str, config: PeriodicConfig, learner: Learner) -> None:
    """Raise RefusedError for what cannot be averaged or scored."""
    other = learner.owners.get(AVERAGES)
    if other:
        raise RefusedError(
            f"modifiers {other} and {name} both average the parameters of the agents of "
            f"{learner.name}: the second would average what is the same already, or undo what the "
            "first keeps personal. Use one."
        )

    # agents must have parameters of their own, and targets that can follow
    if learner.config.share_params != "none":
        raise RefusedError(
            f"algo.share_params={learner.config.share_params}: modifiers=[{name}] averages "
            "parameters that every agent has for itself. Use algo.share_params=none."
        )
    if config.targets == "aggregate" and learner.targets.networks == ():
        without = f"algo={learner.name}"
        remedy = f"Use {name}.targets=keep"
        if hasattr(learner.config, "target_update"):
            without += " with algo.target_update=none"
            remedy += ", or another algo.target_update"
        raise RefusedError(f"{name}.targets=aggregate: {without} has no target networks. {remedy}.")
    if isinstance(config, ScoredConfig):
        _refuse_scores(name, config, learner)


def _refuse_scores(name: str, config: ScoredConfig, learner: Learner) -> None:
    spec = learner.spec
    source = _source(config, learner)
    if source == "own" and spec.common_reward:
        raise RefusedError(
            f"{name}.score=own: env={spec.name} gives all agents the same reward, so that the "
            f"weighted mean is the plain one. Use {name}.score=solo, or individual where there is "
            "a mixer, or modifiers=[a_pps]."
        )

    # what scores are made of must be there
    if source == "individual" and "mixer" not in offers(learner):
        raise RefusedError(
            f"modifiers=[{name}] cannot be used with algo={learner.name} and "
            f"{name}.score=individual: without a mixer there is no dQ_tot/dQ_i to decompose the "
            f"team reward by. Use {name}.score=solo or own, or an algorithm with a mixer of "
            "utilities, such as vdn or qmix."
        )
    if source == "solo" and config.solo_id == "network" and not learner.reads.agent_id:
        raise RefusedError(
            f"{name}.solo_id=network: agents read no index (algo.obs_agent_id=false). Use "
            f"{name}.solo_id=agent, or algo.obs_agent_id=true."
        )
    if source == "solo" and not spec.pure:
        raise RefusedError(
            f"{name}.score={config.score}: solo episodes are played inside the compiled program, "
            f"and env={spec.name} is on the host. Use {name}.score=individual where there is a "
            "mixer, own where every agent has a reward of its own, or modifiers=[a_pps]."
        )


def _source(config: PeriodicConfig, learner: Learner) -> str | None:
    if not isinstance(config, ScoredConfig) or config.rule == "uniform":
        return None
    if config.score != "auto":
        return config.score
    return "solo" if learner.spec.common_reward else "own"


# ------------------------------------------------------------------------------ the shared set


def _tensors(name: str, config: PeriodicConfig, learner: Learner) -> dict[str, frozenset[str]]:
    """Dotted names of the shared tensors of each network.

    Raises RefusedError for names that there are not.
    """
    known = {
        network: _names(learner.networks[network])
        for network in _chosen_networks(name, config, learner)
    }
    if config.share in SETS:
        return {network: _named_set(config.share, tensors) for network, tensors in known.items()}

    # names or patterns, each of which must be met somewhere
    patterns = (config.share,) if isinstance(config.share, str) else config.share
    everything = list(dict.fromkeys(tensor for tensors in known.values() for tensor in tensors))
    for pattern in patterns:
        if not any(_matches(tensor, pattern) for tensor in everything):
            modules = dict.fromkeys(tensor.split(".")[0] for tensor in everything)
            raise RefusedError(
                f"{name}.share={pattern} is no part of the agents' network. Use all, head, body, "
                f"or names out of {', '.join(modules)} (tensors: {', '.join(everything)})."
            )
    return {
        network: frozenset(filter(partial(_met, patterns), tensors))
        for network, tensors in known.items()
    }


def _matches(tensor: str, pattern: str) -> bool:
    return tensor.startswith(f"{pattern}.") or fnmatch.fnmatchcase(tensor, pattern)


def _met(patterns: Iterable[str], tensor: str) -> bool:
    return any(_matches(tensor, pattern) for pattern in patterns)


def _chosen_networks(name: str, config: PeriodicConfig, learner: Learner) -> Iterable[str]:
    """The networks that are averaged.

    Raises RefusedError for one that agents have not for themselves.
    """
    personal = personal_networks(learner)
    if config.networks == "all":
        _refuse_nobodys(name, learner, personal)
        return personal
    chosen = (config.networks,) if isinstance(config.networks, str) else config.networks
    for network in chosen:
        if network not in personal:
            raise RefusedError(
                f"{name}.networks={network}: agents have no such network of their own in "
                f"algo={learner.name}. Use all, or names out of {', '.join(personal)}."
            )
    return chosen


def _refuse_nobodys(name: str, learner: Learner, personal: tuple[str, ...]) -> None:
    """Raise RefusedError for a network that looks like the agents' own.

    Only for one that does not say whose it is.
    """
    agents = learner.spec.num_agents
    for label, network in learner.networks.items():
        if getattr(network, "param_sets", None) is not None:
            continue
        shapes = jax.tree.leaves(jax.eval_shape(network.init, jax.random.key(0)))
        if shapes and all(x.ndim > 1 and x.shape[0] == agents for x in shapes):
            raise RefusedError(
                f"modifiers=[{name}] cannot tell whether agents have {label} of "
                f"algo={learner.name} for themselves: all its tensors begin with an axis of "
                f"{agents}, as many as there are agents, but it has no `param_sets`. Use "
                f"{name}.networks=[{','.join(personal)}] to leave it as it is."
            )


def _names(network: Net) -> list[str]:
    """Dotted names of the tensors of a network."""
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    return [_dotted(path) for path, _ in jax.tree_util.tree_flatten_with_path(shapes)[0]]


def _named_set(share: str, tensors: list[str]) -> frozenset[str]:
    """One of SETS."""
    head = {tensor for tensor in tensors if tensor.split(".")[0] == "head"}
    return frozenset({"all": set(tensors), "head": head, "body": set(tensors) - head}[share])


def _dotted(path: tuple[object, ...]) -> str:
    return ".".join(str(key.key) for key in path if isinstance(key, jax.tree_util.DictKey))


def shared_params(
    params: Params, tensors: dict[str, frozenset[str]], fn: Callable[[Array], Array]
) -> Params:
    """Parameters by network with `fn` applied to the shared tensors.

    {network: {module: {tensor: [N, ...]}}}.
    """
    names = {f"{network}.{tensor}" for network, shared in tensors.items() for tensor in shared}
    return jax.tree_util.tree_map_with_path(
        lambda path, x: fn(x) if _dotted(path) in names else x, params
    )


def shared_moments(
    opt_state: dict[str, Tree], tensors: dict[str, frozenset[str]], fn: Callable[[Array], Array]
) -> dict[str, Tree]:
    """`shared_params` of the optimiser's moments of the agents.

    In whatever group other modifiers have put them.
    """
    return {group: shared_params(state, tensors, fn) for group, state in opt_state.items()}
