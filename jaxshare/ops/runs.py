"""What several runs of one device decide together.

Under vmap a branch or the end of a loop that every run chooses for itself is chosen by selection:
all branches are computed, and loops go on in copies. What is decided here is one value for all
runs, so that one branch is computed and a loop ends once. Alone a run decides for itself.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from jaxshare.types import Array


def _together(reduce: Callable[..., Array]) -> Callable[[Array], Array]:
    """x of one run; under vmap `reduce` of it over all runs, the same for each."""

    @custom_vmap
    def decide(x: Array) -> Array:
        return x

    @decide.def_vmap
    def _(axis_size: int, in_batched: list[bool], x: Array) -> tuple[Array, bool]:
        # again, for an outer vmap
        return decide(reduce(x, axis=0)), False

    return decide


in_any_run = _together(jnp.any)
in_all_runs = _together(jnp.all)
largest_of_runs = _together(jnp.max)
