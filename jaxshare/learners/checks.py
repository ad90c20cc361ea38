"""What a learner must be before it is assembled, told in words: strangers write learners too."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from jaxshare.learners.optimisers import groups_of
from jaxshare.learners.records import ON_POLICY
from jaxshare.types import RefusedError

if TYPE_CHECKING:
    from jaxshare.learners.learner import Learner


def check(learner: Learner) -> None:
    """Raise RefusedError for parts that do not fit together, or that nothing would use."""
    _check_steps(learner)
    _check_groups(learner)
    _check_phases(learner)
    for what, function, arguments in _functions(learner):
        _check_arguments(learner, what, function, arguments)


def _refused(learner: Learner, problem: str) -> RefusedError:
    return RefusedError(f"algo={learner.name} cannot be assembled: {problem}.")


def _check_steps(learner: Learner) -> None:
    names = Counter(name for phase in learner.phases for name in phase.steps)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise _refused(learner, f"two phases have a step {twice[0]}: give each a name of its own")
    if learner.main not in learner.phases[0].steps:
        raise _refused(learner, f"its main step {learner.main} is not in its first phase")


def _check_groups(learner: Learner) -> None:
    """Every network is trained by one group of one step."""
    groups: Counter[str] = Counter()
    trained: Counter[str] = Counter()
    for step in learner.steps.values():
        for group, networks in groups_of(learner, step).items():
            groups[group] += 1
            trained.update(networks)

    # none of them twice, and no network never
    twice = [group for group, count in groups.items() if count > 1]
    if twice:
        raise _refused(learner, f"two steps have an optimiser group {twice[0]}")
    twice = [network for network, count in trained.items() if count > 1]
    if twice:
        raise _refused(learner, f"two optimiser groups train its network {twice[0]}")
    left = [network for network in learner.networks if network not in trained]
    if left:
        raise _refused(
            learner,
            f"no step trains its network {left[0]}: name it in the optimizer_groups of one, or "
            "give one of them rest",
        )


def _check_phases(learner: Learner) -> None:
    """What only some sources of experience use."""
    draws = [phase.draw is not None for phase in learner.phases]
    if len(learner.phases) > 1 and not all(draws):
        raise _refused(learner, "each of several phases must draw its own batches")
    if learner.source.experience in ON_POLICY:
        return
    for phase in learner.phases:
        if phase.epochs * phase.minibatches > 1:
            raise _refused(learner, "epochs and minibatches are for learners on policy only")
        if phase.prepare and not phase.draw:
            raise _refused(learner, "prepare is for learners on policy, or that draw, only")
    if learner.schedule:
        raise _refused(learner, "schedule is for learners on policy only")


def _functions(learner: Learner) -> Iterator[tuple[str, Callable[..., Any], int]]:
    """(what it is, the function, how many arguments it has) of all that others may have written."""
    # of the steps
    for name, step in learner.steps.items():
        for what in ("loss", "compute", "advance"):
            function = getattr(step, what)
            if function is not None:
                yield f"the {what} of its step {name}", function, 1

    # of the rest
    one_view = ("aux", "shaping", "relabel", "after_update", "observe", "inspect")
    for what in one_view:
        for function in getattr(learner, what):
            yield f"a function in its {what}", function, 1
    for function in learner.before_update:
        yield "a function in its before_update", function, 2


def _check_arguments(
    learner: Learner, what: str, function: Callable[..., Any], arguments: int
) -> None:
    # what it can be called with
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # of what is written in C nothing is known
    try:
        signature.bind(*range(arguments))
    except TypeError as error:
        name = getattr(function, "__qualname__", None) or getattr(function, "func", function)
        wanted = "one View" if arguments == 1 else "a View, and a function that plays"
        raise _refused(
            learner,
            f"{what}, {getattr(name, '__qualname__', name)}{signature}, must take {wanted}",
        ) from error
