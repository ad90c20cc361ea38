"""Every code block of the README and of the site's pages: shells can read it, commands understand it, Python runs it.

Nothing is trained here. What a command says is checked as the command itself would check it before it begins; so what
needs a GPU, StarCraft II, a cluster or hours is checked as well, as far as that goes. `SKIPPED` has the rest, by name.
"""

import ast
import functools
import json
import pathlib
import re
import shlex
import subprocess
import tomllib
from typing import NamedTuple

import pytest
import tiny
import yaml

from jaxshare import cli
from jaxshare.api.training import arguments as spelled_out
from jaxshare.commands import collect, convert, decompose, evaluate, launch, report, train
from jaxshare.spelling import overrides, training_kinds
from jaxshare.study import book, options
from jaxshare.tune.arguments import sorted_out

ROOT = tiny.REPOSITORY
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# who runs the Python of a page; of others it is compiled, and what it trains is checked
RUN_BY = {
    "CONTRIBUTING.md": "tests/exercises/test_contributing.py",
    "docs/extending.md": "tests/test_extending.py",
    "docs/python.md": "tests/test_api.py",
    **{f"docs/notebooks/{name}.md": "tests/test_site.py" for name in (
        "first_run", "individual_rewards", "sharing_parameters", "statistics", "unequal_agents"
    )},
}  # fmt: skip
SKIPPED = {  # beginnings of commands: why they are not checked further here
    "docs/extending.md: python -m jaxshare.": "its files exist in tests/test_extending.py only, which runs them",
    "CONTRIBUTING.md: python -m jaxshare.": "its files exist in tests/exercises only",
    "docs/tuning.md: python -m jaxshare.": "tests/tune/test_tune.py runs the page",
}
# programs of others, which are not here or do what others say
OTHERS = {".", "cd", "docker", "git", "mkdir", "python3.11", "ray", "uv"}
KEPT = ("docs/results/", "docs/generated/")
FENCE = re.compile(r"^```(.*)$")
CELL = "{code-cell} "
OUTLINE = re.compile(r"…|(?<![\w$/-])[A-Z]{3,}(?![\w=])")  # HOST, SET.jds: for the reader to fill in
INLINE = re.compile(r"(?<!`)`((?:[A-Z_]+=\S+ )?(?:python -m jaxshare\.|python benchmarks/|make )[^`\n]*)`(?!`)")
KNOWN = {"", "sh", "python", "yaml", "toml", "json", "text"}


class Block(NamedTuple):
    page: str
    language: str
    text: str


def pages():
    """{name: text} of the README and of all that the site is made of."""
    paths = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "benchmarks" / "README.md"]
    paths += sorted((ROOT / "docs").rglob("*.md"))
    names = {str(path.relative_to(ROOT)): path for path in paths}
    return {name: path.read_text() for name, path in names.items() if not name.startswith(KEPT)}


def divided(name, text):
    """(blocks of a page, its text without them); parts of the site's language, such as {include}, are no code."""
    blocks = []
    sentences = []
    language = None
    for line in text.splitlines():
        fence = FENCE.match(line)
        if fence and language is None:
            language = fence[1].removeprefix(CELL).strip()
            is_cell = fence[1].startswith(CELL)
            lines = []
        elif fence:
            if is_cell:
                lines = [line for line in lines if not line.startswith(":")]  # options of the cell
            if not language.startswith("{"):
                blocks.append(Block(name, language, "\n".join(lines) + "\n"))
            language = None
        elif language is None:
            sentences.append(line)
        else:
            lines.append(line)
    assert language is None, f"{name}: a block without an end"
    return blocks, "\n".join(sentences)


PAGES = {name: divided(name, text) for name, text in pages().items()}
BLOCKS = [block for blocks, _ in PAGES.values() for block in blocks]


def shell_lines():
    """(page, command) of every command in a block, lines that go on put together; and of those within sentences."""
    for block in BLOCKS:
        if block.language == "sh":
            for line in block.text.replace("\\\n", " ").splitlines():
                if line.strip() and not line.lstrip().startswith("#"):
                    yield block.page, line.strip()
    for name, (_, sentences) in PAGES.items():
        for match in INLINE.finditer(sentences):
            yield name, match[1].replace("\\|", "|")


COMMANDS = list(dict.fromkeys(shell_lines()))


def why_skipped(page, line):
    """Why a command is not checked, or "": it is."""
    for beginning, why in SKIPPED.items():
        if f"{page}: {line}".startswith(beginning):
            return why
    whole = " ".join(shlex.split(line, comments=True))
    return "it is an outline, not a whole command" if OUTLINE.search(whole) else ""


def test_every_block_has_a_language():
    assert len(BLOCKS) > 60
    assert {block.language for block in BLOCKS} <= KNOWN
    assert {block.language for block in BLOCKS} >= {"sh", "python", "yaml", "toml"}


def test_a_shell_reads_every_block():
    for block in BLOCKS:
        if block.language == "sh":
            done = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True)
            assert done.returncode == 0, f"{block.page}: {done.stderr}"


def misunderstood(commands):
    """Those that would not do, and why."""
    wrong = []
    for page, line in commands:
        try:
            understand(shlex.split(line, comments=True))
        except Exception as error:
            wrong.append(f"{page}: {line}: {type(error).__name__} {error}")
    return wrong


def is_dear(page, line):
    """Whether all settings are put together for it, half a second each; those of the README are always checked."""
    return page != "README.md" and "jaxshare.train" in line


def chosen(dear):
    return [(page, line) for page, line in COMMANDS if is_dear(page, line) == dear and not why_skipped(page, line)]


def test_every_command_is_understood(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert misunderstood(chosen(dear=False)) == []
    assert len(chosen(dear=False)) > 100


@pytest.mark.slow
def test_every_training_is_understood(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert misunderstood(chosen(dear=True)) == []
    assert len(chosen(dear=True)) > 100


def test_what_is_skipped_is_there():
    for beginning in SKIPPED:
        assert any(f"{page}: {line}".startswith(beginning) for page, line in COMMANDS), beginning


def understand(words):
    """Check a command. Raises an exception if it would not do."""
    words = words[: words.index(">")] if ">" in words else words
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    program = pathlib.Path(words[0]).name if words[0] != "." else "."
    if program == "python" and words[1] == "-m":
        module(words[2], words[3:])
    elif program == "python":
        assert (ROOT / words[1]).is_file(), "there is no such file"
    elif program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
        variables = [word for word in words[1:] if "=" in word]
        assert set(words[1:]) - set(variables) <= set(targets), "no such target"
        assert all(re.search(rf"^{word.partition('=')[0]} \?=", makefile(), re.M) for word in variables)
    elif program == "pip":
        extras(words)
    else:
        assert program in OTHERS, "an unknown program"
        extras(words)


def makefile():
    return (ROOT / "Makefile").read_text()


def extras(words):
    """What is installed of ours can be had."""
    for word in words:
        named = re.fullmatch(r"(?:\.|jaxshare)\[([\w,]+)\]", word)
        if named:
            assert set(named[1].split(",")) <= set(PYPROJECT["optional-dependencies"]), "no such extra"


def module(name, arguments):
    """A command of ours."""
    check = {
        "jaxshare.collect": lambda: cli.small_config(collect.Config, arguments),
        "jaxshare.convert": lambda: cli.small_config(convert.Config, arguments),
        "jaxshare.decompose": lambda: cli.small_config(decompose.Config, arguments),
        "jaxshare.evaluate": lambda: cli.small_config(evaluate.Config, arguments),
        "jaxshare.launch": lambda: cli.settings(launch.parsed(arguments)[1]),
        "jaxshare.list": lambda: nothing(arguments),
        "jaxshare.report": lambda: report.configured(arguments),
        "jaxshare.settings": lambda: nothing(arguments),
        "jaxshare.study": lambda: study(arguments),
        "jaxshare.study.standardise": lambda: one_file(arguments),
        "jaxshare.train": lambda: training(arguments),
        "jaxshare.tune": lambda: searching(arguments),
    }
    assert name in check
    if arguments not in ([], ["--help"]):  # as it is named in a sentence
        check[name]()


def nothing(arguments):
    assert arguments == []


def one_file(arguments):
    (file,) = arguments
    assert "=" not in file


def training(arguments):
    """As the command checks them, whether of one run or of many."""
    many = [argument for argument in arguments if argument.startswith("-")]
    rest = [argument for argument in arguments if not argument.startswith("-")]
    if "--help" in many:
        assert train.HELP
        cli.check_groups(overrides(rest, training_kinds()))
    elif many:
        assert many == ["-m"]
        ours = [cli.spelled(argument, True) for argument in rest if "hydra" not in argument]
        cli.check_arguments(ours, sweeping=True)
    else:
        cli.settings(rest)


def searching(arguments):
    cli.settings(sorted_out(arguments).training)


def study(arguments):
    """The file, where it is one of the repository, and what is chosen of it."""
    asked = options.parse(arguments)
    if (ROOT / asked.place).exists():
        assert options.chosen(asked.names, studies(asked.place))


@functools.cache
def studies(place):
    """Names of the studies of a file or folder."""
    return list(book.read(place).studies)


# ------------------------------------------------------------------------------------- other languages


@pytest.mark.parametrize("page", sorted({block.page for block in BLOCKS if block.language == "python"}))
def test_python_is_run_or_checked(page):
    for block in BLOCKS:
        if (block.page, block.language) == (page, "python"):
            tree = ast.parse(block.text)
            for call in trainings(tree):
                cli.settings(call)
    if page in RUN_BY:
        test = (ROOT / RUN_BY[page]).read_text()
        assert pathlib.Path(page).name in test or pathlib.Path(page).parent.name in test


def trainings(tree):
    """Arguments of each call of jaxshare.train whose values are all written out."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "jaxshare.train":
            try:
                values = {keyword.arg: ast.literal_eval(keyword.value) for keyword in node.keywords}
            except ValueError:
                continue
            if None not in values and not any("." in str(values.get(key, "")) for key in ("algo", "env")):
                names = [values.pop(key, None) for key in ("algo", "env")]
                more = {**values.pop("settings", {})}
                yield spelled_out(*names, values.pop("modifiers", ()), {**values, **more})


def test_data_can_be_read():
    read = {"yaml": yaml.safe_load, "toml": tomllib.loads, "json": json.loads}
    for block in BLOCKS:
        if block.language in read:
            assert read[block.language](block.text), block.page


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("python -m jaxshare.train algo=qmix lrr=1", "is not a setting"),
        ("python -m jaxshare.train algo=qmax", "is not known"),
        ("python -m jaxshare.evaluate run_dir=x episdes=1", "episdes"),
        ("python -m jaxshare.study runn benchmarks/claims", "runn"),
        ("python -m jaxshare.study run benchmarks/claims nothing_of_this_name", "nothing_of"),
        ("python benchmarks/nothing.py", "no such file"),
        ("make nothing", "no such target"),
        ("pip install '.[nothing]'", "no such extra"),
        ("frobnicate", "unknown program"),
    ],
)
def test_mistakes_are_noticed(monkeypatch, line, error):
    monkeypatch.chdir(ROOT)
    with pytest.raises(Exception, match=error):
        understand(shlex.split(line, comments=True))
