"""How long each kind of run in benchmarks/claims.py takes: measured, a short run of each, in seconds of one core.

    python benchmarks/claims.py --measure      fills benchmarks/results/claims_cost.json

Of each kind that is not in the table a run is begun on one core and stopped a little after its second log record. What
counts is the time of the process on its core, so that other work on the machine does not (but for caches):

    rate       environment steps, or updates with a data set, per core second between log records, evaluations left out
    first_rate the same in SIT's first stage
    eval_s     core seconds of an evaluation
    start_s    core seconds until the first record: imports, compilation, replay filled; of other jobs all they take

Kinds that are not measured when a job of theirs is done are kept as well: its start, and the rate over all that
follows.

A policy that has just begun plays shorter or longer episodes than later on: read totals as estimates.
"""

from __future__ import annotations

import json
import os
import pathlib
import signal
import time
from itertools import pairwise
from typing import Any

import _claims_plan as planning
import _claims_run as running
from _claims_plan import Job

ENOUGH, AT_MOST = 10.0, 1200.0  # core seconds after the first record; wall seconds in all
FIRST_STAGE = 40  # updates of SIT's, when it is measured


def measure(jobs: dict[str, Job], root: pathlib.Path, at_once: int) -> None:
    """Measure the kinds of these jobs that are not in the table; `root` is a scratch folder that may hold data sets."""
    unknown = {job.speed for job in jobs.values()} - set(planning.costs())
    kinds = {job.speed: job for job in jobs.values() if job.speed in unknown and _possible(job, jobs, root)}
    waiting = list(kinds.values())
    print(f"{len(waiting)} kinds to measure, {len(unknown) - len(waiting)} whose data sets or runs are not in {root}")
    (root / "logs").mkdir(parents=True, exist_ok=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(root / "measured" / f"cache-{os.getpid()}")  # new: all is compiled
    at_work: list[dict[str, Any]] = []
    while waiting or at_work:
        while waiting and len(at_work) < at_once:
            slot = next(i for i in range(at_once) if i not in [one["slot"] for one in at_work])
            at_work.append(_begin(waiting.pop(0), root, slot, at_once))
        time.sleep(0.1)
        for one in list(at_work):
            if _watch(one):
                at_work.remove(one)
                found = _found(one) if one["job"].kind == "train" else _whole(one)
                _keep(one["job"].speed, found)


def _possible(job: Job, jobs: dict[str, Job], root: pathlib.Path) -> bool:
    return all(planning.done(jobs[name], root) for name in job.needs)


def _begin(job: Job, root: pathlib.Path, slot: int, at_once: int) -> dict[str, Any]:
    if job.kind != "train":  # short: measured as a whole
        whole = running.start(job, root, slot, at_once, AT_MOST)
        return {"job": job, "slot": slot, "running": whole, "spent": 0.0}
    settings = planning.merged([a.replace("{root}", str(root)) for a in job.arguments])
    run_dir = root / "measured" / f"{job.name}-{os.getpid()}"
    every = {"eval.every": "20"} if job.offline else {}
    if "algo.stage1_updates" in settings and settings["algo.stage1_updates"] != "0":
        every |= {"algo.stage1_updates": str(FIRST_STAGE)}
    settings |= {"seeds": "1", "checkpoint.every": "0", "checkpoint.best": "false", "run_dir": str(run_dir), **every}
    arguments = tuple(f"{k}={v}" for k, v in settings.items())
    short = Job(job.name, "train", arguments, f"measured/{run_dir.name}", (), 1, job.total, job.offline, job.speed)
    one = running.start(short, root, slot, at_once, AT_MOST)
    return {"job": job, "slot": slot, "running": one, "metrics": run_dir / "metrics.jsonl", "marks": [], "lines": 0}


def _watch(one: dict[str, Any]) -> bool:
    """Note the core time of each new record; whether it has run long enough, and is stopped then."""
    process = one["running"].process
    if one["job"].kind != "train":
        one["spent"] = max(one["spent"], running.core_seconds(process.pid))
        return process.poll() is not None
    marks = one["marks"]
    if one["metrics"].is_file():
        lines = [
            line for line in one["metrics"].read_text(encoding="utf-8").splitlines(keepends=True) if line[-1] == "\n"
        ]
        now = running.core_seconds(process.pid)
        for line in lines[one["lines"] :]:
            marks.append((now, json.loads(line)))
        one["lines"] = len(lines)
    ended = process.poll() is not None
    late = time.monotonic() - one["running"].began > AT_MOST
    learning = [now for now, record in marks if not _is_evaluation(record)]
    stages = {record.get("sit/stage") for _, record in marks} - {None}
    enough = len(learning) > 2 and learning[-1] - learning[0] > ENOUGH and stages in (set(), {1.0, 3.0}, {3.0})
    if not ended and (late or enough):
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        ended = True
    return ended


def _whole(one: dict[str, Any]) -> dict[str, float] | None:
    if one["running"].process.returncode:
        print(f"not measured: {one['job'].speed}: {running.last_line(one['running'].log)}", flush=True)
        return None
    return {"start_s": round(one["spent"], 1)}


def _is_evaluation(record: dict[str, Any]) -> bool:
    return "eval/return" in record


def _found(one: dict[str, Any]) -> dict[str, float] | None:
    """rate, eval_s, start_s (and first_rate), or None if there were too few records."""
    key = "updates" if one["job"].offline else "env_steps"
    spent: dict[Any, list[float]] = {}
    evaluations: list[float] = []
    compiled = False  # the first chunk is compiled before it runs
    for (before, earlier), (now, record) in pairwise(one["marks"]):
        if _is_evaluation(record):
            evaluations.append(now - before)
        elif compiled and record[key] > earlier[key]:
            kind = "first_rate" if record.get("sit/stage") == 1.0 else "rate"
            sums = spent.setdefault(kind, [0.0, 0.0])
            sums[0] += record[key] - earlier[key]
            sums[1] += now - before
        compiled = compiled or not _is_evaluation(record)
    if "rate" not in spent or spent["rate"][1] <= 0:
        print(f"not measured: {one['job'].speed}: {running.last_line(one['running'].log)}", flush=True)
        return None
    rates = {kind: round(done / max(seconds, 0.01), 3) for kind, (done, seconds) in spent.items()}
    begin = next(now for now, record in one["marks"] if not _is_evaluation(record))
    first = next(record for _, record in one["marks"] if not _is_evaluation(record))
    start = begin - first[key] / rates.get("first_rate", rates["rate"])
    usual = sorted(evaluations)[len(evaluations) // 2] if evaluations else 0.0
    return {**rates, "eval_s": round(usual, 2), "start_s": round(max(start, 0.0), 1)}


def note(one: running.Running) -> None:
    """Keep what a whole job took, if its kind was not measured: the start, and an average with its evaluations."""
    job = one.job
    if job.speed in planning.costs():
        return
    whole = {"start_s": round(one.spent, 1)}
    if job.kind == "train":
        if not 0 < one.start_s < one.spent:  # it ended between two looks
            return
        rate = job.seeds * job.total / (one.spent - one.start_s)
        whole = {"rate": round(rate, 3), "eval_s": 0.0, "start_s": round(one.start_s, 1)}
    _keep(job.speed, whole)


def _keep(kind: str, found: dict[str, float] | None) -> None:
    if found is None:
        return
    from _common import machine

    whole = {"machine": machine(), "costs": {**planning.costs(), kind: found}}
    planning.COSTS.parent.mkdir(exist_ok=True)
    planning.COSTS.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    print(f"{kind}: {found}", flush=True)
