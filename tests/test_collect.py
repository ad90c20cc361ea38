"""Collecting: who plays in a data set is who the composition says, and nothing half-written is taken for a data set."""

import contextlib
import io
import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import yaml
from matplotlib import colors, image
from rich.progress import Progress

from jaxshare import cli, registry
from jaxshare.collection import policies, pools, teams
from jaxshare.commands import collect
from jaxshare.data import composition as composing
from jaxshare.data import own, paper_sets, records
from jaxshare.data.formats import open_any
from jaxshare.run import build
from jaxshare.run.checkpoint.checkpoints import Checkpoints
from jaxshare.run.folder import plain
from jaxshare.run.saved import open_run
from jaxshare.settings.rows import rows
from jaxshare.types import RefusedError, TimeStep

# greedy teams get 0, 1, 7 or 8 here, and random ones 4.75 in the mean; three checkpoints of four seeds
POOL = (*tiny.PLAIN, "seeds=4", "parallel.devices=1", "algo.hparams.lr=0.05")
POOL += ("checkpoint.every=16", "checkpoint.keep=99", "checkpoint.replay=false")
SET = {"composition": "rm + em", "episodes": 30, "batch": 16, "epsilon": 0.0, "dtype": "float32", "progress": False}
SET |= {"seed": 1, "pool_episodes": 64}  # where the measured mean is 5.23, so that 7 is medium and 8 expert
R, M, E = range(3)


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """A run whose checkpoints are the policies."""
    return tiny.train(tmp_path_factory.mktemp("pool") / "run", *POOL, max_chunks=2)


def collected(run_dir, out, **changes):
    """(the data set, what was printed)."""
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        path = collect.collect(collect.Config(run_dir=str(run_dir), out=str(out), **{**SET, **changes}))
    return own.open(path), shown.getvalue()


@pytest.fixture(scope="module")
def made(pool, tmp_path_factory):
    return collected(pool, tmp_path_factory.mktemp("sets") / "two.jds")


@pytest.fixture(scope="module")
def stored(made):
    return made[0]


@pytest.fixture(scope="module")
def dataset(stored):
    return stored.read()


# ------------------------------------------------------------------------------------------------------ what is in it


def test_agents_play_at_the_levels_of_the_composition(dataset):
    assert len(dataset) == 30
    expected = np.array([[R, M], [E, M]])
    np.testing.assert_array_equal(dataset.level, expected[dataset.component])
    assert np.bincount(dataset.component).tolist() == [15, 15]
    assert (np.diff(dataset.component) != 0).sum() > 3  # one kind is not behind the other
    pools, low = dataset.card["pools"], dataset.card["pools"]["low"]
    returns, span = np.array(pools["returns"]), max(pools["returns"]) - low
    np.testing.assert_allclose(pools["cuts"], [low + 0.3 * span, low + 0.7 * span])
    assert pools["high"] == returns.max()
    np.testing.assert_array_equal(np.searchsorted(pools["cuts"], returns[dataset.policy], side="right"), dataset.level)
    for level in (R, M, E):  # a policy is drawn for every agent and episode
        among = np.unique(dataset.policy[dataset.level == level])
        fit = (np.searchsorted(pools["cuts"], returns, side="right") == level) & (returns >= low)
        assert len(among) > 1 or fit.sum() == 1


def test_returns_of_the_checkpoints_are_those_of_the_run_s_own_evaluations(pool, stored):
    """The game is not random, and its greedy policies are not either."""
    pools = stored.card["pools"]
    assert len(pools["policies"]) == len(set(pools["policies"])) == len(pools["returns"]) == 13
    (*names, last), (*returns, low) = pools["policies"], pools["returns"]
    assert (last, low) == ("uniformly random actions", pools["low"])
    evaluated = {
        f"seed {r['seed']}, {r['env_steps']} steps": r["eval/return"] for r in tiny.records(pool) if "eval/return" in r
    }
    assert dict(zip(names, returns, strict=True)) == evaluated
    assert abs(pools["low"] - 4.75) < 1.2  # three standard errors


def test_episodes_are_played_by_the_checkpoints_they_name(pool, dataset):
    """Each checkpoint, restored by its name, is shown what an agent saw: it does what that agent did."""
    program = build.prepare(tiny.settings(pool, *POOL))
    episodes = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), dataset.episodes)
    hparams = {name: jnp.float32(value) for name, value in program.algorithm.hparams.items()}

    @jax.jit
    def play(state, clock):
        ctx, carry, actions = program.context(state, hparams, clock), program.algorithm.initial_carry(30), []
        for t in range(2):
            slots = {name: getattr(episodes, name)[t] for name in ("obs", "state", "avail", "alive")}
            steps = {name: getattr(episodes, name)[t] for name in ("reward", "terminated", "truncated")}
            seen = TimeStep(**slots, **steps, info={})
            carry, action, _ = program.algorithm.act(state.learner.params, carry, seen, ctx, jax.random.key(0), False)
            actions.append(action)
        return jnp.stack(actions, axis=1)  # [E, T, N]

    names, labels = dataset.card["pools"]["policies"], tiny.settings(pool, *POOL).labels()
    shapes = jax.eval_shape(program.init, jnp.int32(0)).replace(replay=None)
    checkpoints, told = Checkpoints(pool, read_only=True), {}
    for step in checkpoints.steps():
        clock, states = checkpoints.restore(step, shapes, 4, with_replay=False)
        for label, state in zip(labels, states, strict=True):
            told[names.index(f"seed {label['seed']}, {int(state.env_steps)} steps")] = np.asarray(play(state, clock))
    checkpoints.close()
    actions = np.stack([told[i] for i in range(12)])  # [P, E, T, N]
    rows, agents = np.ogrid[:30, :2]
    drawn = dataset.policy == 12  # at random
    expected = actions[np.where(drawn, 0, dataset.policy), rows, :, agents]  # [E, N, T]
    played = np.moveaxis(np.asarray(dataset.episodes.action), 1, 2)
    np.testing.assert_array_equal(played[~drawn], expected[~drawn])
    assert 0 < played[drawn].mean() < 1  # both actions
    assert (dataset.level[drawn] == R).all()
    assert (actions != actions[:1]).any(axis=(1, 2)).any()  # and not all of them do the same


def test_the_card_says_what_is_in_it(pool, stored, dataset):
    card, returns = stored.card, records.returns(dataset)
    assert (card["environment"], card["scenario"], card["composition"]) == ("matrix", "two_step", "rm + em")
    assert (card["run_dir"], card["algorithm"], card["epsilon"], card["seed"]) == (str(pool), "vdn", 0.0, 1)
    assert (card["episodes"], card["common_reward"], len(card["agent_types"])) == (30, True, 2)
    assert card["returns"]["mean"] == returns.mean()
    assert card["versions"]["jax"] == jax.__version__
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=tiny.REPOSITORY, capture_output=True, text=True)
    assert (card["git_commit"] or "").removesuffix("-dirty") == head.stdout.strip()
    for agent, levels in enumerate((("random", "expert"), ("medium",))):
        histogram = card["histogram"]["agents"][agent]
        assert histogram.keys() == set(levels)
        for name, counts in histogram.items():
            own_returns = returns[dataset.level[:, agent] == records.LEVELS.index(name)]
            assert counts == np.histogram(own_returns, card["histogram"]["edges"])[0].tolist()
    for number, about in card["components"].items():
        assert about["episodes"] == 15
        assert about["returns"]["mean"] == returns[dataset.component == int(number)].mean()


def test_the_picture_has_a_colour_for_every_level(stored):
    pixels = image.imread(stored.path.with_suffix(".png"))[..., :3].reshape(-1, 3)
    shown = {name: (np.abs(pixels - colors.to_rgb(name)).max(1) < 0.01).sum() for name in colors.TABLEAU_COLORS}
    assert {name for name, count in shown.items() if count > 50} - {"tab:gray"} == {  # of letters
        "tab:red", "tab:orange", "tab:green",
    }  # fmt: skip


def test_what_is_printed_leads_on(made):
    stored, shown = made
    mean = stored.card["returns"]["mean"]
    assert f"30 episodes, mean return {mean:.2f}" in shown
    assert f"env=matrix data={stored.path}" in shown
    for name in (str(stored.path), str(stored.path.with_suffix(".png")), "random", "medium", "expert"):
        assert name in shown


# -------------------------------------------------------------------------------------------------- other compositions


@pytest.mark.slow
def test_a_composition_of_the_paper_random_actions_and_another_seed(pool, dataset, tmp_path, monkeypatch):
    found = paper_sets.Preset("99% ee + 1% rr", "high", 7.5, "made up")
    monkeypatch.setitem(paper_sets.PRESETS, ("matrix", "two_step"), {"medium": found})
    other, shown = collected(
        pool, tmp_path / "x.jds", composition="medium", epsilon=1.0, episodes=100, batch=100, seed=0
    )
    card, played = other.card, other.read()
    assert (card["preset"], card["confidence"], card["paper_average"], card["note"]) == (
        "medium", "high", 7.5, "made up",
    )  # fmt: skip
    assert "the paper's medium sets have a quality of 0.35 to 0.61" in shown  # random actions have none
    assert card["composition"] == "99% ee + 1% rr"
    assert np.bincount(played.component).tolist() == [99, 1]
    shares = np.bincount(played.episodes.action.ravel()) / played.episodes.action.size  # of four hundred
    np.testing.assert_allclose(shares, 0.5, atol=0.1)
    assert (other.read(slice(0, 30)).policy != dataset.policy).any()


TASKS = [task for task in paper_sets.PRESETS if task[0] in ("smax", "mpe")]  # those of the paper that are JAX code


@pytest.mark.parametrize("kind", [pytest.param("smax", marks=pytest.mark.slow), "mpe"])
def test_the_paper_s_tasks_go_by_their_names_here(kind):
    assert len(TASKS) == 9
    module = registry.get("env", kind)
    for task in (task for environment, task in TASKS if environment == kind):
        spec = module.make(module.Config(scenario=task)).spec
        environment, _, scenario = spec.name.partition("/")
        assert (environment, scenario) == (kind, task)
        for name in pools.PRESETS:
            if name in ("low", "medium") or task == "2s3z":
                text = paper_sets.preset(environment, scenario, name).composition
                assert composing.parse(text, spec.num_agents).num_agents == spec.num_agents
            else:
                with pytest.raises(RefusedError, match=f"composition={name} is not known.* Known: low, medium"):
                    paper_sets.preset(environment, scenario, name)


# ------------------------------------------------------------------------------------------------------------- refusals


@pytest.fixture
def refused(monkeypatch, capsys):
    """Run the command in this process; its message."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["jaxshare-collect", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            collect.main()
        assert stopped.value.code == 1
        message = capsys.readouterr().err
        assert message.startswith("error: ")
        assert "Traceback" not in message
        return message.removeprefix("error: ").strip()

    return run


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run_dir="], ["run_dir is missing"]),
        (["out="], ["out is missing"]),
        (["epsilon=1.5"], ["epsilon=1.5", "between 0 and 1"]),
        (["epsilon=-0.1"], ["epsilon=-0.1", "between 0 and 1"]),
        (["episodes=0"], ["episodes=0", "at least 1"]),
        (["batch=0"], ["batch=0", "at least 1"]),
        (["pool_episodes=0"], ["pool_episodes=0", "at least 1"]),
        (["episode=5"], ["'episode' is not a setting", "Did you mean episodes"]),
        (["seed=first"], ["seed", "first"]),
        (["dtype=float8"], ["dtype=float8", "float16"]),
        (["out=two"], ["out=two", "ends with .jds", "two.jds"]),
        (["run_dir=nowhere"], ["run_dir=nowhere", "config.yaml"]),
        (["composition=rrm"], ["composition=rrm is for 3 agents, the environment has 2"]),
        (["composition=rx"], ["composition=rx", "'x' (character 2)"]),
        (["composition=low"], ["env=matrix", "the paper has no data set for it", "Write a composition"]),
        (["rule=halves"], ["rule=halves", "30/40/30, thirds"]),
        # by this seed's episodes random play returns 3.6, and the upper cut is at 6.7
        (["seed=0"], ["composition=rm + em needs medium policies, and no checkpoint is one", "checkpoint.every"]),
    ],
    ids=lambda x: x[0] if "=" in x[0] else None,
)
def test_what_cannot_be_collected_is_refused(refused, pool, tmp_path, arguments, told):
    out = tmp_path / "sets" / "two.jds"
    message = refused(f"run_dir={pool}", f"out={out}", "composition='rm + em'", *arguments)
    assert [word for word in told if word not in message] == [], message
    assert not out.parent.exists()


def test_a_run_without_checkpoints_is_refused(refused, pool, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(pool / "config.yaml", run)
    message = refused(f"run_dir={run}", f"out={tmp_path / 'two.jds'}", "composition=em")
    assert f"run_dir={run} has no checkpoint. Train it first." in message
    hosted = plain(cli.settings(["env=lbforaging", f"run_dir={run}"]))
    (run / "config.yaml").write_text(yaml.safe_dump(hosted))
    message = refused(f"run_dir={run}", f"out={tmp_path / 'two.jds'}", "composition=em")
    assert f"run_dir={run} has no checkpoint. Train it first." in message
    assert not list(tmp_path.glob("two*"))


def test_a_data_set_is_replaced_only_if_that_is_asked_for(refused, pool, stored, tmp_path):
    """Refused before the checkpoints are measured."""
    path = shutil.copytree(stored.path, tmp_path / "two.jds")
    before = tiny.files(tmp_path)
    message = refused(f"run_dir={pool}", f"out={path}", "composition='rm + em'")
    assert f"out={path} exists" in message
    assert "overwrite=true" in message
    assert tiny.files(tmp_path) == before


# ----------------------------------------------------------------------------------------------------- stopped half-way


@pytest.mark.slow
def test_stopped_in_the_middle_nothing_opens_until_the_same_command_gives_the_same_bytes(
    refused, pool, stored, tmp_path, monkeypatch
):
    path, append = tmp_path / "two.jds", own.Writer.append

    def interrupted(self, batch):
        if len(self) >= 16:
            raise KeyboardInterrupt
        append(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(own.Writer, "append", interrupted)
        with pytest.raises(KeyboardInterrupt):
            collected(pool, path)
    assert_unfinished(refused, pool, path)
    again, _ = collected(pool, path, overwrite=True)
    assert tiny.files(again.path) == tiny.files(stored.path)
    assert path.with_suffix(".png").read_bytes() == stored.path.with_suffix(".png").read_bytes()
    assert not path.with_name("two.jds.unfinished").exists()


def assert_unfinished(refused, pool, path):
    assert not path.exists()
    assert not path.with_suffix(".png").exists()
    unfinished = path.with_name(path.name + ".unfinished")
    for there in (path, unfinished):
        with pytest.raises(RefusedError, match="is unfinished: its writer was stopped"):
            open_any(there)
    message = refused(f"run_dir={pool}", f"out={path}", "composition=em")
    assert f"out={unfinished} was left unfinished" in message


@pytest.mark.slow
def test_killed_in_the_middle_nothing_opens(refused, pool, tmp_path):
    path = tmp_path / "two.jds"
    arguments = (f"run_dir={pool}", f"out={path}", "composition='rm + em'", "episodes=1000000", "batch=64")
    arguments += ("seed=1",)
    process = subprocess.Popen(
        [sys.executable, "-m", "jaxshare.collect", *arguments], cwd=tiny.REPOSITORY, env=tiny.ENVIRONMENT,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    until = time.monotonic() + 240
    while not list(path.with_name("two.jds.unfinished").glob("reward/c/*")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert_unfinished(refused, pool, path)


# ---------------------------------------------------------------------------------------------------- who may be a pool

FEW = ("total_env_steps=16", "num_envs=4", "batch_size=4", "eval.every=1000", "eval.episodes=4", "seeds=4")
FEW += ("algo.hidden_dim=4", "parallel.devices=1", "progress=false", "replay.capacity=16")
FAMILIES = {
    "policies of their own": ("algo=vdn", "algo.share_params=none", *FEW),
    "a critic that remembers": ("algo=mappo", "algo.recurrent=true", "algo.critic_recurrent=true", *FEW),
    "a mixer and a modifier": ("algo=qmix", "modifiers=[differ]", "algo.embed_dim=4", "algo.hypernet_dim=4", *FEW),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_runs_of_every_family_are_pools(name, tmp_path):
    """The best of four untrained teams is above the mean of random play in the climbing game (-3.4)."""
    run_dir = tiny.train(tmp_path / "run", "env=matrix", "env.game=climbing", *FAMILIES[name])
    best, _ = collected(run_dir, tmp_path / "best.jds", composition="ee", episodes=8)
    pools, played = best.card["pools"], best.read()
    chosen = np.unique(played.policy)
    experts = [p for p, value in enumerate(pools["returns"]) if value >= pools["cuts"][1]]
    assert set(chosen) <= set(experts)
    if len(experts) == 1:
        np.testing.assert_allclose(records.returns(played), pools["high"])


@pytest.mark.slow
def test_continuous_actions(tmp_path):
    """Random teams draw from the box; a greedy team repeats itself, and with noise it does something else."""
    sizes = [x for x in FEW if not x.startswith(("total", "seeds"))]
    run_dir = tiny.train(
        tmp_path / "run", "env=mpe", "env.scenario=pred_prey_3a", "env.max_steps=2", "algo=facmac", *sizes,
        "total_env_steps=16", "algo.hparams.lr=0.05", "checkpoint.every=8", "checkpoint.keep=99",
    )  # fmt: skip
    sample = policies.Sample(8, seed=0)
    run = open_run(run_dir)
    spec = run.program.env.spec
    assert np.isfinite(policies.random_return(run.program, sample))
    seen = types.SimpleNamespace(alive=np.ones((500, spec.num_agents), bool))
    act = policies.random_actor(spec.action)
    drawn = np.asarray(act(None, (), seen, None, jax.random.key(0), True)[1])
    assert drawn.shape == (500, spec.num_agents, spec.action.dim)
    np.testing.assert_allclose(drawn.min((0, 1)), spec.action.low, atol=0.01)
    np.testing.assert_allclose(drawn.max((0, 1)), spec.action.high, atol=0.01)
    with Progress(disable=True) as bar:
        measured = policies.measure(run, sample, bar)
    assert len(measured.names) == len(tiny.steps_saved(run_dir)) > 1
    policy = np.full((4, spec.num_agents), len(measured.names) - 1)
    keys = jax.random.split(jax.random.key(0), 4)

    def actions(epsilon):
        play = teams.make_player(run, epsilon)
        return np.asarray(play(measured.params, policy, keys).action)

    greedy, noisy = actions(0.0), actions(0.5)
    np.testing.assert_array_equal(greedy, actions(0.0))
    assert (noisy != greedy).any(axis=(0, 3)).all()  # of every agent in every episode


# ----------------------------------------------------------------------------------------------------------------- help


@pytest.mark.slow
def test_help_shows_every_setting_and_its_examples_work(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["jaxshare-collect", "--help"])
    collect.main()
    shown = capsys.readouterr().out
    in_one_line = " ".join(shown.split())
    for row in rows(collect.Config):
        assert f"  {row.key}=" in shown
        assert row.setting.help
        assert row.setting.help in in_one_line
    examples = [shlex.split(x) for x in shown.replace("\\\n", " ").splitlines() if "python -m" in x]
    train, own_command = (x[x.index("-m") + 1 :] for x in examples if "key=value" not in " ".join(x))
    assert (train[0], own_command[0]) == ("jaxshare.train", "jaxshare.collect")
    settings = cli.settings(train[1:])
    asked = cli.small_config(collect.Config, own_command[1:])
    assert asked.run_dir == settings.run.run_dir
    spec = build.make_env(settings).spec
    assert len(composing.parse(asked.composition, spec.num_agents).components) == 2
    assert json.dumps(asked.episodes) in " ".join(own_command)
