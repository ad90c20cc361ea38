"""The sum-tree against a slow search, its own rebuild, and flashbax's tree."""

import warnings
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flashbax.buffers import sum_tree as rival

from jaxshare.training import sum_tree as st
from jaxshare.training import tree_queries as queries
from jaxshare.training.tree_changes import set_at_once, set_in_place

BELOW_ONE = np.float32(1 - 2**-24)
find, set_ = jax.jit(st.find), jax.jit(st.set)
sample = jax.jit(st.sample, static_argnums=(2, 3))
build = jax.jit(st.build, static_argnums=0)
WAYS = {"in_order": set_in_place, "at_once": set_at_once}  # on a CPU `set` takes the first


def tree_of(*priority):
    return build(len(priority), jnp.array(priority, jnp.float32))


def leaves(tree):
    return np.asarray(st.priority(tree, jnp.arange(tree.capacity)))


def ask(tree, queries):
    """Looks up q in [0, total) rather than u in [0, 1)."""
    return find(tree, jnp.array(queries, jnp.float32) / st.total(tree)).tolist()


def assert_like_rebuilt(tree):
    np.testing.assert_array_equal(tree.nodes, build(tree.capacity, jnp.asarray(leaves(tree))).nodes)


def set_by(way, tree, index, value):
    nodes = jax.jit(partial(WAYS[way], tree.capacity))(tree.nodes, jnp.asarray(index, jnp.int32), jnp.asarray(value))
    return tree.replace(nodes=nodes)


def random_priorities(rng, capacity, zeros):
    value = rng.random(capacity) * 10.0 ** rng.uniform(-4, 4, capacity)
    return np.where(rng.random(capacity) < zeros, 0, value).astype(np.float32)


# ---- numbers of the specification


@pytest.mark.parametrize(
    ("query", "leaf"), [(0, 0), (0.999, 0), (1, 1), (2.999, 1), (3, 2), (5.999, 2), (6, 3), (9.999, 3)]
)
def test_queries(query, leaf):
    assert ask(tree_of(1, 2, 3, 4), [query]) == [leaf]


def test_totals_and_probabilities():
    tree = tree_of(1, 2, 3, 4)
    assert st.total(tree) == 10
    np.testing.assert_allclose(st.probability(tree, jnp.arange(4)), [0.1, 0.2, 0.3, 0.4])
    ones = tree_of(1, 1, 1, 1, 1)
    assert st.total(ones) == 5
    assert find(ones, (jnp.arange(5) + 0.5) / 5).tolist() == [0, 1, 2, 3, 4]


def test_stratified_midpoints():
    assert find(tree_of(1, 2, 3, 4), (jnp.arange(5) + 0.5) / 5).tolist() == [1, 2, 2, 3, 3]


@pytest.mark.parametrize("way", WAYS)
def test_set_and_duplicates(way):
    tree = set_by(way, tree_of(1, 2, 3, 4), [2], [0.0])
    assert st.total(tree) == 7
    assert ask(tree, [3]) == [3]
    tree = set_by(way, tree, [1, 1, 3], [10.0, 20.0, 0.0])
    assert leaves(tree).tolist() == [1, 20, 0, 0]
    assert st.total(tree) == 21


# ---- against slow code


def slow(*rows):
    """Rows whose like is not slow."""
    return [pytest.param(row, marks=pytest.mark.slow) for row in rows]


# one leaf, a power of two, beyond one, and many stand for the others
@pytest.mark.parametrize("capacity", [1, 5, 16, 1000, *slow(2, 4, 17, 63)])
@pytest.mark.parametrize("zeros", [0.0, 0.9])
@pytest.mark.parametrize("looped_above", [0, queries.SEQUENTIAL_CAPACITY])
def test_equals_a_slow_search(capacity, zeros, looped_above, monkeypatch):
    monkeypatch.setattr(queries, "SEQUENTIAL_CAPACITY", looped_above)
    rng = np.random.default_rng(capacity)
    value = rng.integers(1, 100, capacity) * (rng.random(capacity) >= zeros)  # integers: every sum is exact
    value[rng.integers(capacity)] = 7
    tree = tree_of(*value)
    after = np.cumsum(value)
    q = np.concatenate([rng.random(700) * after[-1], after[:-1], [0]]).astype(np.float32)
    u = (q / np.float32(after[-1])).astype(np.float32)
    q = np.minimum(u, BELOW_ONE) * np.float32(after[-1])
    expected = [next(leaf for leaf in range(capacity) if x < after[leaf]) for x in q]
    traced_anew = jax.jit(lambda tree, u: st.find(tree, u))
    for part in (u[:300], u):  # a loop over queries where it is allowed, a loop over levels
        np.testing.assert_array_equal(traced_anew(tree, jnp.asarray(part)), expected[: len(part)])


@pytest.mark.parametrize("capacity", [1, 5, 64, 1000, 150_000])
@pytest.mark.parametrize("zeros", [0.3, 0.99])
def test_never_an_empty_leaf_or_one_out_of_range(capacity, zeros):
    rng = np.random.default_rng(capacity)
    value = random_priorities(rng, capacity, zeros)
    value[rng.integers(capacity)] = 1e-3
    tree = build(capacity, jnp.asarray(value))
    edge = (np.cumsum(value.astype(np.float64)) / value.sum(dtype=np.float64)).astype(np.float32)[-5000:]
    edge = np.concatenate([edge, np.nextafter(edge, np.float32(0)), np.nextafter(edge, np.float32(1))])
    special = np.array([0, 2**-24, BELOW_ONE, 1, 2, -1, np.nan, np.inf, -np.inf], np.float32)
    u = np.concatenate([edge, special, rng.random(20_000, np.float32)])
    few = np.concatenate([special, edge[:200]])
    drawn = [find(tree, jnp.asarray(u)), find(tree, jnp.asarray(few))]
    drawn += [sample(tree, jax.random.key(0), 2000, stratified) for stratified in (True, False)]
    for index in map(np.asarray, drawn):
        assert index.dtype == np.int32
        assert index.min() >= 0
        assert index.max() < capacity
        assert (value[index] > 0).all()


@pytest.mark.parametrize("stride", [2, 4])
def test_rounding_does_not_lead_to_an_empty_leaf(stride):
    """Each positive leaf is followed by empty ones, into which a query falls that rounding has made too large."""
    rng = np.random.default_rng(0)
    value = np.zeros((3000, 64), np.float32)
    value[:, ::stride] = rng.random((3000, 64 // stride)) * 10.0 ** rng.uniform(-3, 3, (3000, 64 // stride))
    edge = (np.cumsum(value, 1) / value.sum(1, keepdims=True, dtype=np.float64))[:, :: 4 * stride].astype(np.float32)
    u = np.concatenate([1 - np.arange(1, 5, dtype=np.float32) * np.ones((3000, 1), np.float32) * 2**-24, edge], 1)
    u = np.concatenate([u, np.nextafter(edge, np.float32(0))], 1)
    index = jax.jit(jax.vmap(lambda value, u: st.find(st.build(64, value), u)))(value, u)
    assert (np.take_along_axis(value, np.asarray(index), 1) > 0).all()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("capacity", "batch"), [(5, 20), (100, 30), (1000, 1), (1000, 50), (1000, 600)])
def test_set_equals_a_loop_and_a_rebuild(way, capacity, batch):
    rng = np.random.default_rng(batch)
    tree, expected = st.init(capacity), np.zeros(capacity, np.float32)
    for _ in range(4):
        index = rng.integers(-3, capacity + 3, batch)  # with duplicates, and some to be dropped
        value = random_priorities(rng, batch, 0.2)
        for i, v in zip(index, value, strict=True):
            if 0 <= i < capacity:
                expected[i] = v
        tree = set_by(way, tree, index, value)
        np.testing.assert_array_equal(leaves(tree), expected)
        assert_like_rebuilt(tree)


# ---- edges


def test_total_zero_is_uniform_and_visible():
    tree = st.init(10)
    assert st.total(tree) == 0
    u = jnp.linspace(0, 1, 600)
    np.testing.assert_array_equal(find(tree, u), np.minimum(np.asarray(u) * 10, 9).astype(int))
    assert np.bincount(st.sample(tree, jax.random.key(0), 100)).tolist() == [10] * 10
    drawn = jax.jit(lambda valid: st.sample(tree, jax.random.key(0), 90, valid=valid))(3)
    assert np.bincount(drawn).tolist() == [30] * 3
    assert find(tree, u, 0).max() == 0
    assert st.probability(tree, jnp.arange(10)).tolist() == [0] * 10
    assert find(tree_of(0, 0, 0, 2), u, 2).min() == 3  # `valid` is for empty trees only


def test_bad_priorities_count_as_zero():
    bad = jnp.array([np.nan, -1, -np.inf, 1e-40, 0, 2], jnp.float32)
    assert leaves(build(6, bad)).tolist() == [0, 0, 0, 0, 0, 2]
    for way in WAYS:
        tree = set_by(way, tree_of(1, 1, 1, 1, 1, 1), range(6), bad)
        assert leaves(tree).tolist() == [0, 0, 0, 0, 0, 2]
        assert st.total(tree) == 2
    infinite = tree_of(1, np.inf, 1)
    assert np.isfinite(st.total(infinite))
    assert ask(infinite, [2.0**99]) == [1]


def test_integer_priorities_and_short_builds():
    assert leaves(build(5, jnp.array([3, 1]))).tolist() == [3, 1, 0, 0, 0]
    assert st.total(set_(st.init(3), jnp.array([2]), jnp.array([4]))) == 4


def test_refused_shapes():
    with pytest.raises(ValueError, match="2 leaves"):
        st.build(2, jnp.ones(3))
    with pytest.raises(ValueError, match="0 leaves"):
        st.init(0)
    with pytest.raises(ValueError, match="must both be"):
        st.set(st.init(3), jnp.zeros(2, jnp.int32), jnp.ones(3))


# ---- no drift


@pytest.mark.parametrize("capacity", [1024, *slow(16_384)])
def test_a_million_updates_leave_no_trace(capacity):
    def step(tree, key):
        keys = jax.random.split(key, 3)
        index = jax.random.randint(keys[0], (1000,), 0, capacity)
        scale = 10.0 ** jax.random.uniform(keys[1], (1000,), minval=-4, maxval=4)
        return st.set(tree, index, scale * jax.random.uniform(keys[2], (1000,))), None

    keys = jax.random.split(jax.random.key(0), 1000)
    tree = jax.jit(lambda tree: jax.lax.scan(step, tree, keys)[0])(st.init(capacity))
    assert_like_rebuilt(tree)
    everywhere = jnp.arange(capacity).reshape(32, -1)  # in parts, or the tree would be built afresh
    for part in everywhere:
        tree = set_(tree, part, jnp.zeros(part.shape))
    assert not np.any(tree.nodes)


def test_a_large_priority_that_left():
    """flashbax 0.1.3 then has total 0 although leaf 1 holds 1."""
    tree = st.init(100)
    for index, value in ((0, 1e8), (1, 1.0), (0, 0.0)):
        tree = set_(tree, jnp.array([index]), jnp.array([value]))
    assert st.total(tree) == 1
    assert st.probability(tree, jnp.array(1)) == 1
    assert ask(tree, [0.0, 0.5]) == [1, 1]


# ---- frequencies


@pytest.mark.parametrize("stratified", [True, False])
@pytest.mark.parametrize("batch", [32, 700, 2000])
def test_frequencies(stratified, batch):
    value = np.random.default_rng(0).random(200) * (np.arange(200) % 3 > 0)
    tree = tree_of(*value)
    keys = jax.random.split(jax.random.key(1), 200_000 // batch)
    drawn = jax.jit(lambda keys: jax.lax.map(lambda key: st.sample(tree, key, batch, stratified), keys))(keys)
    expected = value / value.sum() * drawn.size
    seen, some = np.bincount(drawn.ravel(), minlength=200), expected > 0
    chi2 = ((seen - expected)[some] ** 2 / expected[some]).sum()
    assert chi2 < some.sum() + 4 * np.sqrt(2 * some.sum())  # stratified draws vary less
    if stratified:  # in each batch a leaf appears within one of either edge stratum of its expectation
        counts = np.stack([np.bincount(row, minlength=200) for row in np.asarray(drawn)])
        assert np.abs(counts - value / value.sum() * batch).max() < 2


def test_leaves_beyond_the_resolution_of_f32_are_equal():
    """3 * 2**21 equal leaves share the 2**24 values of u as 2, 3, 3, 2, 3, 3, ...: 12 % more or less than fair."""
    capacity = 3 * 2**21
    tree = build(capacity, jnp.ones(capacity))
    keys = jax.random.split(jax.random.key(0), 16)
    for stratified in (False, True):
        draw = jax.jit(lambda keys, s=stratified: jax.lax.map(lambda key: st.sample(tree, key, 8192, s), keys))
        drawn = np.asarray(draw(keys))
        share = np.bincount(drawn.ravel() % 3, minlength=3) / drawn.size
        assert np.abs(share - 1 / 3).max() < 4 * np.sqrt(2 / 9 / drawn.size)
        blocks = np.bincount(drawn.ravel() // (capacity // 96), minlength=96)
        assert ((blocks / (drawn.size / 96) - 1) ** 2).sum() * (drawn.size / 96) < 96 + 4 * np.sqrt(2 * 96)
    stratum = drawn.astype(np.int64) * 8192 // capacity
    assert (stratum == np.arange(8192)[None]).mean() > 0.99


# ---- transformations


@pytest.mark.parametrize(
    ("batch", "looped_above"),
    # a batch of 600 is set as a loop sets it in `test_set_equals_a_loop_and_a_rebuild`
    [(7, 0), (7, queries.SEQUENTIAL_CAPACITY), pytest.param(600, 0, marks=pytest.mark.slow)],
)
def test_vmap_equals_a_loop(batch, looped_above, monkeypatch):
    monkeypatch.setattr(queries, "SEQUENTIAL_CAPACITY", looped_above)
    rng = np.random.default_rng(0)
    value = jnp.asarray(np.stack([random_priorities(rng, 300, 0.5) for _ in range(3)]))
    index, new = jnp.asarray(rng.integers(0, 300, (3, batch))), jnp.asarray(rng.random((3, batch), np.float32))
    keys = jax.random.split(jax.random.key(0), 3)

    def run(value, index, new, key):
        tree = st.set(st.build(300, value), index, new)
        return tree, st.sample(tree, key, batch), st.sample(tree, key, batch, False), st.probability(tree, index)

    mapped = jax.jit(jax.vmap(run))(value, index, new, keys)
    single = jax.jit(run)
    for i in range(3):
        alone = single(value[i], index[i], new[i], keys[i])
        jax.tree.map(np.testing.assert_array_equal, jax.tree.map(lambda x, i=i: x[i], mapped), alone)
    twice = jax.jit(jax.vmap(jax.vmap(run)))(*(x[None] for x in (value, index, new, keys)))  # seeds and agent types
    jax.tree.map(np.testing.assert_array_equal, jax.tree.map(lambda x: x[0], twice), mapped)


def test_one_tree_set_in_several_ways():
    """vmap over the values alone, and over the trees alone."""
    tree, index, value = tree_of(1, 0, 2, 3, 4), jnp.array([3, 0]), jnp.array([[5.0, 6.0], [7.0, 8.0]])
    each = [st.set(tree, index, one) for one in value]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *each)
    chex.assert_trees_all_equal(jax.vmap(st.set, in_axes=(None, None, 0))(tree, index, value), stacked)
    again = [st.set(one, index, value[0]) for one in each]
    chex.assert_trees_all_equal(
        jax.vmap(st.set, in_axes=(0, None, None))(stacked, index, value[0]),
        jax.tree.map(lambda *x: jnp.stack(x), *again),
    )


def test_sharing_a_tree_across_keys():
    tree = tree_of(1, 0, 2, 3)
    drawn = jax.vmap(lambda key: st.sample(tree, key, 16))(jax.random.split(jax.random.key(0), 5))
    assert drawn.shape == (5, 16)
    assert not (drawn == 1).any()


@pytest.mark.parametrize("batch", [8, 600])
def test_set_updates_a_donated_tree_in_place(batch):
    update = jax.jit(st.set, donate_argnums=0)
    index, value = jnp.arange(batch), jnp.ones(batch)
    tree = jax.block_until_ready(build(1000, jnp.ones(1000)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            old = tree
            place = old.nodes.unsafe_buffer_pointer()
            tree = update(old, index, value)
            assert old.nodes.is_deleted()
            assert tree.nodes.unsafe_buffer_pointer() == place
    assert st.total(tree) == 1000


def test_one_trace_per_shape():
    traces = []

    @jax.jit
    def run(tree, key):
        traces.append(1)
        return st.set(tree, st.sample(tree, key, 4), jnp.ones(4))

    tree = tree_of(1, 2, 3)
    for seed in range(3):
        tree = run(tree, jax.random.key(seed))
    assert len(traces) == 1


# ---- flashbax


@pytest.mark.parametrize("setter", [rival.set_batch_scan, rival.set_batch_bincount])
def test_agrees_with_flashbax_on_small_integers(setter):
    rng = np.random.default_rng(0)
    capacity = 64  # a power of two, integers, no duplicates, a positive total: where flashbax's tree is exact as well
    theirs, ours, everywhere = rival.init(capacity), st.init(capacity), jnp.arange(capacity)
    set_theirs = jax.jit(setter)
    find_theirs = jax.jit(lambda tree, u: jax.vmap(lambda q: rival.sample(tree, query_value=q))(u))
    probability_theirs = jax.jit(lambda tree: jax.vmap(partial(rival.get_probability, tree))(everywhere))
    for _ in range(20):
        index, value = jnp.asarray(rng.permutation(capacity)[:16]), jnp.asarray(rng.integers(0, 9, 16), jnp.float32)
        theirs, ours = set_theirs(theirs, index, value), set_(ours, index, value)
        assert st.total(ours) == theirs.nodes[0]
        u = jnp.asarray(rng.random(100, np.float32))
        np.testing.assert_array_equal(find(ours, u), find_theirs(theirs, u))
        np.testing.assert_array_equal(st.probability(ours, everywhere), probability_theirs(theirs))
