"""docs/coverage.md: everything that its tables name exists, and its counts are those of the tables."""

import functools
import pathlib
import re
from typing import NamedTuple

import pytest
import yaml

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "jaxshare"
PAGE = ROOT / "docs" / "coverage.md"
TEXTS = ("DIFFER", "PPS-QMIX", "SIT", "SEAC", "The MARL-book lecture")
HEADER = ["place", "what", "where", "preset", "claim", "state"]
STATES = ("faithful", "partial", "missing")
NOTHING = "–"
ENTRIES = {"algo": "algos", "env": "envs", "modifiers": "modifiers"}  # folders of what has a name
CODE = re.compile(r"`([^`]+)`")


class Row(NamedTuple):
    text: str
    place: str
    what: str
    where: str
    preset: str
    claim: str
    state: str


def cells(line):
    """Cells of a line of a table; a bar that belongs to a cell has a backslash before it."""
    inside = line.strip().removeprefix("|").removesuffix("|")
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", inside)]


def tables(page):
    """{title of a section: the lines of its table as cells}."""
    sections = re.split(r"^## ", page, flags=re.MULTILINE)[1:]
    lines = {section.split("\n", 1)[0]: section.splitlines() for section in sections}
    return {title: [cells(x) for x in body if x.startswith("|")] for title, body in lines.items()}


def rows():
    parsed = []
    for text, lines in tables(PAGE.read_text()).items():
        parsed += [Row(text, *line) for line in lines[2:]]
    return parsed


def exists(token):
    """Whether there is the file, command, entry or setting that a cell of `where` names."""
    if re.fullmatch(r"jaxshare\.\w+", token):
        name = token.removeprefix("jaxshare.")
        return any((PACKAGE / place).exists() for place in (f"{name}.py", f"{name}/__main__.py"))
    if token.endswith((".py", ".yaml")):
        return (PACKAGE / token).is_file() or (ROOT / token).is_file()
    key, _, value = token.partition("=")
    if key in ENTRIES:
        names = value.strip("[]").split(",")
        return all(is_entry(PACKAGE / ENTRIES[key], name) for name in names)
    return key in settings()


def is_entry(folder, name):
    return name.isidentifier() and ((folder / name).is_dir() or (folder / f"{name}.py").is_file())


@functools.cache
def settings():
    """Keys of docs/settings.md, which is made from the declarations."""
    page = (ROOT / "docs" / "settings.md").read_text()
    return frozenset(re.findall(r"^\| `([^`]+)`\*? \|", page, re.MULTILINE))


@functools.cache
def claims():
    files = (ROOT / "benchmarks" / "claims").glob("*.yaml")
    return frozenset().union(*(yaml.safe_load(x.read_text()).get("claims", {}) for x in files))


def count(text):
    """Rows and states of a text as the line of the table at the top says them."""
    states = [row.state.split(":")[0] for row in rows() if text in (row.text, "all")]
    return [text, str(len(states)), *(str(states.count(state)) for state in STATES)]


def wrong(column, is_right):
    """Rows with a name in a column that there is not, or with words in the place of names."""
    bad = []
    for row in rows():
        cell = getattr(row, column)
        names = CODE.findall(cell)
        is_list = cell == NOTHING or cell == ", ".join(f"`{name}`" for name in names)
        bad += [] if is_list and all(map(is_right, names)) else [(row.text, row.place, cell)]
    return bad


def test_there_is_a_table_for_each_text():
    by_text = tables(PAGE.read_text())
    assert tuple(by_text) == TEXTS
    for lines in by_text.values():
        assert lines[0] == HEADER
        assert len(lines) > 20
        assert {len(line) for line in lines} == {len(HEADER)}


def test_every_file_setting_and_command_exists():
    assert wrong("where", exists) == []


def test_every_preset_exists():
    presets = ROOT / "configs" / "preset"
    assert wrong("preset", lambda name: (presets / f"{name}.yaml").is_file()) == []


def test_every_claim_exists():
    assert wrong("claim", claims().__contains__) == []


def test_a_state_is_a_word_and_partial_has_a_reason():
    pattern = re.compile(r"faithful|missing|partial: \S.*")
    assert [row for row in rows() if not pattern.fullmatch(row.state)] == []


def test_what_is_faithful_says_where():
    assert [row for row in rows() if row.state == "faithful" and row.where == NOTHING] == []


def test_what_is_missing_has_no_claim():
    assert [row for row in rows() if row.state == "missing" and row.claim != NOTHING] == []


def test_no_place_is_judged_twice():
    places = [(row.text, row.place, row.what) for row in rows()]
    assert sorted(set(places)) == sorted(places)


def test_the_counts_at_the_top_are_those_of_the_tables():
    top = PAGE.read_text().split("\n## ")[0].splitlines()
    counted = [cells(line) for line in top if line.startswith("|")]
    assert counted[0] == ["text", "rows", *STATES]
    assert counted[2:] == [count(text) for text in (*TEXTS, "all")]


GOOD = ("ops/differ.py", "benchmarks/sit_cost.py", "jaxshare.tune", "jaxshare.collect", "algo=qmix")
GOOD += ("env=lbf", "modifiers=[differ]", "algo.hparams.lr", "env.scenario=Humanoid-9|8", "seeds=1")
BAD = ("ops/nothing.py", "jaxshare.nothing", "algo=nothing", "algo=", "modifiers=[differ,nothing]")
BAD += ("algo.hparams.nothing=1", "env.nothing", "differ", "")


@pytest.mark.parametrize(("token", "is_here"), [(t, True) for t in GOOD] + [(t, False) for t in BAD])
def test_names_that_there_are_not_are_noticed(token, is_here):
    assert exists(token) == is_here
