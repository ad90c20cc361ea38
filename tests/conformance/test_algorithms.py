"""What every algorithm with every modifier must do, on two small environments: a new file is tested by existing.

The table is filled from the registry. See `combinations` for the environments.
"""

import functools
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from combinations import (
    ENVS,
    FAST,
    PERSONAL,
    REFUSED,
    ROWS,
    RUN,
    collected,
    offered,
    parts_of,
    program,
    suited,
    takes_differ,
)

from jaxshare import registry
from jaxshare.run import build
from jaxshare.training.counting import start_clock
from jaxshare.types import RefusedError

pytestmark = pytest.mark.usefixtures("optimised")  # bitwise comparisons

METRIC = re.compile(r"[a-z_0-9]+(/[a-z_0-9]+)+")


def finite(tree):
    return all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(tree))


def changed(old, new):
    return [np.any(a != b) for a, b in zip(jax.tree.leaves(old), jax.tree.leaves(new), strict=True)]


def test_known_algorithms_have_a_mixer_or_not():
    """So that no refusal is expected by mistake; and critics of actions."""
    known = {
        "action_critics": ({"maddpg", "facmac"}, {"qmix", "comix", "maa2c", "icq", "sit"}),
        "mixer": ({"vdn", "qmix", "comix", "facmac", "pqn"}, {"iql", "seql", "seac", "maa2c", "maddpg", "icq", "sit"}),
        "own_loss": (
            {"coma", "icq", "ippo", "pac", "seac", "seql", "sit"},
            {"iql", "qmix", "roma", "iac", "maddpg", "pqn"},
        ),
    }
    for what, (have, have_not) in known.items():
        assert [algo for algo in have if what not in offered(algo)] == []
        assert [algo for algo in have_not if what in offered(algo)] == []


@pytest.mark.parametrize("share", ["all", "type", "none"])
@pytest.mark.parametrize(
    ("algo", "modifiers", "env"), [(*row, env) for row in ROWS for env in ENVS if env == "fading" or not row[1]]
)
def test_a_combination_assembles_or_is_refused(algo, modifiers, share, env):
    make = ENVS[env][0]
    if (algo, modifiers) in REFUSED:
        with pytest.raises(RefusedError, match=f"{modifiers[0]}.*{algo}"):
            program(algo, modifiers, make(), share)
        return
    if PERSONAL & {*modifiers} and share != "none":
        with pytest.raises(RefusedError, match=f"share_params={share}"):
            program(algo, modifiers, make(), share)
        return
    parts = parts_of(algo, modifiers, suited(algo, make()).spec, share)
    spec = parts.spec  # of the one agent, where the team is one
    expected = {"all": (0,) * spec.num_agents, "type": spec.groups, "none": tuple(range(spec.num_agents))}[share]
    own = parts.policy.acting
    assert parts.param_sets[own] == expected
    params = jax.eval_shape(parts.assemble().init, jax.random.key(0)).params
    for name, param_sets in parts.param_sets.items():
        sets = max(param_sets) + 1
        for leaf, alone in zip(jax.tree.leaves(params[name]), one_set(algo, env)[name], strict=True):
            found = leaf.shape if sets == 1 else leaf.shape[1:]
            assert sets == 1 or leaf.shape[0] == sets
            # a critic may be told who acts only where agents share it
            assert found == alone if name == own else len(found) == len(alone)


@functools.cache
def one_set(algo, env):
    """Shapes of the agents' parameters where all share them."""
    parts = parts_of(algo, (), suited(algo, ENVS[env][0]()).spec, "all")
    params = jax.eval_shape(parts.assemble().init, jax.random.key(0)).params
    return {name: [leaf.shape for leaf in jax.tree.leaves(params[name])] for name in parts.param_sets}


VALUE = {"comix", "iql", "maser", "qmix", "qplex", "roma", "seql", "vdn"}
SEAMS = {("qmix", ("differ",)), ("qmix", ("pp_pps",))} | {(algo, ()) for algo in VALUE if algo not in ("iql", "vdn")}
# of the others one of a kind: from segments, recurrent from episodes, in epochs, with a replay of its own
SEAMS |= {row for row in ROWS if row in {("seac", ()), ("ia2c", ("standardise",)), ("mappo", ()), ("facmac", ())}}
BASIC = ("qmix", ())  # on both environments; compiling the others twice would take minutes
ONCE = [(*row, env) for row in ROWS for env in ENVS if row in SEAMS and (row == BASIC or env == "fading")]
TWICE = [row for row in ROWS if row not in REFUSED and not PERSONAL & {*row[1]}]
AGAIN = [(*row, env) for row in TWICE for env in ENVS if (*row, env) not in ONCE]
CHEAP = {("qmix", (), "two_step"), ("seac", (), "fading"), ("seql", (), "fading")}  # the others compile for long


@pytest.mark.parametrize(
    ("algo", "modifiers", "env"),
    [row if row in CHEAP else pytest.param(*row, marks=pytest.mark.slow) for row in [*ONCE, *AGAIN]],
)
def test_it_is_traced_once_and_learns_something_finite(algo, modifiers, env):
    check_training(algo, modifiers, env)


REST = [row for row in ROWS if PERSONAL & {*row[1]} and row not in SEAMS]
TWO = [(algo, ("differ", name)) for algo in registry.modules("algo") for name in sorted(PERSONAL) if takes_differ(algo)]


@pytest.mark.slow
@pytest.mark.parametrize(("algo", "modifiers"), [*REST, *TWO])
def test_so_do_all_other_combinations(algo, modifiers):
    check_training(algo, modifiers, "fading")


def check_training(algo, modifiers, env):
    jax.clear_caches()  # JAX keeps a number of programs only: that of this row must not be let go of meanwhile
    make, share = ENVS[env]
    share = "none" if PERSONAL & {*modifiers} else share
    made = program(algo, modifiers, make(), share)
    learner = parts_of(algo, modifiers, made.env.spec, share)
    own = learner.policy.acting
    offline, updates = made.offline, RUN.num_envs
    if made.algorithm.experience != "replay":
        updates = 1 if offline else made.algorithm.updates_per_batch
    hparams = {name: jnp.float32(value) for name, value in made.algorithm.hparams.items()}
    traces = []

    def advance(state, hparams, clock):
        traces.append(1)
        return made.chunk_offline(2, state, hparams, (clock, data)) if offline else made.chunk(2, state, hparams, clock)

    data = collected(algo, env) if offline else None
    start = jax.jit(lambda seed, clock: made.prefill(made.init(seed), hparams, clock), compiler_options=FAST)
    chunk = jax.jit(advance, compiler_options=FAST)
    first, clock = start(jnp.int32(0), start_clock())
    (state, metrics), clock = chunk(first, hparams, clock)
    swept = {name: value * 0.5 for name, value in hparams.items()}
    (state, _), clock = chunk(state, swept, clock)
    assert len(traces) == 1
    assert chunk._cache_size() == 1
    assert clock.updates == 2 * 2 * updates
    assert finite(state)
    assert finite(metrics)
    assert all(changed(first.learner.params[own], state.learner.params[own]))
    assert all(
        any(changed(first.learner.params[n], state.learner.params[n])) for n in state.learner.params if n != "mixer"
    )
    targets = first.learner.target_params, state.learner.target_params
    assert not jax.tree.leaves(targets) or any(changed(*targets))
    check_names(metrics, made, learner, updates)


COMMON = {
    "agent": {"loss/td", "td_error/abs_mean", "q/taken_mean", "q/target_mean"},
    "actor": {"loss/actor", "loss/critic"},
}


def check_names(metrics, made, learner, updates):
    """Every metric is "group/name", a scalar, and the common ones are there."""
    own = learner.policy.acting
    common = COMMON.get(own, set()) - (set() if own == "agent" or "critic" in learner.networks else {"loss/critic"})
    updated = metrics["update"]
    assert [name for name in updated if not METRIC.fullmatch(name)] == []
    assert {value.shape for value in updated.values()} == {(2, updates)}
    assert {name for name in updated if name.startswith("loss/")} if made.offline else common <= set(updated)
    assert any(name.startswith("grad_norm/") for name in updated)
    if made.offline:
        assert metrics["collect"] == {}
        return
    win_rate = {"win_rate"} if made.env.spec.name == "fading" else set()
    alone = {} if made.env.spec.common_reward else {f"return/agent_{i}" for i in range(made.env.spec.num_agents)}
    assert set(metrics["collect"]) == {"return", "length", *alone} | win_rate


# ------------------------------------------------------------------------------------------------------ several runs

CHUNKS = 2


def learners(run_dir, *arguments):
    """What each run has learned, and the clock."""
    clock, states = tiny.restore(run_dir, *arguments)
    return [state.learner for state in states], clock


@pytest.fixture(scope="module")
def three_seeds(tmp_path_factory):
    """Three seeds on two devices: two waves, the second filled up with a copy."""
    arguments = (*tiny.FULL, "seeds=3")
    run_dir = tiny.train(tmp_path_factory.mktemp("three") / "run", *arguments, max_chunks=CHUNKS)
    return run_dir, *learners(run_dir, *arguments)


def test_seeds_differ(three_seeds):
    _, (a, b, c), _ = three_seeds
    for one, other in ((a, b), (b, c), (a, c)):
        assert any(changed(one.params, other.params))


def test_a_run_of_several_is_the_same_seed_alone(three_seeds, tmp_path):
    together, several, clock = three_seeds
    arguments = (*tiny.FULL, "seed=2")
    tiny.train(tmp_path, *arguments, max_chunks=CHUNKS)
    tiny.assert_equal((several[2:], clock), learners(tmp_path, *arguments))
    assert [r for r in tiny.records(together) if r["seed"] == 2] == tiny.records(tmp_path)


def test_two_devices_are_one(three_seeds, tmp_path):
    together, several, clock = three_seeds
    arguments = (*tiny.FULL, "seeds=3", "parallel.devices=1")
    tiny.train(tmp_path, *arguments, max_chunks=CHUNKS)
    tiny.assert_equal((several, clock), learners(tmp_path, *arguments))
    assert tiny.records(together) == tiny.records(tmp_path)


@pytest.mark.slow
def test_a_sweep_is_its_points(three_seeds, tmp_path):
    """Learning rates 5e-4, the default of `three_seeds`, and 1e-2."""
    sweep, point = (*tiny.FULL, "sweep.lr=[5e-4,1e-2]"), (*tiny.FULL, "algo.hparams.lr=1e-2")
    tiny.train(tmp_path / "sweep", *sweep, max_chunks=CHUNKS)
    tiny.train(tmp_path / "point", *point, max_chunks=CHUNKS)
    (slow, fast), _ = learners(tmp_path / "sweep", *sweep)
    assert any(changed(slow.params, fast.params))
    tiny.assert_close(slow, three_seeds[1][0])
    tiny.assert_close([fast], learners(tmp_path / "point", *point)[0])


@pytest.mark.slow
def test_vmapped_runs_are_the_same_up_to_rounding(three_seeds, tmp_path):
    """In a process of its own: the scheduler that does not hang must be chosen before JAX starts."""
    _, several, clock = three_seeds
    arguments = (*tiny.FULL, "seeds=3", "parallel.strategy=vmap")
    code = f"import tiny; tiny.train({str(tmp_path)!r}, *{arguments!r}, max_chunks={CHUNKS})"
    path = f"import sys; sys.path[:0] = [{str(tiny.REPOSITORY)!r}, {str(tiny.REPOSITORY / 'tests')!r}]"
    subprocess.run([sys.executable, "-c", f"{path}; {code}"], timeout=300, check=True, env=tiny.ENVIRONMENT)
    vmapped, own_clock = learners(tmp_path, *arguments)
    tiny.assert_equal(clock, own_clock)
    tiny.assert_close(several, vmapped)


def test_a_filler_is_no_run(three_seeds):
    together, several, _ = three_seeds
    assert len(several) == 3
    assert {record["seed"] for record in tiny.records(together)} == {0, 1, 2}
    chosen = tiny.settings(together, *tiny.FULL, "seeds=3")
    assert [seed for seed, _ in chosen.runs()] == [0, 1, 2]
    assert build.prepare(chosen).run.seeds == 3
