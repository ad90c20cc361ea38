"""Whole runs on environments of the host: several seeds, a failure in the middle, a signal; nothing is lost."""

import contextlib
import io
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tiny
from PIL import Image

from jaxshare import registry
from jaxshare.commands import collect, evaluate
from jaxshare.data import own, records
from jaxshare.envs import host, lbforaging
from jaxshare.envs.mamujoco import environment as mamujoco
from jaxshare.run.fleet import Fleet
from jaxshare.types import HostError

FAKE = f"{pathlib.Path(__file__).parent / 'envs' / 'fake_hosted.py'}:Fake"
# 4 episodes of 6 steps an iteration, 2 iterations a chunk
SMALL = (
    "env=lbforaging", "algo=vdn", "algo.recurrent=false", "algo.hidden_dim=8", "num_envs=4", "batch_size=4",
    "replay.capacity=16", "eval.every=48", "eval.episodes=6", "progress=false", "total_env_steps=168",
)  # fmt: skip


@pytest.fixture
def fake(monkeypatch):
    """env=lbforaging makes fakes with these settings."""
    kwargs = {}
    monkeypatch.setattr(lbforaging, "make", lambda config: host.host_env("fake", FAKE, kwargs, config, ""))
    return kwargs


@pytest.fixture
def seeds(monkeypatch, pools):
    """Seeds of every batch of episodes that a pool has started, in order."""
    found, reset = [], host.Pool.reset

    def note(pool, seed):
        found.append([int(s) for s in np.ravel(seed)])
        pools.append(pool)
        return reset(pool, seed)

    monkeypatch.setattr(host.Pool, "reset", note)
    return found


@pytest.fixture
def pools():
    """The pools of `seeds`, in the same order."""
    return []


@pytest.mark.slow
def test_a_failure_is_reported_after_a_checkpoint_and_the_run_goes_on_exactly(fake, seeds, tmp_path, optimised):
    whole = tiny.train(tmp_path / "whole", *SMALL)
    started = [s for s in seeds if len(s) == 4 and s != seeds[1]]
    training = [s for i, s in enumerate(started) if s not in started[:i]]  # without the evaluations, which repeat
    chosen = training[5][2]  # an episode in the middle of the third chunk
    fake.update(raise_at=4, only_seed=chosen, marker=str(tmp_path / "mended"))
    with pytest.raises(HostError) as error:
        tiny.train(tmp_path / "broken", *SMALL)
    saved = tiny.steps_saved(tmp_path / "broken")[-1]
    text = str(error.value)
    for part in ("the sky fell", f"seed {chosen}", "environment 2", "step 4", f"checkpoints/{saved}", "resume=auto"):
        assert part in text
    assert 0 < saved < tiny.steps_saved(whole)[-1]
    assert len(tiny.records(tmp_path / "broken")) > 1, "what was learned before is in the log"
    (tmp_path / "mended").touch()
    tiny.train(tmp_path / "broken", *SMALL, "resume=auto")
    tiny.assert_equal(tiny.restore(tmp_path / "broken", *SMALL), tiny.restore(whole, *SMALL))


@pytest.mark.slow
def test_evaluation_has_environments_of_its_own_a_few_at_a_time(fake, seeds, pools, tmp_path):
    run_dir = tiny.train(tmp_path / "run", *SMALL, max_chunks=1)
    assert all(len(s) == 4 for s in seeds)  # 6 evaluation episodes are two rounds of num_envs
    training, evaluation = pools[0], pools[1]
    # one iteration of the prefill, the first evaluation, two iterations, the second evaluation
    assert pools == [training, *[evaluation] * 2, *[training] * 2, *[evaluation] * 2]
    assert training is not evaluation
    assert seeds[1:3] == seeds[5:7]
    seeds.clear()
    gif, picture = tmp_path / "episode.gif", tmp_path / "steps.png"
    shown = {"gif": str(gif), "picture": str(picture), "picture_steps": ["2", "0", "99"]}
    found = evaluate.evaluate(evaluate.Config(run_dir=str(run_dir), episodes=6, **shown))
    assert len(seeds) == 3  # two rounds, and the one that film and picture share
    assert found["mean"]["length"] == 6
    assert found["mean"]["return"] == 6 * 3  # both agents' rewards, 1 and 2
    assert gif.stat().st_size > 0
    assert Image.open(picture).format == "PNG"


@pytest.mark.slow
def test_a_failed_evaluation_is_made_up_for(fake, seeds, tmp_path, monkeypatch):
    whole = tiny.train(tmp_path / "whole", *SMALL)
    last = [s for s in seeds if seeds.count(s) == 4][-1]  # a round of every evaluation
    fake.update(raise_at=4, only_seed=last[0], marker=str(tmp_path / "mended"))
    evaluated, original = [], Fleet.evaluate

    def evaluate_last_wrong(runs):
        evaluated.append(int(runs.env_steps[0]))
        fake_seed = None if evaluated[-1] < 168 else last[0]
        for slot in getattr(runs.program.evaluator.host.pool._local, "envs", {}).values():
            slot.only_seed = fake_seed if fake_seed is not None else -1
        return original(runs)

    monkeypatch.setattr(Fleet, "evaluate", evaluate_last_wrong)
    fake["only_seed"] = -1
    with pytest.raises(HostError, match="the sky fell"):
        tiny.train(tmp_path / "broken", *SMALL)
    assert evaluated[-1] == 168
    (tmp_path / "mended").touch()
    tiny.train(tmp_path / "broken", *SMALL, "resume=auto", "env.timeout=77")
    tiny.assert_equal(tiny.restore(tmp_path / "broken", *SMALL), tiny.restore(whole, *SMALL))
    assert tiny.records(tmp_path / "broken") == tiny.records(whole)


def command(run_dir, *arguments):
    path = os.pathsep.join([str(pathlib.Path(__file__).parent / "stand_ins"), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-m", "jaxshare.train", f"run_dir={run_dir}", *arguments],
        cwd=tiny.REPOSITORY, env={**tiny.ENVIRONMENT, "PYTHONPATH": path}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_the_command_shows_the_error_and_no_more(tmp_path):
    arguments = ("env=pettingzoo", "env.id=breaking_team:Breaking", "algo=iql", "algo.hidden_dim=4", "num_envs=2")
    with command(tmp_path / "run", *arguments, "batch_size=2", "progress=false", "env.workers=1") as process:
        try:
            _, errors = process.communicate(timeout=200)
        finally:
            process.kill()
    assert process.returncode == 1
    assert errors.startswith("error: pettingzoo/breaking_team:Breaking: RuntimeError: out of moves, raised by step")
    assert errors.count("Traceback") == 1, "the environment's own"
    assert errors.rstrip().endswith(f"The same command with resume=auto run_dir={tmp_path / 'run'} goes on.")
    assert tiny.steps_saved(tmp_path / "run")


REAL = (*SMALL, "env.max_steps=6", "env.scenario=5x5-2p-1f")


@pytest.mark.slow
def test_two_seeds_on_lbforaging_do_not_hang_and_are_the_seeds_alone(tmp_path):
    with command(tmp_path / "two", *REAL, "seeds=2", "env.workers=1") as process:
        try:
            _, errors = process.communicate(timeout=300)
        finally:
            process.kill()  # or leaving the block would wait for one that hangs
    assert process.returncode == 0, errors
    both = tiny.records(tmp_path / "two")
    assert {record["seed"] for record in both} == {0, 1}
    tiny.train(tmp_path / "one", *REAL, "seed=1")
    alone = tiny.records(tmp_path / "one")
    second = [record for record in both if record["seed"] == 1]
    assert len(alone) == len(second)
    for a, b in zip(alone, second, strict=True):
        assert a == pytest.approx(b, rel=1e-3, abs=1e-4)


@pytest.mark.slow
def test_a_signal_saves_and_leaves_no_worker(tmp_path):
    arguments = (*REAL, "env.workers=2", "checkpoint.every=48", "total_env_steps=1000000")
    with command(tmp_path / "run", *arguments) as process:
        until = time.monotonic() + 240
        while len(tiny.steps_saved(tmp_path / "run")) < 2 and time.monotonic() < until:
            time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        try:
            _, errors = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 128 + signal.SIGTERM
    assert "Stopped by SIGTERM" in errors
    for entry in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert f"\0{process.pid}\0".encode() not in entry.read_bytes()
        except OSError:
            continue  # it ended while we looked


# ------------------------------------------------------------------------------------------- data sets

POOL = (*SMALL, "checkpoint.every=48", "checkpoint.keep=99", "checkpoint.replay=false", "algo.hparams.lr=0.02")


def collected(run_dir, out, **changes):
    chosen = {"composition": "re", "episodes": 10, "batch": 4, "epsilon": 0.0, "dtype": "float32", "pool_episodes": 8}
    with contextlib.redirect_stdout(io.StringIO()):
        return collect.collect(collect.Config(str(run_dir), str(out), progress=False, **(chosen | changes)))


def test_data_sets_are_collected_and_learned_from(fake, seeds, pools, tmp_path):
    """The second agent plays the best checkpoint, the first one at random; each is paid its own action."""
    fake.update(pays=True)
    run_dir = tiny.train(tmp_path / "run", *POOL)
    for before in (seeds, pools):
        before.clear()
    path = collected(run_dir, tmp_path / "set.jds")
    playing = pools[-1]
    started = [seed for of_pool, batch in zip(pools, seeds, strict=True) if of_pool is playing for seed in batch]

    dataset = own.open(path).read()
    episodes = dataset.episodes
    assert len(dataset) == 10
    assert episodes.mask.all()
    assert np.asarray(dataset.level).tolist() == [[0, 2]] * 10
    action = np.asarray(episodes.action)
    np.testing.assert_array_equal(episodes.reward, action)
    assert len(np.unique(action[..., 0])) > 1  # at random
    assert records.returns(dataset).mean() > dataset.card["pools"]["low"]

    # each episode has a seed of its own, which both agents see; the last batch is filled up
    shown = np.asarray(episodes.obs)[:, 0, :, 0]
    np.testing.assert_array_equal(shown[:, 0], shown[:, 1])
    np.testing.assert_allclose(shown[:, 0], np.array(started[-12:][:10]) / 2**32)
    assert len(np.unique(shown)) == 10
    assert not playing._workers  # they have ended
    assert not playing._arrays

    # a learner from it is evaluated where its policies played
    offline = ("algo=bc", f"data={path}", "total_updates=4", "eval.every=2", "batch_size=4")
    tiny.train(tmp_path / "bc", *SMALL[:1], *SMALL[2:4], "eval.episodes=6", "progress=false", *offline)
    assert [r["eval/length"] for r in tiny.records(tmp_path / "bc") if "eval/length" in r] == [6.0] * 3


def test_a_failure_while_collecting_is_told_and_leaves_no_set(fake, tmp_path):
    fake.update(pays=True)
    run_dir = tiny.train(tmp_path / "run", *POOL, max_chunks=2)
    fake.update(raise_at=4)
    with pytest.raises(HostError, match="the sky fell"):
        collected(run_dir, tmp_path / "set.jds")
    assert not (tmp_path / "set.jds").exists()


@pytest.mark.slow
def test_mujoco_s_policies_are_collected(tmp_path):
    """Continuous actions: the cheapest robot, short episodes, FACMAC's checkpoints; what is cut is truncated."""
    if missing := registry.lacking(mamujoco):
        pytest.skip(missing)
    robot = ("env=mamujoco", "env.scenario=Swimmer-2x1", "env.max_steps=5", "env.workers=0")
    small = ("algo.hidden_dim=8", "num_envs=4", "batch_size=4", "replay.capacity=16", "eval.every=40")
    kept = ("checkpoint.every=40", "checkpoint.keep=99", "checkpoint.replay=false")
    steps = ("total_env_steps=200", "eval.episodes=4", "progress=false", "algo.hparams.lr=0.05")
    run_dir = tiny.train(tmp_path / "run", "algo=facmac", *robot, *small, *kept, *steps)
    path = collected(run_dir, tmp_path / "set.jds", episodes=6)
    dataset = own.open(path).read()
    episodes = dataset.episodes
    assert episodes.action.shape == (6, 5, 2, 1)
    assert (np.abs(episodes.action) <= 1).all()
    assert episodes.truncated[:, -1].all()
    assert not episodes.terminated.any()
    assert np.isfinite(np.asarray(episodes.obs)).all()
    assert (np.abs(episodes.obs[:, 1:]).sum((1, 2, 3)) > 0).all()
    assert dataset.card["pools"]["cuts"][0] == pytest.approx(
        dataset.card["pools"]["low"] + (dataset.card["pools"]["high"] - dataset.card["pools"]["low"]) / 3
    )
    offline = ("algo=icq", f"data={path}", "total_updates=2", "eval.every=2", "eval.episodes=2", "batch_size=4")
    tiny.train(tmp_path / "icq", *robot, "progress=false", *offline)
    assert "eval/return" in tiny.records(tmp_path / "icq")[-1]
