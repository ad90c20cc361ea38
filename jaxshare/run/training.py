"""The runs of one command while they are trained: chunk after chunk, and callbacks."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from jaxshare.run import folder, metrics, observers
from jaxshare.run.callbacks import Callback, Chunk
from jaxshare.run.console import Console
from jaxshare.run.fleet import Counters, Fleet
from jaxshare.run.layout import Layout
from jaxshare.run.log_writers import LogWriters, describe
from jaxshare.run.saver import Saver, fill
from jaxshare.run.shared_fleet import SharedFleet
from jaxshare.run.signals import Watch
from jaxshare.run.timeline import Timeline
from jaxshare.run.warm_start import Start
from jaxshare.run.watch import not_finite
from jaxshare.training.program import Program
from jaxshare.trees import Data, Params
from jaxshare.types import HostError, RefusedError


class Training:
    """The runs of one command while they are trained: what callbacks are given."""

    def __init__(
        self,
        opened: folder.Opened,
        program: Program,
        layout: Layout,
        watch: Watch,
        timeline: Timeline,
        lets_diverge: bool = False,
    ) -> None:
        self.settings = opened.settings
        self.run_dir = opened.run_dir
        self.program = program
        self.layout = layout
        self.labels = opened.settings.labels()  # of each run: its seed and sweep point
        self.watch = watch
        self.timeline = timeline
        self.lets_diverge = lets_diverge  # whether runs that are not finite go on beside the others
        self.failure: HostError | None = None  # of an environment; the runs end after a checkpoint
        self.stopped: str | None = None  # why a callback ended the runs
        self._fleet: Fleet | None = None
        self.console = Console(opened.settings.run, program)
        self._opened = opened
        # before anything is opened for writing: a damaged checkpoint leaves the run untouched
        self.saver = Saver(opened.run_dir, opened.settings, program)
        with self.watch.computing("reading of the checkpoint"):
            self._begin = self.saver.beginning(opened.resuming)

        self.evaluate = observers.Evaluate(self._begin.evaluated)
        self.keep_best = observers.KeepBest(self._begin.best)
        self.watchers: list[Callback] = [
            observers.StopWhenAllDiverged() if lets_diverge else observers.StopOnNonfinite(),
            observers.Log(),
            observers.ShowProgress(),
        ]
        if opened.settings.run.checkpoint.best:
            self.watchers.append(self.keep_best)

        self._remarks = self.saver.cut_back_log(self._begin)
        self.log = LogWriters(opened.run_dir, opened.settings)
        self._started = time.monotonic()
        self.watch.on_leaving(self.console.stop)
        self.watch.on_leaving(self.log.close)
        self.watch.then = "" if self._begin.fresh else self._how_to_go_on()

    def __enter__(self) -> Training:
        return self

    def __exit__(self, *raised: type | BaseException | TracebackType | None) -> None:
        self.console.stop()
        self.saver.checkpoints.close()
        self.log.close()
        if self._fleet is not None:
            self._fleet.release()

    def introduce(self, size: int, new_name: bool) -> None:
        """Say what is about to run, and what there is to remark. size: bytes of memory, about."""
        self.console.start(
            self.settings, self.program, self.layout, size, self.run_dir, self._opened.resuming
        )
        if new_name and self.settings.run.resume == "auto":
            self.console.warn(
                "resume=auto goes on with a run whose run_dir is named; this is a new one."
            )

    # ------------------------------------------------------------------------- what callbacks use

    @property
    def fleet(self) -> Fleet:
        """All runs; there once they have begun."""
        assert self._fleet is not None
        return self._fleet

    @property
    def counters(self) -> Counters:
        """How far every run is."""
        return self.fleet.counters

    @property
    def elapsed(self) -> float:
        """Seconds spent on these runs, over all their resumptions."""
        return self._begin.wall_s + time.monotonic() - self._started

    def params(self, run: int) -> Params:
        """The parameters of one run, copied to numpy arrays."""
        return self.fleet.params(run)

    def stop(self, reason: str) -> None:
        """End the runs after the present chunk, with a checkpoint; the reason is shown."""
        self.stopped = reason

    def write(self, run: int, at: Counters, metrics: dict[str, float]) -> None:
        """Log metrics of one run, whose directory is still ours."""
        self._opened.lock.check()
        counted = {"env_steps": int(at.env_steps[run]), "updates": int(at.updates[run])}
        record = {**self.labels[run], **counted, "wall_s": round(self.elapsed, 3), **metrics}
        self.log.write(run, record)
        for watcher in self.watchers:
            watcher.on_record(self, run, record)

    def not_finite(self, what: str, label: dict[str, Any]) -> RefusedError:
        """What to raise when numbers of a run became nan or inf."""
        return not_finite(f"{what} of {describe(label)}", self.saver.newest, self.fleet.outside())

    # ------------------------------------------------------------------------------------ the loop

    def loop(self, data: Data, start: Start | None = None, max_chunks: int | None = None) -> None:
        """Chunk after chunk until every run has its environment steps. data: see `Fleet.data`."""
        for remark in self._remarks:
            self.console.warn(remark)
        self._begin_runs(data, start)
        total = self.program.total
        chunks = 0
        while (
            self.counters.progress.min() < total and chunks != max_chunks and self.stopped is None
        ):
            self._advance()
            chunks += 1
        self._save()
        self._finish()

    def _begin_runs(self, data: Data, start: Start | None) -> None:
        """New runs with a full enough replay and their first evaluation, or the restored ones."""
        with self.console.phase("compiling"):
            kind = SharedFleet if self.settings.run.parallel.processes > 1 else Fleet
            self._fleet = kind(
                self.program, self.layout, self.settings, data=data, learned=self.watch.learned
            )
            with self.watch.computing("compiling"):
                if self._begin.fresh:
                    with self.timeline.timing("compile"):
                        self.fleet.compile()
                else:
                    self.fleet.take_kept()
                try:
                    with self.timeline.timing("start"):
                        remark = fill(self.fleet, self._begin, start, self.watch)
                except HostError as error:
                    raise HostError(
                        f"{error}\nThe run is stopped before anything was learned."
                    ) from error
            if remark:
                self.console.warn(remark)

            # else a signal cut the prefill short
            prefilled = int(self.fleet.clock.iteration) >= self.program.prefill_iterations
            if prefilled or not self._begin.fresh:
                for watcher in self.watchers:
                    watcher.on_start(self)
            if self._begin.fresh and prefilled:
                self._save()
            if not self.watch:  # else there is nothing to wait for
                self.evaluate.if_due(self, self.counters)
        self._leave_if_stopped()
        self.console.progress(self.counters.progress)
        if self._begin.planned != self.settings.run.total_env_steps:
            self.console.warn(
                f"total_env_steps was {self._begin.planned}: the run goes on, but not to the same "
                "bits as a run that was planned to be longer."
            )

    def _advance(self) -> None:
        """One chunk, and what is due after it."""
        # learn
        before = self.counters
        with self.watch.computing("chunk"), self.timeline.timing("chunk"):
            metrics = self.fleet.chunk(self.watch)
        self.failure = self.fleet.failure
        after = self.counters

        # log, evaluate, save
        if metrics is not None:
            self.watch.learned()
            for watcher in self.watchers:
                watcher.on_chunk(self, Chunk(metrics, before, after))
            if self.failure is None:
                self.evaluate.if_due(self, after)
        if self.failure or self.watch or self.saver.due(before, after):
            self._save()
        self._leave_if_stopped()

    def _save(self) -> None:
        self._opened.lock.check()
        with self.timeline.timing("checkpoint"):
            is_new = self.saver.save(self)
        self.watch.then = self._how_to_go_on()
        self.watch.saved()
        if is_new:
            for watcher in self.watchers:
                watcher.on_checkpoint(self, self.saver.newest)

    def _leave_if_stopped(self) -> None:
        """Raise what stops the runs, if something does; what there was to save is saved."""
        if self.failure:
            steps = int(self.counters.env_steps.min())
            argument = folder.how_to_go_on(self.run_dir)
            raise HostError(
                f"{self.failure}\nThe run is stopped at {steps:,} environment steps; the "
                f"checkpoint is {self.saver.newest}. The same command with {argument} goes on."
            ) from self.failure
        if self.watch:
            self.watch.stop()

    def _finish(self) -> None:
        # remark what a person would not expect
        total = self.program.total
        counters = self.counters
        is_over = counters.progress.min() >= total
        if is_over and not counters.updates.all() and self.program.prefill_iterations:
            what = "windows" if self.program.algorithm.window else "episodes"
            self.console.warn(
                f"total_env_steps={total} was used up before the first update, which needs "
                f"batch_size={self.settings.run.batch_size} {what}: nothing was learned."
            )
        if self.stopped is not None:
            self.console.warn(f"stopped by a callback: {self.stopped}")

        # show what was learned
        if is_over or self.stopped is not None:
            for watcher in self.watchers:
                watcher.on_end(self)
            records, problems = metrics.read(self.run_dir, ("seed", "env_steps"))
            for problem in problems:
                self.console.warn(problem)
            self.console.finish(records, self.run_dir)

    def _how_to_go_on(self) -> str:
        return f"the same command with {folder.how_to_go_on(self.run_dir)} goes on"
