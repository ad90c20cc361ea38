"""Whatever cannot be done ends with one sentence that names key, value and remedy, and touches no existing run."""

import json
import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
import tiny

from jaxshare.commands import train
from jaxshare.run.checkpoint.checkpoints import Checkpoints

RESUME = "resume=auto"


@pytest.fixture
def refused(monkeypatch, capsys):
    """Run the command in this process; its one message."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["jaxshare-train", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            train.main()
        assert stopped.value.code not in (0, None)
        return one_message(capsys.readouterr().err)

    return run


def one_message(stderr):
    assert "Traceback" not in stderr
    lines = stderr.strip().splitlines()
    assert [line.startswith("error: ") for line in lines] == [True], stderr
    assert "error" not in lines[0][7:].split(" ")[0].lower()
    return lines[0].removeprefix("error: ")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with two checkpoints."""
    run_dir = tmp_path_factory.mktemp("trained") / "run"
    return tiny.train(run_dir, *tiny.PLAIN, "checkpoint.every=16", max_chunks=2)


@pytest.fixture
def run_dir(trained, tmp_path):
    """A copy of it, to be damaged."""
    return shutil.copytree(trained, tmp_path / "run")


# ----------------------------------------------------------------------------- what no environment is needed for

BAD = [
    # unknown names, with the nearest ones
    (["total_step=5"], ["total_step", "total_env_steps"]),
    (["algo.hidden=5"], ["algo.hidden", "algo.hidden_dim"]),
    (["lr=0.1"], ["lr", "algo.hparams.lr"]),
    (["+seed_count=3"], ["seed_count"]),
    (["replay.capcity=5"], ["replay.capcity", "replay.capacity"]),
    (["algo=qmxi"], ["algo", "qmxi", "Did you mean qmix", "iql"]),
    (["env=matrixx"], ["env", "matrixx", "Did you mean matrix", "smax"]),
    (["modifiers=[difer]"], ["modifiers", "difer", "Did you mean differ"]),
    (["preset=main_jobb"], ["preset", "main_jobb", "Did you mean main_job"]),
    (["env=matrix", "env.game=two_steps"], ["env.game", "two_steps", "two_step", "climbing", "recall", "custom"]),
    (["env=smax", "env.scenario=3mm"], ["env.scenario", "3mm", "3m", "2s3z"]),
    (["env=mpe", "env.scenario=spred"], ["env.scenario", "spred", "Did you mean spread", "tag"]),
    (["replay.dtype=float8"], ["replay.dtype", "float8", "bfloat16"]),
    (["logger=[tensorbord]"], ["logger", "tensorbord", "tensorboard"]),
    (["parallel.strategy=pmap"], ["parallel.strategy", "pmap", "vmap"]),
    (["resume=yes"], ["resume", "auto", "never"]),
    (["algo.share_params=some"], ["algo.share_params", "some", "all, type, none"]),
    (["algo.optimizer=sgd"], ["algo.optimizer", "sgd", "rmsprop"]),
    (["modifiers=[differ]", "differ.select=best"], ["differ.select", "best", "per_expected"]),
    (["sweep.learning_rate=[0.1]"], ["sweep.learning_rate", "0.1", "lr"]),
    (["sweep.differ.alpha=[0.1]"], ["sweep.differ.alpha", "Known"]),
    (["sweep.hidden_dim=[32,64]"], ["sweep.hidden_dim", "not a scalar hyper-parameter"]),
    (["sweep.lr=[a,b]"], ["sweep.lr", "list of numbers"]),
    (["sweep.lr=[]"], ["sweep.lr", "list of numbers"]),
    # values that cannot work
    (["seeds=0"], ["seeds=0", "at least 1"]),
    (["seeds=-1"], ["seeds=-1", "at least 1"]),
    (["total_env_steps=0"], ["total_env_steps=0", "at least 1"]),
    (["num_envs=0"], ["num_envs=0", "at least 1"]),
    (["batch_size=32", "replay.capacity=16"], ["batch_size=32", "replay.capacity=16", "batch_size=16"]),
    (["num_envs=32", "replay.capacity=16", "batch_size=4"], ["num_envs=32", "replay.capacity=16", "num_envs=16"]),
    (["updates_per_episode=0"], ["updates_per_episode=0", "at least"]),
    (["updates_per_episode=-1"], ["updates_per_episode=-1", "at least"]),
    (["eval.episodes=0"], ["eval.episodes=0", "at least 1"]),
    (["checkpoint.keep=0"], ["checkpoint.keep=0", "at least 1"]),
    (["env=matrix", "env.game=recall", "env.delay=0"], ["env.delay=0", "at least 1"]),
    (["env=matrix", "env.game=custom"], ["env.game=custom", "env.payoff"]),
    (["env=matrix", "env.game=custom", "env.payoff=[[1,2],[3]]"], ["env.payoff", "rows of equal length"]),
    (["algo.target_update_period=0"], ["algo.target_update_period=0", "at least 1"]),
    (["modifiers=[differ]", "differ.eta_start=0"], ["differ.eta_start=0", "(0, 1]"]),
    (["algo.hparams.lr=-1"], ["algo.hparams.lr=-1.0", "negative"]),
    (["algo.hparams.gamma=nan"], ["algo.hparams.gamma=nan", "finite", "between 0 and 1"]),
    (["modifiers=[differ]", "sweep.differ.eta_start=[5.0]"], ["sweep.differ.eta_start=5.0", "(0, 1]"]),
    (["algo.embed_dim=-1"], ["algo.embed_dim=-1", "at least 1"]),
    (["algo.hypernet_dim=99999999999"], ["algo.hypernet_dim=99999999999", "at most 65536"]),
    (["env=lbf", "env.max_player_level=99999999999"], ["env.max_player_level=99999999999", "at most"]),
    (["updates_per_episode=inf"], ["updates_per_episode=inf", "at least"]),
    (["algo.recurrent=-1"], ["algo.recurrent=-1", "neither true nor false"]),
    # wrong types
    (["seeds=many"], ["seeds", "many"]),
    (["total_env_steps=1.5"], ["total_env_steps", "1.5"]),
    (["replay.capacity=ten"], ["replay.capacity", "ten"]),
    (["algo.hparams.lr=fast"], ["algo.hparams.lr", "fast"]),
    (["algo.recurrent=maybe"], ["algo.recurrent", "maybe"]),
    (["seeds=[1,2]"], ["seeds"]),
    (["seeds=null"], ["seeds"]),
    (["replay=5"], ["replay"]),
    (["seeds"], ["'seeds'", "key=value"]),
    (["=4"], ["=4", "setting"]),
    # what does not go together
    (["algo=iql", "modifiers=[differ]"], ["modifiers=[differ]", "algo=iql", "no mixer", "qmix"]),
    (["modifiers=[differ,differ]"], ["differ"]),
    (["algo=vdn", "differ.alpha=0.5"], ["differ.alpha=0.5", "modifiers=[differ]"]),
    (["seeds=64", "parallel.devices=64"], ["parallel.devices=64", "devices"]),
    (["replay.capacity=1000000000"], ["replay.capacity=1000000000", "GB", "Use replay.capacity=", "bfloat16"]),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "told"), BAD, ids=lambda x: " ".join(x) if isinstance(x, list) else None)
def test_bad_settings(refused, tmp_path, arguments, told):
    target = tmp_path / "run"
    message = refused("env=matrix", f"run_dir={target}", *arguments)
    assert [word for word in told if word not in message] == [], message
    assert not target.exists()


def test_the_memory_suggestion_is_accepted(refused, tmp_path):
    message = refused("env=matrix", f"run_dir={tmp_path / 'run'}", "replay.capacity=1000000000")
    capacity = int(message.split("Use replay.capacity=")[1].split(",")[0])
    assert 1 <= capacity < 1_000_000_000
    from jaxshare.run import build, memory, parallel

    chosen = tiny.settings(tmp_path / "run", "env=matrix", f"replay.capacity={capacity * 9 // 10}")
    program = build.prepare(chosen)
    memory.check_memory(program, parallel.layout(chosen.run.parallel, 1, pure=True))


# --------------------------------------------------------------------------------------------- run directories


def test_a_used_run_dir_is_not_touched(refused, run_dir):
    before = tiny.files(run_dir)
    message = refused(f"run_dir={run_dir}", *tiny.PLAIN)
    assert str(run_dir) in message
    assert RESUME in message
    assert tiny.files(run_dir) == before


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (["algo.hparams.lr=0.5"], ["algo.hparams.lr was 0.0005, now 0.5"]),
        (["seeds=2"], ["seeds was 1, now 2"]),
        (["env.game=recall"], ["env.game was two_step, now recall"]),
        (["algo=qmix"], ["algo_name was vdn, now qmix"]),
        (["modifiers=[differ]"], ["modifiers"]),
        (["sweep.lr=[0.1,0.2]"], ["sweep"]),
    ],
)
def test_a_run_dir_of_another_configuration(refused, run_dir, changed, told):
    before = tiny.files(run_dir)
    message = refused(f"run_dir={run_dir}", *tiny.PLAIN, *changed, RESUME)
    assert [word for word in (str(run_dir), *told, "choose another run_dir") if word not in message] == [], message
    assert tiny.files(run_dir) == before


def truncate_all(folder):
    for path in folder.rglob("*"):
        if path.is_file():
            os.truncate(path, path.stat().st_size // 2)


def remove(pattern):
    return lambda folder: [path.unlink() for path in folder.rglob(pattern)]


def empty(folder):
    shutil.rmtree(folder)
    folder.mkdir()


def replace_meta(folder):
    for path in (folder / "meta").rglob("metadata"):
        path.write_text(json.dumps({"format": "someone else's"}))


DAMAGE = {
    "truncated": truncate_all,
    "no manifest": remove("manifest.ocdbt"),
    "no metadata": remove("_METADATA"),
    "no meta": lambda folder: shutil.rmtree(folder / "meta"),
    "no learner": lambda folder: shutil.rmtree(folder / "learner"),
    "no replay": lambda folder: shutil.rmtree(folder / "replay"),
    "empty": empty,
    "foreign": replace_meta,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_damaged_checkpoints(refused, run_dir, damage):
    """All of them: there is nothing to fall back to. Each is named with what is wrong, and nothing is touched."""
    older, newest = tiny.steps_saved(run_dir)
    for step in (older, newest):
        damage(run_dir / "checkpoints" / str(step))
    before = tiny.files(run_dir)
    message = refused(f"run_dir={run_dir}", *tiny.PLAIN, RESUME)
    assert f"no checkpoint in {run_dir / 'checkpoints'} is sound ({newest}: " in message, message
    assert f"; {older}: " in message, message
    assert "delete" not in message
    assert tiny.files(run_dir) == before


def test_the_remedy_for_a_damaged_checkpoint_works(run_dir):
    older, newest = tiny.steps_saved(run_dir)
    truncate_all(run_dir / "checkpoints" / str(newest))
    shutil.rmtree(run_dir / "checkpoints" / str(newest))
    tiny.train(run_dir, *tiny.PLAIN, RESUME, max_chunks=1)
    assert tiny.steps_saved(run_dir) == [older, newest]


def test_the_checkpoints_of_another_network(refused, run_dir, tmp_path):
    """The configuration fits, but the checkpoint is from elsewhere."""
    config = run_dir / "config.yaml"
    config.write_text(config.read_text().replace("hidden_dim: 8", "hidden_dim: 16"))
    before = tiny.files(run_dir)
    message = refused(f"run_dir={run_dir}", *tiny.PLAIN, "algo.hidden_dim=16", RESUME)
    assert str(run_dir / "checkpoints") in message
    assert tiny.files(run_dir) == before


@pytest.mark.parametrize("name", ["metrics.jsonl", "checkpoints/model.pt"])
@pytest.mark.parametrize("resume", ["auto", "never"])
def test_a_folder_of_something_else(refused, tmp_path, name, resume):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("precious\n")
    before = tiny.files(tmp_path)
    message = refused(f"run_dir={tmp_path}", *tiny.PLAIN, f"resume={resume}")
    assert str(tmp_path) in message
    assert "choose another run_dir" in message
    assert tiny.files(tmp_path) == before


@pytest.mark.parametrize("text", ["", "a: [", "run: 5\n", "- 1\n"])
def test_an_unreadable_configuration(refused, run_dir, text):
    (run_dir / "config.yaml").write_text(text)
    before = tiny.files(run_dir)
    message = refused(f"run_dir={run_dir}", *tiny.PLAIN, RESUME)
    assert str(run_dir) in message
    assert tiny.files(run_dir) == before


@pytest.mark.parametrize("where", ["/dev/null/x", "{tmp}/file", "{tmp}/file/below"])
def test_an_unwritable_directory(refused, tmp_path, where):
    (tmp_path / "file").write_text("precious")
    where = where.format(tmp=tmp_path)
    message = refused(f"run_dir={where}", *tiny.PLAIN)
    assert f"run_dir={where}" in message
    assert "choose another run_dir" in message
    assert (tmp_path / "file").read_text() == "precious"


# -------------------------------------------------------------------------------------------------- the rest


@pytest.mark.parametrize(("logger", "package"), [("tensorboard", "tensorboardX"), ("wandb", "wandb")])
def test_a_missing_optional_package(refused, run_dir, tmp_path, monkeypatch, logger, package):
    monkeypatch.setitem(sys.modules, package, None)
    before = tiny.files(run_dir)
    for where, resume in ((run_dir, "auto"), (tmp_path / "new", "never")):
        message = refused(f"run_dir={where}", *tiny.PLAIN, f"logger=[{logger}]", f"resume={resume}")
        assert [word for word in (f"logger=[{logger}]", package, "pip install") if word not in message] == [], message
    assert tiny.files(run_dir) == before
    assert not (tmp_path / "new").exists()


def test_a_loss_that_is_not_finite_stops_the_run(refused, tmp_path):
    message = refused(f"run_dir={tmp_path}", *tiny.PLAIN, "algo.hparams.lr=1e30", "checkpoint.every=16")
    assert "loss/td became" in message
    assert "update " in message
    assert "seed=0" in message
    assert "algo.hparams.lr" in message
    checkpoints = Checkpoints(tmp_path)
    newest = checkpoints.latest()
    checkpoints.close()
    assert str(tmp_path / "checkpoints" / str(newest)) in message
    _, (state,) = tiny.restore(tmp_path, *tiny.PLAIN)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state.learner))
    assert all(np.isfinite(v) for record in tiny.records(tmp_path) for v in record.values())


# the first of each kind is slow: `test_bad_settings` has them without a process
FIRST_OF_KIND = [["seeds=0"], ["total_step=5"]]


@pytest.mark.parametrize(
    "arguments",
    [*(pytest.param(row, marks=pytest.mark.slow) for row in FIRST_OF_KIND), ["algo=iql", "modifiers=[differ]"]],
)
def test_the_command_itself(tmp_path, arguments):
    command = [sys.executable, "-m", "jaxshare.train", "env=matrix", f"run_dir={tmp_path / 'run'}", *arguments]
    done = subprocess.run(command, cwd=tiny.REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    one_message(done.stderr)
    assert done.stdout == ""
