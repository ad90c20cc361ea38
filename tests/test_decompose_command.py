"""`python -m jaxshare.decompose`: numbers of a made-up ensemble on a made-up set, the picture, the log, refusals."""

import json
from itertools import permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from matplotlib.figure import Figure
from PIL import Image

from jaxshare.algos.sit import algorithm as sit
from jaxshare.algos.sit import equations as ops
from jaxshare.commands import decompose
from jaxshare.data import card, own, records
from jaxshare.decomposition import picture as picture_of
from jaxshare.decomposition.curves import curves as curves_of
from jaxshare.decomposition.statistics import statistics, statistics_of_type
from jaxshare.decomposition.table import remarks
from jaxshare.run import build
from jaxshare.run.checkpoint.checkpoints import Checkpoints
from jaxshare.run.folder import open_run_dir
from jaxshare.settings.help import small_command
from jaxshare.training.counting import start_clock
from jaxshare.types import Clock, Context, Discrete, EnvSpec, Episode, RefusedError

GAME = ("env=matrix", "env.game=recall")  # two agents of one type, two actions, three steps
FIRST = 4  # updates of the first stage
SIT = (
    *GAME, "algo=sit", "algo.decomposition=sum", "algo.ensemble=2", "algo.reward_dim=1", "algo.hidden_dim=2",
    "algo.critic_dim=2", "algo.attention_dim=1", "algo.capacity=8", f"algo.stage1_updates={FIRST}", "batch_size=2",
    "algo.hparams.min_ess=0", "progress=false",
)  # fmt: skip
SCALES = np.array([0.5, 1.5])  # of the two members: their mean is 1, their standard deviation 0.5
GAMMA = 0.99
EPISODES, LENGTHS = 8, np.array([3, 2] * 4)
BETTER = np.zeros((EPISODES, 2), bool)
BETTER[:4, 1] = True  # plays 1 in every step; the others play 0


def dataset(level, agents=2):
    """Eight episodes of two or three steps; after the end there is garbage, and nobody may look at it."""
    spec = build.make_env(tiny.settings("unused", *GAME, "algo=vdn")).spec
    mask = np.arange(3) < LENGTHS[:, None]
    last = np.arange(3) == LENGTHS[:, None] - 1
    action = np.broadcast_to(np.resize(BETTER, (EPISODES, agents))[:, None], (EPISODES, 3, agents))
    slots = (EPISODES, 4)
    episodes = Episode(
        obs=np.ones((*slots, agents, spec.obs_dim)), state=np.ones((*slots, spec.state_dim)),
        avail=np.ones((*slots, agents, 2), bool), alive=np.ones((*slots, agents), bool),
        action=np.where(mask[..., None], action, 1).astype(np.int32), reward=np.zeros((EPISODES, 3, agents)),
        terminated=last & (LENGTHS[:, None] < 3), truncated=last & (LENGTHS[:, None] == 3), mask=mask,
    )  # fmt: skip
    return records.make(episodes, level=level, card=card.card_of(spec, "rr + rm") if agents == 2 else None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two data sets: "levels.jds" says who was better, "unknown.jds" does not."""
    folder = tmp_path_factory.mktemp("decompose")
    own.save(dataset(BETTER.astype(int)), folder / "levels.jds")
    own.save(dataset(None), folder / "unknown.jds")
    return folder


def ensemble(shape, sign):
    """Parameters whose members say sign * scale * (the action is 1)."""
    params = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shape)
    params["reward"]["hidden"]["kernel"][:, -1] = 1.0
    params["reward"]["out"]["kernel"][:] = sign * SCALES[:, None, None]
    return params


def make_run(run_dir, arguments, updates, signs):
    """A run directory with one checkpoint, whose ensembles are made up."""
    settings = tiny.settings(run_dir, *arguments)
    open_run_dir(settings)
    shapes = jax.eval_shape(build.prepare(settings).init, jnp.int32(0)).replace(replay=None)
    zeros = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes)
    learner, states = zeros.learner, []
    for seed, sign in enumerate(signs):
        params = {**learner.params, "reward": ensemble(shapes.learner.params["reward"], sign)}
        states.append(zeros.replace(learner=learner.replace(params=params), seed=np.int32(seed)))
    checkpoints = Checkpoints(run_dir)
    checkpoints.save(Clock(*[np.int32(updates)] * 4), states, {})
    checkpoints.close()
    return run_dir


LOG = [
    {"seed": 0, "updates": 2, "sit/stage": 1.0, "sit/reward_agent_0": 3.0, "sit/reward_agent_1": 5.0},
    {"seed": 1, "updates": 2, "sit/stage": 1.0, "sit/reward_agent_0": 1.0, "sit/reward_agent_1": 1.0},
    {"seed": 0, "updates": 6, "sit/stage": 2.0, "sit/reward_agent_0": 2.0, "sit/reward_agent_1": 1.0},  # half of each
    {"seed": 0, "updates": 8, "sit/stage": 3.0, "sit/reward_agent_0": 0.0, "sit/reward_agent_1": 0.0},
    {"seed": 0, "updates": 8, "eval/return": 1.0},
    {"seed": 1, "updates": 6, "sit/stage": 2.0, "sit/reward_agent_0": 1.5, "sit/reward_agent_1": 0.5},
]


@pytest.fixture(scope="module")
def run_dir(folder):
    """A finished first stage; the ensemble of seed 0 is right about who is good, that of seed 1 says the opposite."""
    arguments = (*SIT, f"data={folder / 'levels.jds'}", "seeds=2")
    run_dir = make_run(folder / "run", arguments, FIRST, (1.0, -1.0))
    (run_dir / "metrics.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in LOG))
    return run_dir


@pytest.fixture(scope="module")
def found(run_dir):
    return decompose.decompose(decompose.Config(run_dir=str(run_dir)))


def own_type(result, run):
    (only,) = result["runs"][run]["types"].values()
    return only


# ------------------------------------------------------------------------------------------------------------- numbers


def test_what_is_written_is_what_is_returned(run_dir, found):
    assert json.loads((run_dir / "decomposition.json").read_text()) == found
    assert found["stage1"] == {"updates": FIRST, "of": FIRST, "finished": True}
    assert [run["seed"] for run in found["runs"]] == [0, 1]
    assert remarks(found) == []


def test_an_ensemble_that_is_right_orders_every_pair_and_one_that_is_wrong_none(found):
    for run, order in ((0, 1.0), (1, 0.0)):
        one = own_type(found, run)
        assert one["pairs"] == 4
        assert one["missing"] == {}
        assert one["auroc_reward"] == one["auroc_priority"] == {"pairs": order, "all": order}
    (mean,) = found["mean"]["types"].values()
    assert mean["auroc_reward"] == {"pairs": 0.5, "all": 0.5}
    assert mean["pairs"] == 4


def test_levels_have_the_means_of_the_equations(found):
    """Of trajectories of three steps and of two, as many of each: rewards 1 and 0, priorities by hand."""
    long, short = (1 + (1 + GAMMA) + (1 + GAMMA + GAMMA**2)) / 3, (1 + (1 + GAMMA)) / 2
    for run, sign, priorities in ((0, 1, (0, (20 + 20 * short / long) / 2)), (1, -1, (20, 10 - 10 * short / long))):
        levels = own_type(found, run)["levels"]
        assert list(levels) == ["random", "medium"]
        assert [level["trajectories"] for level in levels.values()] == [12, 4]
        np.testing.assert_allclose([level["reward"] for level in levels.values()], (0, sign), atol=1e-6)
        np.testing.assert_allclose([level["uncertainty"] for level in levels.values()], (0, 0.5), atol=1e-6)
        np.testing.assert_allclose([level["priority"] for level in levels.values()], priorities, atol=1e-4)
    np.testing.assert_allclose(found["runs"][0]["agents"]["reward"], (0, 0.5), atol=1e-6)


def test_what_would_be_drawn(found):
    """alpha = 0.2: of the priorities above, only the largest count. Seed 0 draws the two long good trajectories."""
    for run, drawn, ess in ((0, 1.0, 2.0), (1, 0.0, 12.0)):
        one = own_type(found, run)
        assert one["better"]["probability"] == pytest.approx(drawn, abs=1e-6)
        assert one["better"]["trajectories"] == 0.25
        assert one["ess"] == pytest.approx(ess, rel=1e-5)
        assert (one["alpha"], one["trajectories"]) == (pytest.approx(0.2), 16)


TWO_TYPES = EnvSpec("toy", 4, 1, 1, Discrete(2), 3, (0, 1, 0, 0), ("a", "b"))


def test_statistics_of_each_type_against_slow_loops():
    """Two types in one buffer, some levels unknown, many ties."""
    rng = np.random.default_rng(0)
    shape = (30, 4)
    given = {name: rng.integers(0, 4, shape).astype(np.float32) for name in ("reward", "priority")}
    given |= {name: rng.random(shape).astype(np.float32) for name in ("uncertainty", "log_weight")}
    level = rng.integers(-1, 3, shape)
    shown = statistics({**given, "alpha": np.full(4, 0.3, np.float32)}, level, TWO_TYPES)
    for name, members in (("a", [0, 2, 3]), ("b", [1])):
        one, graded = shown["types"][name], level[:, members]
        own = {key: x[:, members] for key, x in given.items()}
        wins = lambda good, bad: (good > bad) + 0.5 * (good == bad)  # noqa: E731
        for what in ("reward", "priority"):
            x = own[what]
            pairs = [
                wins(x[e, i], x[e, j])
                for e in range(30)
                for i, j in permutations(range(len(members)), 2)
                if graded[e, i] > 0 == graded[e, j]
            ]
            everyone = [wins(good, bad) for good in x[graded > 0] for bad in x[graded == 0]]
            order = one[f"auroc_{what}"]
            assert order["all"] == pytest.approx(np.mean(everyone), abs=1e-6)
            assert one["pairs"] == len(pairs)
            assert order["pairs"] == (pytest.approx(np.mean(pairs), abs=1e-6) if pairs else None)
        weight = np.exp(own["log_weight"].astype(float))
        expected = weight[graded > 0].sum() / weight[graded >= 0].sum()
        assert one["better"]["probability"] == pytest.approx(expected, rel=1e-5)
        assert one["better"]["trajectories"] == (graded > 0).sum() / (graded >= 0).sum()
        assert one["ess"] == pytest.approx(weight.sum() ** 2 / np.square(weight).sum(), rel=1e-5)
        assert one["levels"]["unknown"]["trajectories"] == (graded < 0).sum()
    assert shown["types"]["b"]["missing"] == {"pairs": "no episode has two agents of the type"}


@pytest.mark.parametrize(
    ("level", "pairs", "missing"),
    [
        ([[-1, -1], [-1, -1]], 0, {"pairs": "does not say", "all": "does not say"}),
        ([[0, 0], [1, 2]], 0, {"pairs": "in no episode"}),
        ([[0, 0], [0, 0]], 0, {"pairs": "in no episode", "all": "all agents of the type played at random"}),
        ([[2, 1], [1, 1]], 0, {"pairs": "in no episode", "all": "no agent of the type played at random"}),
        ([[0, -1], [-1, 1]], 0, {"pairs": "in no episode"}),
        ([[0, 1], [1, 1]], 1, {}),
    ],
)
def test_an_order_that_cannot_be_counted_has_a_reason(level, pairs, missing):
    level = np.array(level)
    shown = statistics_of_type(
        {name: np.ones((2, 2), np.float32) for name in ("reward", "priority", "uncertainty", "log_weight")}
        | {"alpha": np.ones(2)},
        level,
    )
    assert shown["pairs"] == pairs
    assert shown["missing"].keys() == missing.keys()
    for name in ("pairs", "all"):
        assert missing.get(name, "") in shown["missing"].get(name, "")
        expected = None if name in missing else 0.5  # everything ties
        assert shown["auroc_reward"][name] == shown["auroc_priority"][name] == expected
    assert (shown["better"] is None) == (level < 0).all()


def test_the_order_of_a_hundred_thousand_trajectories_is_counted():
    """Pairs of 50,000 and 50,000 are more than 32 bits count."""
    positive = np.arange(100_000) % 2 == 1
    assert jax.jit(ops.auroc)(positive.astype(np.float32), positive) == 1.0
    assert jax.jit(ops.auroc)(np.zeros(100_000, np.float32), positive) == pytest.approx(0.5, abs=1e-5)


# ------------------------------------------------------------------------------------------------------------- pictures


def test_the_log_of_both_stages_is_the_curve_of_the_first():
    """The mean over a chunk with both stages counts zeros of the last one."""
    curves = curves_of(LOG, agents=2, first=FIRST)
    assert list(curves) == ["seed 0", "seed 1"]
    updates, values = curves["seed 0"]
    assert updates == [2, 4]
    np.testing.assert_allclose(values, [[3, 5], [4, 2]])
    assert curves_of(LOG, agents=3, first=FIRST) == {}  # of a run that did not log them


def test_the_picture_shows_means_over_runs_and_all_trajectories(run_dir, found):
    with Image.open(run_dir / "decomposition.png") as picture:
        assert picture.size[0] > 2 * picture.size[1] > 600
    rewards, ridges = Figure().subplots(1, 2)
    picture_of.draw_rewards(rewards, curves_of(LOG, 2, FIRST), ["0 a", "1 a"])
    lines = {line.get_label(): (line.get_xdata(), line.get_ydata()) for line in rewards.lines}
    np.testing.assert_allclose(lines["0 a"], [[2, 4], [2, 3.5]])
    np.testing.assert_allclose(lines["1 a"], [[2, 4], [3, 1.5]])
    lower, upper = (rewards.collections[0].get_paths()[0].vertices[:, 1] for _ in range(2))
    assert (lower.min(), upper.max()) == (1.0, 4.0)  # 2 and 3.5, with deviations of 1 and 0.5
    values = np.array([0.0, 0.0, 0.0, 20.0])
    picture_of.draw_ridges(ridges, [picture_of.Row("0 a", values, np.array([0, 0, 2, 2]))], each=False)
    random, expert = (np.asarray(patch.get_data().values) for patch in ridges.patches[:2])
    np.testing.assert_allclose((random[0], expert[0], expert[-1]), (0.6, 0.9, 0.3))  # stacked, three at 0 and one at 20


def test_what_there_is_of_an_unfinished_run_with_unknown_levels_and_no_log(folder, run_dir, capsys):
    early = make_run(folder / "early", (*SIT, f"data={folder / 'levels.jds'}"), FIRST - 1, (1.0,))
    out = folder / "elsewhere" / "shown.png"
    config = decompose.Config(run_dir=str(early), data=str(folder / "unknown.jds"), out=str(out))
    shown = decompose.decompose(config)
    printed = capsys.readouterr().out
    assert shown["stage1"] == {"updates": FIRST - 1, "of": FIRST, "finished": False}
    assert f"stage I is not finished: update {FIRST - 1} of {FIRST}" in printed
    assert "does not say at which levels" in printed
    assert "–" in printed
    one = own_type(shown, 0)
    assert one["auroc_reward"] == {"pairs": None, "all": None}
    assert one["better"] is None
    assert list(one["levels"]) == ["unknown"]
    np.testing.assert_allclose(shown["runs"][0]["agents"]["reward"], (0, 0.5), atol=1e-6)
    assert sorted(path.name for path in out.parent.iterdir()) == ["shown.json", "shown.png"]
    assert not (early / "decomposition.json").exists()


def test_eleven_agents_of_three_types_can_be_drawn(tmp_path, found):
    types = ["a"] * 6 + ["b"] * 3 + ["c"] * 2
    level = np.arange(220).reshape(20, 11) % 3
    curves = {"seed 0": ([1, 2], np.zeros((2, 11)))}
    picture = picture_of.draw({**found, "agent_types": types}, curves, [np.ones((20, 11))], level)
    (tmp_path / "wide.png").write_bytes(picture)
    with Image.open(tmp_path / "wide.png") as picture:
        assert picture.size[0] > picture.size[1] > 600


# ------------------------------------------------------------------------------------------------------------ the log


def test_the_first_stage_logs_what_each_agent_is_given(folder):
    """Of a batch that holds the whole data set, before the step."""
    settings = tiny.settings("unused", *SIT, f"data={folder / 'levels.jds'}")
    spec = build.make_env(settings).spec
    learner = sit.make(settings.algo, spec)
    state = jax.eval_shape(learner.assemble().init, jax.random.key(0))
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), state)
    state = zeros.replace(params={**zeros.params, "reward": ensemble(state.params["reward"], 1.0)})
    hparams = {name: jnp.float32(x) for name, x in vars(settings.algo.hparams).items()}
    ctx = Context(hparams=hparams, clock=start_clock(), env_steps=jnp.int32(0))
    data = jax.device_put(dataset(None).episodes)
    update = jax.jit(learner.assemble().update_from, static_argnums=4)
    _, metrics = update(state, data, ctx, jax.random.key(0), EPISODES)
    assert metrics["sit/reward_agent_0"] == 0.0
    np.testing.assert_allclose(metrics["sit/reward_agent_1"], 10 / 20, rtol=1e-6)
    np.testing.assert_allclose(metrics["sit/reward_mean"], 0.25, rtol=1e-6)


# ------------------------------------------------------------------------------------------------------------ refusals


def run(arguments):
    """The command with these arguments, whose refusals are raised."""
    small_command(decompose.HELP, decompose.Config, decompose.decompose, arguments)


def test_help_names_every_setting_and_column(capsys):
    run(["--help"])
    shown = capsys.readouterr().out
    assert all(f"  {name}=" in shown for name in vars(decompose.Config()))
    assert all(word in shown for word in ("pairs", "reward", "prio.", "drawn", "in set", "ESS"))


def test_a_run_must_be_named_and_be_of_sit(tmp_path):
    with pytest.raises(RefusedError, match=r"run_dir is missing"):
        run([])
    with pytest.raises(RefusedError, match=r"'rundir' is not a setting"):
        run(["rundir=x"])
    with pytest.raises(RefusedError, match=r"is not a run directory"):
        run([f"run_dir={tmp_path}"])
    open_run_dir(tiny.settings(tmp_path / "vdn", *tiny.PLAIN))
    with pytest.raises(RefusedError, match=r"run_dir=\S+ is a run of algo=vdn.*Name a run of algo=sit"):
        run([f"run_dir={tmp_path / 'vdn'}"])


def test_a_run_without_checkpoint_is_refused(tmp_path, folder):
    open_run_dir(tiny.settings(tmp_path / "new", *SIT, f"data={folder / 'levels.jds'}"))
    for _ in range(2):
        with pytest.raises(RefusedError, match=r"run_dir=\S+ has no checkpoint\. Train it first"):
            run([f"run_dir={tmp_path / 'new'}"])
        (tmp_path / "new" / "checkpoints").mkdir(exist_ok=True)


def test_a_set_that_is_missing_or_of_another_size_is_refused(tmp_path, folder, run_dir):
    with pytest.raises(RefusedError, match=r"data=\S+none\.jds does not exist\. Name the data set"):
        run([f"run_dir={run_dir}", f"data={tmp_path / 'none.jds'}"])
    open_run_dir(tiny.settings(tmp_path / "lost", *SIT, f"data={tmp_path / 'lost.jds'}"))
    with pytest.raises(RefusedError, match=r"data=\S+lost\.jds, from which the run learned.*Name the data set"):
        run([f"run_dir={tmp_path / 'lost'}"])
    own.save(dataset(None, agents=3), tmp_path / "three.jds")
    with pytest.raises(RefusedError, match=r"three\.jds is not of the environment.*num_agents: 3 in the data, 2 in"):
        run([f"run_dir={run_dir}", f"data={tmp_path / 'three.jds'}"])
