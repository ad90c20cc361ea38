"""Whether a learner can learn from packed batches (training/packing.py), and why not.

Every function that an update calls must say so, and every network with memory must be able to
empty it. Who says nothing gets whole episodes, one a row, as before: so what a stranger adds is
never wrong, only slower.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from jaxshare.learners.records import ON_POLICY
from jaxshare.models.agents import AgentNetwork

if TYPE_CHECKING:
    from jaxshare.learners.learner import Learner

MARK = "reads_packed_batches"
F = TypeVar("F", bound=Callable[..., Any])


def packable(function: F) -> F:
    """Say of a function of a View, or of an algorithm's `compute`, that it reads packed batches.

    It does if it treats every step alone, or asks `training.packing` for what is along time or
    across episodes: `unrolled`, `agent_inputs`, `discounts` and masked means do. A partial function
    reads them if all functions that it holds do.
    """
    setattr(function, MARK, True)
    return function


def why_whole(learner: Learner) -> str:
    """Why a learner needs whole episodes, one a row, as a clause; empty: it does not."""
    # what comes in other pieces
    source = learner.source
    if source.experience in ON_POLICY:
        return "it learns from what was just collected"
    if source.window:
        return "it learns from windows"
    if any(phase.draw for phase in learner.phases):
        return "it draws batches of its own"

    # what the algorithm, its networks and its functions say
    if learner.whole_rows:
        return learner.whole_rows
    for name, network in learner.networks.items():
        if not _can_forget(network):
            return f"the memory of its network {name} cannot be emptied within a row"
    for function in _functions(learner):
        unmarked = _unmarked(function)
        if unmarked is not None:
            name = getattr(unmarked, "__qualname__", repr(unmarked))
            return f"{name} does not say that it reads packed batches"
    return ""


def _can_forget(network: object) -> bool:
    """Whether its memory can be emptied, if it has any."""
    if isinstance(network, AgentNetwork):
        return network.unroll_kept is not None
    return not hasattr(network, "initial_carry")


def _functions(learner: Learner) -> Iterator[Callable[..., Any]]:
    """All functions that read the batch of an update."""
    for step in learner.steps.values():
        for function in (step.loss, step.compute, step.report, step.advance):
            if function is not None:
                yield function
    yield from learner.relabel
    yield from learner.shaping
    yield from learner.aux
    yield from learner.after_update
    if learner.targets.follow is not None:
        yield learner.targets.follow


def _unmarked(function: Callable[..., Any]) -> Callable[..., Any] | None:
    """What of a function does not say that it reads packed batches; None if all does."""
    if not isinstance(function, partial):
        return None if getattr(function, MARK, False) else function
    held = [part for part in (*function.args, *function.keywords.values()) if callable(part)]
    for part in (function.func, *held):
        unmarked = _unmarked(part)
        if unmarked is not None:
            return unmarked
    return None
