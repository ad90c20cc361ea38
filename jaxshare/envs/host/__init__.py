"""The host bridge: environments outside JAX, stepped from inside the jitted program.

A pool holds the environments of all runs, in worker processes or in this one. One call per step
serves every slot (run x parallel environment): `step` is a `custom_vmap` function that takes any
leading axes, so that vmap over environments, over seeds, or over both still makes one call. What
JAX carries of an environment is a token; the token that one call returns is an argument of the
next, so data dependence keeps the order, and the pool checks it.

An episode's seed is derived from its reset key, which the runner derives from (seed, iteration,
slot). Episodes therefore repeat, do not depend on the number of workers, and a resumed run goes on
exactly.
"""

from jaxshare.envs.host.bridge import HostControl, host_env
from jaxshare.envs.host.pool import Pool
from jaxshare.envs.host.settings import HostConfig, Install

__all__ = ["HostConfig", "HostControl", "Install", "Pool", "host_env"]
