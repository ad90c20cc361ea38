"""What a run directory holds may come from anywhere: every kind of damage is one sentence with file and key."""

import json
import resource
import shutil

import pytest
import tiny
import yaml

from jaxshare.results.played import read_played
from jaxshare.run import folder, reader, versions
from jaxshare.run.saved import SavedRun
from jaxshare.types import RefusedError

CONFIG = {
    "run": {"seed": 0, "seeds": 1, "data": "", "eval": {"policy": "greedy"}},
    "algo": {"hidden_dim": 8},
    "algo_name": "vdn",
    "env": {"game": "two_step"},
    "env_name": "matrix",
    "modifiers": {},
    "sweep": {"lr": [0.1]},
}
EVALUATION = {
    "checkpoint": 3,
    "episodes": 8,
    "policy": "greedy",
    "eval_seed": 5,
    "runs": [{"seed": 0, "env_steps": 10, "return": 1.5}],
    "mean": {"return": 1.5},
}
META = {"wall_s": 1.5, "metrics_bytes": 10, "total_env_steps": 64, "env_steps": [8, 8], "evaluated": [-1, 8]}
WRONG = {  # values that stand for a kind, none of which is another's
    "text": "many",
    "null": None,
    "list": [1, 2],
    "mapping": {"a": 1},
    "truth": True,
    "fraction": 1.5,
    "huge": 10**400,
    "number": 7,
}


def paths(tree, prefix=()):
    """Every key of a tree, lists' first entries included."""
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree[:1])
    for key, value in pairs:
        yield (*prefix, key)
        if isinstance(value, dict | list):
            yield from paths(value, (*prefix, key))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run directory as a start leaves it."""
    run_dir = tmp_path_factory.mktemp("whole")
    folder.open_run_dir(tiny.settings(run_dir, *tiny.PLAIN))
    return run_dir


def put(tree, path, value):
    copy = json.loads(json.dumps(tree))
    node = copy
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return copy


def spelled(path):
    text = ""
    for key in path:
        text += f"[{key}]" if isinstance(key, int) else f".{key}"
    return text.removeprefix(".")


CASES = [
    (name, kind, path, wrong)
    for name, tree, kind in (
        ("config", CONFIG, reader.CONFIG),
        ("evaluation", EVALUATION, reader.EVALUATION),
        ("meta", META, reader.checkpoint_meta(2)),
    )
    for path in paths(tree)
    for wrong in WRONG
]
TREES = {"config": CONFIG, "evaluation": EVALUATION, "meta": META}


def test_what_runs_write_is_accepted(tmp_path):
    assert reader.fault(CONFIG, reader.CONFIG) is None
    assert reader.fault(EVALUATION, reader.EVALUATION) is None
    assert reader.fault(META, reader.checkpoint_meta(2)) is None
    folder.open_run_dir(tiny.settings(tmp_path, *tiny.FULL, "seeds=2", "sweep.lr=[1e-3,1e-2]"))
    assert folder.plain(folder.read_settings(tmp_path)) == folder.read_config(tmp_path)
    assert "jaxshare" in versions.read_versions(tmp_path)


@pytest.mark.parametrize("name", TREES)
def test_every_value_of_another_kind_is_named_by_its_key(name):
    """All keys that commands read without OmegaConf, against values of every kind."""
    refused = 0
    for tree_name, kind, path, wrong in CASES:
        if tree_name != name:
            continue
        problem = reader.fault(put(TREES[name], path, WRONG[wrong]), kind)
        if problem is not None:
            refused += 1
            assert spelled(path) in problem, problem
            assert len(problem) < 200
            assert "\n" not in problem
    assert refused > 2 * len(list(paths(TREES[name])))  # of eight kinds, most are wrong for most keys


@pytest.mark.parametrize(
    ("tree", "kind", "path", "wrong"),
    [
        (CONFIG, reader.CONFIG, ("run", "seeds"), [1, 2]),
        (CONFIG, reader.CONFIG, ("sweep",), "0.1"),
        (CONFIG, reader.CONFIG, ("sweep", "lr"), "0.1"),
        (CONFIG, reader.CONFIG, ("modifiers",), ["differ"]),
        (CONFIG, reader.CONFIG, ("env",), "matrix"),
        (EVALUATION, reader.EVALUATION, ("runs",), {"0": {}}),
        (EVALUATION, reader.EVALUATION, ("runs", 0, "return"), "1.5"),
        (META, reader.checkpoint_meta(2), ("wall_s",), None),
        (META, reader.checkpoint_meta(2), ("evaluated",), "[-1, 8]"),
        (META, reader.checkpoint_meta(2), ("evaluated",), [-1]),
        (META, reader.checkpoint_meta(2), ("metrics_bytes",), 1.5),
    ],
)
def test_reported_damage(tree, kind, path, wrong):
    assert spelled(path) in reader.fault(put(tree, path, wrong), kind)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\xff\xfe\x00", b"{", b"[1, 2]", b"[" * 10**4, b'{"seed": ' + b"9" * 5000 + b"}", b"null", b"\x00" * 100,
        b'{"runs": [], "runs": 5, "checkpoint": 1}',
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["config.yaml", "versions.json", "evaluation.json"])
def test_damaged_content_is_one_sentence_with_the_file(tmp_path, whole, name, content):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    (tmp_path / name).write_bytes(content)
    read = {
        "config.yaml": folder.read_settings,
        "versions.json": versions.read_versions,
        "evaluation.json": lambda run_dir: read_played(SavedRun(run_dir)),
    }[name]
    with pytest.raises(RefusedError) as refused:
        read(tmp_path)
    message = str(refused.value)
    assert str(tmp_path / name) in message
    assert "\n" not in message
    assert len(message) < 400 + len(str(tmp_path))


def test_a_mark_of_byte_order_and_windows_line_ends_do_no_harm(tmp_path, whole):
    """As editors on Windows leave them."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    before = folder.read_settings(tmp_path)
    for name in ("config.yaml", "versions.json"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n"))
    assert folder.read_settings(tmp_path) == before
    assert "jax" in versions.read_versions(tmp_path)


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)
)


def refused_and_megabytes(run_dir):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(RefusedError) as refused:
        folder.read_config(run_dir)
    return str(refused.value), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def test_aliases_are_refused_before_they_take_memory(tmp_path):
    assert len(BOMB) < 2000
    assert yaml.safe_load("a: &x [1]\nb: *x\n") == {"a": [1], "b": [1]}  # which is what aliases are
    (tmp_path / "config.yaml").write_text(BOMB)
    message, megabytes = refused_and_megabytes(tmp_path)
    assert "line 2 has an alias" in message
    assert megabytes < 50


def test_files_that_are_too_large_are_not_read(tmp_path):
    with open(tmp_path / "config.yaml", "wb") as file:
        file.truncate(2**33)  # 8 GiB that take no place on disk
    message, megabytes = refused_and_megabytes(tmp_path)
    assert "more than 512 KiB" in message
    assert megabytes < 50


def test_what_is_no_file_is_not_read(tmp_path):
    (tmp_path / "config.yaml").symlink_to("/dev/zero")
    with pytest.raises(RefusedError, match=r"no config\.yaml"):
        folder.read_config(tmp_path)
    (tmp_path / "versions.json").mkdir()
    assert versions.read_versions(tmp_path) == {}


def test_nothing_in_a_file_is_code(tmp_path):
    (tmp_path / "config.yaml").write_text("run: !!python/object/apply:os.system ['touch executed']\n")
    with pytest.raises(RefusedError, match="constructor"):
        folder.read_config(tmp_path)


def test_report_reads_evaluations_through_it(tmp_path):
    (tmp_path / "evaluation.json").write_text(json.dumps(put(EVALUATION, ("runs", 0, "return"), "high")))
    with pytest.raises(RefusedError, match=r"evaluation\.json cannot be used: runs\[0\]\.return is 'high'"):
        read_played(SavedRun(tmp_path))
    (tmp_path / "evaluation.json").write_text(json.dumps(EVALUATION))
    assert read_played(SavedRun(tmp_path))["final"]["seed 0"].scores["return"] == 1.5


def test_no_json_or_yaml_of_a_run_directory_is_read_past_the_reader():
    """Whoever adds a way to read one adds it there."""
    readers = {"run/reader.py", "run/lock.py", "run/metrics.py"}
    # data sets, the files of a checkpoint (behind its checksums), what workers and processes of a run tell each other,
    # a study's own files and the journal of a search (which are in no run directory) have checks of their own
    others = {"data/", "cli.py", "run/checkpoint/checkpoints.py", "envs/hosted/messages.py"}
    others |= {"study/book.py", "study/cost.py", "study/figures.py", "run/gang.py", "tune/journal.py"}
    users = set()
    for path in sorted((tiny.REPOSITORY / "jaxshare").rglob("*.py")):
        name = str(path.relative_to(tiny.REPOSITORY / "jaxshare"))
        source = path.read_text().replace("json.loads(json.dumps(", "")
        if any(call in source for call in ("json.load(", "json.loads(", "yaml.safe_load(", "yaml.load(")):
            users.add(name)
    assert {name for name in users - readers if not name.startswith(tuple(others))} == set()
