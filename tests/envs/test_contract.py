"""Every environment in every scenario keeps the contract of `jaxshare.types.Env`. A new file is tested by existing.

By convention the first field of an environment's `Config` is the name of its scenario.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from omegaconf import OmegaConf

from jaxshare import registry
from jaxshare.types import Box, Discrete, RefusedError

ENVS = registry.modules("env")
LARGE = [("smax", name) for name in ENVS["smax"].scenarios() if name not in ("3m", "2s3z")]  # slow, and nothing new
CASES = [(name, scenario) for name, module in ENVS.items() for scenario in module.scenarios()]


def build(name, scenario):
    module = ENVS[name]
    key = dataclasses.fields(module.Config)[0].name
    try:
        env = module.make(module.Config(**{key: scenario}))
    except RefusedError as refusal:
        pytest.skip(str(refusal))
    if not env.spec.pure:
        pytest.skip("a host environment")
    return env


def expected(spec):
    action = spec.action
    num_actions = action.num_actions if isinstance(action, Discrete) else 0
    n = spec.num_agents
    return {
        "obs": ((n, spec.obs_dim), jnp.float32),
        "state": ((spec.state_dim,), jnp.float32),
        "avail": ((n, num_actions), jnp.bool_),
        "alive": ((n,), jnp.bool_),
        "reward": ((n,), jnp.float32),
        "terminated": ((), jnp.bool_),
        "truncated": ((), jnp.bool_),
    }


def described(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)


@pytest.mark.parametrize(("name", "scenario"), CASES)
def test_arrays_match_the_spec(name, scenario):
    env = build(name, scenario)
    key, spec = jax.random.key(0), env.spec
    continuous = isinstance(spec.action, Box)
    shape = (spec.num_agents, spec.action.dim) if continuous else (spec.num_agents,)
    action = jax.ShapeDtypeStruct(shape, jnp.float32 if continuous else jnp.int32)
    state, first = jax.eval_shape(env.reset, key)
    next_state, later = jax.eval_shape(env.step, state, action, key)
    for shown in (first, later):
        got = {field: (getattr(shown, field).shape, getattr(shown, field).dtype) for field in expected(spec)}
        assert got == expected(spec)
        assert all((x.shape, x.dtype) == ((), jnp.float32) for x in shown.info.values())
    assert described((state, first)) == described((next_state, later)), "a scan carry must keep its type"


@pytest.mark.parametrize(("name", "scenario"), [case for case in CASES if case not in LARGE])
def test_a_first_step_is_fresh_and_playable(name, scenario):
    env = build(name, scenario)
    _, shown = jax.jit(env.reset)(jax.random.key(1))
    assert not shown.terminated
    assert not shown.truncated
    assert np.all(shown.alive)
    assert np.all(np.asarray(shown.reward) == 0)
    assert all(float(x) == 0 for x in shown.info.values())
    assert np.isfinite(shown.obs).all()
    assert np.isfinite(shown.state).all()
    if isinstance(env.spec.action, Discrete):
        assert np.all(np.any(shown.avail, axis=-1))


@pytest.mark.parametrize("name", list(ENVS))
def test_config_is_a_hydra_config(name):
    config = OmegaConf.to_object(OmegaConf.structured(ENVS[name].Config))
    assert config == ENVS[name].Config()


@pytest.mark.parametrize("name", list(ENVS))
def test_default_scenario_exists(name):
    config = ENVS[name].Config()
    assert dataclasses.astuple(config)[0] in ENVS[name].scenarios()
