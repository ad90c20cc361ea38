"""The episode ring: what is written is what is read, everywhere, in every dtype, and under vmap."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxshare.training import replay
from jaxshare.types import Clock, Episode, RefusedError

KEY = jax.random.key(0)
STEPS, AGENTS, ACTIONS = 4, 2, 3
EXACT = ("avail", "alive", "action", "reward", "terminated", "truncated", "mask")


def clock(stored):
    return Clock(*[jnp.int32(0)] * 3, stored=jnp.int32(stored))


def episodes(batch, first=0, length=STEPS, actions=ACTIONS):
    """`batch` random episodes numbered from `first` on (extras["number"]), each `length` steps long."""
    rng = np.random.default_rng(first)
    reached, mask = np.arange(STEPS + 1) <= length, np.arange(STEPS) < length
    slots, steps = reached[:, None, None], mask[:, None, None]
    normal = lambda *shape: rng.normal(size=shape)  # noqa: E731
    return Episode(
        obs=jnp.array(normal(STEPS + 1, batch, AGENTS, 2) * slots[..., None], jnp.float32),
        state=jnp.array(normal(STEPS + 1, batch, 3) * slots, jnp.float32),
        avail=jnp.array((normal(STEPS + 1, batch, AGENTS, actions) > 0) | ~slots[..., None]),
        alive=jnp.array((normal(STEPS + 1, batch, AGENTS) > 0) & slots),
        action=jnp.array(rng.integers(0, actions, (STEPS, batch, AGENTS)) * steps, jnp.int32),
        reward=jnp.array(normal(STEPS, batch, AGENTS) * steps, jnp.float32),
        terminated=jnp.array(normal(STEPS, batch) > 0),
        truncated=jnp.array(normal(STEPS, batch) > 0),
        mask=jnp.array(np.tile(mask[:, None], (1, batch)), jnp.float32),
        extras={"number": jnp.tile(first + jnp.arange(batch, dtype=jnp.float32), (STEPS, 1))},
    )


def numbers(ring):
    """The number of the episode in every slot."""
    return np.asarray(ring.extras["number"])[:, 0].tolist()


@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 0), ("bfloat16", 2**-8), ("float16", 2**-11)])
def test_what_is_written_is_what_is_read(dtype, rtol):
    written = episodes(4)
    ring = jax.jit(replay.add)(replay.init(written, 6, dtype), written, clock(1))
    assert ring.obs.dtype == ring.state.dtype == ("uint16" if dtype == "bfloat16" else dtype)  # its bits
    assert ring.reward.dtype == jnp.float32
    assert ring.action.dtype == jnp.uint8
    assert ring.mask.dtype == bool
    read = jax.jit(replay.gather)(ring, jnp.array([3, 1, 4, 2]))
    order = np.array([2, 0, 3, 1])
    assert jax.tree.map(lambda x: (x.shape, x.dtype), read) == jax.tree.map(lambda x: (x.shape, x.dtype), written)
    for name in (*EXACT, "obs", "state"):
        tolerance = rtol if name in replay.LOSSY else 0
        expected = np.asarray(getattr(written, name))[:, order]
        np.testing.assert_allclose(getattr(read, name), expected, rtol=tolerance, err_msg=name)
    np.testing.assert_array_equal(read.extras["number"], np.asarray(written.extras["number"])[:, order])


def test_an_unknown_dtype_is_refused():
    with pytest.raises(RefusedError, match=r"replay\.dtype=int16 .* bfloat16"):
        replay.init(episodes(1), 2, "int16")


def test_int8_keeps_what_is_within_one_and_marks_the_rest():
    written = episodes(3)
    inside = written.replace(obs=jnp.tanh(written.obs).at[0, 0, 0].set(jnp.array([-1.0, 1.0])), state=0 * written.state)
    ring = jax.jit(replay.add)(replay.init(inside, 3, "int8"), inside, clock(0))
    assert ring.obs.dtype == ring.state.dtype == jnp.int8
    assert not replay.any_outside(ring)
    read = replay.gather(ring, jnp.arange(3))
    np.testing.assert_allclose(read.obs, inside.obs, rtol=0, atol=0.5 / 126 + 1e-6)
    np.testing.assert_array_equal(read.obs[0, 0, 0], [-1.0, 1.0])
    np.testing.assert_array_equal(read.state, inside.state)
    for value in (1.0001, -7.0, np.nan):
        beyond = inside.replace(state=inside.state.at[1, 2, 0].set(value))
        marked = jax.jit(replay.add)(ring, beyond, clock(0))
        assert replay.any_outside(marked)
        np.testing.assert_array_equal(np.argwhere(np.isnan(replay.gather(marked, jnp.arange(3)).state)), [[1, 2, 0]])


@pytest.mark.parametrize("actions", [256, 257])
def test_many_actions_are_kept(actions):
    written = episodes(3, actions=actions)
    written = written.replace(action=jnp.full_like(written.action, actions - 1))
    read = replay.gather(replay.add(replay.init(written, 3, "float32"), written, clock(0)), jnp.arange(3))
    np.testing.assert_array_equal(read.action, written.action)


def test_the_ring_wraps_around_and_need_not_be_a_multiple():
    ring, add = replay.init(episodes(3), 5, "float32"), jax.jit(replay.add)
    seen = []
    for start in range(0, 12, 3):
        ring = add(ring, episodes(3, first=start), clock(start))
        seen.append(numbers(ring))
    assert seen == [[0, 1, 2, 0, 0], [5, 1, 2, 3, 4], [5, 6, 7, 8, 4], [10, 11, 7, 8, 9]]


def test_a_ring_of_exactly_one_rollout_is_replaced_each_time():
    ring = replay.init(episodes(3), 3, "float32")
    for start in (0, 3):
        ring = replay.add(ring, episodes(3, first=start), clock(start))
    assert numbers(ring) == [3, 4, 5]


def test_a_shorter_episode_leaves_no_tail_of_a_longer_one():
    long, short = episodes(2), episodes(2, first=2, length=1)
    ring = replay.init(long, 2, "float32")
    for start, written in ((0, long), (2, short)):
        ring = replay.add(ring, written, clock(start))
    read = replay.gather(ring, jnp.arange(2))
    jax.tree.map(np.testing.assert_array_equal, read, short)
    assert read.mask.sum(0).tolist() == [1, 1]
    assert bool(read.avail[2:].all())


def test_crop_keeps_the_last_observation():
    batch = episodes(3, length=2)
    short = replay.crop(batch, 2)
    for name in ("obs", "state", "avail", "alive"):
        np.testing.assert_array_equal(getattr(short, name), getattr(batch, name)[:3])
    for name in ("action", "reward", "terminated", "truncated", "mask"):
        np.testing.assert_array_equal(getattr(short, name), getattr(batch, name)[:2])
    assert short.extras["number"].shape == (2, 3)
    jax.tree.map(np.testing.assert_array_equal, replay.crop(batch, STEPS), batch)


def test_the_number_stored_grows_to_the_capacity():
    assert [int(replay.num_stored(clock(n), 5)) for n in (0, 3, 5, 12)] == [0, 3, 5, 5]


# ---- sampling


@pytest.mark.parametrize(("stored", "size"), [(10, 4), (6, 6), (16, 5)])
def test_samples_are_different_stored_and_uniform(stored, size):
    capacity, trials = 16, 4000
    draw = lambda key: replay.uniform_without_replacement(key, jnp.int32(stored), capacity, size, None)  # noqa: E731
    index = np.asarray(jax.jit(jax.vmap(draw))(jax.random.split(KEY, trials)))
    assert index.dtype == np.int32
    assert index.min() >= 0
    assert index.max() < stored
    assert np.all(np.diff(np.sort(index, axis=1), axis=1) > 0)
    share = size / stored
    frequency = np.bincount(index.ravel(), minlength=capacity) / trials
    sigma = np.sqrt(share * (1 - share) / trials)
    np.testing.assert_allclose(frequency[:stored], share, atol=5 * sigma + 1e-9)
    first = np.bincount(index[:, 0], minlength=capacity)[:stored] / trials
    np.testing.assert_allclose(first, 1 / stored, atol=5 * np.sqrt(1 / stored / trials))


# ---- memory and many runs


@pytest.mark.parametrize("dtype", replay.RING_DTYPES)
def test_bytes_are_counted_as_they_are(dtype):
    ring = replay.init(episodes(2), 7, dtype)
    real = sum(leaf.nbytes for leaf in jax.tree.leaves(ring))
    assert replay.num_bytes(ring) == real
    assert replay.num_bytes(replay.storage(episodes(2), 7, dtype)) == real
    wide = {"float32": 4, "int8": 1}.get(dtype, 2)
    slots = wide * (AGENTS * 2 + 3) + AGENTS * ACTIONS + AGENTS  # obs, state, avail, alive
    steps = AGENTS + 4 * AGENTS + 1 + 1 + 1 + 4  # action, reward, terminated, truncated, mask, number
    assert real == 7 * ((STEPS + 1) * slots + STEPS * steps)


def test_rings_under_vmap_share_one_clock():
    runs = [[episodes(3, first=100 * run + start) for start in (0, 3)] for run in range(2)]
    stack = lambda *x: jnp.stack(x)  # noqa: E731
    rings = jax.vmap(lambda e: replay.init(e, 5, "float32"))(jax.tree.map(stack, *[run[0] for run in runs]))
    add = jax.jit(jax.vmap(replay.add, in_axes=(0, 0, None)))
    for k, start in enumerate((0, 3)):
        rings = add(rings, jax.tree.map(stack, *[run[k] for run in runs]), clock(start))
    index = jnp.array([[0, 4], [2, 1]])
    together = jax.jit(jax.vmap(replay.gather))(rings, index)
    for run in range(2):
        ring = replay.init(runs[run][0], 5, "float32")
        for k, start in enumerate((0, 3)):
            ring = replay.add(ring, runs[run][k], clock(start))
        assert numbers(ring) == [n + 100 * run for n in (5, 1, 2, 3, 4)]
        alone = replay.gather(ring, index[run])
        jax.tree.map(lambda a, b, r=run: np.testing.assert_array_equal(a, b[r]), alone, together)


def test_writing_compiles_once_and_takes_one_place_for_all_runs():
    """The position comes from the un-batched clock, so it is no batched index inside the program."""
    written = episodes(3)
    rings = jax.tree.map(lambda x: jnp.stack([x, x]), replay.init(written, 5, "float32"))
    both = jax.tree.map(lambda x: jnp.stack([x, x]), written)
    program = jax.make_jaxpr(jax.vmap(replay.add, in_axes=(0, 0, None)))(rings, both, clock(2))
    scatters = [e for e in program.jaxpr.eqns if e.primitive.name == "scatter"]
    assert len(scatters) == len(jax.tree.leaves(written))
    assert all(e.invars[1].aval.shape == (3, 1) for e in scatters)  # indices: no axis of runs
