"""Names for trees of arrays, which JAX leaves untyped. They say what a tree holds."""

from __future__ import annotations

from typing import Any, TypeAlias

Tree: TypeAlias = Any  # arrays, numpy's or JAX's, or their shapes, in containers of any kind
Params: TypeAlias = dict[str, Any]  # {"agent": ..., "mixer": ...}: trees of a learner's parameters
Carry: TypeAlias = Any  # a tree of arrays [B, N, ...]: what an acting network remembers
EnvState: TypeAlias = Any  # a tree of arrays: all that an environment goes on from
Batch: TypeAlias = Any  # an Episode, or on policy a Segment: what an update learns from
Data: TypeAlias = Any  # an Episode in the layout of a replay, [E, T(+1), ...], or None
