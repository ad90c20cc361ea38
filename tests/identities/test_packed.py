"""Packed batches: what every learner makes of them is what it makes of the same episodes one a row, to rounding.

The rows of the table come from the registry: a new algorithm is in it by existing. One that says that it cannot read
packed batches must say why, and stands in WHOLE. Gradients are compared by steps of plain gradient descent.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from combinations import FAST, ROWS, continuous, offered, parts_of, small, suited
from packed_cases import both, ring_of
from value_cases import context, init

from jaxshare import registry
from jaxshare.envs.base import team_spec
from jaxshare.learners import passes, utilities
from jaxshare.learners.learner import offers
from jaxshare.learners.packed import packable, why_whole
from jaxshare.learners.value_losses import individual_td_loss
from jaxshare.models import inputs
from jaxshare.types import Discrete, Env

KEY = jax.random.key(3)
LIMIT, AGENTS, ACTIONS = 6, 3, 3
LENGTHS = (1, 6, 3, 6, 2, 1, 4)  # one step, full length, and between
SHAPE = (LIMIT, 6)  # steps and rows that hold them
JUST = "just collected"
WHOLE = {  # and a word of why
    **dict.fromkeys(("central_a2c", "coma", "iac", "ia2c", "ippo", "maa2c", "mappo", "pac", "pqn"), JUST),
    **dict.fromkeys(("reinforce", "seac", "snac"), JUST),
    "comix": "search",
    "sit": "batches of its own",
}
PACKED = sorted({algo for algo, _ in ROWS} - set(WHOLE))


def task():
    """Episodes of up to six steps of three agents of two types, each with a reward of its own."""
    spec = team_spec("packed", num_agents=AGENTS, obs_dim=2, action=Discrete(ACTIONS), episode_limit=LIMIT)
    spec = dataclasses.replace(spec, groups=(0, 0, 1), group_names=("runner", "healer"), common_reward=False)
    return Env(spec, reset=None, step=None)


def parts(algo, modifiers=(), share="all", **settings):
    """A small learner; settings: of the algorithm, or of a modifier, by `modifier__key`."""
    learner = parts_of(algo, (), suited(algo, task()).spec, share)
    if settings:
        learner = _made_with(algo, share, {k: v for k, v in settings.items() if "__" not in k})
    for name in modifiers:
        learner = _modified(learner, name, settings)
    return learner


def _made_with(algo, share, settings):
    module = registry.get("algo", algo)
    return module.make(small(module.Config, share_params=share, **settings), suited(algo, task()).spec)


def _modified(learner, name, settings):
    module = registry.get("modifiers", name)
    own = {key.partition("__")[2]: value for key, value in settings.items() if key.startswith(f"{name}__")}
    return module.make(small(module.Config, **own), learner)


@pytest.fixture
def descending(monkeypatch):
    """Every optimiser step is the plain gradient, so that what is compared is not magnified."""

    def advance(view, step, grads):
        params = {name: jax.tree.map(lambda p, g: p - g, view.params[name], grads[name]) for name in grads}
        return view.state.replace(params={**view.params, **params}), {}

    monkeypatch.setattr(passes, "advance", advance)


def assert_same_update(learner, ring, shape=SHAPE, **hparams):
    """Parameters (so gradients), statistics and metrics of an update of both batches agree to rounding."""
    assert_same_updates(learner, [ring], shape, **hparams)


def assert_same_updates(learner, rings, shape, **hparams):
    """The same of several rings with as many episodes."""
    algorithm = learner.assemble()
    assert algorithm.whole_rows == ""
    state = init(algorithm, scale=0.4).replace(stats=algorithm.init(KEY).stats)
    ctx = context(algorithm, updates=1, env_steps=10, **hparams)
    index = jnp.asarray(np.random.default_rng(1).permutation(len(rings[0].mask)), jnp.int32)

    @partial(jax.jit, compiler_options=FAST)
    def update(state, batches):
        return [algorithm.update(state, batch, ctx, KEY) for batch in batches]

    for ring in rings:
        (one, one_metrics), (other, other_metrics) = update(state, both(ring, index, shape))
        assert changed(one.params, state.params)
        for pair in ((one.params, other.params), (one.stats, other.stats), (one_metrics, other_metrics)):
            jax.tree.map(close, *pair)


def changed(new, old):
    return any(not np.array_equal(a, b) for a, b in zip(jax.tree.leaves(new), jax.tree.leaves(old), strict=True))


def close(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    assert np.all(np.isfinite(a))
    np.testing.assert_allclose(b, a, rtol=2e-5, atol=2e-5 * max(1.0, np.abs(a).max(initial=0.0)))


# ---- the table


def test_those_that_cannot_say_why():
    for algo, word in WHOLE.items():
        why = why_whole(parts(algo))
        assert word in why, (algo, why)
        assert "packed" not in offered(algo)
    for algo in PACKED:
        assert "packed" in offered(algo), (algo, why_whole(parts(algo)))


def slow(*row):
    return pytest.param(*row, marks=pytest.mark.slow)


SOON = {"qmix"}  # the others take some seconds each


@pytest.mark.parametrize("algo", [algo if algo in SOON else slow(algo) for algo in PACKED])
def test_an_update_is_that_of_whole_rows(algo, descending):
    learner = parts(algo)
    assert_same_update(learner, ring_of(learner.assemble().spec, LENGTHS))


MORE = [  # what only some settings read
    ("vdn", {"differ__select": "per"}, ("standardise", "differ")),
    slow("seql", {"views": "all", "weighting": "own_plus_lambda"}, ()),
    slow("facmac", {"target": "td_lambda"}, ()),
    slow("facmac", {}, ("cql",)),
    slow("maddpg", {"target_action": "sample", "recurrent": False}, ()),
    slow("macql", {"target": "td_lambda"}, ()),
    slow("icq", {"softmax_axis": "batch"}, ()),
    slow("qmix", {"differ__select": "greedy"}, ("differ",)),
    slow("qmix", {"differ__select": "per_expected"}, ("differ",)),
    slow("qmix", {"pp_pps__score": "individual"}, ("pp_pps",)),
    *[slow(algo, {}, ("differ",)) for algo in ("qplex", "maser", "roma", "facmac")],
    *[slow(algo, {}, ("standardise",)) for algo in ("seql", "icq", "maddpg")],
]


@pytest.mark.parametrize(("algo", "settings", "modifiers"), MORE, ids=str)
def test_so_is_one_with_other_settings_and_modifiers(algo, settings, modifiers, descending):
    learner = parts(algo, modifiers, "none" if "pp_pps" in modifiers else "all", **settings)
    assert_same_update(learner, ring_of(learner.spec, LENGTHS))


@pytest.mark.slow
@pytest.mark.parametrize("algo", ["bc", "icq", "mabcq", "macql"])
def test_so_is_one_of_continuous_actions(algo, descending):
    module = registry.get("algo", algo)
    spec = continuous(task()).spec
    assert_same_update(module.make(small(module.Config), spec), ring_of(spec, LENGTHS))


def test_episodes_of_one_step_and_of_full_length(descending):
    learner = parts("vdn")
    kinds = ((1,) * 5, (LIMIT,) * 5, (LIMIT, 1, 1, 1, 1))
    assert_same_updates(learner, [ring_of(learner.spec, lengths) for lengths in kinds], (LIMIT, 5))


def test_rows_longer_than_any_episode(descending):
    learner = parts("vdn")
    assert_same_update(learner, ring_of(learner.spec, LENGTHS), (2 * (LIMIT + 1) - 1, 3))


# ---- and what does not do so is seen


def test_memory_that_is_not_emptied_is_seen(descending, monkeypatch):
    monkeypatch.setattr(utilities.packing, "first_slots", lambda batch: None)
    learner = parts("vdn")
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_same_update(learner, ring_of(learner.spec, LENGTHS))


def test_a_last_action_that_is_not_forgotten_is_seen(descending, monkeypatch):
    """Of a learner whose agents have no memory but that, and that looks at no mask."""
    last_actions = inputs.last_actions
    forgotten = lambda action, spec, mask=None, first=None: last_actions(action, spec, mask)  # noqa: E731
    monkeypatch.setattr(inputs, "last_actions", forgotten)
    learner = parts("maddpg", recurrent=False, obs_last_action=True)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_same_update(learner, ring_of(learner.spec, LENGTHS))


# ---- who says nothing


def test_what_a_stranger_adds_gets_whole_rows():
    learner = parts("vdn")

    def loss(view):
        return individual_td_loss(view)

    @packable
    def fine(view):
        return individual_td_loss(view)

    assert why_whole(learner) == ""
    assert "loss does not say" in why_whole(learner.with_main(loss=loss))
    assert why_whole(learner.with_main(loss=fine)) == ""
    for part in ("aux", "shaping", "relabel", "after_update"):
        assert "does not say" in why_whole(learner.extend(**{part: partial(loss)}))
        assert why_whole(learner.extend(**{part: partial(fine)})) == ""
    assert "does not say" in why_whole(learner.extend(aux=partial(fine, loss)))  # what it holds must say so, too


def test_a_memory_that_cannot_be_emptied_gets_whole_rows():
    learner = parts("vdn")
    agent = dataclasses.replace(learner.networks["agent"], unroll_kept=None)
    assert "memory of its network agent" in why_whole(learner.with_network("agent", agent))
    assert "packed" not in offers(learner.with_network("agent", agent))
    assert learner.with_network("agent", agent).assemble().whole_rows


def test_roma_says_which_settings_need_whole_rows():
    assert why_whole(parts("roma")) == ""
    assert "algo.norm=batch" in why_whole(parts("roma", norm="batch"))
    assert "algo.mask_padding=false" in why_whole(parts("roma", mask_padding=False))
