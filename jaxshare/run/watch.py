"""What can go wrong while runs are computed.

Numbers that are not finite, environments on the host that fail.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxshare.trees import Params
from jaxshare.types import Env, RefusedError


@contextmanager
def host_errors(env: Env) -> Iterator[None]:
    """What JAX makes of an exception in a callback is a text; raise the HostError behind it.

    Wait for results inside: they are computed in the background.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        cause = env.host.error() if env.host else None
        if env.host is None or cause is None:
            raise
        env.host.settle()
        raise cause from error


@dataclass(frozen=True)
class Nonfinite:
    """A metric that is nan or inf."""

    run: int
    update: int  # of the run in the chunk, from 0
    name: str
    value: float


def first_nonfinite(metrics: dict[str, Any]) -> Nonfinite | None:
    """The earliest nan or inf among metrics, the losses first, or None.

    metrics: "update" {name: [R, iterations, U]}, "done" [R, iterations, U], "active" [R,
    iterations].
    """
    runs = len(metrics["done"])
    used = (metrics["done"] & metrics["active"][..., None]).reshape(runs, -1)
    # which update of its run each place of the chunk is
    order = np.cumsum(metrics["done"].reshape(runs, -1), axis=1) - 1

    first: Nonfinite | None = None
    for name in sorted(metrics["update"], key=_losses_first):
        values = metrics["update"][name].reshape(runs, -1)
        bad = ~np.isfinite(values) & used
        for run in np.flatnonzero(bad.any(1)):
            place = int(bad[run].argmax())
            update = int(order[run, place])
            if first is None or update < first.update:
                first = Nonfinite(int(run), update, name, float(values[run, place]))
    return first


def is_finite(params: Params) -> bool:
    """Whether all of a run's parameters are finite; params: of numpy arrays."""
    return all(bool(np.isfinite(leaf).all()) for leaf in jax.tree.leaves(params))


def diverged(metrics: dict[str, Any]) -> np.ndarray:
    """Which runs have a nan or inf among the metrics of their updates, [R] bool.

    metrics: as `first_nonfinite` takes them.
    """
    runs = len(metrics["done"])
    used = (metrics["done"] & metrics["active"][..., None]).reshape(runs, -1)
    bad = np.zeros_like(used)
    for values in metrics["update"].values():
        bad |= ~np.isfinite(values.reshape(runs, -1)) & used
    return bad.any(1)


def _losses_first(name: str) -> tuple[bool, str]:
    return not name.startswith("loss/"), name


def not_finite(what: str, newest: pathlib.Path, outside: str) -> RefusedError:
    """What to raise when numbers of a run became nan or inf.

    what: happened, and to which run. newest: the last good checkpoint. outside: of the replay's
    range, what `Fleet.outside` says.
    """
    remedy = outside or (
        "A smaller algo.hparams.lr, algo.hparams.grad_clip or env.reward_scale, in a new run_dir, "
        "usually helps."
    )
    return RefusedError(
        f"{what}. The run is stopped; the last good checkpoint is {newest}. {remedy}"
    )
