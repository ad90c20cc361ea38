"""The callbacks of every run: stop on nan, log, show progress, keep the best; and evaluating."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxshare.run.callbacks import Callback, Chunk, Evaluation
from jaxshare.run.checkpoint.contents import Best
from jaxshare.run.fleet import Counters
from jaxshare.run.watch import diverged, first_nonfinite
from jaxshare.types import HostError

if TYPE_CHECKING:
    from jaxshare.run.training import Training


class StopOnNonfinite(Callback):
    """Ends the run at a metric that is nan or inf, before anything of it is kept."""

    def on_chunk(self, training: Training, chunk: Chunk) -> None:
        """Look at every metric of every update."""
        first = first_nonfinite(chunk.metrics)
        if first is None:
            return
        update = int(chunk.before.updates[first.run]) + first.update + 1
        what = f"{first.name} became {first.value} at update {update}"
        raise training.not_finite(what, training.labels[first.run])


class StopWhenAllDiverged(Callback):
    """Lets runs diverge beside others, and ends them all when none is finite any more."""

    def on_chunk(self, training: Training, chunk: Chunk) -> None:
        """Look at every metric of every update."""
        if diverged(chunk.metrics).all():
            training.stop("all runs have numbers that are nan or inf")


class Log(Callback):
    """Writes a record of each run for every chunk and every evaluation."""

    def on_chunk(self, training: Training, chunk: Chunk) -> None:
        """Means over the updates that were made and the episodes that ended."""
        for run in range(len(training.labels)):
            active = chunk.metrics["active"][run]  # [iterations]
            if active.any():
                metrics = _means(chunk.metrics, run, active)
                training.write(run, chunk.after, metrics)

    def on_evaluation(self, training: Training, evaluation: Evaluation) -> None:
        """The scores of the runs whose turn it was."""
        for run in np.flatnonzero(evaluation.due):
            training.write(int(run), evaluation.at, eval_record(evaluation, int(run)))


def _means(metrics: dict[str, Any], run: int, active: np.ndarray) -> dict[str, float]:
    done = metrics["done"][run] & active[:, None]
    record = {}
    if done.any():
        for name, values in metrics["update"].items():
            record[name] = float(values[run][done].mean())

    ended = metrics["ended"][run] * active  # episodes, [iterations]
    if ended.any():
        for name, values in metrics["collect"].items():
            record[f"train/{name}"] = float(values[run] @ ended / ended.sum())
    return record


def eval_record(evaluation: Evaluation, run: int) -> dict[str, float]:
    """The scores of one run as they are logged."""
    return {f"eval/{name}": float(values[run]) for name, values in evaluation.scores.items()}


class ShowProgress(Callback):
    """Moves the bar, and prints a line for every evaluation."""

    def on_chunk(self, training: Training, chunk: Chunk) -> None:
        """How far the slowest run is, and how fast all are."""
        steps = int((chunk.after.progress - chunk.before.progress).sum())
        training.console.progress(chunk.after.progress, chunk.metrics, steps)

    def on_evaluation(self, training: Training, evaluation: Evaluation) -> None:
        """Means over the runs whose turn it was."""
        at = evaluation.at.progress
        training.console.evaluated(at, evaluation.scores, evaluation.due)


class KeepBest(Callback):
    """Keeps the parameters of each run's best evaluation by mean return; of equals, the latest."""

    def __init__(self, best: list[Best | None]) -> None:
        self.best = best  # of each run, so far

    def on_evaluation(self, training: Training, evaluation: Evaluation) -> None:
        """Copy the parameters of the runs that were never better."""
        for run in np.flatnonzero(evaluation.due):
            score = float(evaluation.scores["return"][run])
            best = self.best[run]
            if np.isfinite(score) and (best is None or score >= best.score):
                params = training.params(int(run))
                env_steps = int(evaluation.at.env_steps[run])
                self.best[run] = Best(params=params, env_steps=env_steps, score=score)


class Evaluate:
    """Evaluates the runs whose turn it is, and tells the callbacks."""

    def __init__(self, evaluated: np.ndarray) -> None:
        # progress of each run at its last evaluation, -1: none. One that failed is made up for
        # when the run goes on
        self.evaluated = evaluated

    def if_due(self, training: Training, counters: Counters) -> None:
        """New runs, those that crossed a multiple of eval.every, and those that came to their end.

        A failure on the host is then in `Training.failure`.
        """
        due = self._due(training, counters.progress)
        if not due.any():
            return
        try:
            with training.watch.computing("evaluation"), training.timeline.timing("evaluation"):
                scores = training.fleet.evaluate()
        except HostError as error:
            training.failure = error
            return
        evaluation = Evaluation(scores, due, counters)
        for watcher in training.watchers:
            watcher.on_evaluation(training, evaluation)
        self.evaluated = np.where(due, counters.progress, self.evaluated)

    def _due(self, training: Training, progress: np.ndarray) -> np.ndarray:
        every = training.settings.run.eval.every
        total = training.program.total
        crossed = progress // every > self.evaluated // every
        ended = progress >= total
        unfinished = self.evaluated < total
        return ((crossed | ended) & unfinished) | (self.evaluated < 0)
