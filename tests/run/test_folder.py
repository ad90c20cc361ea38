"""The folder of a run: names of its own, one process at a time, settings of other versions."""

import dataclasses
import functools
import json
import pathlib
import sys
import threading
import time

import pytest
import tiny
import yaml

from jaxshare import cli
from jaxshare.commands import train
from jaxshare.run import folder
from jaxshare.run.lock import LOCK, Lock
from jaxshare.run.output import check_writable
from jaxshare.settings.plain import from_plain
from jaxshare.types import RefusedError

PLAIN = ("env=matrix", "algo=vdn", "total_env_steps=64")


@functools.cache
def composed(*arguments):
    return cli.settings([*PLAIN, *arguments])


def settings(run_dir, *arguments):
    """As tiny.settings, composed once."""
    found = composed(*arguments)
    return dataclasses.replace(found, run=dataclasses.replace(found.run, run_dir=str(run_dir)))


@pytest.fixture
def run_dir(tmp_path):
    """A folder with the settings of a run and something to lose."""
    folder.open_run_dir(settings(tmp_path / "run"))
    (tmp_path / "run" / "checkpoints" / "3").mkdir(parents=True)
    return tmp_path / "run"


def opened(run_dir, *arguments):
    with folder.in_use(settings(run_dir, *arguments)) as found:
        return found


def edit(run_dir, **changes):
    """Change keys of config.yaml, given as `run__seeds=2`; None removes one."""
    path = run_dir / "config.yaml"
    tree = yaml.safe_load(path.read_text())
    for key, value in changes.items():
        *groups, last = key.split("__")
        node = tree
        for group in groups:
            node = node[group]
        if value is None:
            del node[last]
        else:
            node[last] = value
    path.write_text(yaml.safe_dump(tree, sort_keys=False))


# ------------------------------------------------------------------------------------------------------------- names


def test_names_that_were_not_chosen_are_different_ones(tmp_path, monkeypatch):
    """However many commands are started within one second."""
    monkeypatch.chdir(tmp_path)
    chosen = composed()
    assert chosen.run.run_dir == ""
    names, gate = [], threading.Barrier(8)

    def start():
        gate.wait()
        names.append(folder.named(chosen).run.run_dir)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(names)) == 8
    assert all(name.startswith("runs/vdn-matrix-") for name in names)
    assert sorted(tmp_path.joinpath("runs").iterdir()) == sorted(tmp_path / name for name in names)


def test_suffixes_count(tmp_path):
    base = str(tmp_path / "a")
    assert [folder.new_folder(base) for _ in range(3)] == [base, f"{base}-2", f"{base}-3"]


def test_a_run_keeps_the_name_that_it_was_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with folder.in_use(composed()) as found:
        assert found.settings.run.run_dir == str(found.run_dir)
        assert not found.resuming
    assert folder.read_config(found.run_dir)["run"]["run_dir"] == str(found.run_dir)


# -------------------------------------------------------------------------------------------------------------- lock


@pytest.mark.parametrize("resume", ["auto", "never"])
def test_a_folder_that_is_in_use_is_refused_and_not_touched(run_dir, monkeypatch, capsys, resume):
    """By the command, in one sentence, before anything is compiled."""
    lock = Lock(run_dir)
    before = tiny.files(run_dir)
    monkeypatch.setattr(sys, "argv", ["train", f"run_dir={run_dir}", *PLAIN, f"resume={resume}"])
    with pytest.raises(SystemExit) as stopped:
        train.main()
    assert stopped.value.code == 1
    message = capsys.readouterr().err
    assert message.startswith(f"error: run_dir={run_dir} is in use by process ")
    assert message.count("\n") == 1
    assert tiny.files(run_dir) == before
    lock.release()
    assert opened(run_dir, "resume=auto").resuming


def test_two_starts_at_once_with_one_run_dir(tmp_path):
    """Nothing is there yet: the lock is made before anything is written."""
    chosen = settings(tmp_path / "run")
    outcomes, gate, leave = [], threading.Barrier(4), threading.Event()

    def start():
        gate.wait()
        try:
            with folder.in_use(chosen) as found:
                outcomes.append(found.resuming)
                leave.wait(10)
        except RefusedError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    until = time.monotonic() + 10
    while len(outcomes) < 4 and time.monotonic() < until:
        time.sleep(0.01)
    leave.set()
    for thread in threads:
        thread.join()
    assert outcomes.count(False) == 1
    assert sum("in use by process" in str(outcome) for outcome in outcomes) == 3


def test_the_lock_is_there_before_anything_is_written_and_gone_after_an_error(tmp_path, monkeypatch):
    order, write = [], folder.durable.write_text

    def spy(path, text):
        order.append((tmp_path / "run" / LOCK).exists())
        write(path, text)

    monkeypatch.setattr(folder.durable, "write_text", spy)
    with pytest.raises(ZeroDivisionError), folder.in_use(settings(tmp_path / "run")):
        1 / 0  # noqa: B018
    assert order == [True, True]
    assert not (tmp_path / "run" / LOCK).exists()
    (tmp_path / "run" / "checkpoints" / "3").mkdir(parents=True)
    with pytest.raises(RefusedError, match="already holds a run"):
        opened(tmp_path / "run")
    assert not (tmp_path / "run" / LOCK).exists()


def test_a_folder_that_is_in_use_can_be_read(run_dir):
    lock = Lock(run_dir)
    assert folder.read_settings(run_dir).algo_name == "vdn"
    lock.release()


def test_no_file_of_the_users_is_lost_to_a_probe(tmp_path):
    for name in (".writable", "config.yaml.new", ".evaluation.json.probe"):
        (tmp_path / name).write_text("precious")
    opened(tmp_path)
    check_writable(tmp_path / "evaluation.json", "out")
    for name in (".writable", "config.yaml.new", ".evaluation.json.probe"):
        assert (tmp_path / name).read_text() == "precious"
    assert len(list(tmp_path.iterdir())) == 5


@pytest.mark.parametrize("where", ["/dev/null/x", "file/x", "folder"])
def test_a_place_that_cannot_be_written_is_named_with_its_key(tmp_path, where):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(RefusedError, match=r"^out=.* cannot be written \(.*\): name another place with out="):
        check_writable(tmp_path / where if "dev" not in where else pathlib.Path(where), "out")


# ----------------------------------------------------------------------------------------------------- other versions


@pytest.mark.parametrize(
    "changes",
    [
        {"algo__hparams__rms_decay": None},
        {"run__checkpoint__minutes": None},
        {"run__eval__num_envs": None, "run__replay__dtype": None},
        {"modifiers": None, "sweep": None},
        {"env__delay": None},
    ],
)
def test_a_missing_setting_is_at_its_default(run_dir, changes):
    """As the settings of an older version lack newer keys."""
    edit(run_dir, **changes)
    assert opened(run_dir, "resume=auto").resuming
    assert folder.plain(folder.read_settings(run_dir)) == folder.plain(settings(run_dir))


def test_a_run_from_before_there_was_a_setting_goes_on_as_it_began(run_dir):
    """Its batches were not packed; the same command goes on so, again and again, and says nothing."""
    edit(run_dir, run__replay__packed=None)
    assert settings(run_dir).run.replay.packed == "auto"
    for _ in range(2):
        assert folder.read_settings(run_dir).run.replay.packed == "never"
        chosen = folder.as_begun(settings(run_dir, "resume=auto"))
        assert chosen.run.replay.packed == "never"
        assert folder.open_run_dir(chosen)[1]
        folder.write_settings(chosen, run_dir)  # as a run that goes on does
        assert "packed" not in folder.read_config(run_dir)["run"]["replay"]


def test_a_new_run_says_so(run_dir):
    assert folder.as_begun(settings(run_dir, "resume=auto")) == settings(run_dir, "resume=auto")
    assert folder.read_config(run_dir)["run"]["replay"]["packed"] == "auto"
    with pytest.raises(RefusedError, match=r"replay\.packed was auto, now never"):
        opened(run_dir, "resume=auto", "replay.packed=never")


def test_a_missing_setting_that_is_now_another_one_is_refused(run_dir):
    edit(run_dir, algo__hparams__lr=None)
    with pytest.raises(RefusedError, match=r"algo\.hparams\.lr was 0\.0005, now 0\.1"):
        opened(run_dir, "resume=auto", "algo.hparams.lr=0.1")


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"algo__hparams__momentum": 0.9}, "algo.hparams.momentum"),
        ({"run__priority": 1}, "run.priority"),
        ({"run__eval__priority": 1}, "run.eval.priority"),
        ({"env__fog": True}, "env.fog"),
        ({"modifiers": {"differ": {"fog": 1}}}, "differ.fog"),
        ({"modifiers": {"fog": {}}}, "fog"),
        ({"algo_name": "newest"}, "newest"),
    ],
)
def test_a_setting_of_another_version_is_named(run_dir, changes, key):
    edit(run_dir, **changes)
    versions = run_dir / "versions.json"
    versions.write_text(json.dumps(json.loads(versions.read_text()) | {"jaxshare": "9.9"}))
    for read in (lambda: folder.read_settings(run_dir), lambda: opened(run_dir, "resume=auto")):
        with pytest.raises(RefusedError) as refused:
            read()
        message = str(refused.value)
        assert str(run_dir / "config.yaml") in message
        assert "jaxshare 9.9" in message
        assert key in message
        assert "\n" not in message


def test_checkpoint_minutes_may_change(run_dir):
    assert opened(run_dir, "resume=auto", "checkpoint.minutes=5").resuming


@pytest.mark.parametrize("value", ["-1", "nan", "inf"])
def test_checkpoint_minutes_has_a_range(run_dir, monkeypatch, capsys, value):
    monkeypatch.setattr(sys, "argv", ["train", f"run_dir={run_dir}", *PLAIN, f"checkpoint.minutes={value}"])
    with pytest.raises(SystemExit):
        train.main()
    assert f"checkpoint.minutes={float(value)}" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["${oc.env:HOME}", r"\${x}", r"a\\${y}b", "plain$", "${", "x\\"])
def test_a_file_is_read_literally(text):
    """What looks like a question to the environment of the process, such as for a password, is a text."""
    settings = cli.settings(["env=matrix", "algo=vdn"])
    settings = dataclasses.replace(settings, run=dataclasses.replace(settings.run, run_dir=text))
    assert from_plain(folder.plain(settings)).run.run_dir == text
