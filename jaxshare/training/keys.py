"""Keys of a run: derived from (seed, iteration, stage), never carried."""

from __future__ import annotations

import jax

from jaxshare.types import Array

INIT, COLLECT, SAMPLE, UPDATE, PLAY, START = range(6)  # stages


def stage_key(seed: Array, iteration: Array, stage: int) -> Array:
    """What a stage of an iteration draws with: adding a feature does not change the draws of the
    others. seed and iteration [] -> key [].
    """
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), iteration), stage)
