"""What a reader may rely on: which file knows which package, one direction of imports, and the shape of a file."""

import ast
import functools
import pathlib
import subprocess
import sys

import pytest
import tiny

from jaxshare import registry

PACKAGE = tiny.REPOSITORY / "jaxshare"
FILES = {str(path.relative_to(PACKAGE)): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text()) for name, path in FILES.items()}
MAX_FUNCTION_LINES = 60
MAX_ENTRY_LINES = 120  # of an environment or an algorithm that is a file
# each may import itself and what stands before it
LAYERS = ("ops", "training", "models", "learners", "algos", "modifiers")
ENTRIES = [(kind, name) for kind in registry.KINDS for name in registry.modules(kind)]


@functools.cache
def imported(name):
    """Dotted names of every module that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def uses(name, *modules):
    """Which of `modules` a file imports, or anything below them."""
    return {m for m in modules if any(i == m or i.startswith(f"{m}.") for i in imported(name))}


def layer(name):
    """The position of a file in LAYERS, or None if it is in none."""
    top = pathlib.PurePath(name).parts[0].removesuffix(".py")
    return LAYERS.index(top) if top in LAYERS else None


def test_there_is_something_to_check():
    assert len(FILES) > 30
    assert "flax.linen" in imported("models/agents.py")
    assert uses("run/build.py", "jaxshare.registry")


@pytest.mark.parametrize("name", [name for name in FILES if layer(name) is not None])
def test_imports_go_one_way(name):
    later = LAYERS[layer(name) + 1 :]
    parts = ("evaluation", "collection", "decomposition", "results", "commands")
    outer = ("run", "study", "tune", "cli", "multirun", "spelling", *parts)
    assert not uses(name, *(f"jaxshare.{module}" for module in (*later, *outer)))


INNER = [name for name in FILES if name.startswith(("envs/", "training/"))]


@pytest.mark.parametrize("name", INNER)
def test_environments_and_replay_know_no_algorithm(name):
    assert not uses(name, "jaxshare.algos", "jaxshare.modifiers", "jaxshare.models", "jaxshare.learners")


STUDIES = [name for name in FILES if name.startswith("study/")]
KNOWN_TO_STUDIES = (  # what a study may know: settings, files of runs and data sets, the console, errors
    "cli", "data.own", "durable", "registry", "results", "run.folder", "run.lease", "run.reader", "run.metrics",
    "run.output", "run.versions", "run.build", "run.memory", "run.processes",
    "settings", "study", "terminal", "types",
)  # fmt: skip


@pytest.mark.parametrize("name", STUDIES)
def test_studies_know_commands_by_their_command_lines_only(name):
    modules = {f"jaxshare.{module}" for module in KNOWN_TO_STUDIES}
    packages = {module.rpartition(".")[0] for module in modules}
    ours = {i for i in imported(name) if i.startswith("jaxshare.")} - packages
    assert {i for i in ours if not any(i == m or i.startswith(f"{m}.") for m in modules)} == set()


def test_nothing_else_knows_studies():
    users = {name for name in FILES if uses(name, "jaxshare.study")}
    assert users <= set(STUDIES)


def test_types_import_nothing_of_ours_but_names_of_trees():
    ours = {i for i in imported("types.py") if i.split(".")[0] == "jaxshare"}
    assert {i for i in ours if i.rpartition(".")[0] != "jaxshare.trees"} <= {"jaxshare.trees"}
    assert not uses("trees.py", "jaxshare", "jax")


# tables and bars of what commands do
RICH = {
    "collection/policies.py",
    "collection/pools.py",
    "collection/teams.py",
    "decomposition/table.py",
    "evaluation/tables.py",
    "study/bars.py",
    "study/tables.py",
}


@pytest.mark.parametrize(
    ("package", "doors"),
    [
        ("hydra", {"settings/hydra.py", "spelling.py", "multirun.py", "plugins/options.py"}),
        ("omegaconf", {"settings/hydra.py", "multirun.py", "plugins/options.py"}),
        ("orbax", {f"run/checkpoint/{name}.py" for name in ("checkpoints", "reading", "shared_rings")}),
        ("flax.linen", {"models/*", "algos/*/*"}),
        ("jax.sharding", {"run/layout.py", "ops/spread.py"}),
        ("jaxmarl", {"envs/*"}),
        ("rich", {"terminal.py", "run/console.py", "results/screen.py", *RICH}),
        ("rich.console", {"terminal.py"}),
        ("matplotlib", {"results/*", "evaluation/film.py", "study/pictures.py"}),
        ("scipy", {"study/rules.py"}),
        ("distrax", {"models/distributions.py"}),
        ("tensorstore", {"data/own/*", "data/vault/*"}),
        ("h5py", {"data/hdf5/*"}),
        ("optuna", {"tune/journal.py"}),
        ("tensorboardX", {"run/loggers.py"}),
        ("wandb", {"run/loggers.py"}),
        ("ray", {"study/executors/ray_core.py"}),
        ("fsspec", {"run/staging.py"}),
        ("submitit", {"study/executors/slurm.py"}),
        ("flashbax", set()),
        ("torch", set()),
    ],
)
def test_one_door_per_dependency(package, doors):
    users = {name for name in FILES if uses(name, package)}
    assert {name for name in users if not any(pathlib.PurePath(name).match(door) for door in doors)} == set()


def test_settings_know_no_jax_and_their_ranges_no_hydra():
    for name in FILES:
        if name.startswith("settings/"):
            assert not uses(name, "jax", "flax", "jaxshare.algos", "jaxshare.envs")
    for name in ("fields", "validate", "records"):
        assert not uses(f"settings/{name}.py", "hydra", "omegaconf")


def loaded_by(statement):
    """Top-level packages that a fresh interpreter has loaded after `statement`."""
    code = f"{statement}; import sys; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tiny.REPOSITORY, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_is_light():
    assert not loaded_by("import jaxshare") & {"jax", "flax", "hydra", "orbax", "jaxmarl", "matplotlib"}


def test_the_command_line_reads_settings_without_heavy_packages():
    heavy = {"orbax", "jaxmarl", "matplotlib", "matplotlib.pyplot", "tensorboardX", "wandb", "imageio"}
    assert not loaded_by("import jaxshare.commands.train, jaxshare.cli; jaxshare.cli.settings([])") & heavy
    assert not loaded_by("import jaxshare.commands.train as t; t.help_text(t.HELP, [])") & heavy


# ------------------------------------------------------------------------------------------------------------- entries


def test_every_file_is_an_entry():
    for kind, package in registry.KINDS.items():
        folder = PACKAGE / package.split(".")[-1]
        files = {path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")} - {"base"}
        folders = {path.parent.name for path in folder.glob(f"*/{registry.MAIN[kind]}.py")}
        assert files | folders == set(registry.modules(kind))


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, name in ENTRIES if kind != "modifiers"])
def test_an_entry_is_a_short_file_or_a_folder(kind, name):
    """A folder has the main file, others that the main file needs, and an `__init__` with a line about it."""
    package = registry.KINDS[kind]
    inside = f"{package.split('.')[-1]}/{name}"
    if not (PACKAGE / inside).is_dir():
        assert len(FILES[f"{inside}.py"].read_text().splitlines()) <= MAX_ENTRY_LINES
        return
    assert len((PACKAGE / inside / "__init__.py").read_text().splitlines()) == 1
    paths = (PACKAGE / inside).glob("*.py")
    modules = {f"{package}.{name}.{path.stem}" for path in paths if path.stem != "__init__"}
    used = {m for file in FILES if file.startswith(f"{inside}/") for m in uses(file, *modules)}
    assert modules - used == {f"{package}.{name}.{registry.MAIN[kind]}"}


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_an_entry_exports_config_and_make_and_names_its_source(kind, name):
    module = registry.modules(kind)[name]
    assert module.Config.__dataclass_params__.frozen
    assert callable(module.make)
    assert module.Config()  # every setting has a default
    assert any(word in module.__doc__ for word in ("19", "20", "arXiv", "JaxMARL")), "no source in the docstring"


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_an_entry_does_not_know_the_others_of_its_kind(kind, name):
    package = registry.KINDS[kind]
    others = {f"{package}.{n}" for k, n in ENTRIES if k == kind and n != name}
    folder = package.split(".")[-1]
    files = [f for f in FILES if f == f"{folder}/{name}.py" or f.startswith(f"{folder}/{name}/")]
    assert files
    assert [f for f in files if uses(f, *others)] == []


# ------------------------------------------------------------------------------------------------------------- sizes


def functions(tree):
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


@pytest.mark.parametrize("name", FILES)
def test_functions_fit_on_a_screen(name):
    long = {f.name: f.end_lineno - f.lineno + 1 for f in functions(TREES[name])}
    assert {f: lines for f, lines in long.items() if lines > MAX_FUNCTION_LINES} == {}


@pytest.mark.parametrize("name", [name for name in FILES if not name.endswith("__init__.py")])
def test_public_names_have_docstrings(name):
    assert ast.get_docstring(TREES[name])
    public = [
        node for node in TREES[name].body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    ]  # fmt: skip
    assert [node.name for node in public if not ast.get_docstring(node)] == []


@pytest.mark.parametrize("name", FILES)
def test_no_comment_is_a_type_to_tools(name):
    """A comment that begins with "type:" is read as an annotation, but for the ones that say "type: ignore"."""
    comments = [
        line.partition("# type:")[2].strip() for line in FILES[name].read_text().splitlines() if "# type:" in line
    ]
    assert [text for text in comments if not text.startswith("ignore")] == []
