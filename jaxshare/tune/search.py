"""The search: batch after batch until all trials have ended, and what is written of them."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from typing import Any

from jaxshare import durable
from jaxshare.run.metrics import COUNTERS
from jaxshare.run.saved import open_run
from jaxshare.run.train import train
from jaxshare.tune import picture, plan, winner
from jaxshare.tune.journal import Journal
from jaxshare.tune.outcome import Judge, Outcome, Trial, best_of
from jaxshare.tune.plan import Params, Plan
from jaxshare.tune.trainer import judge_of, train_batch
from jaxshare.types import RefusedError

TRIALS = "trials.json"
BEST = "best.yaml"
PICTURE = "tune.png"
CONFIRMED = "confirm"  # folder of the runs on fresh seeds


def search(planned: Plan) -> list[Trial]:
    """Run what is missing of a search, and write what came of it: all trials.

    Raises RefusedError for what cannot be done, StoppedError after a signal, HostError, OSError;
    the same call goes on.
    """
    # what it is, and how its trials are judged
    judge = judge_of(planned)
    planned.out.mkdir(parents=True, exist_ok=True)
    plan.check_same(planned)
    journal = Journal(planned)

    # batch after batch
    while True:
        batch = journal.claim()
        if batch is None:
            break
        try:
            numbers = [trial.number for trial in batch.trials]
            print(f"trials {numbers[0]} to {numbers[-1]} of {planned.config.trials}", flush=True)
            outcomes = train_batch(planned, batch.trials, batch.folder, judge)
            journal.tell(batch, outcomes)
        finally:
            batch.lock.release()
        trials = journal.trials()
        _write(planned, trials, judge.metric)
        _say(outcomes, trials, judge.metric)
        _refuse_hopeless(outcomes, trials)

    # the end, at least of what this process can do
    trials = journal.trials()
    at_work = [trial.number for trial in trials if trial.outcome is None]
    if at_work:
        print(f"{len(at_work)} trial(s) are with other processes, which write the results.")
        return trials
    confirmed = _confirm(planned, trials, judge)
    _write(planned, trials, judge.metric, confirmed)
    _say_end(planned, trials, judge.metric)
    return trials


def _refuse_hopeless(outcomes: dict[int, Outcome], trials: list[Trial]) -> None:
    """Raise RefusedError if a whole batch was refused before any trial had a value."""
    reasons = [outcome.failed for outcome in outcomes.values()]
    if best_of(trials) is None and all(reason.startswith("refused: ") for reason in reasons):
        why = reasons[0].removeprefix("refused: ")
        raise RefusedError(f"No trial could be trained: {why} They are told as failed.")


# ------------------------------------------------------------------------------------- fresh seeds


def _confirm(planned: Plan, trials: list[Trial], judge: Judge) -> Outcome | None:
    """The best trial trained on seeds that the search has not seen, if that is asked for."""
    best = best_of(trials)
    seeds = planned.config.confirm
    if best is None or best.outcome is None or not seeds:
        return None

    # its settings, with the seeds behind those of the search
    settings = planned.settings_of(best.params)
    run_dir = planned.out / CONFIRMED / f"trial-{best.number}-seeds-{seeds}"
    print(f"trial {best.number} on {seeds} fresh seed(s)", flush=True)
    run = replace(
        settings.run,
        run_dir=str(run_dir),
        resume="auto",
        seed=settings.run.seed + settings.run.seeds,
        seeds=seeds,
    )
    train(replace(settings, run=run), at_once=True)
    outcome = judge.outcome(open_run(run_dir).records(COUNTERS))
    print(
        f"on fresh seeds: {judge.metric} {_value(outcome)}; the search had {_value(best.outcome)}"
    )
    return outcome


# ---------------------------------------------------------------------------------------- results


def _write(
    planned: Plan, trials: list[Trial], metric: str, confirmed: Outcome | None = None
) -> None:
    """Write trials, picture and, if there is one, the best as a preset."""
    best = best_of(trials)

    # all trials, and a picture of them
    tree: dict[str, Any] = {
        "metric": metric,
        "best": None if best is None else best.number,
        "confirmed": None if confirmed is None else _plain(confirmed),
        "trials": [_row(trial) for trial in trials],
    }
    text = json.dumps(tree, indent=1, allow_nan=False) + "\n"
    durable.write_text(planned.out / TRIALS, text)
    durable.write_bytes(planned.out / PICTURE, picture.draw(planned, trials, metric))

    # the best one
    if best is not None:
        count = sum(trial.is_scored for trial in trials)
        text = winner.preset(planned, best, metric, count)
        durable.write_text(planned.out / BEST, text)


def _row(trial: Trial) -> dict[str, Any]:
    """A trial in trials.json."""
    state = "running"
    outcome: dict[str, Any] = {}
    if trial.outcome is not None:
        state = "failed" if trial.outcome.failed else "complete"
        outcome = _plain(trial.outcome)
    numbers = {"number": trial.number, "state": state, "batch": trial.batch}
    return {**numbers, "params": dict(trial.params), **outcome}


def _plain(outcome: Outcome) -> dict[str, Any]:
    """An outcome as JSON has it: what is no number is null."""
    tree: dict[str, Any] = {}
    for key, value in asdict(outcome).items():
        is_number = not isinstance(value, float) or math.isfinite(value)
        tree[key] = value if is_number else None
    return tree


# ------------------------------------------------------------------------------------- the person


def _say(outcomes: dict[int, Outcome], trials: list[Trial], metric: str) -> None:
    """How a batch went, and the best so far."""
    for number, outcome in sorted(outcomes.items()):
        if outcome.failed:
            print(f"trial {number} failed: {outcome.failed}")
    best = best_of(trials)
    if best is not None and best.outcome is not None:
        words = f"{metric} {_value(best.outcome)}: {_words(best.params)}"
        print(f"best so far: trial {best.number}, {words}", flush=True)


def _say_end(planned: Plan, trials: list[Trial], metric: str) -> None:
    """What there is now, and how to use it."""
    failed = sum(not trial.is_scored for trial in trials)
    print(f"{len(trials)} trials, {failed} failed: {planned.out / TRIALS}, {planned.out / PICTURE}")
    best = best_of(trials)
    if best is None or best.outcome is None:
        print("no trial has a value: there is no best one")
        return
    print(f"best: trial {best.number}, {metric} {_value(best.outcome)}: {_words(best.params)}")
    print(f"train it with: python -m jaxshare.train preset={planned.out / BEST} seed=1000 seeds=5")


def _value(outcome: Outcome) -> str:
    """A value with its interval."""
    interval = f" [{outcome.low:.4g}, {outcome.high:.4g}]" if math.isfinite(outcome.low) else ""
    return f"{outcome.value:.4g}{interval}"


def _words(params: Params) -> str:
    """The values of a trial."""
    words = []
    for key, value in params.items():
        words.append(f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}")
    return ", ".join(words)
