"""Trains the trials of a batch: one compiled sweep for all that share their static settings."""

from __future__ import annotations

import pathlib
from dataclasses import replace
from functools import partial

import jax

from jaxshare import registry
from jaxshare.results.ranges import WIN_RATE
from jaxshare.run import build, parallel
from jaxshare.run.callbacks import Callback
from jaxshare.run.loggers import METRICS
from jaxshare.run.metrics import COUNTERS
from jaxshare.run.saved import open_run
from jaxshare.run.train import train
from jaxshare.run.training import Training
from jaxshare.run.watch import is_finite
from jaxshare.settings.records import Settings
from jaxshare.settings.run_parts import POLICIES
from jaxshare.settings.validate import check_all
from jaxshare.training.counting import start_clock
from jaxshare.training.program import Program
from jaxshare.tune.outcome import Judge, Outcome, Point, Trial, by_point, divergence, key_of
from jaxshare.tune.plan import Plan
from jaxshare.types import HostError, RefusedError

CACHE = ".cache"  # of compiled programs, in the folder of the search


class Diverged(Callback):
    """Notes the runs whose parameters are not finite in the end, which no record need show."""

    def __init__(self) -> None:
        self.points: set[Point] = set()

    def on_end(self, training: Training) -> None:
        """Look at all runs."""
        for run, (_, point) in enumerate(training.settings.runs()):
            if not is_finite(training.params(run)):
                self.points.add(key_of(point))


# ------------------------------------------------------------------------------------- beforehand


def judge_of(plan: Plan) -> Judge:
    """How trials are judged, once the program could be made. Raises RefusedError.

    JAX starts here, with devices for a whole batch.
    """
    settings = plan.settings
    pure = not getattr(registry.get("env", settings.env_name), "HOST", False)
    parallel.prepare(settings.run.parallel, plan.config.batch * settings.run.seeds, pure)
    if jax.config.values["jax_compilation_cache_dir"] is None:
        cache = plan.out.resolve() / CACHE
        jax.config.update("jax_compilation_cache_dir", str(cache))

    # every searched scalar is one of the program
    point: dict[str, list[float]] = {}
    for searched in plan.space:
        if searched.place.is_swept:
            point[searched.key] = [float(searched.ends[0])]
    program = build.prepare(replace(settings, sweep=point))
    try:
        names = _evaluated(program, settings)
    finally:
        program.close()

    # the metric is one of its evaluations
    config = plan.config
    metric = config.metric or (WIN_RATE if WIN_RATE in names else "return")
    if metric not in names:
        near = registry.suggest(metric, names)
        raise RefusedError(
            f"metric={metric} is nothing that evaluations log.{near} Known: {', '.join(names)}."
        )
    return Judge(metric, config.last, config.confidence, config.resamples)


def _evaluated(program: Program, settings: Settings) -> list[str]:
    """The names of what evaluations log."""
    shapes = program.state_shapes()
    names: list[str] = []
    for prefix, explore in POLICIES[settings.run.eval.policy].items():
        evaluate = partial(program.evaluate, explore=explore)
        hparams = {name: jax.numpy.float32(x) for name, x in program.algorithm.hparams.items()}
        scores, _ = jax.eval_shape(evaluate, shapes, hparams, start_clock())
        names += [f"{prefix}{name}" for name in scores]
    return sorted(names)


# --------------------------------------------------------------------------------------- a batch


def train_batch(
    plan: Plan, trials: list[Trial], folder: pathlib.Path, judge: Judge
) -> dict[int, Outcome]:
    """What came of each trial of a batch, by its number.

    A batch whose training was stopped goes on. Raises StoppedError after a signal, HostError, and
    OSError; then it is not told, and may go on later.
    """
    outcomes: dict[int, Outcome] = {}
    groups: dict[tuple[object, ...], list[Trial]] = {}
    for trial in trials:
        try:
            check_all(plan.settings_of(trial.params))
        except RefusedError as refusal:
            outcomes[trial.number] = Outcome(f"refused: {refusal}")
            continue
        groups.setdefault(plan.statics_of(trial.params), []).append(trial)

    # a folder for each program, named by its first trial
    for members in groups.values():
        run_dir = folder / str(members[0].number)
        try:
            outcomes |= _train_group(plan, members, run_dir, judge)
        except RefusedError as refusal:
            failure = Outcome(f"refused: {refusal}")
            outcomes |= {trial.number: failure for trial in members}
    return outcomes


def _train_group(
    plan: Plan, trials: list[Trial], run_dir: pathlib.Path, judge: Judge
) -> dict[int, Outcome]:
    """Train the points of trials in one program; trials of the same point share its runs."""
    points = [plan.point_of(trial.params) for trial in trials]
    sweep: dict[str, list[float]] = {}
    for point in {key_of(point): point for point in points}.values():
        for name, value in point.items():
            sweep.setdefault(name, []).append(value)
    settings = plan.settings_of(trials[0].params, statics_only=True)
    run = replace(settings.run, run_dir=str(run_dir), resume="auto")
    settings = replace(settings, run=run, sweep=sweep, zipped=bool(sweep))
    diverged = Diverged()
    try:
        train(settings, at_once=True, watchers=[diverged], lets_diverge=True)
    except HostError as error:
        return _after_failure(error, trials, run_dir)

    # judge
    records = by_point(open_run(run_dir).records(COUNTERS))
    outcomes = {}
    for trial, point in zip(trials, points, strict=True):
        outcome = judge.outcome(records[key_of(point)])
        if not outcome.failed and key_of(point) in diverged.points:
            outcome = Outcome("a parameter became not finite at the last update")
        outcomes[trial.number] = outcome
    return outcomes


def _after_failure(
    error: HostError, trials: list[Trial], run_dir: pathlib.Path
) -> dict[int, Outcome]:
    """What came of trials whose environment failed. Raises the error if none of them diverged.

    An environment on the host may fail of actions that are nan. It takes the batch with it.
    """
    if not (run_dir / METRICS).exists():
        raise error
    if not any(divergence(record) for record in open_run(run_dir).records(COUNTERS)):
        raise error
    failure = Outcome("the environment failed after a trial of the batch had diverged")
    return {trial.number: failure for trial in trials}
