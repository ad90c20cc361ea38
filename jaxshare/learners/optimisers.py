"""Optimisers, clips, optimiser groups and target networks: the one place for all learners."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import optax

from jaxshare.learners.records import Step, View
from jaxshare.models.base import num_sets
from jaxshare.ops.schedules import crossed
from jaxshare.trees import Params, Tree
from jaxshare.types import Array, Context, HParams, LearnerState, Metrics

if TYPE_CHECKING:
    from jaxshare.learners.learner import Learner


# ------------------------------------------------------------------------------------ groups


def groups_of(learner: Learner, step: Step) -> dict[str, tuple[str, ...]]:
    """Networks of each optimiser group of a step, those that no step names included.

    Raises ValueError if a network is named twice, or one that there is not.
    """
    named = [
        network
        for other in learner.steps.values()
        for networks in other.optimizer_groups.values()
        for network in networks
    ]
    if len(named) != len(set(named)) or not set(named) <= set(learner.networks):
        raise ValueError(
            f"{learner.name}: optimiser groups must name networks out of "
            f"{sorted(learner.networks)}, each once: {named}"
        )

    # those that no step names, in the group of the rest
    groups = dict(step.optimizer_groups)
    left = tuple(network for network in learner.networks if network not in named)
    if step.rest and left:
        groups[step.rest] = (*groups.get(step.rest, ()), *left)
    return groups


def first_opt_state(learner: Learner, params: Params, hparams: HParams) -> dict[str, Tree]:
    """{optimiser group: state} of all steps."""
    state = {}
    for step in learner.steps.values():
        for group, networks in groups_of(learner, step).items():
            rule = rule_of(learner, step, group, networks, hparams)
            state[group] = rule.init({name: params[name] for name in networks})
    return state


# ------------------------------------------------------------------------------------- rules


def rule_of(
    learner: Learner, step: Step, group: str, networks: tuple[str, ...], hparams: HParams
) -> optax.GradientTransformation:
    """Clip, moments and learning rate of one optimiser group."""
    optimizer = learner.optimizer
    rate = hparams[optimizer.rates.get(group, step.rate)]
    clip = optax.clip_by_global_norm(hparams["grad_clip"])
    if optimizer.clip == "agent":
        # the loss is the mean over agents, and the limit is of the loss of each
        clip = clip_each(hparams["grad_clip"] / learner.spec.num_agents, learner.param_sets)
    rule = RULES[optimizer.kind](hparams, rate, clip)
    if not _sets_apart(learner, networks):
        return rule
    return optax.GradientTransformation(jax.vmap(rule.init), jax.vmap(rule.update))


def torch_rmsprop(
    hparams: HParams, rate: Array, clip: optax.GradientTransformation
) -> optax.GradientTransformation:
    """RMSprop as torch has it. rate: [].

    code: eps is outside the square root, and it starts from 0; optax's default has neither.
    """
    scale = optax.scale_by_rms(
        decay=hparams["rms_decay"], eps=hparams["rms_eps"], eps_in_sqrt=False, initial_scale=0.0
    )
    return optax.chain(clip, scale, optax.scale_by_learning_rate(rate))


def adam(
    hparams: HParams, rate: Array, clip: optax.GradientTransformation
) -> optax.GradientTransformation:
    """Adam (Kingma and Ba 2015), with torch's place of eps. rate: []."""
    scale = optax.scale_by_adam(eps=hparams["adam_eps"])
    return optax.chain(clip, scale, optax.scale_by_learning_rate(rate))


def radam(
    hparams: HParams, rate: Array, clip: optax.GradientTransformation
) -> optax.GradientTransformation:
    """Adam whose first steps, while its variance is known from a few gradients only, are those of
    momentum (Liu et al. 2020, RAdam). rate: [].
    """
    scale = optax.scale_by_radam(eps=hparams["adam_eps"])
    return optax.chain(clip, scale, optax.scale_by_learning_rate(rate))


RULES = {"rmsprop": torch_rmsprop, "adam": adam, "radam": radam}


def clip_each(limit: Array, param_sets: dict[str, tuple[int, ...]]) -> optax.GradientTransformation:
    """A clip of gradients {network: tree}, each parameter set of each network by its own norm.

    limit: [], the largest norm; param_sets: parameter set of each agent, by the names of what
    agents have.
    """

    def clipped(tree: Tree) -> Tree:
        return optax.clip_by_global_norm(limit).update(tree, optax.EmptyState())[0]

    def update(grads: Params, params: Params | None = None) -> Params:
        clipped_grads = {}
        for name, tree in grads.items():
            # several parameter sets are the leading axis of their tree
            has_several = max(param_sets.get(name, (0,))) > 0
            clip = jax.vmap(clipped) if has_several else clipped
            clipped_grads[name] = clip(tree)
        return clipped_grads

    return optax.stateless(update)


def _sets_apart(learner: Learner, networks: tuple[str, ...]) -> bool:
    """Whether each parameter set of a group is clipped alone: all its networks have equally many,
    more than one.
    """
    counts = {num_sets(learner.networks[name]) for name in networks}
    return learner.optimizer.clip == "set" and len(counts) == 1 and max(counts) > 1


def annealed(view: View) -> Context:
    """The context with the learning rates of this batch.

    code: a line from the first batch on, as in JaxMARL's PPO.
    """
    h = view.hparams
    before = view.env_steps - view.batch.mask.sum().astype(jnp.int32)
    share = jnp.clip(before / view.ctx.total_env_steps, 0.0, 1.0)
    left = 1.0 - h["lr_anneal"] * share
    rates = {name: h[name] * left for name in ("lr", "critic_lr") if name in h}
    return view.ctx.replace(hparams={**h, **rates})


# ------------------------------------------------------------------------------------- steps


def advance(view: View, step: Step, grads: Params) -> tuple[LearnerState, Metrics]:
    """The state after one step of each optimiser group of a step; grads: {network: tree}."""
    learner = view.learner
    state = view.state
    params = dict(state.params)
    opt_state = dict(state.opt_state)
    metrics: Metrics = {}
    for group, networks in groups_of(learner, step).items():
        part = {name: grads[name] for name in networks}
        rule = rule_of(learner, step, group, networks, view.hparams)
        updates, opt_state[group] = rule.update(part, state.opt_state[group])
        params.update(optax.apply_updates({name: params[name] for name in networks}, updates))
        metrics[f"grad_norm/{group}"] = _norm(learner, networks, part)
    return state.replace(params=params, opt_state=opt_state), metrics


def _norm(learner: Learner, networks: tuple[str, ...], grads: Params) -> Array:
    if not learner.optimizer.largest_norm:
        return optax.tree.norm(grads)
    norm: Callable[[Params], Array] = optax.tree.norm
    return jnp.max((jax.vmap(norm) if _sets_apart(learner, networks) else norm)(grads))


# ----------------------------------------------------------------------------------- targets


def first_targets(learner: Learner, params: Params) -> Params:
    """Parameters of the target networks of a new learner."""
    networks = learner.targets.networks
    return params if networks is None else {name: params[name] for name in networks}


def followed(view: View) -> LearnerState:
    """The state with target parameters that follow, as `Targets` says."""
    targets = view.learner.targets
    state = view.state
    if targets.follow:
        return targets.follow(view)
    if targets.update == "none" or targets.networks == ():
        return state
    online = {name: state.params[name] for name in state.target_params}
    if targets.update == "soft":
        slow = optax.incremental_update(online, state.target_params, view.hparams["tau"])
        return state.replace(target_params=slow)
    updates = view.clock.updates - targets.start
    due = crossed(updates, updates + 1, targets.period)
    slow = jax.lax.cond(due, lambda: online, lambda: state.target_params)
    return state.replace(target_params=slow)
