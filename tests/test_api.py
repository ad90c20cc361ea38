"""The Python API: what `import jaxshare` offers, in a process where JAX has started."""

import ast
import json
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

import jaxshare
from jaxshare import cli, registry
from jaxshare.api import keywords
from jaxshare.api.policy import Policy
from jaxshare.api.run import Run
from jaxshare.api.training import arguments
from jaxshare.envs.matrix import environment as matrix
from jaxshare.settings.records import Settings
from jaxshare.types import Env

PAGE = tiny.REPOSITORY / "docs" / "python.md"
SMALL = {
    "num_envs": 4, "batch_size": 4, "replay": {"capacity": 16}, "eval": {"every": 16, "episodes": 4},
    "hidden_dim": 8, "target_update_period": 3, "progress": False, "total_env_steps": 64,
}  # fmt: skip


def blocks():
    """The code of the page."""
    return re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two seeds, trained through the API."""
    run_dir = tmp_path_factory.mktemp("api") / "run"
    return jaxshare.train(algo="vdn", env="matrix", game="two_step", seeds=2, run_dir=run_dir, **SMALL)


def test_it_is_the_run_of_the_command_line(run, tmp_path):
    tiny.train(tmp_path / "run", *tiny.PLAIN, "seeds=2")
    assert tiny.records(run.run_dir) == tiny.records(tmp_path / "run")
    assert isinstance(run.settings, Settings)
    assert run.labels == [{"seed": 0}, {"seed": 1}]


def test_metrics_are_columns_of_each_seed(run):
    first, second = run.metrics
    records = [record for record in tiny.records(run.run_dir, but=()) if record["seed"] == 1]
    assert second["env_steps"].tolist() == [record["env_steps"] for record in records]
    assert (first["seed"] == 0).all()
    losses = second["loss/td"]
    assert np.isnan(losses[["loss/td" not in record for record in records]]).all()

    steps, returns = run.curve("eval/return", seed=1)
    evaluated = [record for record in records if "eval/return" in record]
    assert steps.tolist() == [record["env_steps"] for record in evaluated]
    assert returns.tolist() == [record["eval/return"] for record in evaluated]


def test_what_was_never_logged_or_trained_is_named(run):
    with pytest.raises(jaxshare.RefusedError, match=r"eval/retrun was not logged. Known: .*eval/return"):
        run.curve("eval/retrun")
    with pytest.raises(jaxshare.RefusedError, match=r"seed=7: there is none"):
        run.policy(seed=7)


def test_a_policy_acts_as_evaluations_do(run):
    """Greedy episodes by hand have the return of the last evaluation."""
    policy = jaxshare.load(run.run_dir).policy(seed=1)
    env = jaxshare.make_env("matrix", game="two_step")
    state, timestep = env.reset(jax.random.key(0))
    carry = policy.initial_carry()
    total = 0.0
    for step in range(env.spec.episode_limit):
        action, carry = policy.act(timestep, carry, jax.random.key(step))
        assert action.shape == (env.spec.num_agents,)
        state, timestep = env.step(state, action, jax.random.key(step))
        total += float(timestep.reward[0])
    assert total == pytest.approx(run.curve("eval/return", seed=1)[1][-1])


def test_a_batch_of_environments_is_each_alone(run):
    policy = run.policy()
    env = jaxshare.make_env("matrix", game="two_step")
    _, timesteps = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), 3))
    together, _ = policy.act(timesteps, policy.initial_carry(3), jax.random.key(1))
    for i in range(3):
        one = jax.tree.map(lambda leaf, i=i: leaf[i], timesteps)
        alone, _ = policy.act(one, policy.initial_carry(), jax.random.key(1))
        np.testing.assert_array_equal(together[i], alone)


def test_evaluate_is_the_command(run):
    result = run.evaluate(episodes=8)
    assert result["episodes"] == 8
    assert [scores["seed"] for scores in result["runs"]] == [0, 1]
    assert json.loads(json.dumps(result)) == result  # plain values


def test_an_environment_of_the_users_own(tmp_path):
    env = matrix.make(matrix.Config(game="climbing"))
    run = jaxshare.train(algo="vdn", env=env, run_dir=tmp_path / "run", **{**SMALL, "total_env_steps": 16})
    assert run.evaluate(episodes=4)["mean"]["length"] == 1
    again = jaxshare.load(run.run_dir, trust=True)
    assert again.policy().spec == env.spec


# -------------------------------------------------------------------------------------------------- keywords


@pytest.mark.parametrize(
    ("named", "lines"),
    [
        ({"seeds": 2}, ["seeds=2"]),
        ({"scenario": "3m"}, ["env.scenario=3m"]),
        ({"lr": 1e-3}, ["algo.hparams.lr=0.001"]),
        ({"alpha": 0.5}, ["differ.alpha=0.5"]),
        ({"differ.alpha": 0.5}, ["differ.alpha=0.5"]),
        ({"eval": {"every": 10, "episodes": 3}}, ["eval.every=10", "eval.episodes=3"]),
        ({"algo": {"hparams": {"lr": 1.0}}}, ["algo.hparams.lr=1.0"]),
        ({"sweep": {"lr": [1e-3, 1e-4]}}, ["sweep.lr=[0.001,0.0001]"]),
        ({"sweep.lr": [1e-3]}, ["sweep.lr=[0.001]"]),
        ({"logger": ["tensorboard"]}, ["logger=[tensorboard]"]),
        ({"progress": False}, ["progress=false"]),
        ({"g_clamp": None}, ["differ.g_clamp=null"]),
        ({"total_env_steps": np.int64(5)}, ["total_env_steps=5"]),
        ({"lr": jnp.float32(0.5)}, ["algo.hparams.lr=0.5"]),
        ({"run_dir": pathlib.Path("a b")}, ["run_dir=a b"]),
        ({"run_dir": "a,b"}, ["run_dir='a,b'"]),
        ({"run_dir": "null"}, ["run_dir='null'"]),
        ({"sweep": {"lr": np.array([0.5, 0.25])}}, ["sweep.lr=[0.5,0.25]"]),
    ],
)
def test_keywords_are_the_command_line(named, lines):
    made = arguments("qmix", "smax", "differ", named)
    assert made == ["algo=qmix", "env=smax", "modifiers=[differ]", *lines]


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ({"sedes": 2}, "sedes=… is not a setting. Did you mean seeds"),
        ({"eval": {"evry": 2}}, "eval.evry=… is not a setting. Did you mean eval.every"),
        ({"total_env_steps": "many"}, "total_env_steps"),
        ({"lr": -1.0}, "algo.hparams.lr=-1.0 must"),
    ],
)
def test_mistakes_are_named(named, words, tmp_path):
    with pytest.raises(jaxshare.RefusedError, match=re.escape(words)):
        jaxshare.train(algo="qmix", env="matrix", run_dir=tmp_path / "run", **named)
    assert not (tmp_path / "run").exists()


def test_settings_that_are_handed_on_to_a_package():
    made = arguments("iql", "gymnasium", (), {"id": "rware-tiny-2ag-v2", "kwargs": {"my-key": [1, "a b"], "x": None}})
    assert made[2:] == ["env.id=rware-tiny-2ag-v2", "env.kwargs={my-key:[1,'a b'],x:null}"]
    with pytest.raises(jaxshare.RefusedError, match="the key 'a b' of a mapping"):
        arguments("iql", "gymnasium", (), {"kwargs": {"a b": 1}})


def test_a_setting_of_a_report_that_there_is_not():
    with pytest.raises(jaxshare.RefusedError, match=r"outt is not a setting of it. Did you mean out"):
        jaxshare.report("runs/x", outt="y")


def test_environments_of_one_name_are_told_apart():
    payoffs = {}
    for number in (1, 2, 1):
        game = matrix.make(matrix.Config(game="climbing"))
        payoffs.setdefault(number, game)
    first, again, second = (registry.register_env(payoffs[number]) for number in (1, 1, 2))
    assert first == again != second
    assert registry.get("env", first).make(None) is payoffs[1]


def test_vmapped_seeds_are_refused_every_time_once_jax_has_started(tmp_path):
    for _ in range(2):
        with pytest.raises(jaxshare.RefusedError, match="once JAX has started"):
            jaxshare.train(algo="vdn", env="matrix", seeds=2, parallel={"strategy": "vmap"}, run_dir=tmp_path / "run")


@pytest.mark.parametrize("checkpoint", [1.0, pathlib.Path("1"), "newest"])
def test_a_checkpoint_is_an_iteration_or_a_word(run, checkpoint):
    assert jaxshare.load(run.run_dir, checkpoint=np.int64(1))._saved.checkpoint == 1
    with pytest.raises(jaxshare.RefusedError, match="neither the iteration of a checkpoint nor best nor latest"):
        jaxshare.load(run.run_dir, checkpoint=checkpoint)


def test_a_run_is_chosen_by_its_place_too(run):
    np.testing.assert_array_equal(run.curve(run=1)[1], run.curve(seed=1)[1])
    with pytest.raises(jaxshare.RefusedError, match="run=2 with seed=None"):
        run.policy(run=2)


def test_a_name_of_several_is_refused():
    with pytest.raises(jaxshare.RefusedError, match=r"'env.x'.*'algo.x'"):
        keywords.full_key("x", {"env.x", "algo.x"}, ("env", "algo"))


def test_settings_of_an_environment_are_checked():
    with pytest.raises(jaxshare.RefusedError, match=r"secnario is not a setting of it. Did you mean scenario"):
        jaxshare.make_env("lbf", secnario="8x8-2p-2f-coop")
    with pytest.raises(jaxshare.RefusedError, match=r"env=lfb is not known. Did you mean lbf"):
        jaxshare.make_env("lfb")


def test_lists():
    assert "qmix" in jaxshare.list_algorithms()
    assert "smax" in jaxshare.list_envs()
    assert "differ" in jaxshare.list_modifiers()
    assert "main_job" in jaxshare.list_presets()


# -------------------------------------------------------------------------------------------------- the package


def test_every_name_of_the_package_is_there():
    for name in jaxshare.__all__:
        assert getattr(jaxshare, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        jaxshare.trian  # noqa: B018


def test_a_command_that_was_imported_does_not_hide_its_function():
    """`python -m jaxshare.train` is a module of the same name as the function."""
    lines = ["import jaxshare"]
    for name in ("train", "evaluate", "report"):
        lines += [f"import jaxshare.{name}", f"assert callable(jaxshare.{name}), '{name}'"]
        lines += [f"print(jaxshare.{name}.__doc__)"]
    code = "\n".join(lines)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=tiny.ENVIRONMENT)
    assert done.returncode == 0, done.stderr


def test_the_page_names_what_there_is():
    """Every attribute of the page, and every setting of its trainings, without training."""
    known = {"jaxshare": jaxshare, "run": Run, "policy": Policy, "env": Env}
    for node in (node for block in blocks() for node in ast.walk(ast.parse(block))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in known:
            owner = known[node.value.id]
            assert hasattr(owner, node.attr) or node.attr in owner.__dataclass_fields__, ast.unparse(node)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "jaxshare.train":
            told = {word.arg: word.value for word in node.keywords if word.arg not in ("run_dir", "callbacks")}
            named = {name: ast.literal_eval(value) for name, value in told.items()}
            lines = arguments(named.pop("algo"), named.pop("env"), (), named)
            assert cli.settings(lines).run.total_env_steps == named["total_env_steps"]


@pytest.mark.slow  # what it names is there (above), and each part of the API is tested by itself
def test_the_page_works(tmp_path, monkeypatch):
    """Every block of the page, in turn, in one program."""
    monkeypatch.chdir(tmp_path)
    names = {"folder": str(tmp_path / "run")}
    for block in blocks():
        exec(block, names)
    assert names["run"].metrics
