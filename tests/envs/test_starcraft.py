"""`env=smac` and `env=smaclite` against stand-ins that follow the interfaces of the real packages, errors included.

StarCraft II cannot be had where these tests run.
"""

import importlib
import importlib.util
import pathlib
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxshare.envs import smaclite
from jaxshare.envs.smac import environment as smac
from jaxshare.envs.smac import maps
from jaxshare.types import RefusedError

STAND_INS = pathlib.Path(__file__).parent.parent / "stand_ins"


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """Puts a stand-in where `import` finds it, here and in workers."""

    def install(name):
        forget()
        importlib.invalidate_caches()
        monkeypatch.syspath_prepend(str(STAND_INS / name))
        monkeypatch.setenv("PYTHONPATH", str(STAND_INS / name))

    yield install
    forget()


def forget():
    """The stand-ins that were imported, so that the next one is found."""
    for module in [m for m in sys.modules if m.split(".")[0] in ("smac", "smaclite")]:
        del sys.modules[module]


@pytest.fixture
def game(installed, monkeypatch, tmp_path):
    """The package, the game and its maps."""
    installed("starcraft")
    (tmp_path / "Versions").mkdir()
    (tmp_path / "Maps" / "SMAC_Maps").mkdir(parents=True)
    for name in ("3m", "8m"):
        (tmp_path / "Maps" / "SMAC_Maps" / f"{name}.SC2Map").touch()
    monkeypatch.setenv("SC2PATH", str(tmp_path))
    return importlib.import_module("smac.env")


@pytest.fixture
def made():
    envs = []

    def make(module, **settings):
        envs.append(module.make(module.Config(**settings)))
        return envs[-1]

    yield make
    for env in envs:
        env.host.close()


def attack(shown):
    """The first target in reach, otherwise east, or the only action of the dead."""
    shoot = jnp.argmax(shown.avail[..., 6:], axis=-1) + 6
    other = jnp.where(shown.avail[..., 0], 0, jnp.where(shown.avail[..., 4], 4, 1))
    return jnp.where(jnp.any(shown.avail[..., 6:], axis=-1), shoot, other).astype(jnp.int32)


def stop(shown):
    return jnp.where(shown.avail[..., 0], 0, 1).astype(jnp.int32)


def played(env, policy, slots=2, steps=None, seed=0):
    """[first, *later] TimeSteps as one, [T+1, slots, ...]; the mask of real steps [T, slots]."""

    def run(keys):
        state, first = jax.vmap(env.reset)(keys)

        def step(carry, _):
            state, shown, running = carry
            state, new = jax.vmap(env.step)(state, policy(shown), keys)
            return (state, new, running & ~(new.terminated | new.truncated)), (new, running)

        start = (state, first, jnp.ones(slots, bool))
        _, (later, running) = jax.lax.scan(step, start, length=steps or env.spec.episode_limit)
        return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, later), running

    return jax.device_get(jax.jit(run)(jax.random.split(jax.random.key(seed), slots)))


def last(running):
    return running.sum(0)


def test_spec_is_the_games_and_no_game_is_started_for_it(game, made):
    spec = made(smac, workers=0).spec
    assert (spec.num_agents, spec.obs_dim, spec.state_dim, spec.action.num_actions) == (3, 30, 45, 9)
    assert spec.episode_limit == 60
    assert spec.common_reward
    assert game.GAMES == []


def test_agents_are_of_the_types_of_the_map(game, made, monkeypatch):
    assert made(smac, workers=0).spec.group_names == ("marine",)
    assert set(maps.UNITS) == set(maps.LIMITS)
    for name, units in maps.UNITS.items():
        # a name counts what is ours, before what is the enemy's
        ours = [int(count) for count in re.findall(r"\d+", name.split("_vs_")[0])]
        if ours and name != "MMM2":
            assert list(units.values()) == ours, name

    # three of a kind are here; of another map's units nothing is believed that does not fit
    monkeypatch.setitem(maps.UNITS, "3m", {"medivac": 1, "marine": 2})
    spec = made(smac, workers=0).spec
    assert spec.groups == (0, 1, 1)
    assert spec.group_names == ("medivac", "marine")
    monkeypatch.setitem(maps.UNITS, "3m", {"medivac": 1, "marine": 7})
    assert made(smac, workers=0).spec.groups == (0, 0, 0)
    assert made(smac, workers=0).spec.group_names == ("unit",)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_won_battle(game, made, workers):
    env = made(smac, workers=workers)
    shown, running = played(env, attack, slots=4)
    for slot, end in enumerate(last(running)):
        assert shown.terminated[end, slot]
        assert not shown.truncated[end, slot]
        assert (shown.info["won"][1:, slot] * running[:, slot]).sum() == 1
        reward = (shown.reward[1:, slot, 0] * running[:, slot]).sum()
        assert reward == pytest.approx(20, abs=1e-4)  # as SMAC scales a win
        dead = ~shown.alive[: end + 1, slot]
        np.testing.assert_array_equal(shown.avail[: end + 1, slot, :, 0], dead)
        assert np.all(shown.obs[: end + 1, slot][dead] == 0)
    assert not shown.alive.all(), "somebody fell"


def test_same_as_driving_the_package(game, made):
    env = made(smac, workers=0)
    shown, running = played(env, attack, slots=1)
    seed = int(jax.random.bits(jax.random.split(jax.random.key(0), 1)[0], (), jnp.uint32))
    theirs = game.StarCraft2Env("3m", seed=seed)
    theirs.reset()
    for t in range(int(last(running)[0])):
        np.testing.assert_allclose(shown.obs[t, 0], theirs.get_obs(), atol=1e-6)
        np.testing.assert_allclose(shown.state[t, 0], theirs.get_state(), atol=1e-6)
        np.testing.assert_array_equal(shown.avail[t, 0], np.array(theirs.get_avail_actions(), bool))
        reward, ended, _ = theirs.step(np.asarray(attack(jax.tree.map(lambda x, t=t: x[t, 0], shown))))
        assert shown.reward[t + 1, 0].tolist() == pytest.approx([reward] * 3, abs=1e-5)
    assert ended


@pytest.mark.parametrize(("time_limit", "truncated"), [("truncated", True), ("terminated", False)])
def test_the_time_limit(game, made, time_limit, truncated, monkeypatch):
    monkeypatch.setitem(game.MAPS, "3m", (3, 3, 5))
    env = made(smac, workers=0, time_limit=time_limit)
    shown, running = played(env, stop)
    assert env.spec.episode_limit == 5
    assert running.all()
    assert shown.truncated[-1].tolist() == [truncated] * 2
    assert shown.terminated[-1].tolist() == [not truncated] * 2
    assert not shown.truncated[:-1].any()


def test_sparse_rewards_are_whole_and_the_dead_are_dead(game, made):
    env = made(smac, workers=0, reward="sparse")
    shown, running = played(env, attack, slots=4)
    assert ((shown.reward[1:, :, 0] * running).sum(0)).tolist() == [1] * 4
    assert set(np.unique(shown.reward)) == {0, 1}
    assert not shown.alive.all(), "although SMAC's death tracker stands still"
    shown, running = played(made(smac, workers=0, reward="sparse"), stop)
    assert ((shown.reward[1:, :, 0] * running).sum(0)).tolist() == [-1, -1]


def test_a_lost_connection_cuts_the_episode_and_leaks_no_game(game, made, monkeypatch):
    env = made(smac, workers=0)
    monkeypatch.setenv(game.LOST, "4")
    shown, running = played(env, stop)
    assert last(running).tolist() == [4, 4]
    assert shown.truncated[4].all()
    assert not shown.terminated.any()
    np.testing.assert_array_equal(shown.obs[4], shown.obs[3])
    assert shown.info["lost_connection"].sum(0).tolist() == [60 - 3] * 2  # shown on while the slot stands still
    monkeypatch.delenv(game.LOST)
    _, running = played(env, attack)
    assert (last(running) > 4).all()
    assert sum(alive for _, _, alive in game.GAMES) == 2, "one game for each slot, the others are ended"
    env.host.close()
    assert not any(alive for _, _, alive in game.GAMES)


def test_games_are_seeded_by_slot(game, made):
    env = made(smac, workers=0)
    played(env, stop, steps=1)
    first = [seed for seed, _, _ in game.GAMES]
    assert len(set(first)) == 2
    played(made(smac, workers=0), stop, steps=1)
    assert [seed for seed, _, _ in game.GAMES[2:]] == first


def test_a_masked_action_is_the_packages_own_error(game, made):
    env = made(smac, workers=1)
    with pytest.raises(jax.errors.JaxRuntimeError):
        played(env, lambda shown: jnp.zeros((2, 3), jnp.int32))
    assert "AssertionError: Agent 0 cannot perform action 0" in str(env.host.error())


@pytest.mark.parametrize("workers", [0, 1])
def test_automls_smac_is_recognised(installed, made, workers):
    installed("automl")
    with pytest.raises(RefusedError, match=r"AutoML's SMAC3, not StarCraft: uninstall it.*oxwhirl"):
        made(smac, workers=workers)


def test_what_is_missing_is_named(game, made, monkeypatch, tmp_path):
    with pytest.raises(RefusedError, match=r"5m_vs_6m\.SC2Map is not under .*SMAC maps"):
        made(smac, scenario="5m_vs_6m", workers=0)
    with pytest.raises(RefusedError, match=r"StarCraft II is not in /no/such.*SC2PATH"):
        made(smac, workers=1, sc2path="/no/such")


@pytest.mark.skipif(bool(importlib.util.find_spec("smac")), reason="a package smac is installed here")
def test_without_the_package(made):
    with pytest.raises(RefusedError, match=r"No module named 'smac'.*oxwhirl.*AutoML"):
        made(smac, workers=1)
    with pytest.raises(RefusedError, match=r"No module named 'smaclite'.*Remedy"):
        made(smaclite)


@pytest.mark.parametrize(
    ("module", "settings", "message"),
    [
        (smac, {"scenario": "3n"}, "env.scenario=3n is not known. Did you mean 3m"),
        (smac, {"reward": "spare"}, "sparse"),
        (smac, {"time_limit": "never"}, "truncated, terminated"),
        (smaclite, {"scenario": "3m"}, "env.scenario=3m is not known"),
        (smaclite, {"map_file": "own.json"}, "env.max_steps=None"),
        (smaclite, {"max_steps": 0}, "env.max_steps=0"),
    ],
)
def test_refusals(made, module, settings, message):
    with pytest.raises(RefusedError, match=message):
        made(module, **settings)


def test_smaclite(installed, made):
    installed("lite")
    env = made(smaclite, workers=0)
    spec = env.spec
    assert (spec.num_agents, spec.obs_dim, spec.state_dim, spec.action.num_actions) == (5, 7, 9, 11)
    assert spec.episode_limit == 120
    shown, running = played(env, attack)
    assert last(running).tolist() == [5, 5]  # five shots in two steps, then four in each: 20
    assert shown.terminated[5].all()
    assert (shown.reward[1:, :, 0] * running).sum(0).tolist() == [20, 20]
    assert shown.info["won"][5].tolist() == [1, 1]
    assert shown.alive[2].tolist() == [[True, True, True, False, True]] * 2
    assert shown.avail[2, 0, 3].tolist() == [True] + [False] * 10


def test_smaclite_lost_cut_and_sparse(installed, made):
    installed("lite")
    shown, running = played(made(smaclite, workers=0, reward="sparse"), stop)
    assert last(running).tolist() == [30, 30]
    assert (shown.reward[1:, :, 0] * running).sum(0).tolist() == [-1, -1]
    shown, running = played(made(smaclite, workers=0, max_steps=7), stop)
    assert last(running).tolist() == [7, 7]
    assert shown.truncated[7].all()
    assert not shown.terminated.any()
    assert made(smaclite, workers=0, map_file="own.json", max_steps=9).spec.episode_limit == 9
