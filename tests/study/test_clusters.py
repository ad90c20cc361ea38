"""Jobs on a cluster end with the bits of jobs on this machine, whatever is lost on the way."""

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import tiny

from jaxshare.run import processes
from jaxshare.study import engine
from jaxshare.study.engine import Rules, run_all
from jaxshare.study.executors import attempt, base
from jaxshare.study.executors.base import Resources, Task
from jaxshare.study.executors.local import Local
from jaxshare.study.job import Job

LEARNER = """
import pathlib, signal, sys, time
name, steps, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
checkpoint, result = pathlib.Path(name + ".checkpoint"), pathlib.Path(name + ".txt")
done, state = map(int, checkpoint.read_text().split()) if checkpoint.exists() else (0, sum(map(ord, result.name)))
stop = []
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
while done < steps and not stop:
    state = (state * 1103515245 + 12345) % 2**31
    done += 1
    time.sleep(seconds)
    if done % 5 == 0 or stop:
        new = checkpoint.with_suffix(".new")
        new.write_text(f"{done} {state}")
        new.replace(checkpoint)
if stop:
    checkpoint.write_text(f"{done} {state}")
    sys.exit(143)
result.write_text(str(state))
"""  # like a trainer: it goes on from its checkpoint, and saves when it is told to end


@dataclasses.dataclass(frozen=True)
class Learn(Job):
    """A job that takes many steps and keeps checkpoints."""

    steps: int = 40
    pause: float = 0.0

    def command(self, root):
        return ["-c", LEARNER, f"{root}/{self.name}", str(self.steps), str(self.pause)]


def learners(count, pause=0.05):
    jobs = [Learn(f"job{n}", "script", (), f"job{n}.txt", pause=pause) for n in range(count)]
    return {job.name: job for job in jobs}


def results(root, count):
    return [(root / f"job{n}.txt").read_text() for n in range(count)]


def expected(root, count):
    """What this machine makes of the same jobs."""
    root.mkdir()
    assert run_all(learners(count, 0.0), root, Local(2, root, Resources()), {}) == {}
    return results(root, count)


def attempts(root, name):
    """How often a job was begun on a cluster: a line of its log each time."""
    return (root / "logs" / f"{name}.log").read_text().count(" on ")


# ------------------------------------------------------------------------------------- one attempt


def told(tmp_path, *code, **fields):
    return Task("a", ("-c", *code), tmp_path / "a.log", tmp_path / "cache", **{"seconds": 60.0, **fields})


def test_an_attempt_is_a_process_of_its_own(tmp_path):
    code = "import os, sys; print(os.getpid(), os.environ['JAX_PLATFORMS'], sys.argv[1:]); sys.exit(3)"
    outcome = attempt.run(told(tmp_path, code, seeds=2), Resources(cpus=4), str(tmp_path))
    assert (outcome.status, outcome.expired, outcome.lost) == (3, False, "")
    assert 0 < outcome.core_seconds < 30
    log = (tmp_path / "a.log").read_text()
    assert "cpu ['parallel.devices=2']" in log
    assert f"\n{os.getpid()} " not in log


@pytest.mark.parametrize(
    ("gpus", "seeds", "devices"), [(0.5, 3, 1), (1, 3, 1), (2, 3, 2), (4, 3, 3), (0, 1, 1), (0, 9, 2)]
)
def test_devices_are_what_a_task_is_given(tmp_path, gpus, seeds, devices):
    resources = Resources(cpus=2, gpus=gpus)
    task = told(tmp_path, "", seeds=seeds)
    assert attempt.devices(task, resources) == devices
    variables = attempt.environment(task, resources)
    assert ("JAX_PLATFORMS" in variables) == (gpus == 0)
    assert variables.get("XLA_PYTHON_CLIENT_MEM_FRACTION") == ("0.450" if gpus == 0.5 else None)


def test_an_attempt_ends_at_its_limit_and_says_so(tmp_path):
    outcome = attempt.run(told(tmp_path, "import time; time.sleep(60)", seconds=0.3), Resources(), str(tmp_path))
    assert outcome.expired
    assert outcome.lost == ""


def test_a_killed_process_is_a_loss_and_an_error_is_none(tmp_path):
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert "killed by signal 9" in attempt.run(told(tmp_path, code), Resources(), str(tmp_path)).lost
    assert base.loss(143) != ""
    assert base.loss(1) == base.loss(0) == ""


def test_a_command_ends_with_the_process_that_began_it(tmp_path):
    """As with a worker that is killed: no orphan goes on writing."""
    if sys.platform != "linux":
        pytest.skip("only Linux tells a child of its parent's end")
    code = (
        "import pathlib, sys; from jaxshare.study.executors import attempt, base; "
        "root = pathlib.Path(sys.argv[1]); "
        "task = base.Task('a', ('-c', 'import os, time; print(os.getpid(), flush=True); time.sleep(60)'), "
        "root / 'a.log', root, 60.0); "
        "attempt.start(task, base.Resources(), str(root)); print('begun', flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout.readline() == "begun\n"
    pid = wait_for(lambda: (tmp_path / "a.log").read_text().splitlines()[1:])[0]
    parent.kill()
    parent.wait()
    wait_for(lambda: processes.started(int(pid)) == "")


def wait_for(condition, seconds=20.0):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            value = condition()
        except OSError:
            value = None
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


# ------------------------------------------------------------------------------- on this machine


def test_a_killed_job_goes_on_by_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "POLL", 0.05)
    bits = expected(tmp_path / "here", 2)
    root = tmp_path / "there"
    root.mkdir()
    executor = Local(2, root, Resources())
    killed = []

    def kill_once():
        wait_for((root / "job0.checkpoint").exists)
        killed.append(executor._processes["job0"].process.pid)
        os.killpg(killed[0], signal.SIGKILL)

    thread = threading.Thread(target=kill_once)
    thread.start()
    assert run_all(learners(2), root, executor, {}) == {}
    thread.join()
    assert killed
    assert results(root, 2) == bits


def test_a_job_that_is_always_lost_fails_in_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "POLL", 0.02)
    executor = Local(1, tmp_path, Resources())
    job = Dies("bad", "script", (), "bad.txt")
    failed = run_all({"bad": job}, tmp_path, executor, {}, rules=Rules(attempts=2))
    assert failed == {"bad": "was lost in 2 attempts: its process was killed by signal 9"}
    again = run_all({"bad": job}, tmp_path, executor, {})  # left alone until it is to be tried again
    assert again == failed


class Dies(Job):
    def command(self, root):
        return ["-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"]


def test_a_job_without_a_sign_of_life_is_begun_again(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "POLL", 0.05)
    monkeypatch.setattr(engine, "STALLED_GRACE", 0.2)
    job = Hangs("job", "script", (), "job.txt")
    rules = Rules(attempts=3, stalled_minutes=0.02)
    assert run_all({"job": job}, tmp_path, Local(1, tmp_path, Resources()), {}, rules=rules) == {}


class Hangs(Job):
    """It hangs in its first attempt."""

    def command(self, root):
        code = f"""
import pathlib, time
first, result = pathlib.Path({root!r}, "first"), pathlib.Path({root!r}, "job.txt")
if not first.exists():
    first.touch()
    time.sleep(60)
result.touch()
"""
        return ["-c", code]


# ------------------------------------------------------------------------------------------- Ray


@pytest.fixture
def cluster(tmp_path):
    """A Ray cluster of a head without cores and two machines with one core each."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = [made.add_node(num_cpus=1) for _ in range(2)]
    made.wait_for_nodes()
    yield made, nodes
    made.shutdown()


def test_a_machine_of_a_ray_cluster_is_lost_and_all_jobs_end_with_the_same_bits(tmp_path, monkeypatch, cluster):
    from jaxshare.study.executors.ray_core import Ray

    monkeypatch.setattr(engine, "POLL", 0.1)
    made, nodes = cluster
    bits = expected(tmp_path / "here", 8)
    root = tmp_path / "there"
    root.mkdir()
    executor = Ray(made.address, root, Resources(cpus=1))

    def lose_one():
        wait_for(lambda: len(list(root.glob("*.checkpoint"))) >= 2)
        made.remove_node(nodes[0], allow_graceful=False)

    thread = threading.Thread(target=lose_one)
    thread.start()
    try:
        assert run_all(learners(8, 0.04), root, executor, {}) == {}
    finally:
        thread.join()
        executor.close()
    assert results(root, 8) == bits
    assert sum(attempts(root, f"job{n}") for n in range(8)) > 8  # one was begun again


@pytest.mark.slow
def test_trainings_on_a_machine_that_is_lost_end_with_the_same_bits(tmp_path, cluster):
    """The real thing: runs with their locks, checkpoints and logs, killed with their machine."""
    from jaxshare.study.executors.ray_core import Ray

    settings = ("algo=vdn", "env=matrix", "env.game=climbing", "total_env_steps=6000", "checkpoint.every=500")
    jobs = {}
    for number in range(3):
        words = (*settings, f"seed={number}", f"run_dir={{root}}/run{number}", "resume=auto", "progress=false")
        jobs[f"run{number}"] = Job(f"run{number}", "train", words, f"run{number}", total=6000)
    (tmp_path / "here").mkdir()
    assert run_all(jobs, tmp_path / "here", Local(2, tmp_path / "here", Resources()), {}) == {}

    made, nodes = cluster
    root = tmp_path / "there"
    root.mkdir()
    executor = Ray(made.address, root, Resources(cpus=1))

    def lose_one():
        wait_for(lambda: len(list(root.glob("*/checkpoints/[0-9]*"))) >= 3, 300)
        made.remove_node(nodes[0], allow_graceful=False)

    thread = threading.Thread(target=lose_one)
    thread.start()
    try:
        assert run_all(jobs, root, executor, {}) == {}
    finally:
        thread.join()
        executor.close()
    for name in jobs:
        assert tiny.records(root / name) == tiny.records(tmp_path / "here" / name)
    assert sum(attempts(root, name) for name in jobs) > len(jobs)  # one was begun again


@pytest.mark.parametrize("address", ["auto", "127.0.0.1:9"])
def test_ray_is_named_with_its_command_if_no_cluster_answers(tmp_path, monkeypatch, address):
    """Also where this machine has a cluster of somebody's."""
    ray = pytest.importorskip("ray")
    from jaxshare.study.executors import choose
    from jaxshare.types import RefusedError

    def nobody(**settings):
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setattr(ray, "init", nobody)
    with pytest.raises(RefusedError, match=rf"address={address}.*ray start --head.*address=local"):
        choose.make(choose.Wanted("ray", address=address), tmp_path, tmp_path)


@pytest.mark.parametrize(("name", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_a_missing_package_is_named_with_its_command(tmp_path, monkeypatch, name, package):
    from jaxshare.study.executors import choose
    from jaxshare.types import RefusedError

    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(RefusedError, match=rf"needs the package {package}: pip install 'jaxshare\[{name}\]'"):
        choose.make(choose.Wanted(name), tmp_path, tmp_path)


# ----------------------------------------------------------------------------------------- Slurm


def test_a_turn_of_slurm_ends_and_the_same_job_goes_on(tmp_path, monkeypatch):
    """By submitit's own stand-in for Slurm on this machine, which warns and requeues in the same way."""
    pytest.importorskip("submitit")
    from jaxshare.study.executors.slurm import Cluster, Slurm

    monkeypatch.setattr(engine, "POLL", 0.2)
    bits = expected(tmp_path / "here", 2)
    root = tmp_path / "there"
    root.mkdir()
    executor = Slurm(root, root, Resources(), Cluster({"timeout_min": "1"}, kind="local"))
    executor._executor._executor.parameters["signal_delay_s"] = 50  # seconds before the end of a minute
    assert run_all(learners(2, 0.4), root, executor, {}) == {}
    assert results(root, 2) == bits
    assert all(attempts(root, f"job{n}") > 1 for n in range(2))


def test_what_sbatch_does_not_know_is_refused(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    from jaxshare.study.executors import choose
    from jaxshare.types import RefusedError

    monkeypatch.setattr("submitit.SlurmExecutor.affinity", classmethod(lambda cls: 2))
    with pytest.raises(RefusedError, match="partitoin"):
        choose.make(choose.Wanted("slurm", slurm={"partitoin": "gpu"}), tmp_path, tmp_path)
