"""The search as Optuna keeps it: asked for in batches, told what came of them. Knows Optuna alone.

The journal is a file of lines, which several processes append to. Who asks is alone, by a lock of
the folder: numbers do not repeat, and all processes together ask for no more trials than planned.
A batch belongs to the process that has the lock of its folder; one whose process is dead is taken
over.
"""

from __future__ import annotations

import json
import pathlib
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial

from jaxshare.run.lock import Lock, alone_in
from jaxshare.tune.outcome import Outcome, Trial
from jaxshare.tune.plan import Plan
from jaxshare.tune.space import Parameter
from jaxshare.types import RefusedError

JOURNAL = "journal.log"
BATCHES = "batches"
STUDY = "jaxshare"
BATCH = "batch"  # attributes of trials: number of the first of its batch
OUTCOME = "outcome"  # what came of it, in JSON


@dataclass(frozen=True)
class Batch:
    """Trials that are trained together, and belong to this process until `lock` is released."""

    trials: list[Trial]
    folder: pathlib.Path
    lock: Lock


class Journal:
    """The journal of a search, in its folder, which is there."""

    def __init__(self, plan: Plan) -> None:
        self._config = plan.config
        self._out = plan.out
        self._distributions = {searched.key: _distribution(searched) for searched in plan.space}
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with alone_in(plan.out):
            backend = JournalFileBackend(str(plan.out / JOURNAL))
            self._storage = JournalStorage(backend)
            self._study = optuna.create_study(
                storage=self._storage, study_name=STUDY, direction="maximize", load_if_exists=True
            )
        self._id = self._storage.get_study_id_from_name(STUDY)

    def trials(self) -> list[Trial]:
        """All trials so far, in order."""
        return [_trial(frozen) for frozen in self._study.get_trials(deepcopy=False)]

    def claim(self) -> Batch | None:
        """The next batch for this process: one left behind, or a new one; None if none is left."""
        with alone_in(self._out):
            frozen = self._study.get_trials(deepcopy=False)
            self._drop_unfinished_asking(frozen)
            batch = self._left_behind()
            missing = self._config.trials - len(frozen)
            if batch is None and missing > 0:
                batch = self._new(frozen, min(missing, self._config.batch))
            return batch

    def tell(self, batch: Batch, outcomes: dict[int, Outcome]) -> None:
        """What came of a batch. Trials that were told before, by a process that died, stay."""
        for trial in batch.trials:
            if trial.outcome is not None:
                continue
            outcome = outcomes[trial.number]
            self._note(trial.number, OUTCOME, json.dumps(asdict(outcome)))
            if outcome.failed:
                self._study.tell(trial.number, state=TrialState.FAIL)
            else:
                self._study.tell(trial.number, outcome.value)

    # ------------------------------------------------------------------------------------ batches

    def _drop_unfinished_asking(self, frozen: list[FrozenTrial]) -> None:
        """Trials whose process died while it asked for them: told, so that none is lost."""
        for each in frozen:
            if each.state == TrialState.RUNNING and BATCH not in each.user_attrs:
                self._note(each.number, BATCH, each.number)
                failure = Outcome("the process ended while it asked for the trial")
                self._note(each.number, OUTCOME, json.dumps(asdict(failure)))
                self._study.tell(each.number, state=TrialState.FAIL)

    def _left_behind(self) -> Batch | None:
        """A batch that is not finished and that no process has."""
        waiting = sorted({trial.batch for trial in self.trials() if trial.outcome is None})
        for first in waiting:
            try:
                batch = self._locked(first)
            except RefusedError:  # a process has it
                continue
            if any(trial.outcome is None for trial in batch.trials):
                return batch
            batch.lock.release()  # its process told the outcomes before it let go of it
        return None

    def _new(self, frozen: list[FrozenTrial], size: int) -> Batch:
        """Ask for trials that a sampler proposes."""
        first = len(frozen)
        for params in self._proposals(frozen, size):
            self._study.sampler = _Decided(params)
            number = self._study.ask(self._distributions).number
            self._note(number, BATCH, first)
        return self._locked(first)

    def _proposals(self, frozen: list[FrozenTrial], size: int) -> list[dict[str, Any]]:
        """What the sampler would try next, with random numbers that no other batch has.

        ours: it sees failed trials as pruned ones, which to TPE are worse than all others. Of
        failed ones it learns nothing, and so goes where trials fail.
        """
        entropy = (self._config.sampler_seed, len(frozen))
        sampler = _sampler(self._config.sampler, entropy)
        view = optuna.create_study(direction="maximize", sampler=sampler)
        for each in frozen:
            failed = each.state == TrialState.FAIL
            trial = create_trial(
                state=TrialState.PRUNED if failed else each.state,
                value=each.value,
                params=each.params,
                distributions=each.distributions,
            )
            view.add_trial(trial)
        return [view.ask(self._distributions).params for _ in range(size)]

    def _locked(self, first: int) -> Batch:
        """The batch, as it is from now on: only who has its lock tells its outcomes."""
        folder = self._out / BATCHES / str(first)
        folder.mkdir(parents=True, exist_ok=True)
        lock = Lock(folder)
        members = [trial for trial in self.trials() if trial.batch == first]
        return Batch(members, folder, lock)

    def _note(self, number: int, key: str, value: str | int) -> None:
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(self._id, number)
        self._storage.set_trial_user_attr(trial_id, key, value)


class _Decided(BaseSampler):
    """Proposes what was decided already."""

    def __init__(self, params: dict[str, Any]) -> None:
        self._params = params

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """None: each value stands alone."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """No values together."""
        return {}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """The value."""
        return self._params[param_name]


def _trial(frozen: FrozenTrial) -> Trial:
    outcome = None
    if frozen.state.is_finished():
        tree = json.loads(frozen.user_attrs[OUTCOME])
        outcome = Outcome(**{**tree, "scores": tuple(tree["scores"])})
    batch = int(frozen.user_attrs.get(BATCH, frozen.number))
    return Trial(frozen.number, batch, dict(frozen.params), outcome)


def _distribution(searched: Parameter) -> BaseDistribution:
    """What Optuna draws from."""
    if searched.choices:
        return CategoricalDistribution(searched.choices)
    if searched.is_whole:
        return IntDistribution(int(searched.low), int(searched.high), log=searched.is_log)
    return FloatDistribution(searched.low, searched.high, log=searched.is_log)


def _sampler(name: str, entropy: tuple[int, ...]) -> BaseSampler:
    """A sampler with random numbers of its own for each batch, the same whoever asks."""
    seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
    if name == "random":
        return RandomSampler(seed=seed)
    return TPESampler(seed=seed, constant_liar=True)
