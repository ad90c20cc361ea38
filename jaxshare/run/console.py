"""What a person sees while a run goes on.

A progress bar, a line per evaluation, a table at the end.
"""

from __future__ import annotations

import pathlib
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from jaxshare import trust
from jaxshare.results import curves, learning_curve
from jaxshare.run.loggers import METRICS
from jaxshare.terminal import open_console

if TYPE_CHECKING:
    from jaxshare.run.layout import Layout
    from jaxshare.settings.records import RunConfig, Settings
    from jaxshare.training.program import Program


class Console:
    """The person's view of one command's runs.

    Off a terminal the bar is left out and the lines stay.
    """

    def __init__(self, run: RunConfig, program: Program) -> None:
        self._total = program.total
        self._unit = "updates" if program.offline else "steps"
        self._console = open_console()
        self._bar = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            TimeElapsedColumn(), TimeRemainingColumn(),
            console=self._console, disable=not (run.progress and self._console.is_terminal),
        )  # fmt: skip
        self._task = self._bar.add_task("compiling", total=self._total, note="")
        self._since = time.monotonic()
        self._names = ""  # arguments that name the code of the environment once more

    def start(
        self,
        settings: Settings,
        program: Program,
        layout: Layout,
        memory: int,
        run_dir: pathlib.Path,
        resuming: bool,
    ) -> None:
        """Say what is about to run."""
        spec = program.env.spec

        # which runs
        how = "one per device"
        if layout.per_device > 1:
            how = f"{layout.per_device} vmapped per device"
        elif layout.data > 1:
            how = f"{layout.data} for each run"
        device = layout.mesh.devices.flat[0].platform
        runs = f"{layout.num_runs} run(s) on {layout.mesh.size} {device} device(s), {how}"

        # how long, and where to
        what = f"updates from {settings.run.data}" if program.offline else "environment steps"
        size = f"about {memory / 1e9:.2f} GB of memory"
        doing = "Going on with" if resuming else "Writing to"
        rest = f" ({spec.num_agents} agents), {runs}; {self._total:,} {what} each; {size}\n"

        name = "+".join([settings.algo_name, *settings.modifiers])
        heading = ((name, "bold"), " on ", (spec.name, "bold"))
        self._console.print(Text.assemble(*heading, rest, f"{doing} {run_dir}"))
        self._names = trust.arguments(settings)
        self._bar.start()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Name what happens before the first chunk."""
        self._bar.update(self._task, description=name)
        if not self._console.is_terminal:
            self._console.print(f"{name} …")
        yield

    def progress(
        self, progress: np.ndarray, metrics: dict[str, Any] | None = None, new_steps: int = 0
    ) -> None:
        """Move the bar: it counts the slowest run.

        progress: [R], as `Program.total` counts.
        metrics: of a chunk, [R, iterations, ...]; None while there is none.
        new_steps: or updates, of all runs in that chunk.
        """
        done = int(min(progress.min(), self._total))
        note = ""
        if metrics is not None:
            speed = new_steps / max(time.monotonic() - self._since, 1e-9)
            ended = metrics["ended"]  # [R, iterations]
            note = f"{speed:,.0f} {self._unit}/s"
            if "return" in metrics["collect"]:
                mean = float((metrics["collect"]["return"] * ended).sum() / max(ended.sum(), 1))
                note = f"return {mean:.2f}, {note}"
        self._since = time.monotonic()
        self._bar.update(
            self._task,
            completed=done,
            description="training" if metrics else "compiling",
            note=note,
        )

    def evaluated(
        self, progress: np.ndarray, scores: dict[str, np.ndarray], due: np.ndarray
    ) -> None:
        """One line per evaluation: means over the runs whose turn it was (due [R] bool)."""
        means = []
        for name, values in sorted(scores.items()):
            means.append(f"{name} {values[due].mean():.3f}")
        which = "" if due.all() else f" ({due.sum()} of {due.size} runs)"
        at = int(progress[due].mean())
        self._console.print(f"{at:>11,} {self._unit}: {', '.join(means)}{which}")

    def warn(self, message: str) -> None:
        """Say what the person should know."""
        self._console.print(Text.assemble(("note:", "yellow"), f" {message}"))

    def finish(self, records: list[dict[str, Any]], run_dir: pathlib.Path) -> None:
        """The table of first and last evaluations, and the picture.

        Neither stops a run that is done.
        """
        self.stop()
        rows = curves.first_and_last(records)
        if not rows:
            self.warn(
                f"{run_dir / METRICS} has no evaluation: there is no table, and no learning curve."
            )
            return
        self._console.print(self.table(rows))

        # draw the picture
        try:
            self._console.print(f"learning curve: {learning_curve.draw(records, run_dir)}")
        except OSError as error:
            why = error.strerror or error
            self.warn(f"the learning curve could not be written to {run_dir} ({why}).")

        # say what comes next
        command = f"python -m jaxshare.evaluate {shlex.quote(f'run_dir={run_dir}')}{self._names}"
        self._console.print(f"look closer:    {command}")

    def table(self, rows: list[dict[str, Any]]) -> Table:
        """First against last evaluation, per run and mean."""
        # columns of the scores that there are
        scores = [name for name in ("win_rate", "return", "length") if f"{name} first" in rows[-1]]
        table = Table(title="first → last evaluation")
        for column in ("run", "env steps", *scores):
            table.add_column(column, justify="right")

        for row in rows:
            cells = [str(row["run"]), f"{row['env_steps']:,.0f}"]
            for name in scores:
                cells.append(f"{row[f'{name} first']:.3f} → {row[f'{name} last']:.3f}")
            table.add_row(*cells, end_section=row["run"] == "mean")
        return table

    def stop(self) -> None:
        """Take the bar away."""
        self._bar.stop()
