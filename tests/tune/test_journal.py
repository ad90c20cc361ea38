"""The journal of a search: asked in batches, told what came of them, shared by processes, and nothing is lost."""

import ast
import subprocess
import sys

import optuna
import pytest
import searches
import tiny
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from jaxshare.tune.outcome import best_of


def process(what, out, *arguments):
    """The command of a process that works on a search."""
    path = f"{tiny.REPOSITORY}:{tiny.REPOSITORY / 'tests'}"
    return subprocess.Popen(
        [sys.executable, searches.__file__, what, str(out), *arguments],
        env={**tiny.ENVIRONMENT, "PYTHONPATH": path}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def numbers_of(process):
    return ast.literal_eval(process.communicate(timeout=120)[0])


def assert_told(trials):
    """Every trial has the outcome of its own parameters."""
    assert list(map(str, (trial.outcome for trial in trials))) == [str(searches.judged(t.params)) for t in trials]


def test_asking_and_telling(tmp_path):
    assert searches.work(tmp_path, "trials=20", "batch=6", "sampler=random") == list(range(20))
    trials = searches.journal(tmp_path).trials()
    assert [trial.batch for trial in trials] == [0] * 6 + [6] * 6 + [12] * 6 + [18] * 2
    assert_told(trials)
    assert 0 < sum(trial.is_scored for trial in trials) < 20, "some fail, and the search goes on"
    for trial in trials:
        assert 1e-4 <= trial.params["lr"] <= 1e-1
        assert 0.5 <= trial.params["gamma"] <= 0.9
        assert trial.params["batch_size"] in (2, 4)
        assert isinstance(trial.params["batch_size"], int)

    # as Optuna has it, for whoever opens the journal with its own tools
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "journal.log")))
    study = optuna.load_study(study_name=None, storage=storage)
    assert study.best_trial.number == best_of(trials).number
    states = [trial.state.name for trial in study.trials]
    assert states == ["COMPLETE" if trial.is_scored else "FAIL" for trial in trials]

    # more trials later
    assert searches.work(tmp_path, "trials=22", "batch=6", "sampler=random") == [20, 21]


def test_tpe_learns_from_values_and_from_failures(tmp_path):
    """Against chance, with the same first trials: higher values, and fewer failures than their share of the space."""
    searches.work(tmp_path, "trials=60", "batch=6", "sampler_seed=2")
    trials = searches.journal(tmp_path).trials()
    late = [trial.outcome.value for trial in trials[24:] if trial.is_scored]
    early = [trial.outcome.value for trial in trials[:12] if trial.is_scored]
    assert sum(late) / len(late) > 0.7 * sum(early) / len(early)
    assert sum(not trial.is_scored for trial in trials[24:]) / 36 < 0.05 / 0.4


def test_proposals_depend_on_the_seed_alone(tmp_path):
    def params(name, *arguments):
        searches.work(tmp_path / name, "trials=20", "batch=10", *arguments)
        return [trial.params for trial in searches.journal(tmp_path / name).trials()]

    assert params("a") == params("b") != params("c", "sampler_seed=1")
    chance = params("d", "sampler=random")
    assert chance != params("a")
    assert len({trial["lr"] for trial in chance}) == 20, "batches have random numbers of their own"


def test_processes_share_a_search(tmp_path):
    workers = [process("work", tmp_path, "trials=24", "batch=4") for _ in range(2)]
    numbers = [numbers_of(worker) for worker in workers]
    assert sorted(numbers[0] + numbers[1]) == list(range(24))
    trials = searches.journal(tmp_path).trials()
    assert len({trial.params["lr"] for trial in trials}) == 24
    assert_told(trials)


def test_a_batch_belongs_to_a_living_process(tmp_path):
    first, second = (searches.journal(tmp_path, "trials=10", "batch=4") for _ in range(2))
    batches = [first.claim(), second.claim(), first.claim()]
    assert [[trial.number for trial in batch.trials] for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert second.claim() is None
    batches[1].lock.release()  # as a process that ends does
    again = first.claim()
    assert again.trials == batches[1].trials


def test_a_batch_that_ends_while_another_process_looks_for_one_is_not_trained_again(tmp_path, monkeypatch):
    """It is told and let go of between the look at the trials and the lock."""
    first, second = (searches.journal(tmp_path, "trials=4", "batch=4") for _ in range(2))
    batch = first.claim()
    look = second.trials

    def look_and_be_overtaken():
        seen = look()
        if any(trial.outcome is None for trial in seen):
            first.tell(batch, {trial.number: searches.judged(trial.params) for trial in batch.trials})
            batch.lock.release()
        return seen

    monkeypatch.setattr(second, "trials", look_and_be_overtaken)
    assert second.claim() is None


def test_the_batch_of_a_dead_process_is_taken_over(tmp_path):
    assert numbers_of(process("die", tmp_path, "trials=6", "batch=4")) == [0, 1, 2, 3]
    before = searches.journal(tmp_path).trials()
    assert [trial.outcome for trial in before] == [None] * 4
    assert searches.work(tmp_path, "trials=6", "batch=4") == list(range(6))
    after = searches.journal(tmp_path).trials()
    assert [trial.params for trial in after[:4]] == [trial.params for trial in before]


def test_trials_that_were_told_before_a_process_died_stay(tmp_path):
    journal = searches.journal(tmp_path, "trials=4", "batch=4")
    batch = journal.claim()
    outcomes = {trial.number: searches.judged({**trial.params, "gamma": 0.9}) for trial in batch.trials}
    with pytest.raises(KeyError):
        journal.tell(batch, {number: outcomes[number] for number in (0, 1)})
    batch.lock.release()
    again = searches.journal(tmp_path, "trials=4").claim()
    assert [trial.number for trial in again.trials] == [0, 1, 2, 3], "all, so that the same program goes on"
    assert [trial.outcome is None for trial in again.trials] == [False, False, True, True]
    other = {number: searches.Outcome("diverged") for number in range(4)}
    journal.tell(again, other)
    told = [outcomes[0], outcomes[1], other[2], other[3]]
    assert [str(trial.outcome) for trial in journal.trials()] == list(map(str, told))


def test_a_trial_whose_asking_was_cut_off_is_told_as_failed(tmp_path, monkeypatch):
    journal = searches.journal(tmp_path, "trials=5", "batch=2")
    with monkeypatch.context() as patch:
        patch.setattr(journal, "_note", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            journal.claim()
    assert searches.work(tmp_path, "trials=5", "batch=2") == [1, 2, 3, 4]
    first = journal.trials()[0]
    assert "ended while it asked" in first.outcome.failed
