"""The command: it runs what is missing, judges, keeps what was found, and writes the page."""

import json
import re

import pytest
import tiny
from tiny_studies import STUDY, book, make_run, tiny_plan

from jaxshare.study import book as books
from jaxshare.study import command as commands
from jaxshare.study import figures, page
from jaxshare.study import judge as judging
from jaxshare.study import plan as planning
from jaxshare.study.check import Check, Quantity
from jaxshare.study.job import Job
from jaxshare.study.language import Study
from jaxshare.study.options import chosen, parse
from jaxshare.study.plan import Plan
from jaxshare.types import RefusedError


def command(tmp_path, *arguments):
    action, *others = arguments
    options = ["--runs", str(tmp_path), "--out", str(tmp_path / "c.json")]
    page_at = str(tmp_path / "docs" / "results.md")
    words = [action, str(tmp_path / "tiny.yaml"), *options, "--page", page_at, *others]
    commands.run(parse(words))


def test_the_command_judges_keeps_and_writes_the_page(tmp_path, capsys):
    of_file, _, jobs = tiny_plan(tmp_path)
    place = of_file.source
    command(tmp_path, "run", "--dry-run")
    assert capsys.readouterr().out.count("python -m jaxshare.train") == 2
    root = tmp_path / "small"
    for arm, level in (("A", 9.0), ("B", 2.0)):
        make_run(root, jobs[arm], {s: [(0, 0.0), (66, level + s)] for s in (0, 1)})
    command(tmp_path, "status")
    assert "what is to do takes about 0.0 core hours:" in capsys.readouterr().out
    command(tmp_path, "run")  # all is there: nothing is run
    text = (tmp_path / "docs" / "results.md").read_text()
    assert "| [t](#lecture-tiny) | ✔ confirmed | 1 of 1 confirmed | small, 2 | yes |" in text
    assert "| A − B | above | 7 [3.9, 10.1] (n = 2) | difference > 0 | ✔ confirmed |" in text
    assert "| game | A | 5 ± 1 | 9.5 [9, 10] | 9, 10 | 64 environment steps |" in text
    assert f"Again: `python -m jaxshare.study run {place} lecture_tiny --budget small`" in text
    assert f"run_dir=runs/tiny/small/{jobs['A'].name}" in text
    assert str(tmp_path) not in text.replace(place, "")
    picture = tmp_path / "docs" / "results" / "lecture_tiny.png"
    assert picture.stat().st_size > 5000
    assert "jax 1.2.3" in text
    before, text_before = picture.read_bytes(), text
    picture.unlink()
    command(tmp_path, "page")
    assert picture.read_bytes() == before
    assert (tmp_path / "docs" / "results.md").read_text() == text_before
    (root / jobs["B"].out / "metrics.jsonl").unlink()
    capsys.readouterr()
    command(tmp_path, "judge")
    assert "lecture_tiny: kept as it was: it has not been run yet" in capsys.readouterr().out
    command(tmp_path, "judge", "--budget", "full")  # of which nothing was run
    assert (tmp_path / "docs" / "results.md").read_text() == text_before
    (tmp_path / "c.json").unlink()
    command(tmp_path, "judge")
    assert "– not run" in (tmp_path / "docs" / "results.md").read_text()


def test_figures_of_other_settings_are_not_kept(tmp_path, capsys):
    """A claim whose commands are others now was not run, whatever was found before."""
    _, _, jobs = tiny_plan(tmp_path)
    for arm, level in (("A", 9.0), ("B", 2.0)):
        make_run(tmp_path / "small", jobs[arm], {s: [(0, 0.0), (66, level + s)] for s in (0, 1)})
    command(tmp_path, "run")
    assert (tmp_path / "docs" / "results" / "lecture_tiny.png").is_file()
    before = json.loads((tmp_path / "c.json").read_text())["claims"]["lecture_tiny"]["small"]
    assert before["verdict"] == "confirmed"
    book(tmp_path, ("[algo=vdn]", "[algo=vdn, algo.hparams.lr=1e-3]"))
    capsys.readouterr()
    command(tmp_path, "judge")
    assert "its settings are others than those of the figures kept" in capsys.readouterr().out
    after = json.loads((tmp_path / "c.json").read_text())["claims"]["lecture_tiny"]["small"]
    assert after["verdict"] == "not run"
    assert after["checks"][0]["reason"] == "its settings have changed since it was run"
    assert after["commands"] != before["commands"]
    assert after["machine"] == before["machine"]  # of B, which is still there
    assert "– not run" in (tmp_path / "docs" / "results.md").read_text()


def test_what_the_new_settings_do_not_touch_stays():
    """Of runs and a script: the script's command is the same, and so is what it found."""
    script = Job("tables-1", "script", ("tables.py", "{root}/tables-1.json"), "tables-1.json")
    checks = [
        Check("exact", "at_most", quantity=Quantity(json="tables")),
        Check("A", "above", ["A"]),
    ]
    study = Study("s", True, "t", checks=checks)
    plan = Plan(study, "small", "runs/claims/small", 2, {("game", "A"): "run"}, {},
                {"tables": "tables-1"}, {"tables-1": script})  # fmt: skip
    old = {
        "checks": [
            {"says": "exact", "verdict": "confirmed", "value": 0.0},
            {"says": "A", "verdict": "confirmed"},
        ],
        "commands": [script.command_line("runs/claims/small"), "python of other settings"],
    }

    def new():
        checks = [{"says": name, "verdict": "not run"} for name in ("exact", "A")]
        return {"checks": checks, "verdict": "not run"}

    found = figures.carried(old, new(), plan)
    assert [check["verdict"] for check in found["checks"]] == ["confirmed", "not run"]
    assert found["checks"][0]["value"] == 0.0
    assert found["verdict"] == "undecided"
    elsewhere = {**old, "commands": ["python tables.py of other settings"]}
    assert figures.carried(elsewhere, new(), plan)["verdict"] == "not run"


def test_a_page_without_figures_is_refused(tmp_path):
    book(tmp_path)
    with pytest.raises(RefusedError, match="holds no figures yet"):
        command(tmp_path, "page")


@pytest.mark.parametrize(
    ("x", "shown"),
    [(0.0, "0"), (1e-12, "1.0e-12"), (0.12345, "0.123"), (45123.4, "45,123")],
)
def test_numbers_are_short(x, shown):
    assert page.number(x) == shown


def test_the_page_shows_a_claim_that_cannot_be_run(tmp_path):
    claims = books.read(tiny.REPOSITORY / "benchmarks" / "claims")
    claim = next(claim for claim in claims.studies.values() if claim.not_run and claim.instead)
    result = judging.describe(claim, judging.judge(claim, None, "small", tmp_path, {}), "m")
    path = tmp_path / "results.md"
    page.write({claim.name: {"small": result}}, claims, path)
    assert "**Not run.**" in path.read_text()
    assert page.anchor(claim.instead) in path.read_text()


def test_the_command_line_refuses_what_is_no_study():
    known = ["seac_lbf", "seac_lambda", "seac_lambda_rware", "sit_order"]
    with pytest.raises(RefusedError, match="'differ_magic' is no study"):
        chosen(["differ_magic"], known)
    assert chosen(["seac_l"], known) == known[:3]
    assert chosen([], known) == known


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "x.yaml", "--jobs", "0"], "--jobs 0 must be at least 1"),
        (["rnu", "x.yaml"], "rnu is not known. Did you mean run?"),
        (["run", "x.yaml", "--bugdet", "full"], "'--bugdet' is no option. Did you mean --budget"),
        (["run", "x.yaml", "--budget", "tiny"], "invalid choice: 'tiny'"),
        (["status", "x.yaml", "--dry-run"], "--dry-run has no effect with status"),
        (["run"], "FILE_OR_FOLDER"),
        (["page", "x.yaml", "climb"], "climb has no effect with page"),
    ],
)
def test_options_that_make_no_sense_are_refused_in_a_sentence(words, message):
    with pytest.raises(RefusedError, match=re.escape(message)):
        parse(words)


def test_jobs_that_fail_are_an_error_after_all_is_judged(tmp_path, monkeypatch):
    of_file = book(tmp_path, text=STUDY)
    first, second = planning.make(of_file, "climb", "small").jobs.values()
    make_run(tmp_path / "small", first, {s: [(0, 0.0), (66, 3.0 + s)] for s in (0, 1)})
    monkeypatch.setattr(commands, "run_all", lambda *arguments: {second.name: "failed: error: no"})
    with pytest.raises(RefusedError, match=rf"1 of 2 jobs have no result\. {second.name}: failed"):
        command(tmp_path, "run")
    assert "unfinished" in (tmp_path / "docs" / "results.md").read_text()


def test_options_may_stand_anywhere():
    options = parse(["run", "--budget", "full", "x.yaml", "seac", "--jobs", "3", "sit"])
    assert (options.budget, options.jobs, options.names) == ("full", 3, ["seac", "sit"])


def test_a_study_without_checks_has_curves_and_a_table_of_returns(tmp_path, capsys):
    of_file = book(tmp_path, text=STUDY)
    jobs = list(planning.make(of_file, "climb", "small").jobs.values())
    make_run(tmp_path / "small", jobs[0], {s: [(0, 0.0), (32, 1.0), (66, 3.0 + s)] for s in (0, 1)})
    command(tmp_path, "status")
    shown = capsys.readouterr().out
    assert re.search(r"climb .* 2 +│ 1 +│ 1 ", shown)
    command(tmp_path, "judge")
    assert "unfinished" in (tmp_path / "docs" / "results.md").read_text()
    make_run(tmp_path / "small", jobs[1], {s: [(0, 0.0), (66, 5.0 + s)] for s in (0, 1)})
    command(tmp_path, "judge")
    text = (tmp_path / "docs" / "results.md").read_text()
    assert text.startswith("# tiny\n\n**How to read it.** Of 1 studies: 1 measured.")
    assert "| [Who climbs](#climb) | measured | – | small, 2 |" in text
    assert "| task | arm | IQM over seeds | every seed | after |" in text
    assert "| game | A | 3.5 [3, 4] | 3, 4 | 64 environment steps |" in text
    assert "confirmed" not in text
    assert (tmp_path / "docs" / "results" / "climb.png").stat().st_size > 5000
    make_run(tmp_path / "small", jobs[1], {0: [(0, 0.0)]})
    capsys.readouterr()
    command(tmp_path, "judge")
    assert "climb: kept as it was" in capsys.readouterr().out
