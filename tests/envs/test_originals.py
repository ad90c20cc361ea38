"""`env=lbforaging` and `env=rware_host`: the packages through the bridge, beside the package stepped directly."""

import gymnasium
import jax
import jax.numpy as jnp
import lbforaging as _lbforaging  # noqa: F401
import numpy as np
import pytest
import rware as _rware  # noqa: F401

from jaxshare.envs import lbforaging, rware_host
from jaxshare.envs.lbf import environment as lbf
from jaxshare.envs.rware import environment as rware
from jaxshare.types import RefusedError

KEY = jax.random.key(4)
SEED = int(jax.random.bits(KEY, (), jnp.uint32))


@pytest.fixture
def made():
    envs = []

    def make(module, **settings):
        envs.append(module.make(module.Config(**settings)))
        return envs[-1]

    yield make
    for env in envs:
        env.host.close()


def played(env, actions):
    """TimeSteps [T+1, ...] of one episode."""

    def run(actions):
        state, first = env.reset(KEY)
        _, later = jax.lax.scan(lambda state, a: env.step(state, a, KEY), state, actions)
        return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, later)

    return jax.device_get(jax.jit(run)(jnp.asarray(actions, jnp.int32)))


@pytest.mark.parametrize(
    ("module", "settings", "name"),
    [
        (lbforaging, {"scenario": "5x5-2p-1f", "max_steps": 60}, "Foraging-5x5-2p-1f-v3"),
        (lbforaging, {"scenario": "Foraging-2s-8x8-2p-2f-coop-v3"}, "Foraging-2s-8x8-2p-2f-coop-v3"),
        (rware_host, {"scenario": "rware-tiny-2ag-v2", "max_steps": 40}, "rware-tiny-2ag-v2"),
        (rware_host, {"max_steps": 40, "kwargs": {"sensor_range": 2}}, "rware-tiny-2ag-v2"),
    ],
)
def test_same_as_the_package(made, module, settings, name):
    env = made(module, **settings)
    steps, n = env.spec.episode_limit, env.spec.num_agents
    actions = np.random.default_rng(1).integers(0, env.spec.action.num_actions, (steps, n))
    shown = played(env, actions)
    theirs = gymnasium.make(name, disable_env_checker=True, **settings.get("kwargs", {})).unwrapped
    obs, _ = theirs.reset(seed=SEED)
    for t in range(steps):
        np.testing.assert_array_equal(shown.obs[t], obs)
        np.testing.assert_array_equal(shown.state[t], np.concatenate(obs))
        if shown.terminated[t]:
            break
        obs, reward, *_ = theirs.step(actions[t].tolist())
        np.testing.assert_allclose(shown.reward[t + 1], reward, atol=1e-6)
    assert shown.terminated.any() or bool(shown.truncated[steps])
    assert not np.any(shown.terminated & shown.truncated)


def test_time_limits_beyond_the_packages_own(made):
    """lbforaging says done at 50 steps, rware at 500."""
    still = np.zeros((55, 2), np.int32)
    shown = played(made(lbforaging, max_steps=55), still)
    assert not shown.terminated.any()
    assert np.flatnonzero(shown.truncated).tolist() == [55]
    shown = played(made(rware_host, max_steps=505), np.zeros((505, 2), np.int32))
    assert np.flatnonzero(shown.truncated).tolist() == [505]


def test_the_sum_and_the_share_of_food_that_is_eaten(made):
    env = made(lbforaging, scenario="5x5-2p-1f", max_steps=4000, reward="sum", mask_actions=True)
    assert env.spec.common_reward
    shown = played(env, np.random.default_rng(0).integers(0, 6, (4000, 2)))
    end = int(np.argmax(shown.terminated))
    assert shown.terminated.any()
    assert shown.info["food_eaten"][: end + 1].sum() == pytest.approx(1)
    np.testing.assert_allclose(shown.reward[end], [1, 1], atol=1e-6)
    assert not shown.avail[: end + 1].all()
    assert shown.avail[..., 0].all()


def test_logs_and_types_are_those_of_the_ports(made):
    for port, original in ((lbf, lbforaging), (rware, rware_host)):
        ours, theirs = port.make(port.Config()), made(original)
        assert (ours.spec.groups, ours.spec.group_names) == (theirs.spec.groups, theirs.spec.group_names)
        names = set(jax.eval_shape(ours.reset, KEY)[1].info)
        assert names == set(jax.eval_shape(theirs.reset, KEY)[1].info)
        assert ours.spec.obs_dim == theirs.spec.obs_dim
        assert ours.spec.episode_limit == theirs.spec.episode_limit


@pytest.mark.parametrize(
    ("module", "settings", "message"),
    [
        (lbforaging, {"scenario": "8x8-2p-2g"}, "env.scenario=8x8-2p-2g: .*cannot be made"),
        (rware_host, {"scenario": "tinny-2ag"}, "env.scenario=tinny-2ag: .*tiny-2ag"),
        (
            lbforaging,
            {"reward": "indivdual"},
            "env.reward=indivdual is not one of individual, sum. Did you mean individual",
        ),
        (rware_host, {"max_steps": 0}, "env.max_steps=0"),
    ],
)
def test_refusals(made, module, settings, message):
    with pytest.raises(RefusedError, match=message):
        made(module, **settings)
