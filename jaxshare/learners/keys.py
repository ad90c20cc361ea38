"""Which key each part of an update draws with.

Fixed, so that a run that began before goes on as it would have.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax

from jaxshare.types import Array

if TYPE_CHECKING:
    from jaxshare.learners.learner import Learner
    from jaxshare.learners.records import Phase

OF_VALUES = 2**32 - 1  # for noise and searches of the value family; no count reaches it


@dataclass(frozen=True)
class StepKeys:
    """Of one step. aux: of each addition to its loss."""

    values: Array
    loss: Array
    aux: tuple[Array, ...]


@dataclass(frozen=True)
class UpdateKeys:
    """Of one pass of a phase. steps: in their order; hooks: of `after_update`, in their order."""

    draw: Array
    steps: tuple[StepKeys, ...]
    hooks: tuple[Array, ...]


def counted(key: Array, phase: Phase, learner: Learner) -> UpdateKeys:
    """Numbers 0, 1, …: of the draw if there is one, of each step, of the hooks.

    Of a step: of its values, its loss, and each addition to that. All keys are [].
    """
    return _counted(key, phase, learner, values_count=True)


def values_apart(key: Array, phase: Phase, learner: Learner) -> UpdateKeys:
    """The same, with the values' key outside of the count. key: []."""
    return _counted(key, phase, learner, values_count=False)


def _counted(key: Array, phase: Phase, learner: Learner, values_count: bool) -> UpdateKeys:
    numbers = itertools.count()

    def next_key() -> Array:
        return jax.random.fold_in(key, next(numbers))

    draw = next_key() if phase.draw else key

    # each step's values, loss and additions in turn
    steps = []
    for name, step in phase.steps.items():
        values = jax.random.fold_in(key, OF_VALUES)
        if values_count and step.compute:
            values = next_key()
        loss = next_key()
        aux = tuple(next_key() for _ in learner.aux) if name == learner.main else ()
        steps.append(StepKeys(values, loss, aux))
    hooks = tuple(next_key() for _ in learner.after_update)
    return UpdateKeys(draw, tuple(steps), hooks)


def hooks_first(key: Array, phase: Phase, learner: Learner) -> UpdateKeys:
    """Numbers 0, 1, … of the hooks; the next is that of all steps, which count anew below it.

    key: [].
    """
    hooks = tuple(jax.random.fold_in(key, i) for i in range(len(learner.after_update)))
    below = jax.random.fold_in(key, len(hooks))
    steps = []
    for i, name in enumerate(phase.steps):
        loss = jax.random.fold_in(below, i)
        num_aux = len(learner.aux) if name == learner.main else 0
        aux = tuple(jax.random.fold_in(loss, 1 + j) for j in range(num_aux))
        steps.append(StepKeys(loss, loss, aux))
    return UpdateKeys(key, tuple(steps), hooks)


def undivided(key: Array, phase: Phase, learner: Learner) -> UpdateKeys:
    """The key [] itself for the draw; what else draws counts on below it."""
    aux = tuple(jax.random.fold_in(key, 1 + i) for i in range(len(learner.aux)))
    steps = tuple(StepKeys(key, key, aux if name == learner.main else ()) for name in phase.steps)
    first = 1 + len(aux)
    hooks = tuple(jax.random.fold_in(key, first + i) for i in range(len(learner.after_update)))
    return UpdateKeys(key, steps, hooks)
