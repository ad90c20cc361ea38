"""FACMAC's predator-prey against a slow reference in numpy, written from the published facts, one body at a time."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxshare.envs.mpe import environment as mpe
from jaxshare.envs.mpe import pred_prey
from jaxshare.envs.mpe.settings import PRED_PREY
from jaxshare.types import Box

OBS_DIM = {"pred_prey_3a": 16, "pred_prey_6a": 30, "pred_prey_9a": 44}
NAMES = list(OBS_DIM)


@cache
def compiled(name, **settings):
    env = mpe.make(mpe.Config(scenario=name, **settings))
    return env, jax.jit(env.reset), jax.jit(env.step)


class Reference:
    """The world as lists of bodies in double precision: predators, then prey, then landmarks."""

    def __init__(self, predators):
        self.predators, self.preys = predators, predators // 3
        self.moving = predators + self.preys
        self.size = [0.075] * predators + [0.05] * self.preys + [0.2] * (2 * self.preys)
        self.top = [1.0] * predators + [1.3] * self.preys

    def load(self, state):
        self.pos = [np.array(x, np.float64) for x in [*np.asarray(state.position), *np.asarray(state.landmark)]]
        self.vel = [np.array(x, np.float64) for x in np.asarray(state.velocity)]

    def dist(self, a, b):
        return float(np.hypot(*(self.pos[a] - self.pos[b])))

    def prey_thrust(self, who, points):
        hunter = min(range(self.predators), key=lambda p: self.dist(who, p))
        best, reach = np.zeros(2), -1.0
        for point in points:
            end = self.pos[who] + point
            if any(np.hypot(*(end - self.pos[p])) < 0.125 for p in range(self.predators)):
                continue
            far = np.hypot(*(end - self.pos[hunter]))
            if far > reach:
                best, reach = point, far
        return best

    def step(self, actions, points):
        force = [3.0 * np.asarray(a, np.float64) for a in actions]
        force += [self.prey_thrust(self.predators + j, points[j].astype(np.float64)) for j in range(self.preys)]
        for a in range(self.moving):
            for b in range(len(self.pos)):
                if a != b:
                    depth = np.logaddexp(0, -(self.dist(a, b) - self.size[a] - self.size[b]) / 1e-3) * 1e-3
                    force[a] = force[a] + 100.0 * (self.pos[a] - self.pos[b]) / self.dist(a, b) * depth
        self.clipped = 0
        for a in range(self.moving):
            self.vel[a] = 0.75 * self.vel[a] + 0.1 * force[a]
            speed = np.hypot(*self.vel[a])
            if speed > self.top[a]:
                self.vel[a] = self.vel[a] / speed * self.top[a]
                self.clipped += 1
        for a in range(self.moving):  # with the new velocity
            self.pos[a] = self.pos[a] + 0.1 * self.vel[a]

    def reward(self):
        pairs = [(a, b) for a in range(self.predators) for b in range(self.predators, self.moving)]
        return 10.0 * sum(self.dist(a, b) < 0.125 for a, b in pairs)

    def observe(self, who, radius):
        def seen(other, what):
            return what if self.dist(who, other) <= radius else np.zeros(2)

        others = [b for b in range(self.moving) if b != who]
        parts = [self.vel[who], self.pos[who]]
        parts += [seen(b, self.pos[b] - self.pos[who]) for b in range(self.moving, len(self.pos))]
        parts += [seen(b, self.pos[b] - self.pos[who]) for b in others]
        parts += [seen(b, self.vel[b]) for b in others if b >= self.predators]
        return np.concatenate(parts)


@pytest.mark.parametrize("name", NAMES)
def test_sizes(name):
    spec = compiled(name)[0].spec
    count = PRED_PREY[name]
    assert (spec.num_agents, spec.obs_dim, spec.state_dim) == (count, OBS_DIM[name], count * OBS_DIM[name])
    assert spec.action == Box(2, (-1.0, -1.0), (1.0, 1.0))
    assert (spec.episode_limit, spec.common_reward, spec.groups) == (25, True, (0,) * count)


@pytest.mark.parametrize("name", NAMES)
def test_same_as_the_reference(name):
    env, reset, step = compiled(name, view_radius=0.6)
    reference = Reference(env.spec.num_agents)
    state, _ = reset(jax.random.key(5))
    state = state.replace(position=0.15 * state.position, landmark=0.6 * state.landmark)  # crowded: contacts
    contacts, clipped, hidden = 0, 0, 0
    for t in range(25):
        key = jax.random.key(t)
        action = jax.random.uniform(key, (env.spec.num_agents, 2), minval=-1.0, maxval=1.0)
        action = action.at[0].set(1.0)  # one that reaches full speed
        points = np.asarray(pred_prey.disc_points(key, reference.preys)).transpose(0, 2, 1)
        reference.load(state)
        reference.step(np.asarray(action), points)
        state, shown = step(state, action, key)
        np.testing.assert_allclose(state.position, reference.pos[: reference.moving], atol=2e-5)
        np.testing.assert_allclose(state.velocity, reference.vel, atol=2e-4)
        np.testing.assert_array_equal(shown.reward, np.full(env.spec.num_agents, reference.reward()))
        reference.load(state)  # what is seen and earned is judged from the very same numbers
        want = [reference.observe(i, 0.6) for i in range(env.spec.num_agents)]
        np.testing.assert_allclose(shown.obs, want, atol=1e-5)
        np.testing.assert_array_equal(shown.state, shown.obs.reshape(-1))
        contacts, clipped = contacts + (reference.reward() > 0), clipped + reference.clipped
        hidden += np.sum(np.asarray(want)[:, 4:] == 0)
        assert not shown.terminated
        assert bool(shown.truncated) == (t == 24)
    assert min(contacts, clipped, hidden) > 0, "the episode must show every branch"


def test_prey_goes_to_the_free_point_farthest_from_the_nearest_predator():
    points = jnp.array([[[1.0, -0.5, 0.0], [0.0, 0.0, 0.6]]])
    hunted = jnp.zeros((1, 2))
    choose = jax.jit(pred_prey.farthest_point)
    free = choose(hunted, jnp.array([[-0.3, 0.0], [0.0, 2.0]]), points)
    np.testing.assert_allclose(free, [[1.0, 0.0]])
    guarded = choose(hunted, jnp.array([[-0.3, 0.0], [1.0, 0.1]]), points)  # a predator stands on the best point
    np.testing.assert_allclose(guarded, [[0.0, 0.6]], atol=1e-6)
    trapped = choose(hunted, jnp.array([[-0.5, 0.1], [1.0, 0.1], [0.1, 0.6]]), points)
    np.testing.assert_array_equal(trapped, [[0.0, 0.0]])


def test_points_fill_the_unit_disc_evenly():
    x, y = np.moveaxis(np.asarray(jax.jit(pred_prey.disc_points, static_argnums=1)(jax.random.key(0), 40)), 1, 0)
    square = x**2 + y**2
    assert square.max() <= 1.0 + 1e-6
    assert abs(square.mean() - 0.5) < 0.02  # uniform in area: the squared radius is uniform
    assert abs(square.var() - 1 / 12) < 0.01
    assert max(abs(x.mean()), abs(y.mean()), abs((x * y).mean())) < 0.03


def test_start_states():
    _env, reset, _ = compiled("pred_prey_9a")
    states, shown = jax.jit(jax.vmap(reset))(jax.random.split(jax.random.key(0), 200))
    assert 0.98 < float(jnp.abs(states.position).max()) <= 1.0
    assert 0.88 < float(jnp.abs(states.landmark).max()) <= 0.9
    assert not states.velocity.any()
    assert not shown.reward.any()


def test_actions_outside_the_box_are_clipped():
    _env, reset, step = compiled("pred_prey_3a")
    state, _ = reset(jax.random.key(0))
    wild, _ = step(state, jnp.full((3, 2), 7.0), jax.random.key(1))
    tame, _ = step(state, jnp.ones((3, 2)), jax.random.key(1))
    np.testing.assert_array_equal(wild.position, tame.position)


def test_view_radius_hides_each_entity_by_itself():
    _env, reset, step = compiled("pred_prey_3a", view_radius=0.5)
    state, _ = reset(jax.random.key(0))
    corners = jnp.array([[0.0, 0.0], [0.9, 0.9], [-0.9, 0.9], [0.3, 0.0]])
    state = state.replace(position=corners, landmark=jnp.array([[-0.8, -0.8], [0.0, 0.4]]))
    _, shown = step(state, jnp.zeros((3, 2)), jax.random.key(0))
    hidden = np.all(np.asarray(shown.obs[0, 4:14]).reshape(5, 2) == 0, axis=1)
    assert hidden.tolist() == [True, False, True, True, False]  # two landmarks, two predators, the prey


def test_fleeing_prey_is_touched_less_than_a_random_one():
    def returns(prey):
        env = mpe.make(mpe.Config(scenario="pred_prey_3a", prey=prey))

        def wander(state, key):
            state, shown = env.step(state, jax.random.uniform(key, (3, 2), minval=-1.0, maxval=1.0), key)
            return state, shown.reward[0]

        def episode(key):
            return jax.lax.scan(wander, env.reset(key)[0], jax.random.split(key, 25))[1].sum()

        return float(jax.jit(jax.vmap(episode))(jax.random.split(jax.random.key(0), 512)).mean())

    assert returns("flee") < 0.4 * returns("random")


def test_picture():
    env, reset, _ = compiled("pred_prey_6a")
    picture = env.render(reset(jax.random.key(0))[0])
    assert (picture.shape, picture.dtype) == ((300, 300, 3), np.uint8)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) == 4  # paper, predators, prey, landmarks
