"""A study on a Ray cluster of several machines, simulated on this one, while parts of it are killed.

    python benchmarks/cluster.py                     100 jobs, three machines, 20 kills
    python benchmarks/cluster.py --overhead          what the engine costs for each job, by executor
    python benchmarks/cluster.py --save              also benchmarks/results/cluster.json

A job is a small learner that keeps checkpoints, goes on from them, and saves when it is told to end, as a training
run does; its result depends on every step. Victims are drawn at random: a job's own process, a machine with all that
is on it, or the command that drives the study, which is started again. In the end every job must have the result
that the same job has without any kill.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import Any

from jaxshare.study.engine import Rules, run_all
from jaxshare.study.executors.base import Executor, Resources
from jaxshare.study.executors.local import Local
from jaxshare.study.job import Job

OUT = pathlib.Path(__file__).parent / "results" / "cluster.json"
LEARNER = pathlib.Path(__file__).parent / "_cluster_learner.py"
MACHINES = 3
STEPS = 60
VICTIMS = ("process", "machine", "driver")


@dataclass(frozen=True)
class Learn(Job):
    """A job of this benchmark."""

    pause: float = 0.05  # seconds of a step
    steps: int = STEPS

    def command(self, root: str) -> list[str]:
        """Arguments of python."""
        return [str(LEARNER), f"{root}/{self.name}", str(self.steps), str(self.pause)]


def learners(count: int, pause: float, steps: int = STEPS) -> dict[str, Job]:
    """Jobs by name."""
    names = [f"job{number:03d}" for number in range(count)]
    return {name: Learn(name, "script", (), f"{name}.txt", pause=pause, steps=steps) for name in names}


def main() -> None:
    """Measure, or be the command that drives the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=100)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the victims")
    parser.add_argument("--overhead", action="store_true")
    parser.add_argument("--save", action="store_true", help=f"write {OUT.name} into benchmarks/results")
    parser.add_argument("--drive", nargs=2, metavar=("ADDRESS", "ROOT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.drive:
        address, root = options.drive
        drive(address, root, options.jobs)
        return
    key = "overhead" if options.overhead else "kills"
    result = overhead(options.jobs) if options.overhead else with_kills(options)
    print(json.dumps(result, indent=1))
    if options.save:
        from jaxshare.study.machine import machine

        kept = json.loads(OUT.read_text()) if OUT.is_file() else {}
        OUT.write_text(json.dumps({**kept, "machine": machine(), key: result}, indent=1) + "\n")


def drive(address: str, root: str, count: int) -> None:
    """Run what is missing on the cluster."""
    from jaxshare.study.executors.ray_core import Ray

    place = pathlib.Path(root)
    executor = Ray(address, place, Resources(cpus=1))
    failed = run_all(learners(count, 0.05), place, executor, {}, rules=Rules(attempts=50))
    executor.close()
    sys.exit(bool(failed))


# ------------------------------------------------------------------------------------------ kills


def with_kills(options: argparse.Namespace) -> dict[str, Any]:
    """100 jobs under fire."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    draw = random.Random(options.seed)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    machines = [cluster.add_node(num_cpus=1) for _ in range(MACHINES)]
    kills = dict.fromkeys(VICTIMS, 0)
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        expected = undisturbed(options.jobs)
        began = time.monotonic()
        driver = start_driver(cluster.address, root, options.jobs)
        while driver.poll() is None or done(root) < options.jobs:
            time.sleep(draw.uniform(1.0, 6.0))
            if sum(kills.values()) < options.kills and done(root) < options.jobs:
                victim = draw.choice(VICTIMS)
                kills[victim] += 1
                if victim == "driver":
                    driver.kill()
                    driver.wait()
                elif victim == "machine":
                    cluster.remove_node(machines.pop(draw.randrange(len(machines))), allow_graceful=False)
                    machines.append(cluster.add_node(num_cpus=1))
                else:
                    kill_one(root, draw)
            if driver.poll() is not None and done(root) < options.jobs:
                driver = start_driver(cluster.address, root, options.jobs)
            print(f"{time.monotonic() - began:.0f} s: {done(root)} of {options.jobs} done, {kills}", flush=True)
        seconds = time.monotonic() - began
        results = {path.stem: path.read_text() for path in root.glob("*.txt")}
        attempts = sum((root / "logs" / f"{name}.log").read_text().count(" on ") for name in expected)
    cluster.shutdown()
    equal = sum(results.get(name) == value for name, value in expected.items())
    return {"jobs": options.jobs, "done": len(results), "equal": equal, "kills": kills, "attempts": attempts,
            "seconds": round(seconds, 1)}  # fmt: skip


def start_driver(address: str, root: pathlib.Path, count: int) -> subprocess.Popen[bytes]:
    """The command that drives the study, as a person would start it again."""
    command = [sys.executable, __file__, "--drive", address, str(root), "--jobs", str(count)]
    with (root / "driver.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log)


def done(root: pathlib.Path) -> int:
    """How many jobs have a result."""
    return len(list(root.glob("*.txt")))


def kill_one(root: pathlib.Path, draw: random.Random) -> None:
    """kill -9 of the process of a job at work."""
    found = subprocess.run(["pgrep", "-f", f"{LEARNER.name} {root}"], capture_output=True, text=True, check=False)
    pids = [int(pid) for pid in found.stdout.split()]
    if pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(draw.choice(pids), signal.SIGKILL)


def undisturbed(count: int) -> dict[str, str]:
    """What every job ends with if nothing is killed."""
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        run_all(learners(count, 0.0), root, Local(2, root, Resources()), {})
        return {path.stem: path.read_text() for path in root.glob("*.txt")}


# --------------------------------------------------------------------------------------- overhead


def overhead(count: int) -> dict[str, Any]:
    """Seconds for each job that does nothing, beside a bare process of the same kind."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for name in learners(10, 0.0, 1):
            subprocess.run([sys.executable, str(LEARNER), f"{folder}/{name}", "1", "0"], check=True)
    bare = (time.monotonic() - began) / 10
    result = {"jobs": count, "bare_s": round(bare, 4)}
    for name in ("local", "ray"):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            executor = make(name, root)
            began = time.monotonic()
            assert run_all(learners(count, 0.0, 1), root, executor, {}) == {}
            result[f"{name}_s"] = round((time.monotonic() - began) / count, 4)
            executor.close()
    return result


def make(name: str, root: pathlib.Path) -> Executor:
    """An executor with two places."""
    if name == "local":
        return Local(2, root, Resources())
    from jaxshare.study.executors.ray_core import Ray

    return Ray("local", root, Resources(cpus=1))


if __name__ == "__main__":
    main()
