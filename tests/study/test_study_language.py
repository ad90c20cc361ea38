"""The language of studies: nonsense is refused in a sentence, and docs/study.md tells every key."""

import re

import pytest
import tiny
from tiny_studies import STUDY, book, make_run

from jaxshare.study import book as books
from jaxshare.study import check, command, language
from jaxshare.study import plan as planning
from jaxshare.study.done import is_done
from jaxshare.study.options import parse
from jaxshare.study.reading import is_needed, keys
from jaxshare.types import RefusedError


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("source: s", "sauce: s", "sauce"),
        (
            'comparable: "yes"',
            "comparable: perhaps",
            "comparable=perhaps is not one of yes, partly, no",
        ),
        ("compare: greater", "compare: larger", "compare=larger"),
        ("arms: [A, B], paper", "arms: [A, C], paper", "arm=C is not one of A, B"),
        ("arms: [A, B], paper", "arms: [A], paper", "two arms"),
        ("compare: greater", "compare: equal", "must have says and margin"),
        ("small: {seeds: 2", "small: {tasks: {chess: []}, seeds: 2", "small.tasks=chess"),
        (
            "    checks:\n      - {says: A − B, compare: greater, arms: [A, B], paper: above}\n",
            "",
            "it has no checks",
        ),
        ("last: 1", "score: luck", "score=luck"),
    ],
)
def test_a_claim_that_makes_no_sense_is_refused(tmp_path, old, new, message):
    with pytest.raises(RefusedError, match=re.escape(message)):
        book(tmp_path, (old, new))


def test_settings_without_a_length_or_with_an_unknown_set_are_refused(tmp_path):
    with pytest.raises(RefusedError, match=r"total_env_steps and eval\.every"):
        planning.make(book(tmp_path, ("total_env_steps=64, ", "")), "lecture_tiny", "small")
    of_file = book(tmp_path, ("[algo=vdn]", "[algo=vdn, data=nothing, total_updates=5]"))
    with pytest.raises(RefusedError, match="data=nothing is not one of"):
        planning.make(of_file, "lecture_tiny", "small")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("arms:", "amrs:", "tiny.yaml: climb: 'amrs' is no key here. Did you mean arms"),
        ("title: Who climbs", "last: 2", "title (what it is called on the page) must be there"),
        ("last: 1", "last: one", "climb.last=one must be a whole number of at least 1"),
        ("last: 1", "metric: 1", "climb.metric=1 must be a text: put it in quotes"),
        ("[algo=vdn]", "algo=vdn", "climb.arms.A=algo=vdn must be a list of settings"),
        ("[algo=vdn]", "[vdn]", "climb.arms.A: 'vdn' is not understood: write settings key=value"),
        ("{A: [algo=vdn]", "{1: [algo=vdn]", "climb.arms: the key 1 is no text: put it in quotes"),
        ("seeds: 2", "seeds: 0", "climb.small.seeds=0 must be a whole number of at least 1"),
        ("seeds: 2", "sedes: 2", "climb.small: 'sedes' is no key here. Did you mean seeds"),
        ("seeds: 2", "arms: {C: []}", "climb: small.arms=C is not one of A, B"),
        ("seeds: 2", "only: {game: [C]}", "climb: small.only=C is not one of A, B"),
        ("small:", "tiny:", "climb: 'tiny' is no key here"),
        (
            "    small:",
            "    not_run: x\n    instead: clim\n    small:",
            "instead=clim is not one of climb",
        ),
        ("climb:", "a/b:", "the name 'a/b' must be of letters"),
        ("studies:", "study: [a]\nstudies:", "study must be a mapping"),
        ("studies:", "studeis:", "'studeis' is no key here. Did you mean studies"),
        ("studies:", "studies: {", "cannot be read"),
        ("studies:", "x-studies:", "holds no study: it needs a key 'studies' or 'claims'"),
        (
            "    tasks: {game: [env=matrix, env.game=climbing]}\n",
            "",
            "it needs arms and tasks, or jobs",
        ),
    ],
)
def test_what_a_study_cannot_be_is_refused_with_its_place_and_fix(tmp_path, old, new, message):
    with pytest.raises(RefusedError, match=re.escape(message)):
        book(tmp_path, (old, new), text=STUDY)


GREATER = "says: x, compare: greater, arms: [A, B]"
ABOVE = "says: x, compare: above, arms: [A]"


@pytest.mark.parametrize(
    ("check_text", "message"),
    [
        (ABOVE, "must have says and threshold"),
        (f"{ABOVE}, threshold: high", "threshold=high must be a number"),
        (f"{ABOVE}, margin: 1, threshold: 1", "has no margin"),
        (f"{GREATER}, scale: {{chess: 2}}", "scale=chess is not one of game"),
        (f"{GREATER}, statistic: man", "statistic=man is not one of iqm, mean"),
        (f"{GREATER}, decides: 1", "decides=1 must be true or false"),
        ("says: x, compare: at_most, threshold: 1, quantity: {json: j}", "json=j is not one of"),
        (
            f"{ABOVE}, threshold: 1, quantity: {{reached: 1, series: {{name: x}}}}",
            "quantity has reached and series: name one of them",
        ),
        ("compare: greater, arms: [A, B]", "says (what is compared, in words) must be there"),
    ],
)
def test_what_a_check_cannot_be_is_refused(tmp_path, check_text, message):
    with pytest.raises(RefusedError, match=re.escape(message)):
        book(tmp_path, ("    last: 1\n", f"    checks: [{{{check_text}}}]\n"), text=STUDY)


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ("{a: {pool: p, small: 3}}", "sets.a: it has no composition"),
        ("{a: {pool: q, composition: low}}", "sets.a: pool=q is not one of p"),
        ("{a: {}}", "sets.a: say pool and composition, or standardised, or exchanged"),
        ("{a: {exchanged: a}}", "sets.a: exchanged=a is not one of"),
        ("{a: {standardised: a}}", "sets.a: standardised=a is not one of"),
    ],
)
def test_a_data_set_comes_from_a_pool(tmp_path, sets, message):
    pools = f"pools: {{p: {{small: []}}}}\nsets: {sets}\nstudies:"
    with pytest.raises(RefusedError, match=re.escape(message)):
        book(tmp_path, ("studies:", pools), text=STUDY)


def test_a_script_that_is_not_there_is_refused_before_anything_is_run(tmp_path, monkeypatch):
    book(tmp_path, ("    last: 1\n", "    last: 1\n    jobs: {j: {run: [x.py]}}\n"), text=STUDY)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RefusedError, match=r"climb: x\.py does not exist"):
        command.run(parse(["run", "tiny.yaml"]))


def test_a_study_stands_once_in_a_folder(tmp_path):
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text(STUDY)
    with pytest.raises(RefusedError, match="climb is defined twice"):
        books.read(tmp_path)
    (tmp_path / "two.yaml").write_text("study: {title: T}\n" + STUDY.replace("climb:", "descend:"))
    of_folder = books.read(tmp_path)
    assert list(of_folder.studies) == ["climb", "descend"]
    assert (of_folder.name, of_folder.paths.title) == (tmp_path.name, "T")


def test_wrong_settings_are_refused_before_anything_is_run(tmp_path, monkeypatch):
    book(tmp_path, ("[algo=iql]", "[algo=iqql]"), text=STUDY)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        RefusedError,
        match=r"climb: B on game: algo=iqql is not known. Did you mean iql",
    ):
        command.run(parse(["run", "tiny.yaml"]))
    assert not (tmp_path / "runs" / "tiny" / "small" / "logs").exists()


# ------------------------------------------------------------------------------------- the document

DOCUMENT = (tiny.REPOSITORY / "docs" / "study.md").read_text()
EXAMPLE = re.search(r"```yaml\n(.*?)```", DOCUMENT, re.S)[1]
PARTS = (
    language.Study, language.Budget, check.Check, check.Quantity, check.Series, check.Steps,
    language.Step, language.DataSet, language.Pool, language.Paths, language.Machines,
)  # fmt: skip


def tables():
    """The tables of keys in the document: lists of rows."""
    found = re.findall(r"\| key \| what it is \|\n\|---\|---\|\n((?:\|.*\n)+)", DOCUMENT)
    return [table.splitlines() for table in found]


def test_the_document_has_every_key_of_the_language():
    top, *others = tables()
    assert top == [f"| `{name}` | {meaning} |" for name, meaning in books.PARTS.items()]
    expected = []
    for part in PARTS:
        rows = []
        for name, field in keys(part).items():
            needed = " (needed)" if is_needed(field) else ""
            rows.append(f"| `{name}` | {field.metadata['meaning']}{needed} |")
        expected.append(rows)
    assert others == expected


def example(tmp_path, monkeypatch):
    (tmp_path / "climb.yaml").write_text(EXAMPLE)
    monkeypatch.chdir(tmp_path)


def test_the_documents_example_is_a_study(tmp_path, monkeypatch, capsys):
    """Its commands as they are written there; the runs are made up here, and made below."""
    example(tmp_path, monkeypatch)
    lines = re.findall(r"^python -m jaxshare\.study (.*?)(?: +#.*)?$", DOCUMENT, re.M)
    assert len(lines) == 6
    assert {words.split()[0] for words in lines} == {"run", "status", "judge", "page"}
    plan = planning.make(books.read(tmp_path / "climb.yaml"), "climb", "small")
    for job in plan.jobs.values():
        make_run(
            tmp_path / "runs" / "climb" / "small",
            job,
            {s: [(0, 0.0), (400, 5.0 + s)] for s in (0, 1)},
        )
    for words in lines:
        if "full" not in words:
            command.run(parse(words.split()))
    assert "4 of 4" not in capsys.readouterr().err
    text = (tmp_path / "runs" / "climb" / "results.md").read_text()
    assert "| return, QMIX − VDN | no number | 0 [-" in text


@pytest.mark.slow
def test_the_documents_example_runs(tmp_path, monkeypatch):
    example(tmp_path, monkeypatch)
    command.run(parse(["run", "climb.yaml"]))
    plan = planning.make(books.read(tmp_path / "climb.yaml"), "climb", "small")
    assert all(is_done(job, tmp_path / "runs" / "climb" / "small") for job in plan.jobs.values())
    assert "Who climbs, VDN or QMIX" in (tmp_path / "runs" / "climb" / "results.md").read_text()
