"""`env=jaxmarl`: every id by its shapes, a handful by playing them beside jaxmarl's own."""

import importlib
from functools import cache
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxshare.envs._jaxmarl import import_jaxmarl, lenient
from jaxshare.envs.jaxmarl import environment as door
from jaxshare.envs.jaxmarl.actions import common_actions
from jaxshare.envs.jaxmarl.groups import group_agents
from jaxshare.envs.jaxmarl.ids import BRAX, LEARNED, ROBOTARIUM
from jaxshare.envs.jaxmarl.views import agent_views
from jaxshare.envs.mpe import environment as mpe
from jaxshare.envs.smax import environment as smax
from jaxshare.types import Box, Discrete, RefusedError


@cache
def made(name, max_steps=None, common_reward=False, **kwargs):
    env = door.make(door.Config(id=name, max_steps=max_steps, common_reward=common_reward, kwargs=kwargs))
    return env, jax.jit(env.reset), jax.jit(env.step)


def play(name, actions, key=0, **settings):
    """The steps of one episode under the given joint actions."""
    _env, reset, step = made(name, **settings)
    state, first = reset(jax.random.key(key))
    shown = [first]
    for t, action in enumerate(actions):
        state, latest = step(state, jnp.asarray(action), jax.random.key(t))
        shown.append(latest)
    return state, shown


def ends(shown):
    return [(bool(x.terminated), bool(x.truncated)) for x in shown]


def registered():
    import_jaxmarl("spaces")
    return importlib.import_module("jaxmarl.registration").registered_envs


def test_the_ids_are_those_of_jaxmarl():
    assert set(door.scenarios()) == set(registered()) - {LEARNED, *BRAX, *ROBOTARIUM}


@pytest.mark.parametrize("name", door.scenarios())
def test_shapes_agree_with_the_spec(name):
    env = made(name)[0]
    spec, key = env.spec, jax.random.key(0)
    n, discrete = spec.num_agents, isinstance(spec.action, Discrete)
    action = jax.ShapeDtypeStruct((n,) if discrete else (n, spec.action.dim), jnp.int32 if discrete else jnp.float32)
    state, first = jax.eval_shape(env.reset, key)
    next_state, later = jax.eval_shape(env.step, state, action, key)
    for shown in (first, later):
        assert (shown.obs.shape, shown.state.shape) == ((n, spec.obs_dim), (spec.state_dim,))
        assert shown.avail.shape == (n, spec.action.num_actions if discrete else 0)
        assert {shown.obs.dtype, shown.state.dtype, shown.reward.dtype} == {jnp.dtype(jnp.float32)}
    kinds = [
        jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree) for tree in ((state, first), (next_state, later))
    ]
    assert kinds[0] == kinds[1], "a scan carry must keep its type"


LIMITS = {"switch_riddle": 6, "overcooked": 400, "coin_game": 100, "storm": 152, "MPE_simple_tag_v3": 25, "SMAX": 100}


@pytest.mark.parametrize(("name", "limit"), LIMITS.items())
def test_the_limit_is_that_of_jaxmarl(name, limit):
    assert made(name)[0].spec.episode_limit == limit


def test_switch_riddle_tells_the_limit_from_the_end():
    nothing, tell = [0, 0, 0], [2, 2, 2]
    _, shown = play("switch_riddle", [nothing] * 6)
    assert ends(shown) == [(False, False)] * 6 + [(False, True)]
    assert all(float(x.reward.sum()) == 0 for x in shown)
    _, shown = play("switch_riddle", [nothing, tell])
    assert ends(shown)[-1] == (True, False)
    assert shown[-1].reward.tolist() == [-1.0] * 3
    _, shown = play("switch_riddle", [nothing] * 5 + [tell])
    assert ends(shown)[-1] == (True, False), "told on the last step: an end, not a cut"
    _, shown = play("switch_riddle", [nothing] * 9, max_steps=9)
    assert ends(shown) == [(False, False)] * 9 + [(False, True)], "longer than jaxmarl's own limit"
    assert made("switch_riddle", num_agents=5)[0].spec.episode_limit == 14


def test_switch_riddle_shows_what_jaxmarl_shows():
    state, shown = play("switch_riddle", [[0, 0, 0]] * 3)
    room = [int(np.argmax(x.obs[:, 0])) for x in shown]
    assert all(x.obs[:, 0].sum() == 1 for x in shown)
    assert room[-1] == int(state.game.agent_in_room)
    assert np.all(shown[0].avail)
    assert np.all(shown[-1].alive)


def test_coin_game_runs_through_its_inner_games():
    rng = np.random.default_rng(0)
    actions = rng.integers(0, 5, (23, 2))
    _, shown = play("coin_game", actions, max_steps=23)
    assert ends(shown) == [(False, False)] * 23 + [(False, True)]
    rewards = np.array([x.reward for x in shown])
    assert np.any(rewards[:, 0] != rewards[:, 1]), "each has its own reward"
    _, summed = play("coin_game", actions, max_steps=23, common_reward=True)
    np.testing.assert_array_equal([x.reward for x in summed], np.repeat(rewards.sum(1, keepdims=True), 2, 1))
    assert [made("coin_game", 23, c)[0].spec.common_reward for c in (False, True)] == [False, True]


def test_shared_reward_is_not_summed_again():
    _, shown = play("switch_riddle", [[2, 2, 2]], common_reward=True)
    assert shown[-1].reward.tolist() == [-1.0] * 3


@pytest.mark.slow
def test_overcooked_is_cut_at_the_limit_and_counts_down_to_it():
    settings = {"max_steps": 4, "layout": "coord_ring"}
    _, shown = play("overcooked", [[1, 3]] * 4, **settings)
    assert ends(shown) == [(False, False)] * 4 + [(False, True)]
    layouts = import_jaxmarl("overcooked").overcooked_layouts
    game = import_jaxmarl("overcooked").Overcooked(layout=layouts["coord_ring"], max_steps=4)
    obs, _ = lenient(game.reset)(jax.random.key(0))
    np.testing.assert_array_equal(shown[0].obs[1], np.asarray(obs["agent_1"]).reshape(-1))
    assert shown[0].obs.reshape(2, *obs["agent_0"].shape)[..., 25].all(), "few steps are left: the layer of urgency"


def test_spread_is_that_of_env_mpe_and_25_steps_long():
    actions = np.random.default_rng(1).integers(0, 5, (25, 3))
    _, shown = play("MPE_simple_spread_v3", actions, key=4)
    other = mpe.make(mpe.Config(scenario="spread"))
    state, first = other.reset(jax.random.key(4))
    step = jax.jit(other.step)
    np.testing.assert_allclose(shown[0].obs, first.obs, atol=1e-6)
    for t, action in enumerate(actions):
        state, want = step(state, jnp.asarray(action, jnp.int32), jax.random.key(t))
        np.testing.assert_allclose(shown[t + 1].obs, want.obs, atol=1e-5)
        np.testing.assert_allclose(shown[t + 1].reward, want.reward, atol=1e-5)
        assert ends([shown[t + 1]]) == [(False, t == 24)]


def test_smaller_agents_are_padded_and_masked():
    env, reset, _ = made("MPE_simple_speaker_listener_v4")
    _, shown = reset(jax.random.key(0))
    assert shown.avail.tolist() == [[True, True, True, False, False], [True] * 5]
    assert not shown.obs[0, 3:].any()
    assert (env.spec.groups, env.spec.group_names) == ((0, 1), ("speaker", "listener"))


def test_storm_reads_each_agent_out_of_joint_tables():
    table = np.arange(10).reshape(5, 2)
    seen = agent_views(
        SimpleNamespace(agents=[0, 1]), {"observations": jnp.ones((2, 1, 3)), "inventory": jnp.array(table)}
    )
    assert seen[1].tolist() == [1, 1, 1, 1, 3, 5, 7, 9, 6, 7, 8, 9], "picture, own column, what all show"


@pytest.mark.slow
def test_hanabi_offers_legal_moves_and_ends_before_the_limit():
    env, _reset, _step = made("hanabi")

    def turn(carry, key):
        state, shown, length, ended = carry
        action = jax.random.categorical(key, jnp.where(shown.avail, 0.0, -jnp.inf), axis=-1).astype(jnp.int32)
        state, shown = env.step(state, action, key)
        length += ~ended
        return (state, shown, length, ended | shown.terminated), (shown.truncated & ~ended, shown.avail.sum(-1))

    def game(key):
        state, shown = env.reset(key)
        start = (state, shown, jnp.zeros((), jnp.int32), jnp.zeros((), bool))
        return jax.lax.scan(turn, start, jax.random.split(key, env.spec.episode_limit))

    (_, _, length, ended), (cut, moves) = jax.jit(jax.vmap(game))(jax.random.split(jax.random.key(0), 64))
    assert bool(ended.all())
    assert not bool(cut.any())
    assert 5 < int(length.max()) < env.spec.episode_limit
    assert bool((moves[:, :3].min(axis=-1) == 1).all()), "who is not to move has one move: none"


@pytest.mark.slow
def test_smax_is_that_of_env_smax():
    settings = {"scenario": "3m"}
    env, reset, step = made("HeuristicEnemySMAX", 60, **settings)
    other = smax.make(smax.Config(scenario="3m", max_steps=60))
    their_step = jax.jit(other.step)
    state, shown = reset(jax.random.key(0))
    their_state, want = jax.jit(other.reset)(jax.random.key(0))
    for t in range(60):
        np.testing.assert_array_equal(shown.avail, want.avail)
        np.testing.assert_array_equal(shown.alive, want.alive)
        np.testing.assert_allclose(shown.obs, want.obs, atol=1e-5)
        np.testing.assert_allclose(10 * shown.reward, want.reward, atol=1e-4)
        assert ends([shown]) == ends([want])
        if t and ends([want]) != [(False, False)]:
            break
        action = jnp.argmax(jnp.where(want.avail, jnp.arange(want.avail.shape[1])[None], -1), axis=1).astype(jnp.int32)
        state, shown = step(state, action, jax.random.key(t))
        their_state, want = their_step(their_state, action, jax.random.key(t))
    assert not np.all(want.alive)
    assert env.spec.state_dim == other.spec.state_dim


def test_smax_offers_only_what_jaxmarl_allows():
    env, reset, _ = made("HeuristicEnemySMAX", **{"scenario": "3m"})
    _, shown = reset(jax.random.key(0))
    assert env.spec.num_agents == 3
    assert shown.avail[:, :5].all()
    assert not shown.avail[:, 5:].any(), "no enemy is near at the start"


def box(low, high, dim):
    return door_spaces().Box(low, high, (dim,))


def door_spaces():
    return import_jaxmarl("spaces")


def test_boxes_of_different_size_are_padded():
    action, decode, _ = common_actions("x", [box(0.0, 1.0, 3), box(0.0, 1.0, 2)])
    assert action == Box(3, (0.0,) * 3, (1.0,) * 3)
    parts = decode(jnp.array([[0.1, 0.2, 0.3], [0.4, 2.0, 0.6]]))
    np.testing.assert_allclose(parts[0], [0.1, 0.2, 0.3])
    np.testing.assert_allclose(parts[1], [0.4, 1.0])


def test_boxes_of_different_bounds_are_scaled():
    action, decode, _ = common_actions("x", [box(0.0, 1.0, 2), box(-4.0, 4.0, 2)])
    assert action == Box(2, (-1.0,) * 2, (1.0,) * 2)
    first, second = decode(jnp.array([[-1.0, 0.0], [-0.5, 1.0]]))
    np.testing.assert_allclose(first, [0.0, 0.5])
    np.testing.assert_allclose(second, [-2.0, 4.0])


@pytest.mark.parametrize("kind", ["mixed", "multi", "unbounded"])
def test_actions_that_do_not_fit_are_refused(kind):
    spaces = door_spaces()
    both = {
        "mixed": [spaces.Discrete(3), box(0.0, 1.0, 2)],
        "multi": [spaces.MultiDiscrete([2, 2])] * 2,
        "unbounded": [box(-np.inf, np.inf, 2)] * 2,
    }
    with pytest.raises(RefusedError, match=r"env\.id=x"):
        common_actions("x", both[kind])


def test_types_of_agents():
    names = ["adversary_0", "adversary_1", "agent_0", "agent_1"]
    assert group_agents(names, [(4, 5)] * 4) == ((0, 0, 1, 1), ("adversary", "agent"))
    assert group_agents(["a_0", "a_1", "a_2"], [(8, 1), (9, 1), (8, 1)]) == ((0, 1, 0), ("a_0", "a_1"))
    assert group_agents([0, 1], [(4, 5)] * 2) == ((0, 0), ("agent",))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"id": "switch_ridle"}, "Did you mean switch_riddle"),
        ({"id": "LearnedPolicyEnemySMAX"}, "HeuristicEnemySMAX"),
        ({"id": "JaxRobotarium_rware"}, "checkout"),
        ({"max_steps": 0}, "max_steps"),
        ({"kwargs": {"num_agents": 2}}, "num_agents"),
        ({"kwargs": {"sides": 2}}, "sides"),
        ({"id": "overcooked", "kwargs": {"layout": "coord_rink"}}, "Did you mean coord_ring"),
        ({"id": "SMAX", "kwargs": {"scenario": "4q"}}, "4q"),
    ],
)
def test_refusals(settings, message):
    with pytest.raises(RefusedError, match=message):
        door.make(door.Config(**settings))


def test_brax_is_named_where_it_is_missing():
    if importlib.util.find_spec("brax") is not None:
        pytest.skip("brax is installed")
    with pytest.raises(RefusedError, match=r"pip install 'jaxmarl\[mabrax\]'"):
        door.make(door.Config(id="ant_4x2"))


def test_picture():
    env, reset, _ = made("coin_game", 23)
    picture = env.render(reset(jax.random.key(0))[0])
    assert (picture.shape, picture.dtype) == ((300, 300, 3), np.uint8)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) == 3  # zeros, ones, the line between agents
