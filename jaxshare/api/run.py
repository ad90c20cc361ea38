"""What came of a training run: metrics, policies, evaluations."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any, TypedDict, Unpack

import numpy as np

from jaxshare.api.policy import Policy
from jaxshare.evaluation import scores
from jaxshare.results import curves
from jaxshare.run.saved import LATEST, SavedRun, open_run
from jaxshare.run.watch import host_errors
from jaxshare.settings.records import Settings
from jaxshare.trust import Permission
from jaxshare.types import RefusedError


class Episodes(TypedDict, total=False):
    """What to play; see `Run.evaluate`."""

    episodes: int
    policy: str | None
    seed: int | None


def load(
    run_dir: str | pathlib.Path,
    checkpoint: int | str = LATEST,
    trust: bool = False,
    env: Mapping[str, Any] | None = None,
    plugins: Sequence[str] = (),
) -> Run:
    """The run in a directory that `train` wrote.

    checkpoint: "latest", "best" (of a run with checkpoint.best=true) or an iteration.
    trust, env: a directory may name code that is not jaxshare's, such as env.id=mymodule:Env. That
    code runs only if `env` names it too (env={"id": "mymodule:Env"}) or trust is True.
    plugins: entries from outside jaxshare that it names by dotted path or file, named again:
    ["my_pkg.my_algo", "path/to/game.py"].
    Raises RefusedError if it is no run directory, or names code without permission.
    """
    permission = Permission(trust=trust, env=env or {}, plugins=plugins)
    return Run(open_run(run_dir, checkpoint, permission))


def evaluate(run: str | pathlib.Path | Run, **settings: Unpack[Episodes]) -> dict[str, Any]:
    """Play test episodes with a run, or the one in a directory. See `Run.evaluate`, `load`."""
    return (run if isinstance(run, Run) else load(run)).evaluate(**settings)


class Run:
    """A run directory. R runs: seeds by sweep points.

    Metrics are read when they are asked for; the checkpoint is read once, when it is first needed.
    """

    def __init__(self, saved: SavedRun) -> None:
        self._saved = saved

    def __repr__(self) -> str:
        return f"<jaxshare run {self.run_dir}: {len(self.labels)} run(s)>"

    @property
    def run_dir(self) -> pathlib.Path:
        """The directory."""
        return self._saved.run_dir

    @property
    def settings(self) -> Settings:
        """All settings, as config.yaml has them."""
        return self._saved.settings

    @property
    def labels(self) -> list[dict[str, Any]]:
        """The seed and sweep point of each run, [R]."""
        return self._saved.labels

    @property
    def metrics(self) -> list[dict[str, np.ndarray]]:
        """The columns of metrics.jsonl for each run, [R].

        They are {"env_steps": [rows], "loss/td": [rows], …}, nan where a record lacks a metric, as
        those of an evaluation lack losses. `curve` leaves these out;
        `pandas.DataFrame(run.metrics[0])` is a table.
        """
        records = self._saved.records()
        return [_columns(_of(label, records)) for label in self.labels]

    def curve(
        self, name: str = "eval/return", seed: int | None = None, run: int | None = None
    ) -> tuple[Any, Any]:
        """(environment steps [points], values [points]) of one metric, for plotting.

        seed: which run; default the first one. run: its place in `labels` instead, as for the
        points of a sweep. Of a data set's learner the first are updates.
        Raises RefusedError for a metric that was never logged.
        """
        records = _of(self.labels[self._index(seed, run)], self._saved.records())
        points = [record for record in records if name in record]
        if not points:
            known = sorted({key for record in records for key in record})
            raise RefusedError(f"{name} was not logged. Known: {', '.join(known)}.")
        counter = curves.progress_key(points[-1])
        steps = np.array([record[counter] for record in points])
        return steps, np.array([record[name] for record in points])

    def policy(self, seed: int | None = None, run: int | None = None) -> Policy:
        """The agents of one run at the checkpoint; default the first seed.

        run: its place in `labels` instead of a seed, as for the points of a sweep.
        Raises RefusedError.
        """
        return Policy(self._saved, self._index(seed, run))

    def evaluate(
        self, episodes: int = 128, policy: str | None = None, seed: int | None = None
    ) -> dict[str, Any]:
        """Play test episodes with every run's policy at the checkpoint.

        episodes: of each run. policy: "greedy", "stochastic" or "both"; None: the run's own.
        seed: of the episodes; None: those of training, or others for the best checkpoint.
        Returns {"runs": [{"seed", "return", "length", "win_rate", …}], "mean": {…}, …}, as
        `python -m jaxshare.evaluate` writes it. Raises RefusedError, HostError.
        """
        playing = scores.settings_with(self._saved, episodes, policy, seed)
        saved = self._saved.with_settings(playing)
        with closing(saved), host_errors(saved.program.evaluator):
            return scores.evaluation(saved, self.settings.run.eval)

    def _index(self, seed: int | None, run: int | None) -> int:
        # by its place
        if run is not None:
            if seed is not None or not 0 <= run < len(self.labels):
                raise RefusedError(
                    f"run={run} with seed={seed}: name a seed, or the place of a run from 0 to "
                    f"{len(self.labels) - 1}."
                )
            return run

        # by its seed
        if seed is None:
            return 0
        seeds = [label["seed"] for label in self.labels]
        if seeds.count(seed) != 1:
            what = "there is none"
            if seed in seeds:
                what = "a sweep has it several times: say run=, its place"
            raise RefusedError(f"seed={seed}: {what}. The runs are {self.labels}.")
        return seeds.index(seed)


def _of(label: dict[str, Any], records: list[curves.Record]) -> list[curves.Record]:
    """The records of one run."""
    return [record for record in records if label.items() <= record.items()]


def _columns(records: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    names = sorted({name for record in records for name in record})
    columns = {}
    for name in names:
        columns[name] = np.array([record.get(name, np.nan) for record in records])
    return columns
