"""Windows: every stored transition is equally likely, nothing else is ever drawn, and ends stay ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_ring import KEY, STEPS, clock, episodes

from jaxshare.training import replay

LENGTHS = (4, 1, 3, 2, 4)  # of the episodes stored, of at most STEPS = 4 steps
CAPACITY = 7  # two slots are empty
gather, gather_windows = jax.jit(replay.gather), jax.jit(replay.gather_windows, static_argnums=3)


def ring_of(lengths, capacity=CAPACITY):
    """A ring of one episode of each length, numbered from 0 on; both kinds of end at the last step of each."""
    ring, add = replay.init(episodes(1), capacity, "float32"), jax.jit(replay.add)
    for first in range(0, len(lengths), capacity):
        group = [finished(first + i, length) for i, length in enumerate(lengths[first : first + capacity])]
        ring = add(ring, jax.tree.map(lambda *x: np.concatenate(x, axis=1), *group), clock(first))
    return ring


def finished(number, length):
    one, last = episodes(1, first=number, length=length), (np.arange(STEPS) == length - 1)[:, None]
    return one.replace(terminated=last & (number % 2 == 0), truncated=last & (number % 2 == 1))


@pytest.fixture(scope="module")
def ring():
    return ring_of(LENGTHS)


def drawn(ring, trials, batch_size=3):
    draw = lambda key: replay.uniform_transitions(key, replay.steps_stored(ring), batch_size)  # noqa: E731
    slot, step = jax.jit(jax.vmap(draw))(jax.random.split(KEY, trials))
    return np.asarray(slot), np.asarray(step)


def test_slots_are_counted(ring):
    assert replay.steps_stored(ring).tolist() == [*LENGTHS, 0, 0]


def test_every_stored_transition_is_equally_likely_and_no_other_is_drawn(ring):
    slot, step = drawn(ring, 6000)
    assert slot.dtype == step.dtype == np.int32
    count = np.zeros((CAPACITY, STEPS), int)
    np.add.at(count, (slot.ravel(), step.ravel()), 1)
    valid = np.arange(STEPS) < np.array([*LENGTHS, 0, 0])[:, None]
    assert count[~valid].sum() == 0
    expected = slot.size / valid.sum()
    chi_square, freedom = (np.square(count[valid] - expected) / expected).sum(), valid.sum() - 1
    assert chi_square < freedom + 5 * np.sqrt(2 * freedom)
    by_episode = count.sum(1)[:5] / slot.size
    np.testing.assert_allclose(by_episode, np.array(LENGTHS) / 14, atol=0.02)  # not 1/5 each


def test_draws_are_independent_within_a_batch(ring):
    slot, step = drawn(ring, 6000)
    rank = np.cumsum([0, *LENGTHS])[slot] + step
    same = (rank[:, 0] == rank[:, 1]).mean()
    np.testing.assert_allclose(same, 1 / 14, atol=5 * np.sqrt(1 / 14 / 6000))


def test_one_transition_and_a_ring_that_wrapped_around():
    slot, step = drawn(ring_of((1,)), 50)
    assert not slot.any()
    assert not step.any()
    wrapped = ring_of((4, 4, 4, 1, 2, 1, 3), capacity=3)  # the last three are left, the very last one in slot 0
    assert replay.steps_stored(wrapped).tolist() == [3, 2, 1]
    slot, step = drawn(wrapped, 500)
    assert np.all(step < np.array([3, 2, 1])[slot])
    assert {(s, t) for s, t in zip(slot.ravel(), step.ravel(), strict=True)} == {
        (0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0),
    }  # fmt: skip


def test_a_window_of_one_step_is_that_transition(ring):
    slot, step = jnp.array([0, 1, 2, 4]), jnp.array([0, 0, 2, 3])
    batch, whole = gather_windows(ring, slot, step, 1), gather(ring, slot)
    column = np.arange(4)
    for name in ("obs", "state", "avail", "alive"):
        stored = np.asarray(getattr(whole, name))
        np.testing.assert_array_equal(getattr(batch, name)[0], stored[step, column], err_msg=name)
        np.testing.assert_array_equal(getattr(batch, name)[1], stored[step + 1, column], err_msg=name)
    for name in ("action", "reward", "terminated", "truncated", "mask"):
        stored = np.asarray(getattr(whole, name))
        np.testing.assert_array_equal(getattr(batch, name)[0], stored[step, column], err_msg=name)
        assert len(getattr(batch, name)) == 1
    assert jax.tree.map(lambda x: x.dtype, batch) == jax.tree.map(lambda x: x.dtype, whole)
    np.testing.assert_array_equal(batch.extras["number"][0], [0, 1, 2, 4])
    assert batch.mask.tolist() == [[1, 1, 1, 1]]
    assert batch.terminated.tolist() == [[False, False, True, True]]  # episodes 0, 2, 4 end so, 1 and 3 the other way
    assert batch.truncated.tolist() == [[False, True, False, False]]


@pytest.mark.parametrize(
    ("slot", "step", "mask", "end"),
    [
        (0, 0, [1, 1, 1], [0, 0, 0]),  # cut off by the window: no end
        (0, 1, [1, 1, 1], [0, 0, 1]),
        (0, 3, [1, 0, 0], [1]),  # beyond the last slot of the ring
        (2, 1, [1, 1, 0], [0, 1]),  # beyond the end of a shorter episode
        (1, 0, [1, 0, 0], [1]),
    ],
)
def test_a_longer_window_ends_with_its_episode(ring, slot, step, mask, end):
    batch = gather_windows(ring, jnp.array([slot]), jnp.array([step]), 3)
    assert batch.obs.shape[0] == batch.avail.shape[0] == 4
    assert batch.reward.shape[0] == 3
    assert batch.mask[:, 0].tolist() == mask
    ended = (batch.terminated | batch.truncated)[: len(end), 0]
    assert ended.tolist() == [bool(e) for e in end]
    valid = int(sum(mask))
    whole = gather(ring, jnp.array([slot]))
    np.testing.assert_array_equal(batch.obs[: valid + 1], whole.obs[step : step + valid + 1])
    np.testing.assert_array_equal(batch.reward[:valid], whole.reward[step : step + valid])
    real = np.minimum(step + np.arange(4), STEPS)  # padding repeats rows of the ring, which have an action
    np.testing.assert_array_equal(batch.avail, np.asarray(whole.avail)[real])


@pytest.mark.slow
def test_rings_of_several_runs(ring):
    other = ring_of((2, 2, 1))
    both = jax.tree.map(lambda *x: jnp.stack(x), ring, other)
    keys = jax.random.split(KEY, 2)

    def draw(key, ring):
        return replay.gather_windows(ring, *replay.uniform_transitions(key, replay.steps_stored(ring), 3), 2)

    together = jax.jit(jax.vmap(draw))(keys, both)
    single = jax.jit(draw)
    for run, one in enumerate((ring, other)):
        alone = single(keys[run], one)
        jax.tree.map(lambda a, b, r=run: np.testing.assert_array_equal(a, b[r]), alone, together)
