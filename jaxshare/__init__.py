"""jaxshare: cooperative multi-agent reinforcement learning in JAX.

Rewards, experience and parameters are shared.

    import jaxshare

    run = jaxshare.train(algo="qmix", env="smax", scenario="3m", seeds=2, total_env_steps=200_000)
    run.evaluate(episodes=100)

The same names are on the command line: `python -m jaxshare.train algo=qmix env=smax …`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxshare.api.environments import make_env, register
    from jaxshare.api.listing import list_algorithms, list_envs, list_modifiers, list_presets
    from jaxshare.api.policy import Policy
    from jaxshare.api.run import Run, evaluate, load
    from jaxshare.api.training import report, train
    from jaxshare.run.callbacks import Callback
    from jaxshare.run.signals import StoppedError
    from jaxshare.types import Env, EnvSpec, HostError, RefusedError, TimeStep

__version__ = "0.1.0"

# imported when they are asked for, so that `import jaxshare` starts neither JAX nor hydra
_PLACES = {
    "Callback": "jaxshare.run.callbacks",
    "Env": "jaxshare.types",
    "EnvSpec": "jaxshare.types",
    "HostError": "jaxshare.types",
    "Policy": "jaxshare.api.policy",
    "RefusedError": "jaxshare.types",
    "Run": "jaxshare.api.run",
    "StoppedError": "jaxshare.run.signals",
    "TimeStep": "jaxshare.types",
    "evaluate": "jaxshare.api.run",
    "list_algorithms": "jaxshare.api.listing",
    "list_envs": "jaxshare.api.listing",
    "list_modifiers": "jaxshare.api.listing",
    "list_presets": "jaxshare.api.listing",
    "load": "jaxshare.api.run",
    "make_env": "jaxshare.api.environments",
    "register": "jaxshare.api.environments",
    "report": "jaxshare.api.training",
    "train": "jaxshare.api.training",
}
__all__ = [
    "Callback",
    "Env",
    "EnvSpec",
    "HostError",
    "Policy",
    "RefusedError",
    "Run",
    "StoppedError",
    "TimeStep",
    "__version__",
    "evaluate",
    "list_algorithms",
    "list_envs",
    "list_modifiers",
    "list_presets",
    "load",
    "make_env",
    "register",
    "report",
    "train",
]


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module 'jaxshare' has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
