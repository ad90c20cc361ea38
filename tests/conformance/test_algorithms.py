"""What every algorithm with every modifier must do, on two small environments: a new file is tested by existing.

The table is filled from the registry. `two_step` has a common reward; `Fading` below has episodes of unequal length,
agents that die, two types, actions that are not available, and a reward per agent. An algorithm of continuous actions
plays both with the parts of an interval as actions, and one that needs a common reward plays `Fading` for the sum.
"""

import dataclasses
import functools
import itertools
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from jaxshare import registry, session
from jaxshare.commands import list as listing
from jaxshare.config import ReplayConfig, RunConfig
from jaxshare.envs import matrix
from jaxshare.runner import Program, start_clock
from jaxshare.types import Box, Discrete, Env, EnvSpec, RefusedError, TimeStep

pytestmark = pytest.mark.usefixtures("optimised")  # bitwise comparisons

RUN = RunConfig(num_envs=4, batch_size=4, total_env_steps=64, replay=ReplayConfig(capacity=8))
MODIFIERS = [(), *((name,) for name in registry.modules("modifiers"))]
ROWS = list(itertools.product(registry.modules("algo"), MODIFIERS))
PERSONAL = {"a_pps", "rs_pps", "pp_pps"}  # modifiers that need algo.share_params=none; one piece of code
FAST = {"xla_backend_optimization_level": 0}  # compiling is what this file waits for
METRIC = re.compile(r"[a-z_0-9]+(/[a-z_0-9]+)+")


def fading():
    """Three agents, two types; each lives for a random time, and the episode ends with agent 0 or after four steps."""
    spec = EnvSpec(
        name="fading", num_agents=3, obs_dim=2, state_dim=3, action=Discrete(3), episode_limit=4, groups=(0, 0, 1),
        group_names=("runner", "healer"), common_reward=False,
    )  # fmt: skip

    def show(state, reward):
        time, life = state
        alive = time < life
        avail = jnp.stack([~alive, alive, alive & (jnp.arange(3) > 0)], axis=1)
        obs = jnp.stack([life.astype(jnp.float32), jnp.full(3, time, jnp.float32)], axis=1) * alive[:, None]
        ended = ~alive[0]
        return TimeStep(
            obs=obs, state=life.astype(jnp.float32), avail=avail, alive=alive, reward=reward,
            terminated=ended, truncated=~ended & (time >= 4), info={"won": (ended & alive[1]).astype(jnp.float32)},
        )  # fmt: skip

    def reset(key):
        state = (jnp.int32(0), jax.random.randint(key, (3,), 1, 7))
        return state, show(state, jnp.zeros(3))

    def step(state, action, key):
        time, life = state
        reward = (action == jnp.array([1, 2, 2])) * (time < life)
        state = (time + 1, life)
        return state, show(state, reward.astype(jnp.float32))

    return Env(spec, reset, step)


def continuous(env):
    """The same task with one number per action: A equal parts of [-1, 1] stand for the A choices, all available."""
    choices = env.spec.action.num_actions
    spec = dataclasses.replace(env.spec, action=Box(1, (-1.0,), (1.0,)))

    def hide(played):
        return played[0], played[1].replace(avail=played[1].avail[:, :0])

    def step(state, action, key):
        choice = jnp.floor((action[:, 0] + 1.0) / 2.0 * choices).astype(jnp.int32)
        return hide(env.step(state, jnp.clip(choice, 0, choices - 1), key))

    return Env(spec, lambda key: hide(env.reset(key)), step)


@functools.cache
def takes_choices(algo):
    return listing.refusal(algo, (), Discrete(3)) is None


def together(env):
    """The same task for the sum of the agents' rewards."""

    def add(played):
        state, seen = played
        return state, seen.replace(reward=jnp.broadcast_to(seen.reward.sum(), seen.reward.shape))

    spec = dataclasses.replace(env.spec, common_reward=True)
    return Env(spec, lambda key: add(env.reset(key)), lambda *args: add(env.step(*args)))


@functools.cache
def needs_a_common_reward(algo):
    """Whether it is refused a reward per agent, and nothing else."""
    env = fading() if takes_choices(algo) else continuous(fading())
    specs = env.spec, together(env).spec
    return [alone is None for alone in (why_not(algo, spec) for spec in specs)] == [False, True]


def why_not(algo, spec):
    module = registry.get("algo", algo)
    try:
        module.make(module.Config(), spec)
    except RefusedError as error:
        return error
    return None


ENVS = {"two_step": (lambda: matrix.make(matrix.Config(game="two_step")), "all"), "fading": (fading, "none")}
SMALL = {
    "hidden_dim": 4, "embed_dim": 4, "hypernet_dim": 4, "cem_samples": 4, "cem_elites": 2, "cem_rounds": 1,
    "target_update_period": 3, "stage1_updates": 1, "capacity": RUN.num_envs,
}  # fmt: skip


def suited(algo, env):
    """The environment with actions of the algorithm's kind, and with a reward that it can learn from."""
    env = env if takes_choices(algo) else continuous(env)
    return together(env) if not env.spec.common_reward and needs_a_common_reward(algo) else env


def parts_of(algo, modifiers, spec, share):
    """One combination, with networks as small as they get."""
    module = registry.get("algo", algo)
    known = {field: value for field, value in SMALL.items() if field in module.Config.__dataclass_fields__}
    parts = module.make(module.Config(share_params=share, **known), spec)
    for name in modifiers:
        modifier = registry.get("modifiers", name)
        parts = modifier.make(modifier.Config(), parts)
    return parts


def program(algo, modifiers, env, share):
    """The combination in a suited environment."""
    env = suited(algo, env)
    return Program(env, parts_of(algo, modifiers, env.spec, share).assemble(), RUN)


@functools.cache
def mixes(algo):
    """Whether it has a mixer, which is what DIFFER needs."""
    return getattr(parts_of(algo, (), suited(algo, fading()).spec, "all"), "mixer", None) is not None


@functools.cache
def judges_actions(algo):
    """Whether its critics read actions, which is what CQL needs."""
    return hasattr(parts_of(algo, (), suited(algo, fading()).spec, "all"), "others")  # whose actions they read


# combinations that cannot work
REFUSED = {row for row in ROWS if "differ" in row[1] and not mixes(row[0])}
REFUSED |= {row for row in ROWS if "cql" in row[1] and not judges_actions(row[0])}
REFUSED |= {row for row in ROWS if "standardise" in row[1] and row[0] == "sit"}  # by its default lift_rewards


def finite(tree):
    return all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(tree))


def changed(old, new):
    return [np.any(a != b) for a, b in zip(jax.tree.leaves(old), jax.tree.leaves(new), strict=True)]


def test_known_algorithms_have_a_mixer_or_not():
    """So that no refusal is expected by mistake; and critics of actions."""
    assert {algo for algo in registry.modules("algo") if judges_actions(algo)} == {"maddpg", "facmac"}
    have = ("vdn", "qmix", "comix", "facmac")
    known = dict.fromkeys(have, True) | dict.fromkeys(("iql", "seql", "seac", "maa2c", "maddpg"), False)
    assert {algo: mixes(algo) for algo in known} == known


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
    spec = suited(algo, make()).spec
    parts = parts_of(algo, modifiers, spec, share)
    expected = {"all": (0,) * spec.num_agents, "type": spec.groups, "none": tuple(range(spec.num_agents))}[share]
    assert parts.networks[acting(parts)].groups == expected
    params = jax.eval_shape(parts.assemble().init, jax.random.key(0)).params
    for name, network in parts.networks.items():
        sets = max(network.groups) + 1
        for leaf, alone in zip(jax.tree.leaves(params[name]), one_set(algo, env)[name], strict=True):
            found = leaf.shape if sets == 1 else leaf.shape[1:]
            assert sets == 1 or leaf.shape[0] == sets
            # a critic may be told who acts only where agents share it
            assert found == alone if name == acting(parts) else len(found) == len(alone)


def acting(parts):
    """Name of the network that the agents act by."""
    (name,) = {"agent", "actor"} & {*parts.networks}
    return name


@functools.cache
def one_set(algo, env):
    """Shapes of the agents' parameters where all share them."""
    parts = parts_of(algo, (), suited(algo, ENVS[env][0]()).spec, "all")
    params = jax.eval_shape(parts.assemble().init, jax.random.key(0)).params
    return {name: [leaf.shape for leaf in jax.tree.leaves(params[name])] for name in parts.networks}


VALUE = {"comix", "iql", "maser", "qmix", "qplex", "roma", "seql", "vdn"}
SEAMS = {("qmix", ("differ",)), ("qmix", ("pp_pps",))} | {(algo, ()) for algo in VALUE if algo not in ("iql", "vdn")}
# of the others one of a kind: from segments, recurrent from episodes, in epochs, with a replay of its own
SEAMS |= {row for row in ROWS if row in {("seac", ()), ("ia2c", ("standardise",)), ("mappo", ()), ("facmac", ())}}
BASIC = ("qmix", ())  # on both environments; compiling the others twice would take minutes
ONCE = [(*row, env) for row in ROWS for env in ENVS if row in SEAMS and (row == BASIC or env == "fading")]
TWICE = [row for row in ROWS if row not in REFUSED and not PERSONAL & {*row[1]}]
AGAIN = [(*row, env) for row in TWICE for env in ENVS if (*row, env) not in ONCE]


@pytest.mark.parametrize(
    ("algo", "modifiers", "env"), [*ONCE, *(pytest.param(*c, marks=pytest.mark.slow) for c in AGAIN)]
)
def test_it_is_traced_once_and_learns_something_finite(algo, modifiers, env):
    check_training(algo, modifiers, env)


REST = [row for row in ROWS if PERSONAL & {*row[1]} and row not in SEAMS]
TWO = [(algo, ("differ", name)) for algo in registry.modules("algo") for name in sorted(PERSONAL) if mixes(algo)]


@pytest.mark.slow
@pytest.mark.parametrize(("algo", "modifiers"), [*REST, *TWO])
def test_so_do_all_other_combinations(algo, modifiers):
    check_training(algo, modifiers, "fading")


def check_training(algo, modifiers, env):
    make, share = ENVS[env]
    share = "none" if PERSONAL & {*modifiers} else share
    made = program(algo, modifiers, make(), share)
    own = acting(parts_of(algo, modifiers, made.env.spec, share))
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
    check_names(metrics, made, own, updates)


@functools.cache
def collected(algo, env):
    """What iql collects before its first update, in a replay, for those that learn from a data set."""
    task = suited(algo, ENVS[env][0]())
    made = Program(task, parts_of("iql", (), task.spec, "all").assemble(), RUN)
    hparams = {name: jnp.float32(value) for name, value in made.algorithm.hparams.items()}
    start = jax.jit(lambda seed: made.prefill(made.init(seed), hparams, start_clock()), compiler_options=FAST)
    return jax.tree.map(lambda x: x[: RUN.num_envs], start(jnp.int32(0))[0].replay)


COMMON = {
    "agent": {"loss/td", "td_error/abs_mean", "q/taken_mean", "q/target_mean"},
    "actor": {"loss/actor", "loss/critic"},
}


def check_names(metrics, made, acting, updates):
    """Every metric is "group/name", a scalar, and the common ones are there."""
    updated = metrics["update"]
    assert [name for name in updated if not METRIC.fullmatch(name)] == []
    assert {value.shape for value in updated.values()} == {(2, updates)}
    assert {name for name in updated if name.startswith("loss/")} if made.offline else COMMON[acting] <= set(updated)
    assert any(name.startswith("grad_norm/") for name in updated)
    if made.offline:
        assert metrics["collect"] == {}
        return
    win_rate = {"win_rate"} if made.env.spec.name == "fading" else set()
    assert set(metrics["collect"]) == {"return", "length"} | win_rate


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


def test_a_sweep_is_its_points(three_seeds, tmp_path):
    """Learning rates 5e-4, the default of `three_seeds`, and 1e-2."""
    sweep, point = (*tiny.FULL, "sweep.lr=[5e-4,1e-2]"), (*tiny.FULL, "algo.hparams.lr=1e-2")
    tiny.train(tmp_path / "sweep", *sweep, max_chunks=CHUNKS)
    tiny.train(tmp_path / "point", *point, max_chunks=CHUNKS)
    (slow, fast), _ = learners(tmp_path / "sweep", *sweep)
    assert any(changed(slow.params, fast.params))
    tiny.assert_close(slow, three_seeds[1][0])
    tiny.assert_close([fast], learners(tmp_path / "point", *point)[0])


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
    assert session.prepare(chosen).run.seeds == 3
