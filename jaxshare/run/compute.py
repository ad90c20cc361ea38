"""An algorithm whose functions are traced with the products that a run's settings ask for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from jaxshare.ops.precision import rounded_to
from jaxshare.settings.run_parts import ComputeConfig
from jaxshare.types import Algorithm

P = ParamSpec("P")
T = TypeVar("T")


def computed(algorithm: Algorithm, config: ComputeConfig) -> Algorithm:
    """The same algorithm; whoever traces one of its functions gets such products."""
    functions: dict[str, Any] = {}
    for field in dataclasses.fields(algorithm):
        value = getattr(algorithm, field.name)
        if callable(value):
            functions[field.name] = within(value, config)
    return dataclasses.replace(algorithm, **functions)


def within(function: Callable[P, T], config: ComputeConfig) -> Callable[P, T]:
    """The function, whose products are so while it is called."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        with rounded_to(config.dtype, config.matmul_precision):
            return function(*args, **kwargs)

    return call
