"""What the records of all families have in common: how modifiers replace their parts and add to them, and the steps of
an update that are the same in all: additive parts in turn, optimiser groups, target networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import jax
import optax

from jaxshare.ops.schedules import crossed
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

Record = TypeVar("Record")


def claimed(
    record: Record,
    owner: str,
    family_losses: tuple[Any, ...],
    wraps: tuple[str, ...] = (),
    **parts: Any,
) -> Record:
    """The record with single-owner parts replaced. Raises RefusedError naming both owners if one is taken.

    A loss that is none of `family_losses` belongs to the algorithm: it is replaced only by a modifier that keeps it
    within its own (`wraps`), or if the algorithm says that it may be (`yields`).
    """
    owners, name = record.owners, record.name  # type: ignore[attr-defined]
    for part in parts:
        if part in owners:
            raise RefusedError(
                f"modifiers {owners[part]} and {owner} both replace the {part} of {name}: use one."
            )
    if "loss" in parts and "loss" not in (*wraps, *record.yields):  # type: ignore[attr-defined]
        loss = record.loss  # type: ignore[attr-defined]
        if getattr(loss, "func", loss) not in family_losses:
            raise RefusedError(
                f"modifiers=[{owner}] would replace the loss of algo={name}, which brings one of its own, so that "
                f"algo={name} would learn by {owner}'s alone. Use modifiers=[], or {owner} with an algorithm that "
                "learns by its family's loss, such as qmix."
            )
    return replace(record, owners={**owners, **dict.fromkeys(parts, owner)}, **parts)  # type: ignore[type-var]


def agents_modules(modules: dict[str, Any]) -> dict[str, Any]:
    """Those of the modules that agents have: they say which parameter set is whose."""
    return {name: module for name, module in modules.items() if hasattr(module, "groups")}


def extended(record: Record, **parts: Any) -> Record:
    """The record with an entry more in parts that are tuples, with entries more in those that are dicts."""
    longer: dict[str, Any] = {}
    for name, part in parts.items():
        old = getattr(record, name)
        longer[name] = {**old, **part} if isinstance(old, dict) else (*old, part)
    return replace(record, **longer)  # type: ignore[type-var]


def observing(parts: Any) -> Callable[..., LearnerState] | None:
    """`Algorithm.observe`: the parts' in turn; None if there are none."""

    def observe(learner: LearnerState, experience: Any, clock: Clock) -> LearnerState:
        stats = learner.stats
        for part in parts.observe:
            stats = part(stats, experience, clock)
        return learner.replace(stats=stats)  # type: ignore[attr-defined]

    return observe if parts.observe else None


def preparing(parts: Any) -> Callable[..., LearnerState] | None:
    """`Algorithm.before_update`: the parts' in turn; None if there are none."""

    def before_update(
        learner: LearnerState, play: Callable[..., Any], ctx: Context, key: Array
    ) -> LearnerState:
        for i, part in enumerate(parts.before_update):
            learner = part(learner, play, ctx, jax.random.fold_in(key, i))
        return learner

    return before_update if parts.before_update else None


def team_reward(spec: EnvSpec, experience: Episode) -> Array:
    """The common reward once, or the sum over agents: reward [..., N] -> [...]."""
    return experience.reward[..., 0] if spec.common_reward else experience.reward.sum(-1)


def relabelled(
    parts: Any, learner: LearnerState, experience: Record, ctx: Context
) -> tuple[Record, LearnerState]:
    """What an update learns from, changed by each `relabel` in turn, and the learner with their statistics."""
    stats = learner.stats
    for relabel in parts.relabel:
        experience, stats = relabel(experience, stats, ctx)
    return experience, learner.replace(stats=stats)  # type: ignore[attr-defined]


Update = Callable[[Any, Any], tuple[Any, Any]]


def optimised(
    update_of: Callable[[str, tuple[str, ...]], Update],
    groups: dict[str, tuple[str, ...]],
    learner: LearnerState,
    grads: dict[str, Any],
) -> tuple[LearnerState, Metrics]:
    """One step of each optimiser group: update_of(group, names) is (gradients, state) -> (updates, state)."""
    params, opt_state, metrics = dict(learner.params), dict(learner.opt_state), {}
    for group, names in groups.items():
        own = {name: grads[name] for name in names}
        updates, opt_state[group] = update_of(group, names)(own, learner.opt_state[group])
        params.update(optax.apply_updates({name: params[name] for name in names}, updates))
        metrics[f"grad_norm/{group}"] = optax.tree.norm(own)
    return learner.replace(params=params, opt_state=opt_state), metrics  # type: ignore[attr-defined]


def clip_each(limit: Array, groups: dict[str, tuple[int, ...]]) -> optax.GradientTransformation:
    """The gradients of a group of parameters {name: tree}, each parameter set of each name clipped by its own norm.

    limit: [], the largest norm; groups: parameter set of each agent, by the names of what agents have.
    """

    def clipped(tree: Any) -> Any:
        return optax.clip_by_global_norm(limit).update(tree, optax.EmptyState())[0]

    def update(grads: dict[str, Any], params: Any = None) -> dict[str, Any]:
        many = {name: max(groups.get(name, (0,))) > 0 for name in grads}
        return {
            name: (jax.vmap(clipped) if many[name] else clipped)(tree)
            for name, tree in grads.items()
        }

    return optax.stateless(update)


def torch_rmsprop(
    h: dict[str, Array], rate: str = "lr", clip: optax.GradientTransformation | None = None
) -> optax.GradientTransformation:
    """Clipped RMSprop. code: torch's has eps outside the square root and starts from 0; optax's default has neither."""
    scale = optax.scale_by_rms(
        decay=h["rms_decay"], eps=h["rms_eps"], eps_in_sqrt=False, initial_scale=0.0
    )
    clip = clip or optax.clip_by_global_norm(h["grad_clip"])
    return optax.chain(clip, scale, optax.scale_by_learning_rate(h[rate]))


def followed(learner: LearnerState, config: Any, ctx: Context) -> LearnerState:
    """What has target parameters is followed by them, as config.target_update says: none, soft (Polyak with
    hparams.tau), or hard, which it is where there is no choice: a copy every config.target_update_period updates."""
    kind = getattr(config, "target_update", "hard")
    if kind == "none":
        return learner
    online, target = (
        {name: learner.params[name] for name in learner.target_params},
        learner.target_params,
    )
    if kind == "soft":
        target = optax.incremental_update(online, target, ctx.hparams["tau"])
    else:
        due = crossed(ctx.clock.updates, ctx.clock.updates + 1, config.target_update_period)
        target = jax.lax.cond(due, lambda: online, lambda: target)
    return learner.replace(target_params=target)  # type: ignore[attr-defined]
