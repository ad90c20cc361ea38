"""SMAX against jaxmarl's own, driven side by side, on 3m unless a test says otherwise."""

import io
import sys
import warnings
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxshare.envs import _jaxmarl, _raster
from jaxshare.envs._jaxmarl import import_jaxmarl, lenient
from jaxshare.envs.smax import environment as smax
from jaxshare.envs.smax.maps import LINEUPS, STOCK
from jaxshare.types import RefusedError

STOP = 4
SIZES = {  # agents, enemies, obs, state, actions
    "3m": (3, 3, 75, 72, 8),
    "2s3z": (5, 5, 127, 120, 10),
    "25m": (25, 25, 647, 600, 30),
    "3s5z": (8, 8, 205, 192, 13),
    "8m": (8, 8, 205, 192, 13),
    "5m_vs_6m": (5, 6, 140, 132, 11),
    "10m_vs_11m": (10, 11, 270, 252, 16),
    "27m_vs_30m": (27, 30, 738, 684, 35),
    "3s5z_vs_3s6z": (8, 9, 218, 204, 14),
    "3s_vs_5z": (3, 5, 101, 96, 10),
    "6h_vs_8z": (6, 8, 179, 168, 13),
    "smacv2_5_units": (5, 5, 127, 120, 10),
    "smacv2_10_units": (10, 10, 257, 240, 15),
    "smacv2_20_units": (20, 20, 517, 480, 25),
    "8m_vs_9m": (8, 9, 218, 204, 14),
    "corridor_open": (6, 24, 387, 360, 29),
}


@cache
def game():
    """jaxmarl's own 3m."""
    package = import_jaxmarl("smax")
    return package.HeuristicEnemySMAX(scenario=package.map_name_to_scenario("3m"), max_steps=99)


@cache
def dense():
    env = smax.make(smax.Config())
    return env, jax.jit(env.reset), jax.jit(env.step)


def attack(shown):
    """The lowest-numbered target in reach; otherwise east, towards the enemy; stop for the dead."""
    shoot = jnp.argmax(shown.avail[..., 5:], axis=-1) + 5
    fallback = jnp.where(shown.avail[..., 1], 1, STOP)
    return jnp.where(jnp.any(shown.avail[..., 5:], axis=-1), shoot, fallback).astype(jnp.int32)


def random_action(shown, key):
    return jax.random.categorical(key, jnp.where(shown.avail, 0.0, -jnp.inf)).astype(jnp.int32)


@cache
def battles():
    """64 episodes that nobody stops, half of them fought and half at random: TimeSteps [T+1, B, ...], T = 100."""
    env = dense()[0]

    def step(carry, key):
        state, shown = carry
        keys = jax.random.split(key, 65)
        action = jnp.where((jnp.arange(64) < 32)[:, None], attack(shown), random_action(shown, keys[64]))
        carry = jax.vmap(env.step)(state, action, keys[:64])
        return carry, (carry[1], carry[0].state.unit_alive)

    def run(key):
        first = jax.vmap(env.reset)(jax.random.split(key, 64))
        _, (shown, units) = jax.lax.scan(step, first, jax.random.split(key, 100))
        return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first[1], shown), units

    shown, units = jax.device_get(jax.jit(run)(jax.random.key(0)))
    over = shown.terminated | shown.truncated
    last = np.argmax(over, axis=0)  # index of the episode's last TimeStep
    assert over.any(0).all()
    return shown, units, last


def test_scenarios_are_those_of_the_wheel():
    known = import_jaxmarl("smax.smax_env").MAP_NAME_TO_SCENARIO
    assert set(STOCK) == set(known) == set(SIZES) - set(LINEUPS)


@pytest.mark.parametrize(("scenario", "sizes"), SIZES.items())
def test_sizes(scenario, sizes):
    spec = smax.make(smax.Config(scenario=scenario)).spec
    agents, enemies, obs, state, actions = sizes
    assert (spec.num_agents, spec.obs_dim, spec.state_dim, spec.action.num_actions) == (agents, obs, state, actions)
    assert actions == enemies + 5
    assert spec.common_reward


@pytest.mark.parametrize(
    ("scenario", "groups", "names"),
    [
        ("3m", (0, 0, 0), ("marine",)),
        ("2s3z", (0, 0, 1, 1, 1), ("stalker", "zealot")),
        ("6h_vs_8z", (0,) * 6, ("hydralisk",)),
        ("corridor_open", (0,) * 6, ("zealot",)),
        ("smacv2_5_units", (0,) * 5, ("ally",)),  # their types change with the episode
    ],
)
def test_groups_are_unit_types(scenario, groups, names):
    spec = smax.make(smax.Config(scenario=scenario)).spec
    assert (spec.groups, spec.group_names) == (groups, names)


def test_same_as_jaxmarl_step_by_step():
    _env, reset, step = dense()
    their_step, their_avail = (jax.jit(lenient(f)) for f in (game().step_env, game().get_avail_actions))
    state, shown = reset(jax.random.key(7))
    obs, theirs = lenient(game().reset)(jax.random.key(7))
    done = False
    for t in range(100):
        agents = game().agents
        np.testing.assert_allclose(shown.obs, [obs[a] for a in agents], atol=1e-5)
        avail = their_avail(theirs)
        np.testing.assert_array_equal(shown.avail, np.array([avail[a] for a in agents], bool))
        if done:
            break
        action, key = attack(shown), jax.random.key(t)
        obs, theirs, rewards, dones, _ = their_step(key, theirs, {a: action[i] for i, a in enumerate(agents)})
        state, shown = step(state, action, key)
        done = bool(dones["__all__"])
        np.testing.assert_allclose(shown.reward, [10 * rewards[a] for a in agents], rtol=1e-5)
        assert bool(shown.terminated | shown.truncated) == done
        assert bool(shown.info["won"]) == (float(rewards[agents[0]]) >= 1.0)
    assert done
    assert t > 5
    assert np.any(shown.obs) or not np.any(shown.alive), "the last observation is that of the battle's end"


def test_idle_team_is_cut_after_exactly_max_steps():
    max_steps = 10
    env = smax.make(smax.Config(max_steps=max_steps, enemy_shoots=False))

    def idle(state, key):
        state, shown = env.step(state, jnp.full(3, STOP), key)
        return state, (shown.terminated, shown.truncated)

    state, _ = env.reset(jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), max_steps)
    _, (terminated, truncated) = jax.jit(lambda state: jax.lax.scan(idle, state, keys))(state)
    assert env.spec.episode_limit == max_steps
    assert truncated.tolist() == [False] * (max_steps - 1) + [True]
    assert not np.any(terminated)


def test_ends():
    shown, units, last = battles()
    allies, enemies = units[..., :3].any(-1), units[..., 3:].any(-1)
    np.testing.assert_array_equal(shown.terminated[1:], ~allies | ~enemies)
    np.testing.assert_array_equal(shown.alive[1:], units[..., :3])
    assert not np.any(shown.terminated & shown.truncated)
    assert not np.any(shown.truncated[:100])
    assert shown.terminated[last, np.arange(64)].sum() > 30


def test_returns_and_wins():
    shown, units, last = battles()
    during = np.arange(101)[:, None] <= last
    returns = (shown.reward[..., 0] * during).sum(0)
    won = shown.info["won"][last, np.arange(64)]
    assert set(won) == {0.0, 1.0}
    np.testing.assert_allclose(returns[won == 1], 20.0, rtol=1e-5)
    assert np.all(returns[won == 0] <= 10.001)
    assert (shown.info["won"] * (np.arange(101)[:, None] < last)).sum() == 0, "a battle is won on its last step"
    np.testing.assert_array_equal((shown.reward[..., 0] * during >= 10).any(0), won == 1)
    enemies, allies = units[last - 1, np.arange(64), 3:], units[last - 1, np.arange(64), :3]
    np.testing.assert_array_equal(won == 1, ~enemies.any(-1) & allies.any(-1))


def test_the_dead_can_only_stop_and_still_share_the_reward():
    shown, _, last = battles()
    dead = ~shown.alive
    assert dead.any()
    np.testing.assert_array_equal(shown.avail[dead], np.arange(8)[None] == STOP * np.ones((dead.sum(), 1)))
    assert np.all(shown.obs[dead] == 0)
    assert np.all(shown.avail[~dead][:, :5])
    assert np.all(shown.avail.any(-1))
    np.testing.assert_array_equal(shown.reward, shown.reward[..., :1].repeat(3, axis=-1))
    paid = (shown.reward > 0) & dead & (np.arange(101)[:, None] <= last)[..., None]
    assert paid.any()


def test_state_is_bounded_and_complete():
    shown, _units, _last = battles()
    assert shown.state.min() >= 0
    assert shown.state.max() <= 1.001
    assert np.abs(shown.obs).max() <= 1.001
    start = shown.state[0].reshape(64, 72)
    features, teams, types = start[:, :60].reshape(64, 6, 10), start[:, 60:66], start[:, 66:]
    np.testing.assert_array_equal(features[:, :, 0], 1)  # health
    np.testing.assert_allclose(features[:, :3, 1:3], shown.obs[0, :, :, -9:-7], atol=1e-6)  # positions, as in obs
    np.testing.assert_array_equal(features[:, :, 4:], np.eye(6)[0] * np.ones((64, 6, 1)))  # marines
    np.testing.assert_array_equal(teams, [[0, 0, 0, 1, 1, 1]] * 64)
    np.testing.assert_array_equal(types, 0)


def test_types_in_the_state_are_scaled():
    env = smax.make(smax.Config(scenario="6h_vs_8z"))
    _, shown = jax.jit(env.reset)(jax.random.key(0))
    np.testing.assert_allclose(shown.state[-14:], [1.0] * 6 + [0.6] * 8)


@pytest.mark.parametrize(
    ("allies", "enemies", "reward", "won"),
    [
        ((45.0,) * 3, (0.0,) * 3, 1, 1),
        ((0.0,) * 3, (45.0,) * 3, -1, 0),
        ((0.0,) * 3, (0.0,) * 3, 0, 0),
        ((45.0, 0, 0), (45.0,) * 3, 0, 0),
    ],
)
def test_sparse_reward(allies, enemies, reward, won):
    _env, step = sparse()
    state, _ = dense()[1](jax.random.key(0))
    health = jnp.array([*allies, *enemies], jnp.float32)
    state = state.replace(state=state.state.replace(unit_health=health, unit_alive=health > 0))
    _, shown = step(state, jnp.full(3, STOP), jax.random.key(1))
    assert shown.reward.tolist() == [reward] * 3
    assert float(shown.info["won"]) == won
    assert bool(shown.terminated) == (not (any(allies) and any(enemies)))
    assert not shown.truncated


@cache
def sparse():
    env = smax.make(smax.Config(reward="sparse"))
    return env, jax.jit(env.step)


def test_same_key_same_battle():
    _env, reset, step = dense()
    state, _ = reset(jax.random.key(3))
    twice = [step(state, jnp.full(3, 1), jax.random.key(4))[1] for _ in range(2)]
    jax.tree.map(np.testing.assert_array_equal, *twice)
    assert not np.array_equal(reset(jax.random.key(5))[1].obs, reset(jax.random.key(6))[1].obs)


def test_alone_as_inside_a_batch():
    _env, reset, step = dense()
    batch, key = battles()[0], jax.random.key(0)
    state, shown = reset(jax.random.split(key, 64)[0])
    for t, step_key in enumerate(jax.random.split(key, 100)[:8]):
        state, shown = step(state, attack(shown), jax.random.split(step_key, 65)[0])
        np.testing.assert_allclose(shown.obs, batch.obs[t + 1, 0], atol=1e-5)
        np.testing.assert_allclose(shown.reward, batch.reward[t + 1, 0], atol=1e-5)


def test_picture_shows_the_living():
    env, reset, _ = dense()
    state, _ = reset(jax.random.key(0))
    alive = jnp.array([True, False, False, False, False, False])
    both, one = env.render(state), env.render(state.replace(state=state.state.replace(unit_alive=alive)))
    assert (both.shape, both.dtype) == ((300, 300, 3), np.uint8)
    blue = [np.all(picture == _raster.BLUE, axis=-1).sum() for picture in (both, one)]
    red = [np.all(picture == _raster.RED, axis=-1).sum() for picture in (both, one)]
    assert blue[0] > 2 * blue[1] > 0
    assert red[0] > 0 == red[1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scenario": "2s3s"}, "Did you mean 2s3z"),
        ({"scenario": "MMM3"}, "Did you mean MMM"),
        ({"scenario": "corridor"}, "corridor_open"),
        ({"scenario": "4m"}, "27m_vs_30m"),
        ({"reward": "shaped"}, "dense, sparse"),
        ({"attack_mode": "nearest"}, "closest"),
        ({"max_steps": 0}, "max_steps"),
    ],
)
def test_refusals(settings, message):
    with pytest.raises(RefusedError, match=message):
        smax.make(smax.Config(**settings))


def test_missing_jaxmarl_is_refused_with_a_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "jaxmarl.environments.smax", None)  # makes the import fail
    monkeypatch.delitem(sys.modules, "jaxmarl.environments.smax")
    monkeypatch.setattr(_jaxmarl.importlib, "import_module", lambda name: (_ for _ in ()).throw(ImportError("gone")))
    with pytest.raises(RefusedError, match="pip install jaxmarl"):
        import_jaxmarl("smax")


def test_import_leaves_the_process_as_it_was(monkeypatch, capsys):
    """A stand-in for jaxmarl's import, which does all three."""
    stdout, stderr, show = sys.stdout, sys.stderr, print

    def noisy(name):
        print("Importing submoduled environments...")
        sys.stdout, sys.stderr = io.StringIO(), io.StringIO()
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        return sys

    monkeypatch.setattr(_jaxmarl.importlib, "import_module", noisy)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert import_jaxmarl("nothing") is sys
    assert (sys.stdout, sys.stderr, print) == (stdout, stderr, show)
    assert capsys.readouterr().out == ""
