"""The particle environments against jaxmarl's own, driven side by side. FACMAC's are in test_pred_prey.py."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxshare.envs._jaxmarl import import_jaxmarl, lenient
from jaxshare.envs.mpe import environment as mpe
from jaxshare.envs.mpe.originals import prey_moves
from jaxshare.envs.mpe.particles import without_self
from jaxshare.envs.mpe.prey import flee_action
from jaxshare.envs.mpe.settings import FROM_JAXMARL
from jaxshare.types import RefusedError

SIZES = {  # agents, obs, state, actions, groups
    "spread": (3, 18, 54, 5, (0, 0, 0)),
    "tag": (3, 16, 48, 5, (0, 0, 0)),
    "speaker_listener": (2, 11, 22, 5, (0, 1)),
    "sparse_tag": (3, 16, 48, 5, (0, 0, 0)),
    "sparse_tag_dense_penalty": (3, 16, 48, 5, (0, 0, 0)),
    "CN_3ls3l": (3, 10, 18, 5, (0, 0, 0)),
    "CN_4ls4l": (4, 10, 24, 5, (0, 0, 0, 0)),
    "PP_3p1p": (3, 10, 20, 5, (0, 0, 0)),
}


@cache
def compiled(scenario, **settings):
    env = mpe.make(mpe.Config(scenario=scenario, **settings))
    return env, jax.jit(env.reset), jax.jit(env.step)


@pytest.mark.parametrize(("scenario", "sizes"), SIZES.items())
def test_sizes(scenario, sizes):
    spec = compiled(scenario)[0].spec
    assert (spec.num_agents, spec.obs_dim, spec.state_dim, spec.action.num_actions, spec.groups) == sizes
    assert spec.episode_limit == 25


def test_spread_with_five_agents():
    spec = mpe.make(mpe.Config(num_agents=5)).spec
    assert (spec.num_agents, spec.obs_dim, spec.state_dim) == (5, 30, 150)


@pytest.mark.parametrize(("scenario", "predators"), [("tag", 2), ("tag", 4)])
def test_tag_with_other_numbers_of_predators(scenario, predators):
    env = mpe.make(mpe.Config(scenario=scenario, num_agents=predators))
    _, shown = jax.eval_shape(env.reset, jax.random.key(0))
    assert shown.obs.shape == (predators, env.spec.obs_dim)
    assert shown.state.shape == (env.spec.state_dim,)


def reference(scenario, limit):
    package = import_jaxmarl("mpe")
    kinds = {"spread": "SimpleSpreadMPE", "tag": "SimpleTagMPE", "speaker_listener": "SimpleSpeakerListenerMPE"}
    return getattr(package, kinds[scenario])(max_steps=limit)


@pytest.mark.parametrize("scenario", FROM_JAXMARL)
def test_same_as_jaxmarl_and_exactly_25_steps(scenario):
    env, reset, step = compiled(scenario)
    game = reference(scenario, 24)
    their_step = jax.jit(lenient(game.step_env))
    state, shown = reset(jax.random.key(3))
    their_obs, their_state = lenient(game.reset)(jax.random.key(3))
    prey = prey_moves(game, [a for a in game.agents if a != "agent_0"], "flee") if scenario == "tag" else None
    learners = game.agents[: env.spec.num_agents]
    for t in range(25):
        for i, agent in enumerate(learners):
            width = their_obs[agent].shape[0]
            np.testing.assert_allclose(shown.obs[i, :width], their_obs[agent], atol=1e-6)
            assert np.all(shown.obs[i, width:] == 0)
        np.testing.assert_array_equal(shown.state, shown.obs.reshape(-1))
        action = [(t + i) % game.action_spaces[agent].n for i, agent in enumerate(learners)]
        actions = {agent: jnp.int32(a) for agent, a in zip(learners, action, strict=True)}
        if prey is not None:
            actions |= prey(their_state, jax.random.key(t))
        their_obs, their_state, rewards, dones, _ = their_step(jax.random.key(t), their_state, actions)
        state, shown = step(state, jnp.array(action, jnp.int32), jax.random.key(t))
        np.testing.assert_allclose(shown.reward, [rewards[agent] for agent in learners], atol=1e-5)
        assert not shown.terminated
        assert bool(shown.truncated) == bool(dones["__all__"]) == (t == 24)


@pytest.mark.parametrize(
    ("scenario", "ratio", "common"), [("spread", 0.5, False), ("spread", 0.0, True), ("tag", 0.5, True)]
)
def test_common_reward_only_where_it_is(scenario, ratio, common):
    assert mpe.make(mpe.Config(scenario=scenario, local_ratio=ratio)).spec.common_reward is common


def test_common_reward_of_spread_is_common():
    _env, reset, step = compiled("spread", local_ratio=0.0)
    state, _ = reset(jax.random.key(1))
    _, shown = step(state, jnp.array([1, 2, 3]), jax.random.key(2))
    assert len(set(shown.reward.tolist())) == 1
    assert shown.reward[0] < 0


def test_padded_actions_are_never_available():
    _env, reset, step = compiled("speaker_listener")
    state, shown = reset(jax.random.key(0))
    want = [[True, True, True, False, False], [True] * 5]
    assert shown.avail.tolist() == want
    assert step(state, jnp.array([2, 4]), jax.random.key(0))[1].avail.tolist() == want


def test_listener_hears_the_speaker():
    _env, reset, step = compiled("speaker_listener")
    state, _ = reset(jax.random.key(0))
    for word in range(3):
        _, shown = step(state, jnp.array([word, 0]), jax.random.key(0))
        np.testing.assert_array_equal(shown.obs[1, -3:], np.eye(3)[word])


@pytest.mark.parametrize(
    ("position", "predator", "move"),
    [
        ((0.0, 0.0), (0.3, 0.0), 1),
        ((0.0, 0.0), (-0.3, 0.0), 2),
        ((0.0, 0.0), (0.0, 0.3), 3),
        ((0.0, 0.0), (0.0, -0.3), 4),
    ],
)
def test_prey_flees(position, predator, move):
    assert int(flee_action(jnp.array(position), jnp.array([predator, (2.0, 2.0)]))) == move


def test_prey_stays_inside_the_arena():
    cornered = flee_action(jnp.array([0.95, 0.0]), jnp.array([[0.5, 0.02]]))
    assert int(cornered) == 3  # not 2, through the wall


def test_fleeing_prey_is_caught_less_than_a_random_one():
    def returns(prey):
        env = mpe.make(mpe.Config(scenario="tag", prey=prey))

        def chase(carry, _):
            state, key = carry
            gap = state.p_pos[3:4] - state.p_pos[:3]
            axis = jnp.argmax(jnp.abs(gap), axis=1)
            towards = jnp.take_along_axis(gap, axis[:, None], axis=1)[:, 0] > 0
            key, key_step = jax.random.split(key)
            state, shown = env.step(state, (1 + 2 * axis + towards).astype(jnp.int32), key_step)
            return (state, key), (shown.reward[0], jnp.max(jnp.abs(state.p_pos[3])))

        def episode(key):
            return jax.lax.scan(chase, (env.reset(key)[0], key), None, 25)[1]

        return jax.jit(jax.vmap(episode))(jax.random.split(jax.random.key(0), 64))

    fled, where = returns("flee")
    wandered, _ = returns("random")
    assert float(fled.sum(1).mean()) < 0.7 * float(wandered.sum(1).mean())
    assert float(jnp.quantile(where, 0.99)) < 1.5


def test_same_key_same_episode_and_vmap():
    env, reset, step = compiled("tag", prey="random")
    keys = jax.random.split(jax.random.key(0), 3)
    states, shown = jax.jit(jax.vmap(env.reset))(keys)
    _, later = jax.jit(jax.vmap(env.step))(states, jnp.ones((3, 3), jnp.int32), keys)
    for i, key in enumerate(keys):
        state, _ = reset(key)
        _, one = step(state, jnp.ones(3, jnp.int32), key)
        np.testing.assert_allclose(one.obs, later.obs[i], atol=1e-5)
    assert not np.allclose(shown.obs[0], shown.obs[1])


def test_picture():
    env, reset, _ = compiled("speaker_listener")
    picture = env.render(reset(jax.random.key(0))[0])
    assert (picture.shape, picture.dtype) == ((300, 300, 3), np.uint8)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) == 4  # paper, agents, landmarks, goal


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scenario": "spred"}, "Did you mean spread"),
        ({"scenario": "tag", "prey": "flea"}, "flee"),
        ({"scenario": "speaker_listener", "num_agents": 3}, "exactly 2"),
        ({"num_agents": 1}, "at least 2"),
        ({"local_ratio": 1.5}, "local_ratio"),
        ({"max_steps": 0}, "max_steps"),
        ({"scenario": "sparse_tag", "num_agents": 1}, "at least 2"),
        ({"scenario": "CN_4ls4l", "num_agents": 3}, "exactly 4"),
        ({"scenario": "PP_3p1p", "num_agents": 4}, "exactly 3"),
        ({"scenario": "pred_prey_6a", "num_agents": 3}, "exactly 6"),
        ({"scenario": "pred_prey_3a", "view_radius": -1.0}, "view_radius"),
    ],
)
def test_refusals(settings, message):
    with pytest.raises(RefusedError, match=message):
        mpe.make(mpe.Config(**settings))


HUNTS = ("sparse_tag", "sparse_tag_dense_penalty")
OWN = (*HUNTS, "CN_3ls3l", "CN_4ls4l", "PP_3p1p")


@cache
def their_step(scenario):
    """jaxmarl's world with the bodies of the task; its prey takes numbers, so that it can go anywhere."""
    package = import_jaxmarl("mpe")
    if scenario in ("CN_3ls3l", "CN_4ls4l"):
        n = int(scenario[3])
        game = package.SimpleSpreadMPE(num_agents=n, num_landmarks=n, action_type="Continuous")
    else:
        game = package.SimpleTagMPE(action_type="Continuous")
        if scenario in HUNTS:
            game.max_speed = game.max_speed.at[3].set({"sparse_tag": 0.3}.get(scenario, 0.5))
    return game, jax.jit(lenient(game.step_env))


def their_actions(game, state, action, scenario):
    """Five numbers per agent: nothing, left, right, down, up."""
    pushes = [np.eye(5)[a] for a in action]
    if scenario in HUNTS:
        pushes.append(np.eye(5)[int(flee_action(state.position[3], state.position[:3]))])
    elif scenario == "PP_3p1p":
        place = np.asarray(state.position, np.float64)
        away = place[3] - place[np.argmin(np.linalg.norm(place[:3] - place[3], axis=1))]
        x, y = away / np.linalg.norm(away)
        pushes.append(np.array([0, max(-x, 0), max(x, 0), max(-y, 0), max(y, 0)]))
    return {agent: jnp.asarray(p, jnp.float32) for agent, p in zip(game.agents, pushes, strict=True)}


def near_first(vectors, count):
    vectors = np.asarray(vectors).reshape(-1, 2)
    return vectors[np.argsort(np.linalg.norm(vectors, axis=1))][:count].reshape(-1)


def want_obs(scenario, obs):
    """The observation of one agent, from that of jaxmarl: own velocity, place, landmarks, others, (prey velocity)."""
    obs = np.asarray(obs)
    if scenario in HUNTS:
        return obs
    if scenario == "PP_3p1p":
        mates, prey = obs[8:12], obs[12:14]
        return np.concatenate([obs[:4], near_first(mates, 1), prey, obs[14:]])
    n = int(scenario[3])
    landmarks, mates = np.split(obs[4 : 4 + 2 * n + 2 * (n - 1)], [2 * n])
    return np.concatenate([obs[:4], near_first(mates, 1), near_first(landmarks, 2)])


def charge(x):
    x = abs(x)
    return 0.0 if x < 0.9 else 10 * (x - 0.9) if x < 1.0 else min(np.exp(2 * x - 2), 10.0)


def want_reward(scenario, rewards, place):
    if scenario.startswith("CN"):
        return [2 * sum(float(r) for r in rewards.values())] * len(rewards)
    gap = np.linalg.norm(place[:3] - place[3], axis=1)
    if scenario == "PP_3p1p":
        return [float(rewards["adversary_0"]) - gap.sum()] * 3
    caught = float(np.sum(gap < 0.225) >= 2)
    if scenario == "sparse_tag":
        outside = np.any(np.abs(place[:3]) > 1, axis=1)
        return float(np.sum(gap < 0.275) >= 2) * (gap < 0.275) - 0.05 * outside
    return [caught - sum(charge(x) for x in place[i]) for i in range(3)]


@pytest.mark.parametrize("scenario", OWN)
@pytest.mark.parametrize("crowding", [0.2, 1.0])
def test_tasks_of_papers_same_as_jaxmarl(scenario, crowding):
    env, reset, step = compiled(scenario)
    game, their = their_step(scenario)
    state, _ = reset(jax.random.key(7))
    state = state.replace(position=crowding * state.position)
    _, template = lenient(game.reset)(jax.random.key(0))
    for t in range(25):
        action = np.random.default_rng(t).integers(0, 5, env.spec.num_agents)
        theirs = template.replace(
            p_pos=jnp.concatenate([state.position, state.landmark]),
            p_vel=jnp.concatenate([state.velocity, jnp.zeros_like(state.landmark)]),
        )
        obs, theirs, rewards, _, _ = their(jax.random.key(0), theirs, their_actions(game, state, action, scenario))
        state, shown = step(state, jnp.asarray(action, jnp.int32), jax.random.key(t))
        moving = state.position.shape[0]
        np.testing.assert_allclose(state.position, theirs.p_pos[:moving], atol=1e-5)
        np.testing.assert_allclose(state.velocity, theirs.p_vel[:moving], atol=2e-4)
        want = [want_obs(scenario, obs[agent]) for agent in game.agents[: env.spec.num_agents]]
        np.testing.assert_allclose(shown.obs, want, atol=2e-4)
        place = np.asarray(theirs.p_pos, np.float64)
        np.testing.assert_allclose(shown.reward, want_reward(scenario, rewards, place), atol=1e-3)
        ends = scenario == "sparse_tag" and float(shown.info["caught"]) > 0
        assert (bool(shown.terminated), bool(shown.truncated)) == (ends, t == 24 and not ends)


@pytest.mark.parametrize(
    ("scenario", "common"), [*((hunt, False) for hunt in HUNTS), ("CN_3ls3l", True), ("PP_3p1p", True)]
)
def test_common_reward_of_the_tasks_of_papers(scenario, common):
    assert compiled(scenario)[0].spec.common_reward is common


@pytest.mark.parametrize(
    ("places", "caught"),
    [
        ([(0.2, 0.0), (0.0, 0.2), (0.8, 0.8)], 1.0),
        ([(0.2, 0.0), (0.0, 0.2), (-0.2, 0.0)], 1.0),
        ([(0.2, 0.0), (0.0, 0.3), (0.8, 0.8)], 0.0),
    ],
)
def test_sparse_tag_dense_penalty_pays_for_two_adjacent_predators(places, caught):
    _env, reset, step = compiled("sparse_tag_dense_penalty", prey="random")
    state, _ = reset(jax.random.key(0))
    state = state.replace(position=jnp.array([*places, (0.0, 0.0)]), landmark=jnp.array([[-0.8, 0.8], [0.8, -0.8]]))
    _, shown = step(state, jnp.zeros(3, jnp.int32), jax.random.key(0))  # places change with the velocity, now 0
    assert shown.reward.tolist() == [caught] * 3
    assert float(shown.info["caught"]) == caught


def test_sparse_tag_dense_penalty_charges_only_who_leaves():
    _env, reset, step = compiled("sparse_tag_dense_penalty")
    state, _ = reset(jax.random.key(0))
    state = state.replace(position=jnp.array([(0.95, 0.0), (0.0, -1.5), (0.5, 0.5), (-0.5, -0.5)]))
    _, shown = step(state, jnp.zeros(3, jnp.int32), jax.random.key(0))
    np.testing.assert_allclose(shown.reward, [-0.5, -np.exp(1.0), 0.0], rtol=1e-5)


def test_state_of_the_tasks_of_sit_is_the_whole_world():
    _env, reset, _ = compiled("PP_3p1p")
    state, shown = reset(jax.random.key(0))
    whole = [state.velocity.ravel(), state.position.ravel(), state.landmark.ravel()]
    np.testing.assert_array_equal(shown.state, np.concatenate(whole))


def test_without_self_drops_the_diagonal():
    pairs = jnp.arange(32).reshape(4, 4, 2)
    want = [[pairs[i, j] for j in range(4) if j != i] for i in range(4)]
    np.testing.assert_array_equal(without_self(pairs), want)


@pytest.mark.parametrize("scenario", OWN)
def test_picture_of_the_tasks_of_papers(scenario):
    env, reset, _ = compiled(scenario)
    picture = env.render(reset(jax.random.key(0))[0])
    assert (picture.shape, picture.dtype) == ((300, 300, 3), np.uint8)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) == (3 if scenario.startswith("CN") else 4)
