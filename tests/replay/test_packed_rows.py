"""Episodes end to end in rows: each is there once and whole, no row is overfull, and some shape always holds them."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from combinations import FAST, RUN, fading, parts_of, suited
from packed_cases import LENGTHS, both, ring_of

from jaxshare.settings.run_parts import ParallelConfig, ReplayConfig
from jaxshare.training import counting, packing
from jaxshare.training.counting import start_clock
from jaxshare.training.program import Program
from jaxshare.training.updating import Learning
from jaxshare.types import TrainState

LIMIT, BATCH = 20, 32


def draws(kind, count=60):
    """Lengths of many batches, [count, BATCH]."""
    rng = np.random.default_rng(0)
    if kind == "full":
        return np.full((count, BATCH), LIMIT)
    if kind == "one step":
        return np.ones((count, BATCH), int)
    if kind == "halves":  # two of the longer ones never share a row
        return rng.choice([LIMIT // 2, LIMIT // 2 + 1], (count, BATCH))
    return rng.integers(1, rng.integers(2, LIMIT + 1, (count, 1)) + 1, (count, BATCH))


def check(length, row, start, shape):
    steps, rows = shape
    taken = np.zeros((rows, steps + 1), int)
    for n, r, s in zip(length, row, start, strict=True):
        assert 0 <= r < rows
        assert s >= 0
        assert s + n <= steps
        taken[r, s : s + n + 1] += 1
    assert taken.max() == 1  # nobody's slot is another's
    assert taken.sum() == (length + 1).sum()


@pytest.mark.parametrize("kind", ["full", "one step", "halves", "any"])
def test_every_episode_is_placed_once_in_the_smallest_shape_that_holds_it(kind):
    shapes = packing.menu(LIMIT, BATCH)
    lengths = draws(kind)
    each = jax.jit(partial(jax.lax.map, partial(packing.choose, shapes=shapes)))
    choice, places = each(jnp.asarray(lengths, jnp.int32))
    for i, length in enumerate(lengths):
        chosen = int(choice[i])
        for k, (steps, rows) in enumerate(shapes):
            at = jax.tree.map(lambda x, i=i: np.asarray(x[i]), places[steps])
            holds = at.rows <= rows
            assert holds >= (k == chosen)
            assert not (holds and k < chosen)
            if k == chosen:
                check(length, at.row, at.start, (steps, rows))
    if kind == "one step":
        assert np.all(np.asarray(choice) == 0)
    if kind == "full":
        assert np.all(np.asarray(choice) == len(shapes) - 1)


def test_runs_of_a_device_take_the_first_shape_that_holds_the_batches_of_all():
    shapes = packing.menu(LIMIT, BATCH)
    lengths = jnp.asarray(draws("any"), jnp.int32)
    alone = jax.lax.map(lambda x: packing.choose(x, shapes)[0], lengths)
    pairs = lengths.reshape(-1, 2, BATCH)
    choice, places = jax.jit(jax.vmap(jax.vmap(partial(packing.choose, shapes=shapes))))(pairs)
    assert choice.shape == pairs.shape[:2]
    assert len(np.unique(choice)) == 1  # of all runs, also under a second vmap
    steps, rows = shapes[int(choice[0, 0])]
    assert np.all(np.asarray(places[steps].rows) <= rows)
    assert int(choice[0, 0]) >= int(alone.max())


def test_first_fit_is_from_the_longest_on():
    found = packing.first_fit(jnp.array([2, 5, 1, 3]), 6)  # sizes 3, 6, 2, 4 into rows of 7
    np.testing.assert_array_equal(found.row, [1, 0, 2, 1])
    np.testing.assert_array_equal(found.start, [4, 0, 0, 0])
    assert int(found.rows) == 3


@pytest.mark.parametrize("batch", [1, 2, 5, 32, 128])
@pytest.mark.parametrize("limit", [40, 100])
def test_shapes_hold_any_batch_and_grow(batch, limit):
    shapes = packing.menu(limit, batch)
    slots = [steps * rows for steps, rows in shapes]
    assert slots == sorted(set(slots))
    assert shapes[-1] == (limit, batch)
    assert all(steps >= limit for steps, _ in shapes)
    assert len(shapes) <= len(packing.MENU)


def test_what_is_packed_is_what_was_stored():
    ring = ring_of(fading().spec, LENGTHS)
    index = jnp.array([3, 0, 6, 1, 4, 5, 2])
    whole, packed = both(ring, index)
    lengths = np.array(LENGTHS)[np.asarray(index)]
    limit = whole.mask.shape[0]

    # every field of every slot of every episode, and of every step
    reached = np.arange(limit + 1)[:, None] <= lengths
    for name in ("obs", "state", "avail", "alive", "action", "reward", "terminated", "truncated", "mask"):
        drawn, expected = np.asarray(packing.as_drawn(packed, getattr(packed, name))), np.asarray(getattr(whole, name))
        real = reached if len(drawn) == limit + 1 else reached[1:]
        np.testing.assert_array_equal(drawn[real], expected[real], err_msg=name)
        assert not drawn[~real].any()
        back = packing.as_packed(packed, getattr(whole, name))
        where = np.asarray(packed.mask) > 0
        np.testing.assert_array_equal(np.asarray(back)[:limit][where], np.asarray(getattr(packed, name))[:limit][where])

    # what belongs to nobody counts for nothing, and breaks nothing
    assert packed.mask.sum() == lengths.sum()
    assert np.asarray(packed.avail).any(-1).all()
    assert all(np.isfinite(x).all() for x in (packed.obs, packed.state, packed.reward))
    assert packing.num_episodes(packed) == packing.num_episodes(whole) == len(lengths)
    ends = np.asarray(packing.ends(packed))[np.asarray(packed.mask) > 0]
    assert ends.sum() == len(lengths)


def test_a_step_whose_successor_is_not_stored_keeps_its_slot():
    """Data sets have such steps, of mask 0 behind the last real one: what was done there is looked at."""
    ring = ring_of(fading().spec, LENGTHS)
    mask = ring.mask.at[3, LENGTHS[3] - 1].set(False)
    np.testing.assert_array_equal(packing.lengths(ring.replace(mask=mask), jnp.arange(len(LENGTHS))), LENGTHS)


def test_episodes_are_repeated_with_their_places():
    ring = ring_of(fading().spec, LENGTHS)
    _, packed = both(ring, jnp.arange(len(LENGTHS)))
    twice = packing.repeated(packed, 2)
    for part in (packed, twice):
        drawn = np.asarray(packing.as_drawn(part, part.reward))
        np.testing.assert_array_equal(drawn[:, : len(LENGTHS)], packing.as_drawn(packed, packed.reward))
    np.testing.assert_array_equal(drawn[:, len(LENGTHS) :], drawn[:, : len(LENGTHS)])
    of_each = jnp.arange(2 * len(LENGTHS))[:, None]
    slots = packing.of_episodes(twice, of_each, len(twice.mask))[..., 0]
    np.testing.assert_array_equal(packing.as_drawn(twice, slots)[0], of_each[:, 0])


# ---- which runs


def program(algo="vdn", **run):
    env = suited(algo, fading())
    algorithm = parts_of(algo, (), env.spec, "all").assemble()
    return Program(env, algorithm, dataclasses.replace(RUN, **run))


def test_short_episodes_shards_and_packed_never_have_whole_rows(monkeypatch):
    made = program()
    assert not made.packs  # four steps are not worth more than one compiled update
    monkeypatch.setattr(counting, "MIN_CROPPED_LIMIT", 4)
    assert made.packs
    assert not dataclasses.replace(made, crop=False).packs
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert not made.packs
    assert program(replay=ReplayConfig(capacity=8, packed="always")).packs
    monkeypatch.undo()
    monkeypatch.setattr(counting, "MIN_CROPPED_LIMIT", 4)
    assert not program(replay=ReplayConfig(capacity=8, packed="never")).packs
    assert not program(parallel=ParallelConfig(shards=2)).packs
    assert not dataclasses.replace(made, algorithm=dataclasses.replace(made.algorithm, whole_rows="why")).packs


@pytest.mark.parametrize("algo", ["vdn", "bc"])  # from a replay, and from a data set
def test_a_program_that_packs_learns_what_one_that_does_not_learns(algo, monkeypatch):
    """The same draw from the ring, the same update, in the smallest shape that holds it and in another one."""
    monkeypatch.setattr(counting, "MIN_CROPPED_LIMIT", 4)
    monkeypatch.setattr(packing, "MENU", packing.MENU[-2:])  # less to compile
    made = [program(algo, replay=ReplayConfig(capacity=8, packed=packed)) for packed in ("auto", "never")]
    assert [one.packs for one in made] == [True, False]
    hparams = {name: jnp.float32(value) for name, value in made[0].algorithm.hparams.items()}
    clock = start_clock()._replace(stored=jnp.int32(8))
    learner = made[0].algorithm.init(jax.random.key(0))

    @partial(jax.jit, compiler_options=FAST)
    def updates(ring):
        ends = []
        for one in made:
            state = TrainState(jnp.int32(0), learner, ring, jnp.int32(0), jnp.int32(0))
            ends.append(one.update(state, one.context(state, hparams, clock), None, Learning(learner, clock)))
        return ends

    for lengths in ((1, 1, 1, 1, 1, 1, 1, 1), (4, 3, 4, 4, 3, 3, 4, 4)):
        (packed, of_packed), (whole, of_whole) = updates(ring_of(made[0].env.spec, lengths))
        assert int(packed.clock.updates) == int(whole.clock.updates) == 1
        close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
        jax.tree.map(close, (packed.learner, of_packed), (whole.learner, of_whole))


def conditionals(jaxpr):
    """How many branches each conditional of a program has, those inside loops included."""
    counts = []
    for equation in jaxpr.eqns:
        if equation.primitive.name == "cond":
            counts.append(len(equation.params["branches"]))
        for value in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                counts += conditionals(inner)
    return counts


@pytest.mark.parametrize("packed", ["auto", "never"])
def test_runs_under_vmap_compute_one_update_and_learn_what_they_learn_alone(packed, monkeypatch):
    """In one branch of the conditional, not in all of them with a choice behind it."""
    monkeypatch.setattr(counting, "MIN_CROPPED_LIMIT", 4)
    made = program(replay=ReplayConfig(capacity=8, packed=packed))
    branches = len(packing.menu(4, RUN.batch_size)) if made.packs else len(made.crops)
    assert branches > 1
    hparams = {name: jnp.float32(value) for name, value in made.algorithm.hparams.items()}
    clock = start_clock()._replace(stored=jnp.int32(8))
    learner = made.algorithm.init(jax.random.key(0))

    def update(ring):
        state = TrainState(jnp.int32(0), learner, ring, jnp.int32(0), jnp.int32(0))
        return made.update(state, made.context(state, hparams, clock), None, Learning(learner, clock))

    # one run with short episodes, one with long ones
    rings = [ring_of(made.env.spec, lengths) for lengths in ((1,) * 8, (4, 3, 4, 4, 3, 3, 4, 4))]
    both_rings = jax.tree.map(lambda *x: jnp.stack(x), *rings)
    together = jax.vmap(update)
    assert branches in conditionals(jax.make_jaxpr(together)(both_rings).jaxpr)
    ends = jax.jit(together, compiler_options=FAST)(both_rings)
    alone = jax.jit(update, compiler_options=FAST)
    for i, ring in enumerate(rings):
        close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
        jax.tree.map(close, jax.tree.map(lambda x, i=i: x[i], ends), alone(ring))
