"""python -m jaxshare.tune: small searches from end to end, how they go on, and what they refuse."""

import json
import math
import re
import shlex

import numpy as np
import pytest
import tiny
import yaml

from jaxshare import cli
from jaxshare.commands import tune
from jaxshare.run.signals import StoppedError
from jaxshare.run.train import train
from jaxshare.tune import plan, trainer
from jaxshare.tune.arguments import sorted_out
from jaxshare.tune.outcome import Judge, Outcome
from jaxshare.tune.search import search
from jaxshare.types import HostError, RefusedError

PAGE = (tiny.REPOSITORY / "docs" / "tuning.md").read_text()
WILD = 1e30  # a learning rate that no network survives
SMALL = (
    *tiny.PLAIN, "seeds=2", f"search.lr=[1e-3,1e-2,{WILD}]", "trials=6", "batch=4", "sampler=random", "sampler_seed=0",
)  # fmt: skip


def searched(out, *arguments):
    trials = search(plan.make(sorted_out([*arguments, f"out={out}"])))
    return trials, json.loads((out / "trials.json").read_text())


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A search of a list that has a hopeless entry, and of a setting that is compiled in."""
    out = tmp_path_factory.mktemp("small") / "search"
    return out, *searched(out, *SMALL)


# ------------------------------------------------------------------------------------------------------ from end to end


def test_values_are_those_of_the_runs(small):
    """Recomputed from the logs: the IQM over two seeds, which is their mean, of the last evaluations."""
    out, _, written = small
    assert [trial["number"] for trial in written["trials"]] == list(range(6))
    assert {trial["params"]["lr"] for trial in written["trials"]} == {1e-3, 1e-2, WILD}, "choose another sampler_seed"
    for trial in written["trials"]:
        rate = trial["params"]["lr"]
        if rate == WILD:
            assert trial["state"] == "failed"
            assert "diverged: loss/" in trial["failed"]
            assert trial["value"] is None
            continue
        records = tiny.records(out / "batches" / str(trial["batch"]) / str(trial["batch"]))
        records = [row for row in records if row["sweep.lr"] == rate and "eval/return" in row]
        last = [[row["eval/return"] for row in records if row["seed"] == seed][-1] for seed in (0, 1)]
        assert trial["state"] == "complete"
        assert trial["scores"] == last
        assert trial["value"] == pytest.approx(np.mean(last))
        assert trial["low"] <= trial["value"] <= trial["high"]


def config(run):
    return yaml.safe_load((run / "config.yaml").read_text())


def test_a_batch_is_one_program(small):
    """Trials of the same point share their runs."""
    out, trials, _ = small
    for first, size in ((0, 4), (4, 2)):
        (run,) = [path for path in (out / "batches" / str(first)).iterdir() if path.is_dir()]
        members = [trial for trial in trials if trial.batch == first]
        assert len(members) == size
        assert sorted(config(run)["sweep"]["lr"]) == sorted({trial.params["lr"] for trial in members})
    assert (out / "tune.png").read_bytes().startswith(b"\x89PNG")


def test_each_static_value_is_a_program(tmp_path):
    arguments = (
        *tiny.PLAIN,
        "search.algo.hidden_dim=[4,8]",
        "search.lr=log(1e-3,1e-2)",
        "trials=3",
        "batch=3",
        "sampler_seed=5",
    )
    trials, _ = searched(tmp_path, *arguments)
    runs = [path for path in (tmp_path / "batches" / "0").iterdir() if path.is_dir()]
    by_width = {config(run)["algo"]["hidden_dim"]: config(run)["sweep"]["lr"] for run in runs}
    assert by_width.keys() == {4, 8}, "choose another sampler_seed"
    for width, rates in by_width.items():
        assert rates == [trial.params["lr"] for trial in trials if trial.params["algo.hidden_dim"] == width]
    assert all(trial.is_scored for trial in trials)


def test_the_best_is_a_preset_that_trains(small, tmp_path):
    out, _, written = small
    complete = [trial for trial in written["trials"] if trial["state"] == "complete"]
    best = max(complete, key=lambda trial: (trial["value"], -trial["number"]))
    assert written["best"] == best["number"]
    text = (out / "best.yaml").read_text()
    assert "is too high" in text
    assert "seeds" not in yaml.safe_load(text), "which seeds is up to whoever trains it"

    # the same settings as those of the trial
    settings = cli.settings([f"preset={out / 'best.yaml'}", f"run_dir={tmp_path / 'run'}", "progress=false"])
    assert settings.algo.hparams.lr == best["params"]["lr"]
    rate = f"algo.hparams.lr={best['params']['lr']}"
    assert settings == cli.settings([*tiny.PLAIN, rate, f"run_dir={tmp_path / 'run'}"])
    train(settings)
    mine = [row for row in tiny.records(tmp_path / "run") if "eval/return" in row]
    assert mine[-1]["eval/return"] == best["scores"][0], "its first seed"


def test_the_same_command_has_nothing_to_do_then(small, monkeypatch):
    out, _, written = small
    monkeypatch.setattr(trainer, "train", lambda *_, **__: 1 / 0)
    assert searched(out, *SMALL)[1] == written


def test_another_search_is_refused(small):
    out, *_ = small
    before = tiny.files(out)
    with pytest.raises(RefusedError, match=r"gamma was 0.99, now 0.9.*choose another out"):
        searched(out, *SMALL, "algo.hparams.gamma=0.9")
    with pytest.raises(RefusedError, match=r"search\.gamma was not there, now \[0\.9,0\.95\]"):
        searched(out, *SMALL, "search.gamma=[0.9,0.95]")
    assert tiny.files(out) == before


def test_stopped_it_goes_on_to_the_same_results(small, tmp_path, monkeypatch, capsys):
    """A signal after the first chunk of the first program."""
    _, _, written = small

    def stopping(settings, **options):
        train(settings, max_chunks=1, **options)
        raise StoppedError(2, "stopped")

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "train", stopping)
        with pytest.raises(StoppedError):
            searched(tmp_path, *SMALL)
    assert not (tmp_path / "trials.json").exists()
    capsys.readouterr()
    again = searched(tmp_path, *SMALL)[1]
    assert "Going on with" in capsys.readouterr().out
    assert again == written


def test_fresh_seeds_judge_the_best(tmp_path, capsys):
    arguments = (*tiny.PLAIN, "seeds=2", "search.lr=[1e-3,1e-2]", "trials=1", "batch=1", "confirm=2")
    _, written = searched(tmp_path, *arguments)
    (run,) = (tmp_path / "confirm").iterdir()
    assert run.name == f"trial-{written['best']}-seeds-2"
    assert {row["seed"] for row in tiny.records(run)} == {2, 3}, "none of the search"
    assert len(written["confirmed"]["scores"]) == 2
    assert "on fresh seeds: return" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------------------ what goes wrong


def test_values_that_do_not_go_together_fail_by_themselves(tmp_path):
    """Two streams of episodes cannot be dealt out to three minibatches: known only when the program is made."""
    arguments = ("algo=ippo", "env=matrix", "total_env_steps=64", "eval.every=32", "eval.episodes=4")
    sizes = (
        "num_envs=2",
        "algo.minibatches=1",
        "algo.hidden_dim=4",
        "progress=false",
        "trials=2",
        "batch=2",
        "sampler=random",
    )
    with pytest.raises(RefusedError, match=r"No trial could be trained: algo.minibatches=[35] does not divide"):
        searched(tmp_path, *arguments, *sizes, "search.algo.minibatches=[3,5]")
    written = json.loads((tmp_path / "trials.json").read_text())
    assert [trial["state"] for trial in written["trials"]] == ["failed"] * 2
    assert not (tmp_path / "best.yaml").exists()


def test_an_environment_that_fails_stops_the_search_unless_a_trial_had_diverged(tmp_path, monkeypatch):
    def failing(settings, **options):
        train(settings, **options)
        raise HostError("the game is gone")

    monkeypatch.setattr(trainer, "train", failing)
    arguments = (*tiny.PLAIN, "trials=2", "batch=2", "sampler=random")
    with pytest.raises(HostError, match="the game is gone"):
        searched(tmp_path / "sound", *arguments, "search.lr=[1e-3,1e-2]")
    trials, _ = searched(tmp_path / "wild", *arguments, f"search.lr=[{WILD}]")
    assert ["diverged" in trial.outcome.failed for trial in trials] == [True, True]


def test_a_number_that_is_not_finite_is_a_failure():
    judge = Judge("return", last=2, confidence=0.95, resamples=100)
    row = {"seed": 0, "env_steps": 1, "updates": 1, "wall_s": 1.0}
    rows = [{**row, "eval/return": value} for value in (1.0, 2.0, 4.0)]
    assert judge.outcome(rows).value == 3.0
    assert math.isnan(judge.outcome(rows).low), "one seed has no interval"
    assert judge.outcome([*rows, {**row, "loss/td": math.inf}]) != judge.outcome(rows)
    assert judge.outcome([*rows, {**row, "q/max": math.nan, "loss/td": math.inf}]).failed.startswith(
        "diverged: loss/td"
    )
    assert isinstance(judge.outcome(rows), Outcome)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "search.… is missing"),
        (["search.lr=0.1"], "search.lr=0.1 must be a range or a list: log(1e-4,1e-2)"),
        (["search.lr=log(0,1)"], "search.lr=log(0,1): a logarithm needs positive numbers"),
        (["search.lr=uniform(1,1)"], "the first number must be below the second"),
        (["search.lr=uniform(a,1)"], "search.lr=uniform(a,1): a is no number"),
        (["search.lr=uniform(0,inf)"], "inf must be finite"),
        (["search.lr=[]"], "nothing is no number"),
        (["search.lr=[0.1,0.1]"], "search.lr=[0.1,0.1] names a value twice"),
        (["search.lr=[0.1,-1]"], "search.lr=-1.0 must not be negative"),
        (["search.gamma=uniform(0.9,1.5)"], "search.gamma=1.5 must be between 0 and 1"),
        (["search.lrr=log(1e-4,1e-2)"], "'lrr' is not a setting here. Did you mean"),
        (["search.differ.alpha=[0.1]"], "'differ.alpha' is not a setting here"),
        (["search.lr=[0.1]", "search.algo.hparams.lr=[0.1]"], "search.lr is there twice"),
        (["search.algo.hidden_dim=uniform(4.5,8)"], "4.5 must be a whole number"),
        (["search.algo.hidden_dim=[0,8]"], "search.algo.hidden_dim=0 must be"),
        (["search.algo.share_params=uniform(1,2)"], "the setting is no number. Give a list"),
        (["search.algo.share_params=[all,nobody]"], "search.algo.share_params=nobody is not one of"),
        (["search.algo.double_q=[yes]"], "yes is neither true nor false"),
        (["search.env.game=[climbing,penalty]"], "cannot be compared"),
        (["search.seeds=[1,2]"], "seeds changes no result"),
        (["search.logger=[wandb]"], "logger changes no result"),
        (["search.lr=[0.1]", "sweep.gamma=[0.9]"], "Say search.… instead"),
        (["search.lr=[0.1]", "run_dir=x"], "Name out=… instead"),
        (["search.lr=[0.1]", "resume=auto"], "the same command goes on by itself"),
        (["search.lr=[0.1]", "-m"], "'-m' is not understood"),
        (["search.lr=[0.1]", "trials=0"], "trials=0 must be at least 1"),
        (["search.lr=[0.1]", "sampler=grid"], "sampler=grid is not one of tpe, random"),
        (["search.lr=[0.1]", "last=9"], "have 4 evaluations. Use last=4 at most"),
        (["search.lr=[0.1]", "seeds=60000"], "are 480000 runs"),
        (["search.lr=[0.1]", "metric=win_rate"], "metric=win_rate is nothing that evaluations log"),
        (["search.lr=[0.1]", "total=1"], "'total' (in total=1) is not a setting"),
        (["a.yaml", "b.yaml"], "a.yaml and b.yaml are two searches"),
        (["missing.yaml"], "missing.yaml cannot be read"),
    ],
)  # fmt: skip
def test_refusals(tmp_path, arguments, words):
    out = tmp_path / "out"
    with pytest.raises(RefusedError) as refusal:
        searched(out, *tiny.PLAIN, *arguments)
    assert words in str(refusal.value)
    assert not out.exists(), "nothing is written"


def test_out_is_needed():
    with pytest.raises(RefusedError, match="out is missing: name the search's folder"):
        plan.make(sorted_out([*tiny.PLAIN, "search.lr=[0.1]"]))


def test_a_missing_package_is_named(monkeypatch):
    def missing(name):
        raise tune.metadata.PackageNotFoundError(name)

    tune.check_installed()
    monkeypatch.setattr(tune.metadata, "version", missing)
    with pytest.raises(RefusedError, match=r"needs the package optuna: pip install 'jaxshare\[tune\]'"):
        tune.check_installed()
    monkeypatch.setattr(tune.metadata, "version", lambda _: "2.10.1")
    with pytest.raises(RefusedError, match=r"needs optuna 5, and 2.10.1 is installed"):
        tune.check_installed()


# --------------------------------------------------------------------------------------------------- files and the page


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("searches: {}", "'searches' is no key here. Did you mean search"),
        ("settings: {algo: qmix}", "settings must be a list"),
        ("search: [lr]", "search must be a mapping"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, text, words):
    (tmp_path / "climb.yaml").write_text(text)
    with pytest.raises(RefusedError) as refusal:
        sorted_out([str(tmp_path / "climb.yaml")])
    assert words in str(refusal.value)


def test_the_page_is_true(tmp_path, monkeypatch, capsys):
    """Its file and its command say the same; the command works, and so does what it says to do then."""
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.M | re.S)
    (file,) = [text for language, text in blocks if language == "yaml"]
    commands = [shlex.split(line, comments=True) for line in "".join(
        text for language, text in blocks if language == "sh"
    ).replace("\\\n", "").splitlines()]  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "climb.yaml").write_text(file)
    in_words = next(line[3:] for line in commands if any(word.startswith("search.") for word in line))
    from_file = next(line[3:] for line in commands if line[3:4] == ["climb.yaml"])
    first = sorted_out(in_words)
    second = sorted_out(from_file)
    assert first == second
    assert first.config.out == "runs/tune/climb"

    # small, and the preset behind it
    tune.tune([*from_file, *tiny.SIZES, "total_env_steps=64", "seeds=1", "trials=1", "batch=1"])
    printed = capsys.readouterr().out.replace("\n", " ")
    assert "python -m jaxshare.train preset=runs/tune/climb/best.yaml" in printed
    (then,) = [line[3:] for line in commands if line[2] == "jaxshare.train"]
    assert cli.settings([*then, "run_dir=x"]).run.total_env_steps == 64
