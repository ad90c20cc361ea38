"""What periodic parameter sharing must keep and change exactly: tensors, moments, targets, scores, and the clock."""

import dataclasses
import re
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import value_cases
from value_cases import AGENTS, KEY, SPEC, context, learner_parts, random_batch, view_of

from jaxshare import registry
from jaxshare.envs.matrix import environment as matrix
from jaxshare.learners.learner import personal_networks
from jaxshare.models.agents import q_network
from jaxshare.models.base import Network
from jaxshare.modifiers.differ import modifier as differ
from jaxshare.modifiers.periodic import averages, scores
from jaxshare.modifiers.periodic.sharing import decided
from jaxshare.settings.records import RunConfig
from jaxshare.settings.run_parts import ReplayConfig
from jaxshare.training.counting import start_clock
from jaxshare.training.program import Program
from jaxshare.training.rollout import Rollout
from jaxshare.types import EnvSpec, RefusedError, TimeStep

NAMES = ("a_pps", "rs_pps", "pp_pps")
OWN = dataclasses.replace(SPEC, common_reward=False)  # every agent has a reward of its own


def pps(parts, name="a_pps", **config):
    module = registry.get("modifiers", name)
    return module.make(module.Config(**config), parts)


def base(algo="vdn", spec=SPEC, **config):
    return learner_parts(algo, spec, share_params="none", **config)


@cache
def case(name="a_pps", algo="vdn", spec=SPEC, optimizer="adam", with_differ=False, **config):
    """(parts, sharing, learner, context): random networks, targets and moments, and the update that averages next."""
    parts = base(algo, spec, optimizer=optimizer)
    parts = differ.make(differ.Config(), parts) if with_differ else parts
    parts = pps(parts, name, period=3, **config)
    learner = jax.tree.map(np.asarray, value_cases.init(parts.assemble()).replace(stats=parts.stats))
    rng = np.random.default_rng(7)
    moments = jax.tree.map(
        lambda x: np.abs(rng.normal(size=x.shape)).astype(x.dtype) if x.ndim else x + 5, learner.opt_state
    )
    sharing = decided(name, parts_config(name, **config), parts)
    return parts, sharing, learner.replace(opt_state=moments), context(parts.assemble(), updates=2)


def parts_config(name, **config):
    return registry.get("modifiers", name).Config(period=3, **config)


def average(*args, scores=(1.0, 2.0, 5.0), **kwargs):
    """(learner before, learner after one average, names of the shared tensors, the weights that were used)."""
    parts, sharing, learner, ctx = case(*args, **kwargs)
    new = jax.jit(lambda: averages.aggregate(sharing, view_of(parts, learner, None, ctx), jnp.array(scores)))()
    return learner, jax.tree.map(np.asarray, new), sharing.tensors["agent"], new.stats[sharing.name]["weight"]


def tensors(params):
    """{"gru.input_new_kernel": [N, ...]} of an agent's parameters."""
    return {f"{module}.{name}": np.asarray(x) for module, inner in params.items() for name, x in inner.items()}


def moments_of(opt_state, param="agent"):
    """Every moment of one parameter, whatever its group: [(name, tensors)]."""
    found = []
    for state in opt_state.values():
        for part in jax.tree.leaves(state, is_leaf=lambda x: hasattr(x, "nu")):
            found += [(f, getattr(part, f)[param]) for f in ("mu", "nu") if param in getattr(part, f, {})]
    return found


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


# --------------------------------------------------------------------------------------------------- the shared tensors


@pytest.mark.parametrize("share", ["all", "head", "body", ("embed", "gru.*_kernel")])
def test_a_pps_keeps_the_mean_and_leaves_the_rest_alone(share):
    before, after, shared, weight = average("a_pps", share=share)
    np.testing.assert_allclose(weight, np.full(AGENTS, 1 / AGENTS), rtol=1e-6)
    old, new = tensors(before.params["agent"]), tensors(after.params["agent"])
    head = {"head.kernel", "head.bias"}
    listed = {name for name in old if name.startswith("embed.") or re.fullmatch(r"gru\..*_kernel", name)}
    assert shared == {"all": set(old), "head": head, "body": set(old) - head}.get(share, listed)
    for name, x in old.items():
        if name in shared:
            np.testing.assert_allclose(new[name].mean(0), x.mean(0), rtol=1e-5, atol=1e-6)
            assert_same(new[name], np.broadcast_to(new[name][:1], x.shape))
        else:
            assert_same(new[name], x)
    assert_same(after.target_params, before.target_params)
    assert_same(after.opt_state, before.opt_state)
    stats = after.stats["a_pps"]
    assert stats["distance_before"] > stats["distance_after"]
    assert (stats["distance_after"] < 1e-5) == (share == "all")


def test_pp_pps_averages_the_head_by_score_and_pps_4_inside_the_hull():
    before, after, shared, weight = average("pp_pps", algo="qmix", scores=(1.0, 1.0, 2.0))
    np.testing.assert_allclose(weight, [0.25, 0.25, 0.5], rtol=1e-6)
    old, new = tensors(before.params["agent"]), tensors(after.params["agent"])
    assert shared == {"head.kernel", "head.bias"}
    for name, x in old.items():
        if name not in shared:
            assert_same(new[name], x)
            continue
        expected = 0.25 * x[0] + 0.25 * x[1] + 0.5 * x[2]
        np.testing.assert_allclose(new[name], np.broadcast_to(expected, x.shape), rtol=1e-5, atol=1e-6)
        assert (new[name] <= x.max(0) + 1e-6).all()
        assert (new[name] >= x.min(0) - 1e-6).all()
    assert_same(after.params["mixer"], before.params["mixer"])


def test_agents_of_one_type_may_average_among_themselves():
    before, after, shared, weight = average("rs_pps", within="type", scores=(1.0, 3.0, 9.0))
    np.testing.assert_allclose(weight, [0.25, 0.75, 1.0], rtol=1e-6)  # types 0, 0, 1
    old, new = tensors(before.params["agent"]), tensors(after.params["agent"])
    for name in shared:
        np.testing.assert_allclose(new[name][0], 0.25 * old[name][0] + 0.75 * old[name][1], rtol=1e-5, atol=1e-6)
        assert_same(new[name][0], new[name][1])
        assert_same(new[name][2], old[name][2])


@pytest.mark.parametrize("scores", [(0.0, 0.0, 0.0), (-3.0, -3.0, -3.0), (np.nan, 1.0, 2.0)])
def test_rs_pps_without_a_usable_score_is_a_pps(scores):
    _, equal, _, weight = average("rs_pps", scores=scores)
    np.testing.assert_allclose(weight.sum(), 1, rtol=1e-6)
    _, plain, _, _ = average("a_pps")
    for x, y in zip(jax.tree.leaves(equal.params), jax.tree.leaves(plain.params), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


def test_the_temperature_is_swept():
    parts, sharing, learner, ctx = case("rs_pps", rule="softmax")
    assert parts.hparams == {"rs_pps.temperature": 1.0}

    @jax.jit
    def weigh(ctx):
        view = view_of(parts, learner, None, ctx)
        return averages.aggregate(sharing, view, jnp.array([1.0, 1.0, 2.0])).stats["rs_pps"]["weight"]

    np.testing.assert_allclose(weigh(ctx), [0.211942, 0.211942, 0.576117], atol=1e-6)
    warm = ctx.replace(hparams={**ctx.hparams, "rs_pps.temperature": jnp.float32(1e6)})
    np.testing.assert_allclose(weigh(warm), [1 / 3] * 3, atol=1e-5)


# -------------------------------------------------------------------------------------------------- moments and targets


@pytest.mark.parametrize("with_differ", [False, True])
@pytest.mark.parametrize(("optimizer", "kinds"), [("adam", ["mu", "nu"]), ("rmsprop", ["nu"])])
def test_moments_of_the_shared_tensors_only_whatever_their_group(optimizer, kinds, with_differ):
    settings = {"algo": "qmix", "optimizer": optimizer, "with_differ": with_differ, "share": "head"}
    for moments in ("average", "reset"):
        before, after, shared, weight = average("pp_pps", moments=moments, **settings)
        old, new = (dict(moments_of(learner.opt_state)) for learner in (before, after))
        assert sorted(old) == kinds
        for kind in kinds:
            for name, x in tensors(old[kind]).items():
                mean = np.einsum("n,n...->...", weight, x) if moments == "average" else np.zeros(x.shape[1:])
                expected = np.broadcast_to(mean, x.shape) if name in shared else x
                np.testing.assert_allclose(tensors(new[kind])[name], expected, rtol=1e-5, atol=1e-7)
                assert (tensors(new[kind])[name] >= 0).all()  # they all were positive
        assert_same(moments_of(after.opt_state, "mixer"), moments_of(before.opt_state, "mixer"))
        counts = [x for x in jax.tree.leaves(after.opt_state) if x.ndim == 0]
        assert all(count == 5 for count in counts)  # Adam's count stays
        assert bool(counts) == (optimizer == "adam")


def test_target_networks_on_request():
    before, after, shared, weight = average("rs_pps", targets="aggregate", share="body")
    for name, x in tensors(before.target_params["agent"]).items():
        mean = np.broadcast_to(np.einsum("n,n...->...", weight, x), x.shape)
        found = tensors(after.target_params["agent"])[name]
        if name in shared:
            np.testing.assert_allclose(found, mean, rtol=1e-5, atol=1e-6)
        else:
            assert_same(found, x)


# ------------------------------------------------------------------------------------------------------------ the start


def test_first_parameters():
    kinds = {
        "common": lambda x: np.broadcast_to(x[:1], x.shape),
        "average": lambda x: np.broadcast_to(x.mean(0, keepdims=True), x.shape),
        "own": lambda x: x,
    }
    makers = {kind: pps(base(), init=kind).assemble().init for kind in kinds}
    plain, found = jax.jit(lambda: (base().assemble().init(KEY), {kind: init(KEY) for kind, init in makers.items()}))()
    for kind, expected in kinds.items():
        tiny.assert_close(found[kind].params["agent"], jax.tree.map(expected, plain.params["agent"]), 1e-6)
        assert_same(found[kind].target_params, found[kind].params)
        rows = found[kind].params["agent"]["head"]["kernel"]
        assert (rows == rows[:1]).all() == (kind != "own")


# ------------------------------------------------------------------------------------------------------------ the clock


def test_pps_5_the_average_falls_on_updates_300_600_and_900():
    parts = pps(base(hidden_dim=1), period=300)
    algorithm = parts.assemble()
    learner = value_cases.init(algorithm).replace(stats=parts.stats)
    ctx, batch = context(algorithm), None

    def update(learner, u):
        apart = jax.tree.map(lambda x: x + jnp.arange(float(AGENTS)).reshape(-1, *[1] * (x.ndim - 1)), learner.params)
        clock = ctx.clock._replace(updates=u)
        view = view_of(parts, learner.replace(params=apart), batch, ctx.replace(clock=clock))
        learner, metrics = parts.after_update[0](view)
        rows = learner.params["agent"]["head"]["bias"]
        return learner, (jnp.all(rows == rows[:1]), metrics)

    _, (same, metrics) = jax.jit(lambda: jax.lax.scan(update, learner, jnp.arange(1000)))()
    np.testing.assert_array_equal(np.flatnonzero(same) + 1, [300, 600, 900])
    last = np.asarray(metrics["a_pps/distance_before"])  # what the last average found is reported until the next
    assert (last[:299] == 0).all()
    assert (last[299:] > 0).all()
    assert set(np.flatnonzero(np.diff(last)) + 2) <= {300, 600, 900}
    for i in range(AGENTS):
        np.testing.assert_allclose(metrics[f"a_pps/weight/agent_{i}"], 1 / AGENTS, rtol=1e-6)


def test_the_average_is_a_branch_and_not_a_select_when_runs_are_vmapped():
    parts, _, learner, ctx = case("rs_pps", spec=OWN)
    two = jax.tree.map(lambda x: jnp.stack([x, x]), learner)

    def averaged(learner, ctx):
        return parts.after_update[0](view_of(parts, learner, None, ctx))[0]

    hook = jax.vmap(averaged, in_axes=(0, None))
    primitives = [str(eqn.primitive) for eqn in jax.make_jaxpr(hook)(two, ctx).jaxpr.eqns]
    assert "cond" in primitives
    assert "reduce_sum" not in primitives  # the averages are inside


def test_a_whole_update_averages_before_the_targets_are_copied_and_only_when_it_is_time():
    parts = pps(base("vdn", target_update_period=3), "rs_pps", period=3, score="individual")
    algorithm = parts.assemble()
    learner, update = value_cases.init(algorithm).replace(stats=parts.stats), jax.jit(algorithm.update)
    after, metrics = update(learner, random_batch(), context(algorithm, updates=2), KEY)
    for x in jax.tree.leaves(after.params["agent"]):
        assert_same(x, np.broadcast_to(x[:1], x.shape))
    assert_same(after.target_params, after.params)
    weights = [float(metrics[f"rs_pps/weight/agent_{i}"]) for i in range(AGENTS)]
    np.testing.assert_allclose(sum(weights), 1, rtol=1e-6)
    assert len(set(weights)) == AGENTS
    assert metrics["rs_pps/distance_before"] > 0
    assert metrics["rs_pps/distance_after"] < 1e-5
    between, metrics = update(learner, random_batch(), context(algorithm, updates=0), KEY)
    assert all((np.asarray(x) != x[:1]).any() for x in jax.tree.leaves(between.params["agent"]))
    assert_same(between.target_params, learner.target_params)
    assert metrics["rs_pps/distance_before"] == 0


@pytest.mark.parametrize(
    ("name", "algo", "config"), [("a_pps", "vdn", {}), ("pp_pps", "qmix", {"score": "individual"})]
)
def test_differ_and_pps_commute_exactly(name, algo, config):
    """The same program, operation by operation, whichever is named first."""
    config = {"period": 3, "moments": "average", "targets": "aggregate", **config}
    one = pps(differ.make(differ.Config(), base(algo)), name, **config).assemble()
    other = differ.make(differ.Config(), pps(base(algo), name, **config)).assemble()
    learner, batch = jax.eval_shape(one.init, KEY), random_batch()
    traces = [
        jax.make_jaxpr(a.update, return_shape=True)(learner, batch, context(a, updates=2), KEY) for a in (one, other)
    ]
    assert jax.tree.structure(traces[0][1]) == jax.tree.structure(traces[1][1])
    assert str(traces[0][0]) == str(traces[1][0])
    assert str(jax.make_jaxpr(one.init)(KEY)) == str(jax.make_jaxpr(other.init)(KEY))


# --------------------------------------------------------------------------------------------------------------- scores


def own_returns(buffer, collects, batch):
    """The ring after `collects` collects of `batch` episodes, and every agent's return of every episode."""
    parts = pps(base(spec=OWN), "rs_pps", buffer=buffer)
    algorithm, clock = parts.assemble(), start_clock()
    learner = jax.eval_shape(algorithm.init, KEY).replace(stats=parts.stats)
    seen, rng = [], np.random.default_rng(0)
    for c in range(collects):
        episode = random_batch(seed=c, spec=OWN)
        index = rng.integers(0, 4, batch)
        episode = jax.tree.map(lambda x, index=index: x[:, index], episode)
        reward = rng.normal(size=episode.reward.shape).astype(np.float32)  # also where the mask is 0
        reward = np.where(episode.mask[..., None] > 0, reward, np.nan)
        ctx = context(algorithm).replace(clock=clock)
        learner = algorithm.observe(learner, episode.replace(reward=jnp.array(reward)), ctx)
        clock = clock._replace(episodes=clock.episodes + batch)
        seen += list(np.nansum(reward, axis=0))
    return learner.stats["rs_pps"]["returns"], clock, np.array(seen)


@pytest.mark.parametrize(("buffer", "collects", "batch"), [(8, 2, 3), (5, 4, 3), (3, 2, 4)])
def test_own_rewards_of_the_last_episodes(buffer, collects, batch):
    """Not yet full; overwritten; more episodes in one collect than are kept."""
    ring, clock, seen = own_returns(buffer, collects, batch)
    np.testing.assert_allclose(scores.own_scores(ring, clock), seen[-buffer:].mean(0), rtol=1e-4, atol=1e-5)


def test_individual_scores_are_the_decomposed_rewards_that_differ_shows():
    parts = base("qmix")
    shown = differ.make(differ.Config(g_clamp=None), parts).assemble()
    learner, ctx, batch = value_cases.init(shown), context(shown), random_batch()
    real = (np.asarray(batch.mask)[..., None] > 0) & np.asarray(batch.alive[:-1])
    dirty = batch.replace(reward=jnp.where(batch.mask[..., None] > 0, batch.reward, 1e6))

    @jax.jit
    def both():
        learned = learner.replace(stats={})
        view = view_of(parts, learned, dirty, ctx)
        return shown.inspect(learned, batch, ctx)["individual_reward"], scores.individual_scores(view)

    reward, found = both()
    expected = np.where(real, reward, 0).sum((0, 1)) / batch.mask.shape[1]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert np.ptp(expected) > 0.1


def test_a_solo_episode_has_one_network_in_everybodys_place():
    parts, _, learner, ctx = case("rs_pps")
    seen = []

    def play(params, key, episodes):
        """A stand-in: two of three steps are real, and the reward is the played network's first bias."""
        seen.append(params)
        episode = jax.tree.map(lambda x: x[:, :2] if x.shape[1] == 4 else x, random_batch())
        mask = jnp.ones_like(episode.mask).at[3:].set(0.0)
        reward = jnp.broadcast_to(params["agent"]["head"]["bias"][2, 0], episode.reward.shape)
        return Rollout(episode=episode.replace(mask=mask, reward=reward), info={})

    config = dataclasses.replace(parts_config("rs_pps"), solo_episodes=2)
    sharing = dataclasses.replace(decided("rs_pps", config, parts), source="solo")
    view = view_of(parts, learner, None, ctx)
    found = scores.play_alone(sharing, view, play).stats["rs_pps"]
    np.testing.assert_allclose(found["score"], 3 * learner.params["agent"]["head"]["bias"][:, 0], rtol=1e-5)
    assert found["solo_steps"] == AGENTS * 2 * 3
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x.shape, y.shape), seen[0], learner.params)
    later = ctx.replace(clock=ctx.clock._replace(updates=jnp.int32(3)))
    assert_same(scores.play_alone(sharing, view.replace(ctx=later), play).stats, learner.stats)


@pytest.mark.parametrize(("solo_id", "reads"), [("network", {2}), ("agent", {0, 1, 2})])
def test_in_solo_episodes_everybody_reads_one_index_or_each_its_own(solo_id, reads):
    """No network has trained what it makes of another agent's index: what is there must then not matter."""
    parts, _, learner, ctx = case("rs_pps")
    config = dataclasses.replace(parts_config("rs_pps", solo_id=solo_id), solo_episodes=2)
    sharing = dataclasses.replace(decided("rs_pps", config, parts), source="solo")
    batch = random_batch()
    slot = TimeStep(
        **{f.name: getattr(batch, f.name)[0] for f in dataclasses.fields(TimeStep) if f.name != "info"}, info={}
    )
    algorithm = parts.assemble()

    def play(params, key, episodes, act=algorithm.act):
        """A stand-in: the reward is what all remember of one step."""
        memory, *_ = act(params, algorithm.initial_carry(slot.obs.shape[0]), slot, ctx, key, False)
        return Rollout(
            episode=batch.replace(reward=jnp.broadcast_to(memory["agent"].sum(), batch.reward.shape)), info={}
        )

    def score_of_the_last(changed):
        kernel = learner.params["agent"]["embed"]["kernel"]
        rows = kernel.shape[1] - AGENTS + np.array(sorted(changed), int)
        other = np.array(kernel)
        other[2, rows] += 1.0
        params = {"agent": {**learner.params["agent"], "embed": {**learner.params["agent"]["embed"], "kernel": other}}}
        state = learner.replace(params={**learner.params, **params})
        return scores.play_alone(sharing, view_of(parts, state, None, ctx), play).stats["rs_pps"]["score"][2]

    unchanged = score_of_the_last(set())
    moves = {agent for agent in range(AGENTS) if score_of_the_last({agent}) != unchanged}
    assert moves == reads


def test_an_index_that_nobody_reads_is_refused():
    parts = base("vdn", obs_agent_id=False)
    with pytest.raises(RefusedError, match=r"rs_pps.solo_id=network.*rs_pps.solo_id=agent"):
        pps(parts, "rs_pps", solo_id="network")


@pytest.mark.slow
def test_solo_episodes_score_networks_by_what_they_reach_and_are_counted_apart():
    """In the two-step game a team of networks that choose action 0 gets 7, and one that chooses action 1 gets 8."""
    env = matrix.make(matrix.Config(game="two_step"))
    run = RunConfig(num_envs=2, batch_size=2, total_env_steps=64, replay=ReplayConfig(capacity=4))
    parts = pps(base("vdn", env.spec, hidden_dim=2), "rs_pps", period=2, solo_episodes=3)
    program = Program(env, parts.assemble(), run)
    hparams = {name: jnp.float32(value) for name, value in program.algorithm.hparams.items()}
    hparams["lr"] = jnp.float32(1e-6)

    def two_iterations(clock):
        state = program.init(jnp.int32(0))
        fixed = jax.tree.map(jnp.zeros_like, state.learner.params["agent"])
        fixed = {**fixed, "head": {**fixed["head"], "bias": jnp.eye(2)}}
        learner = state.learner.replace(params={**state.learner.params, "agent": fixed})
        return program.chunk(2, state.replace(learner=learner), hparams, clock)

    (state, metrics), clock = jax.jit(two_iterations)(start_clock())
    updates, solo = metrics["update"], 2 * 3 * 2  # agents x episodes x steps
    assert clock.updates == 4
    np.testing.assert_array_equal(updates["rs_pps/solo_steps"], [[0, solo], [solo, 2 * solo]])
    scores = [[updates[f"rs_pps/score/agent_{i}"][0, u] for i in range(2)] for u in range(2)]
    np.testing.assert_array_equal(scores, [[0, 0], [7, 8]])
    weights = [updates[f"rs_pps/weight/agent_{i}"][0, 1] for i in range(2)]
    np.testing.assert_allclose(weights, [7 / 15, 8 / 15], rtol=1e-5)
    assert state.env_steps == 2 * 2 * 2  # collects x environments x steps: no more than without solo episodes


# ------------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("share", ["all", "type"])
def test_agents_that_share_parameters_are_refused(name, share):
    with pytest.raises(RefusedError, match=rf"algo.share_params={share}.*modifiers=\[{name}\].*algo.share_params=none"):
        pps(learner_parts("vdn", share_params=share), name)


@pytest.mark.parametrize(("first", "second"), [("a_pps", "rs_pps"), ("pp_pps", "a_pps"), ("rs_pps", "pp_pps")])
def test_two_averages_are_refused_with_the_reason(first, second):
    with pytest.raises(RefusedError, match=rf"{first} and {second} both average.*Use one"):
        pps(pps(base(), first), second)


@pytest.mark.parametrize(
    ("name", "config", "words"),
    [
        ("a_pps", {"period": 0}, "a_pps.period=0"),
        ("a_pps", {"share": "trunk"}, "a_pps.share=trunk.*embed, gru, head"),
        ("a_pps", {"share": ("embed", "body")}, "a_pps.share=body"),
        ("a_pps", {"share": ()}, "a_pps.share="),
        ("a_pps", {"within": "squad"}, "a_pps.within=squad.*team, type"),
        ("a_pps", {"init": "zero"}, "a_pps.init=zero"),
        ("pp_pps", {"moments": "drop"}, "pp_pps.moments=drop"),
        ("pp_pps", {"targets": "drop"}, "pp_pps.targets=drop"),
        ("rs_pps", {"score": "team"}, "rs_pps.score=team.*a_pps"),
        ("rs_pps", {"score": "others"}, "rs_pps.score=others"),
        ("rs_pps", {"score": "own"}, "rs_pps.score=own.*env=fake.*same reward.*solo"),
        ("rs_pps", {"rule": "best"}, "rs_pps.rule=best.*shifted_ratio"),
        ("rs_pps", {"temperature": 0.0}, "rs_pps.temperature=0.0"),
        ("pp_pps", {"buffer": 0}, "pp_pps.buffer=0"),
        ("pp_pps", {"solo_episodes": 0}, "pp_pps.solo_episodes=0"),
    ],
)
def test_settings_that_cannot_work_are_refused(name, config, words):
    with pytest.raises(RefusedError, match=words):
        pps(base(), name, **config)


def test_individual_scores_need_a_mixer_and_solo_episodes_a_jax_environment():
    with pytest.raises(RefusedError, match=r"algo=iql.*score=individual.*without a mixer"):
        pps(base("iql"), "rs_pps", score="individual")
    host = dataclasses.replace(SPEC, pure=False)
    for score in ("auto", "solo"):
        with pytest.raises(RefusedError, match=rf"score={score}.*env=fake is on the host.*individual.*a_pps"):
            pps(base(spec=host), "rs_pps", score=score)
    pps(base(spec=host), "rs_pps", score="individual")
    pps(base(spec=dataclasses.replace(host, common_reward=False)), "rs_pps")


@pytest.mark.parametrize("algo", ["iql", "vdn", "qmix"])
def test_one_agent_is_its_own_mean(algo):
    spec = EnvSpec("alone", 1, 3, 2, SPEC.action, 5, (0,), ("unit",))
    plain, alone = base(algo, spec), pps(base(algo, spec), "rs_pps")
    assert alone.after_update == alone.before_update == alone.observe == ()
    ours, theirs = alone.networks["agent"], plain.networks["agent"]
    assert ours is theirs or str(jax.make_jaxpr(ours.init)(KEY)) == str(jax.make_jaxpr(theirs.init)(KEY))


def test_an_algorithm_without_such_parts_is_asked_for_nothing():
    plain = base().assemble()
    assert plain.observe is None
    assert plain.before_update is None
    assert pps(base(), "rs_pps", rule="uniform").assemble().before_update is None  # equal weights need no score


def curious(param_sets=(0, 1, 2), network=None):
    """An algorithm written here: VDN whose agents have a second network each, for what they find new."""
    novelty = network or q_network(SPEC.obs_dim, 1, 4, False, param_sets)
    return base("vdn").extend(networks={"novelty": novelty})


def test_every_network_that_agents_have_is_averaged():
    parts = pps(curious(), period=1)
    algorithm = parts.assemble()
    learner = value_cases.init(algorithm).replace(stats=parts.stats)
    assert set(personal_networks(parts)) == {"agent", "novelty"}
    sharing = decided("a_pps", parts_config("a_pps"), parts)
    assert set(sharing.tensors) == {"agent", "novelty"}
    view = view_of(parts, learner, None, context(algorithm))
    after = jax.jit(lambda: averages.aggregate(sharing, view, jnp.zeros(AGENTS)))()
    for name in ("agent", "novelty"):
        before = learner.params[name]
        mean = jax.tree.map(lambda x: jnp.broadcast_to(x.mean(0, keepdims=True), x.shape), before)
        np.testing.assert_allclose(value_cases.flat(after.params[name]), value_cases.flat(mean), rtol=1e-5, atol=1e-6)
        assert np.abs(value_cases.flat(before) - value_cases.flat(mean)).max() > 1e-2
    first = algorithm.init(KEY).params["novelty"]  # init=common
    assert all((x == x[:1]).all() for x in jax.tree.leaves(first))


def test_a_network_may_be_left_out_by_name():
    parts = pps(curious(), networks=("agent",))
    sharing = decided("a_pps", parts_config("a_pps", networks=("agent",)), parts)
    assert set(sharing.tensors) == {"agent"}
    first = parts.assemble().init(KEY).params["novelty"]
    assert not all((x == x[:1]).all() for x in jax.tree.leaves(first))


def test_a_network_that_all_have_in_common_stays_as_it_is():
    parts = pps(curious(param_sets=(0, 0, 0)))
    assert set(decided("a_pps", parts_config("a_pps"), parts).tensors) == {"agent"}


def test_a_module_of_which_it_cannot_be_told_whose_it_is_is_refused():
    """One that has tensors for each agent, and no `param_sets`; of any other size it is the team's."""
    own = q_network(SPEC.obs_dim, 1, 4, False, (0, 1, 2))
    nobodys = Network(init=own.init, apply=own.unroll)
    with pytest.raises(RefusedError, match=r"agents have novelty of algo=vdn.*a_pps\.networks=\[agent\]"):
        pps(curious(network=nobodys))
    pps(curious(network=nobodys), networks=("agent",))
    common = q_network(SPEC.obs_dim, 1, 4, False, (0, 0, 0))
    pps(curious(network=Network(init=common.init, apply=common.unroll)))
