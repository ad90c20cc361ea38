"""What watches a run: it sees everything, may stop it, and changes nothing."""

import numpy as np
import pytest
import tiny

from jaxshare.run import train as training
from jaxshare.run.callbacks import Callback
from jaxshare.run.lease import LOCK
from jaxshare.types import RefusedError


class Diary(Callback):
    """Writes down what it is told."""

    def __init__(self, stop_after=None):
        self.events = []
        self.records = []
        self._stop_after = stop_after

    def on_start(self, training):
        self.events.append(("start", int(training.counters.env_steps.min())))

    def on_chunk(self, training, chunk):
        steps = int((chunk.after.env_steps - chunk.before.env_steps).sum())
        self.events.append(("chunk", steps))
        if self._stop_after is not None and training.counters.env_steps.min() >= self._stop_after:
            training.stop("enough")

    def on_evaluation(self, training, evaluation):
        self.events.append(("evaluation", len(evaluation.scores["return"])))

    def on_record(self, training, run, record):
        assert training.labels[run].items() <= record.items()
        self.records.append(record)

    def on_checkpoint(self, training, path):
        assert path.is_dir()
        self.events.append(("checkpoint", int(path.name)))

    def on_end(self, training):
        self.events.append(("end", int(training.counters.env_steps.min())))


class TakenOver(Callback):
    """Another process takes the run directory after the first chunk."""

    def on_chunk(self, training, chunk):
        path = training.run_dir / LOCK
        path.write_text(path.read_text().replace('"token": "', '"token": "another'))
        self.saved = tiny.steps_saved(training.run_dir)
        self.bytes = (training.run_dir / "metrics.jsonl").read_bytes()


def test_a_run_that_was_taken_over_writes_nothing_more(tmp_path):
    thief = TakenOver()
    with pytest.raises(RefusedError, match="was taken over by another process"):
        training.train(tiny.settings(tmp_path, *tiny.PLAIN), watchers=[thief])
    assert tiny.steps_saved(tmp_path) == thief.saved
    assert "another" in (tmp_path / LOCK).read_text()
    assert (tmp_path / "metrics.jsonl").read_bytes() == thief.bytes


ARGUMENTS = (*tiny.PLAIN, "checkpoint.every=0")


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("watched") / "run"
    diary = Diary()
    training.train(tiny.settings(run_dir, *ARGUMENTS), watchers=[diary])
    return run_dir, diary


def test_every_event_comes_in_its_turn(watched):
    _, diary = watched
    names = [name for name, _ in diary.events]
    # a new run is saved and evaluated before it learns, and a chunk is told before its evaluation
    assert names[:4] == ["start", "checkpoint", "evaluation", "chunk"]
    assert "evaluation" in names[4:6]
    assert names[-2:] == ["checkpoint", "end"]
    assert diary.events[-1] == ("end", 64)
    assert sum(steps for name, steps in diary.events if name == "chunk") == 64 - 8  # less the prefill


def test_the_records_are_those_of_the_log(watched):
    run_dir, diary = watched
    assert diary.records == tiny.records(run_dir, but=())


def test_a_run_that_is_watched_computes_the_same(watched, tmp_path):
    run_dir, _ = watched
    tiny.train(tmp_path / "alone", *ARGUMENTS)
    assert tiny.records(tmp_path / "alone") == tiny.records(run_dir)
    tiny.assert_equal(tiny.restore(tmp_path / "alone", *ARGUMENTS), tiny.restore(run_dir, *ARGUMENTS))


def test_a_callback_stops_a_run_that_can_go_on(watched, tmp_path):
    whole, _ = watched
    run_dir = tmp_path / "stopped"
    diary = Diary(stop_after=20)
    training.train(tiny.settings(run_dir, *ARGUMENTS), watchers=[diary])
    assert diary.events[-1][0] == "end"
    assert 20 <= diary.events[-1][1] < 64
    assert tiny.steps_saved(run_dir)[-1] == [step for name, step in diary.events if name == "checkpoint"][-1]

    tiny.train(run_dir, *ARGUMENTS, "resume=auto")
    assert tiny.records(run_dir) == tiny.records(whole)


def test_a_callback_needs_no_reason_and_stops_before_the_first_chunk(tmp_path, capsys):
    class Stop(Callback):
        def on_start(self, training):
            training.stop("")

    training.train(tiny.settings(tmp_path / "run", *ARGUMENTS), watchers=[Stop()])
    assert {record["updates"] for record in tiny.records(tmp_path / "run")} == {0}
    assert "nothing was learned" not in capsys.readouterr().out


def test_a_run_that_ended_holds_no_memory(tmp_path):
    class Keep(Callback):
        def on_end(self, training):
            self.fleet = training.fleet

    keep = Keep()
    training.train(tiny.settings(tmp_path / "run", *ARGUMENTS), watchers=[keep])
    assert keep.fleet.states == []


@pytest.mark.parametrize(("callback", "words"), [(print, "no Callback"), (Diary, "a class")])
def test_what_is_no_callback_is_refused_before_anything_is_written(tmp_path, callback, words):
    with pytest.raises(RefusedError, match=f"{words}.*jaxshare.Callback"):
        training.train(tiny.settings(tmp_path / "run", *ARGUMENTS), watchers=[callback])
    assert not (tmp_path / "run").exists()


WILD = 1e30  # a learning rate that no network survives


def test_runs_may_diverge_beside_others(tmp_path, capsys):
    """The finite one ends as it would alone, and all end once none is finite."""
    mixed = tiny.settings(tmp_path / "mixed", *tiny.PLAIN, f"sweep.lr=[1e-3,{WILD}]")
    training.train(mixed, lets_diverge=True)
    alone = tiny.train(tmp_path / "alone", *tiny.PLAIN, "sweep.lr=[1e-3]")
    rows = tiny.records(tmp_path / "mixed")
    assert [row for row in rows if row["sweep.lr"] == 1e-3] == tiny.records(alone)
    losses = [row["loss/td"] for row in rows if row["sweep.lr"] == WILD and "loss/td" in row]
    assert not np.isfinite(losses).all()

    training.train(tiny.settings(tmp_path / "wild", *tiny.PLAIN, f"sweep.lr=[{WILD}]"), lets_diverge=True)
    assert "all runs have numbers that are nan or inf" in capsys.readouterr().out.replace("\n", " ")
    assert max(row["env_steps"] for row in tiny.records(tmp_path / "wild")) < 64

    with pytest.raises(RefusedError, match="last good checkpoint"):
        tiny.train(tmp_path / "strict", *tiny.PLAIN, f"sweep.lr=[1e-3,{WILD}]")
