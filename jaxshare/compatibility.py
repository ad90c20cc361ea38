"""Which algorithms, modifiers and kinds of actions go together, and why others do not.

Each combination is assembled on a small made-up task, so what is said here cannot be out of date.
"""

from __future__ import annotations

from functools import cache

from jaxshare import registry
from jaxshare.plugins.entries import imported, in_words
from jaxshare.run.build import Parts
from jaxshare.types import Box, Discrete, EnvSpec, RefusedError


def refusal(
    algo: str, modifiers: tuple[str, ...], action: Discrete | Box, **settings: object
) -> str | None:
    """Why this combination cannot be assembled, or None if it can.

    settings: of the algorithm.
    """
    outside = {*imported("algo"), *imported("modifiers")}
    try:
        parts = _parts(algo, action, tuple(settings.items()))
        for name in modifiers:
            module = registry.get("modifiers", name)
            parts = module.make(module.Config(), parts)
        parts.assemble()
    except RefusedError as error:
        return str(error)
    except Exception as error:
        if not {algo, *modifiers} & outside:
            raise
        return f"algo={algo} with modifiers=[{','.join(modifiers)}] fails: {in_words(error)}."
    return None


@cache
def _parts(algo: str, action: Discrete | Box, settings: tuple[tuple[str, object], ...]) -> Parts:
    """Made once for all modifiers.

    Some of them trace its networks, and JAX remembers what it traced of one object.
    """
    entry = registry.get("algo", algo)
    return entry.make(entry.Config(**dict(settings)), _probe(action))


def _probe(action: Discrete | Box) -> EnvSpec:
    return EnvSpec(
        name="probe",
        num_agents=2,
        obs_dim=3,
        state_dim=4,
        action=action,
        episode_limit=5,
        groups=(0, 0),
        group_names=("agent",),
    )
