"""The host bridge on a fake environment: calls, order, seeds, failures, and what is left behind."""

import gc
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from jaxshare.envs.host import HostConfig, host_env
from jaxshare.envs.hosted import messages
from jaxshare.types import Box, Discrete, RefusedError

FAKE = f"{pathlib.Path(__file__).with_name('fake_hosted.py')}:Fake"
SEEDS = jax.random.split(jax.random.key(3), 5)


@pytest.fixture
def made():
    """Makes fakes, and closes them in the end."""
    envs = []

    def make(workers=0, timeout=30.0, python="", **kwargs):
        envs.append(host_env("fake", FAKE, kwargs, HostConfig(workers, timeout, python), "install it"))
        return envs[-1]

    yield make
    for env in envs:
        env.host.close()


def played(env, keys, steps):
    """TimeSteps of `steps` steps in as many slots as keys ([slots] or [seeds, slots]); action t % 3, or 0.5."""
    lift = jax.vmap if keys.ndim == 1 else lambda f: jax.vmap(jax.vmap(f))
    action = env.spec.action

    def step(state, t):
        chosen = jnp.full((*keys.shape, 2), t % 3, jnp.int32)
        if isinstance(action, Box):
            chosen = jnp.full((*keys.shape, 2, action.dim), 0.5)
        return lift(env.step)(state, chosen, keys)

    state, first = lift(env.reset)(keys)
    state, later = jax.lax.scan(step, state, jnp.arange(steps))
    return state, first, later


def run(env, keys=SEEDS, steps=4):
    return jax.device_get(jax.jit(lambda k: played(env, k, steps))(keys))


def calls(env):
    return env.host.pool._calls


def test_spec_and_what_is_shown(made):
    env = made()
    assert env.spec.action == Discrete(3)
    assert (env.spec.obs_dim, env.spec.state_dim, env.spec.episode_limit, env.spec.pure) == (4, 3, 6, False)
    assert (env.spec.groups, env.spec.group_names) == ((0, 1), ("one", "other"))
    _, first, later = run(env)
    assert first.obs.shape == (5, 2, 4)
    assert len(set(first.obs[:, 0, 0].tolist())) == 5, "every slot has a seed of its own"
    np.testing.assert_array_equal(first.obs[:, 0, 1:], 0)
    np.testing.assert_array_equal(later.obs[:, 2, 0, 1], [1, 2, 3, 4])
    np.testing.assert_array_equal(later.obs[:, 2, 0, 2], [0, 1, 2, 0])
    np.testing.assert_array_equal(later.obs[:, 2, 1, 3], 0)  # padding of the second agent
    np.testing.assert_array_equal(later.reward[:, 4], [[1, 2]] * 4)
    np.testing.assert_array_equal(later.alive[:, 0], [[True, True], [True, True], [True, False], [True, False]])
    assert later.avail[0, 0].tolist() == [[True, True, False], [True, False, True]]
    np.testing.assert_array_equal(later.info["won"][:, 1], [0, 1, 0, 0])


@pytest.mark.parametrize("workers", [0, 2])
def test_one_call_per_step_for_all_seeds_and_environments(made, workers):
    env = made(workers)
    run(env, SEEDS, 4)
    assert calls(env) == 1 + 4
    run(env, jax.random.split(jax.random.key(0), (2, 3)), 4)
    assert calls(env) == 2 * (1 + 4)


def test_under_vmapped_seeds_with_a_common_carry_and_in_shard_map(made):
    env = made()
    keys = jax.random.split(jax.random.key(0), (2, 3))
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("seed",))
    local = jax.vmap(lambda k: played(env, k, 3)[2].obs)
    lifted = jax.shard_map(local, mesh=mesh, in_specs=P("seed"), out_specs=P("seed"), check_vma=False)
    found = jax.device_get(jax.jit(lifted)(keys))
    assert calls(env) == 1 + 3
    alone = [run(made(), k, 3)[2].obs for k in keys]
    np.testing.assert_array_equal(found, alone)


def test_same_keys_same_episodes_whatever_the_workers(made):
    found = [run(made(workers, random_numbers=True), SEEDS, 4) for workers in (0, 1, 3)]
    for other in found[1:]:
        for name in ("obs", "reward"):
            np.testing.assert_array_equal(getattr(other[2], name), getattr(found[0][2], name))
        np.testing.assert_array_equal(other[2].state[..., 0], found[0][2].state[..., 0])  # its random numbers
    assert len(np.unique(found[0][2].state[..., 0])) == 4 * 5
    again = made(random_numbers=True)
    run(again, SEEDS[::-1], 2)
    np.testing.assert_array_equal(run(again, SEEDS, 4)[2].state[..., 0], found[0][2].state[..., 0])


def test_random_generators_of_the_trainer_are_left_alone(made):
    np.random.seed(1)
    want = np.random.rand()
    np.random.seed(1)
    run(made(random_numbers=True))
    assert np.random.rand() == want


def test_an_ended_episode_stands_still_and_its_token_too(made):
    env = made(length=3)
    state, _, later = run(env, SEEDS, 5)
    np.testing.assert_array_equal(later.terminated[:, 0], [False, False, True, True, True])
    np.testing.assert_array_equal(later.obs[3:, :, 0, 1], 3)
    assert not later.truncated.any()
    assert set(state.token.tolist()) == {1 + 3}


def test_time_limit_is_truncation_unless_the_task_ended_as_well(made):
    _, _, later = run(made(limit=4), SEEDS, 5)
    np.testing.assert_array_equal(later.truncated[:, 0], [False, False, False, True, True])
    assert not later.terminated.any()
    _, _, later = run(made(limit=4, length=4), SEEDS, 4)
    assert later.terminated[3].all()
    assert not later.truncated.any()


def test_continuous_actions_are_scaled_and_cut_to_each_agents_box(made):
    env = made(box=([[0.0], [-4.0, -4.0]], [[10.0], [4.0, 0.0]]))
    assert env.spec.action == Box(2, (-1.0, -1.0), (1.0, 1.0))
    _, first, later = run(env, SEEDS, 1)
    assert first.avail.shape == (5, 2, 0)
    np.testing.assert_allclose(later.obs[0, :, 0, 2], 7.5)
    np.testing.assert_allclose(later.obs[0, :, 1, 2], 2.0 - 1.0)


def test_pictures_are_kept_by_token(made):
    for workers in (0, 1):
        env = made(workers)
        env.host.record()
        state, _, _ = run(env, SEEDS[:1], 3)
        last = jax.tree.map(lambda x: x[0], state)
        assert env.render(last).tolist() == np.full((4, 4, 3), 3).tolist()


# ------------------------------------------------------------------------------------------------------------ failures


@pytest.mark.parametrize("workers", [0, 2])
def test_an_exception_keeps_its_own_words(made, workers, caplog):
    env = made(workers, raise_at=2)
    with pytest.raises(jax.errors.JaxRuntimeError):
        run(env)
    text = str(env.host.error())
    for part in (
        "fake",
        "ValueError: the sky fell",
        "step",
        "environment 0",
        "episode 1",
        "raise ValueError",
        "process",
    ):
        assert part in text
    pid = int(text.split("process ")[1].split(".")[0])
    assert (pid == os.getpid()) == (workers == 0)
    assert not caplog.records, "JAX's own account of it is not shown as well"
    with pytest.raises(jax.errors.JaxRuntimeError, match="sky"):
        run(env)


def test_a_worker_that_dies_is_named_with_its_last_words(made):
    env = made(2, die_at=2)
    with pytest.raises(jax.errors.JaxRuntimeError):
        run(env)
    for part in ("exit status 7", "during step", "environments 0 to 2", "last words"):
        assert part in str(env.host.error())


def test_a_killed_worker(made):
    env = made(2)
    run(env)
    os.kill(env.host.pool._workers[1].process.pid, signal.SIGKILL)
    started = time.monotonic()
    with pytest.raises(jax.errors.JaxRuntimeError):
        run(env)
    assert time.monotonic() - started < 20
    assert "signal SIGKILL" in str(env.host.error())
    assert "environments 3 to 4" in str(env.host.error())


def test_leaving_python_is_an_error_like_others(made):
    env = made(1, leave_at=2)  # with a thread that keeps the process alive
    started = time.monotonic()
    with pytest.raises(jax.errors.JaxRuntimeError):
        run(env)
    assert time.monotonic() - started < 20
    assert "SystemExit: enough" in str(env.host.error())


def test_a_worker_that_hangs_ends_the_run_in_bounded_time(made):
    env = made(1, timeout=6.0, hang=True)
    started = time.monotonic()
    with pytest.raises(jax.errors.JaxRuntimeError):
        run(env)
    assert 6 <= time.monotonic() - started < 20
    for part in ("no answer to reset", "env.timeout=6", "was killed", "environments 0 to 4", "raise env.timeout"):
        assert part in str(env.host.error())


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"wrong": {"obs": [[0.0] * 5, [0.0] * 5]}}, r"obs of shape \(5,\), but at most \(4,\)"),
        ({"wrong": {"obs": [[0.0]]}}, "obs of 1 agents, but 2"),
        ({"wrong": {"state": [0.0]}}, r"state of shape \(1,\), but \(3,\)"),
        ({"wrong": {"reward": [0.0] * 3}}, r"reward of shape \(3,\), but \(2,\)"),
        ({"wrong": {"avail": [[True] * 3]}}, r"avail of shape \(1, 3\), but \(2, 3\)"),
        ({"wrong": {"avail": [[True] * 3, [False] * 3]}}, "agent 1 has no available action"),
        ({"nan_at": 2}, "obs of agent 1 is not finite"),
        ({"wrong": {"state": [0.0, np.inf, 0.0]}}, "state is not finite"),
        ({"wrong": {"reward": np.nan}}, "reward is not finite"),
        ({"wrong": {"terminated": None, "obs": None}}, "TypeError"),
    ],
)
def test_wrong_numbers_are_errors(made, kwargs, message):
    env = made(**kwargs)
    with pytest.raises(jax.errors.JaxRuntimeError, match=message):
        run(env)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"workers": -2}, "env.workers=-2"),
        ({"timeout": 0.0}, "env.timeout=0.0"),
        ({"python": "/no/such/python", "workers": 1}, "env.python=/no/such/python is not a program"),
        ({"python": sys.executable}, "add env.workers=1"),
        ({"unknown": 1}, "TypeError.*unknown"),
        ({"unknown": 1, "workers": 1}, "TypeError.*unknown"),
    ],
)
def test_refusals(made, kwargs, message):
    with pytest.raises(RefusedError, match=message):
        made(**kwargs)


def test_a_missing_package_names_its_install_command():
    for workers in (0, 1):
        with pytest.raises(RefusedError, match=r"No module named 'no_such'.*Remedy: pip install no-such"):
            host_env("x", "no_such.module:Env", {}, HostConfig(workers=workers), "pip install no-such")


# stands for a worker: says what it is told to, and no more
IMPOSTOR = """#!{python}
import json, os, pickle, sys
from multiprocessing.connection import Connection

class Command:
    def __reduce__(self):
        return os.system, ("touch {marker}",)

answers = {{
    "pickle": pickle.dumps(("ok", Command())),
    "pickle behind a word": b"ok\\n" + pickle.dumps(Command()) + b"\\n",
    "array of objects": b'ok\\n{{"array": ["|O", [1]]}}\\n' + pickle.dumps(Command()),
    "another word": b"do\\n1\\n",
    "half an error": b'error\\n{{"dict": [["error", "x"]]}}\\n',
    "deep": b"ok\\n" + b'{{"list":[' * 100000,
}}
connection = Connection(int(sys.argv[-3]))
connection.recv_bytes()
connection.send_bytes(answers[{kind!r}])
connection.recv_bytes()
"""


@pytest.mark.parametrize(
    "kind", ["pickle", "pickle behind a word", "array of objects", "another word", "half an error", "deep"]
)
def test_what_a_worker_answers_is_never_run(made, tmp_path, kind):
    impostor = tmp_path / "python"
    impostor.write_text(IMPOSTOR.format(python=sys.executable, marker=tmp_path / "ran", kind=kind))
    impostor.chmod(0o755)
    with pytest.raises(RefusedError, match="answered describe with what is no answer"):
        made(1, python=str(impostor))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "value",
    [
        None, True, 3, -2.5, "a\nb", "größe", [], {}, [1, [2.0, None]], {"a": {1: "x", 2.5: [True]}},
        np.arange(6, dtype=np.uint8).reshape(1, 2, 3), [np.float32([1, 2]), "x", np.zeros((0, 2), np.int64)],
    ],
)  # fmt: skip
def test_messages_come_back_as_they_were(value):
    word, back = messages.decode(messages.encode("word", value))
    assert word == "word"
    assert type(back) is type(value)
    np.testing.assert_equal(back, value)


def test_messages_hold_data_only():
    assert messages.decode(messages.encode("x", (1, np.float64(2)))) == ("x", [1, 2.0])
    for value in (object(), {(1, 2): 3}, np.array([None]), b"bytes", print, [RuntimeError()]):
        with pytest.raises(messages.MessageError, match="is no data"):
            messages.encode("x", value)


@pytest.mark.parametrize("workers", [0, 1])
def test_arguments_reach_an_environment_as_they_are(made, workers):
    box = [[[0.0], [-4.0]], [[10.0], [4.0]]]
    assert made(workers, box=box).spec.action == Box(1, (-1.0,), (1.0,))


def test_arguments_that_are_no_data_are_refused(made):
    with pytest.raises(RefusedError, match="a value of kind object is no data"):
        made(1, wrong=object())


# ------------------------------------------------------------------------------------------------------------- leaving


def children():
    """Command lines of the worker processes that there are, whoever started them."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes().decode().split("\0")
            state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
        except (OSError, ValueError):
            continue
        if any(part.endswith("hosted/worker.py") for part in command) and state != "Z":
            found.append((int(entry.name), (entry / "stat").read_text().rsplit(")", 1)[1].split()[1]))  # and its parent
    return found


def mine(parent):
    return [pid for pid, trainer in children() if trainer == str(parent)]


def opened():
    """What this process has open or mapped that is in memory only, or a pipe or socket."""
    found = []
    for entry in pathlib.Path("/proc/self/fd").iterdir():
        try:
            found.append(os.readlink(entry).split(":")[0].split("#")[0])
        except OSError:
            continue
    maps = [line for line in pathlib.Path("/proc/self/maps").read_text().splitlines() if "/dev/shm" in line]
    return sorted(name for name in found if name in ("pipe", "socket") or "/dev/shm" in name or "/tmp" in name), maps


def test_closing_leaves_nothing_behind(made):
    env = made(3)
    gc.collect()
    before = opened()
    run(env)
    assert len(mine(os.getpid())) == 3
    assert opened() != before
    env.host.close()
    assert mine(os.getpid()) == []
    gc.collect()
    assert opened() == before
    env.host.close()
    assert calls(env) == 5
    run(env)  # a closed pool opens again
    env.host.close()


def test_games_can_be_restarted_and_end_with_their_worker(made, tmp_path):
    env = made(2, game=str(tmp_path / "pids"), bad_close=True)
    run(env, steps=1)
    run(env, steps=1)  # the game that is ended here must not have inherited an ignored SIGTERM
    assert env.host.error() is None
    env.host.close()
    pids = (tmp_path / "pids").read_text().split()
    assert len(pids) == 2 * len(SEEDS)
    assert gone(pids)


def is_running(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def gone(pids, seconds=10):
    """Whether all have ended; a signal takes a moment."""
    deadline = time.monotonic() + seconds
    while any(map(is_running, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(map(is_running, pids))


KILLED = """
import sys, time
import jax
sys.path.insert(0, {folder!r})
from test_host_bridge import FAKE, HostConfig, host_env, run
env = host_env("fake", FAKE, {{}}, HostConfig(2), "")
run(env)
print("ready", flush=True)
time.sleep(100)
"""


# SIGKILL, of which a trainer cannot tell its workers, stands for both
@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_workers_do_not_outlive_a_killed_trainer(how):
    script = KILLED.format(folder=str(pathlib.Path(__file__).parent))
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as trainer:
        assert trainer.stdout.readline() == b"ready\n"
        workers = mine(trainer.pid)
        assert len(workers) == 2
        trainer.send_signal(how)
    assert gone(workers)


@pytest.mark.parametrize("how", ["exec", ""])  # replaced by the interpreter, or its parent (as `conda run` is)
def test_another_interpreter_without_jax(made, tmp_path, how):
    other = tmp_path / "python"
    other.write_text(f'#!/bin/sh\nexport FAKE_MARK=1\n{how} {sys.executable} -I "$@"\nexit $?\n')
    other.chmod(0o755)
    env = made(1, python=str(other))
    _, first, _ = run(env)
    assert not first.state[:, 1].any(), "workers do not import jax"
    pid = int(first.state[0, 2])
    assert (pid == env.host.pool._workers[0].process.pid) == (how == "exec")
    assert b"FAKE_MARK=1" in pathlib.Path(f"/proc/{pid}/environ").read_bytes()
    time.sleep(1.5)
    run(env)  # it still lives
    env.host.close()
    assert gone([pid])
