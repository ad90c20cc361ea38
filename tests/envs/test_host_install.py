"""What is said when something is missing on the machine: a package, a task of it, or room for shared numbers."""

import errno
import os
import pathlib
import sys

import jax
import numpy as np
import pytest
import troubled

from jaxshare import registry
from jaxshare.envs import gymnasium as gymnasium_adapter
from jaxshare.envs import host, lbforaging, pettingzoo, rware_host
from jaxshare.envs.host import memory as shared
from jaxshare.envs.smac import environment as smac
from jaxshare.types import HostError, RefusedError

FAKE = f"{pathlib.Path(__file__).with_name('fake_hosted.py')}:Fake"
HOSTS = [name for name, module in registry.modules("env").items() if getattr(module, "HOST", False)]
# what each default environment imports first
FIRST = {
    "gfootball": "gfootball", "gymnasium": "gymnasium", "lbforaging": "lbforaging", "mamujoco": "mujoco",
    "pettingzoo": "mpe2", "rware_host": "rware", "smac": "smac", "smaclite": "smaclite",
}  # fmt: skip


def forget(monkeypatch, package):
    """As if a package had not been imported yet."""
    for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, name)


def refusal(module, **settings):
    """What is said when an environment is made in this process."""
    with pytest.raises(RefusedError) as error:
        module.make(module.Config(**{"workers": 0, **settings})).host.close()
    return str(error.value)


def test_every_environment_on_the_host_is_here():
    assert set(FIRST) == set(HOSTS)


@pytest.mark.parametrize("name", HOSTS)
def test_a_missing_package_comes_with_its_command(monkeypatch, name):
    module = registry.get("env", name)
    forget(monkeypatch, FIRST[name])
    monkeypatch.setitem(sys.modules, FIRST[name], None)
    assert refusal(module).endswith(f"Remedy: {module.INSTALL}")


@pytest.mark.parametrize("name", HOSTS)
def test_a_package_that_is_here_is_not_to_be_installed(monkeypatch, tmp_path, name):
    """It is broken, as by a library of the system that is missing: its own words are what helps."""
    package = tmp_path / FIRST[name]
    package.mkdir()
    for part in ("__init__", "env", "simple_spread_v3"):
        text = "" if (name, part) == ("smac", "__init__") else "raise ImportError('libGL.so.1: no such file')\n"
        (package / f"{part}.py").write_text(text)
    if name == "smac":
        (package / "env").mkdir()
        (package / "env" / "__init__.py").write_text("raise ImportError('libGL.so.1: no such file')\n")
    forget(monkeypatch, FIRST[name])
    monkeypatch.syspath_prepend(str(tmp_path))
    message = refusal(registry.get("env", name))
    for name in [name for name in sys.modules if getattr(sys.modules[name], "__file__", None) and
                 str(sys.modules[name].__file__).startswith(str(tmp_path))]:  # fmt: skip
        del sys.modules[name]
    assert "libGL.so.1: no such file" in message
    assert "Remedy" not in message
    assert "pip install" not in message


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("module", "settings", "missing"),
    [
        (pettingzoo, {"id": "no_such_team:Env"}, "no_such_team"),
        (pettingzoo, {"id": "no_such_team.part.deep:Env"}, "no_such_team"),
        (gymnasium_adapter, {"imports": ["no_such_team"]}, "no_such_team"),
        (gymnasium_adapter, {"id": "no_such_team:Env-v0"}, "no_such_team"),
        (smac, {"implementation": "no_such_team:Game"}, "no_such_team"),
    ],
)
def test_a_missing_module_of_the_users_is_named(module, settings, missing, workers):
    message = refusal(module, workers=workers, **settings)
    assert f"Remedy: pip install the package that has the module {missing}, or add its folder to PYTHONPATH" in message
    assert module.INSTALL not in message


def test_the_folder_in_pythonpath_helps(monkeypatch, tmp_path):
    (tmp_path / "no_such_team.py").write_text("from troubled import Porters as Env\n")
    folders = [str(tmp_path), str(pathlib.Path(troubled.__file__).parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(folders))
    env = pettingzoo.make(pettingzoo.Config(id="no_such_team:Env", workers=1))
    assert env.spec.num_agents == 2
    env.host.close()


@pytest.mark.parametrize(
    ("id", "words"),
    [("mpe2.simple_sprad_v3", "No module named 'mpe2.simple_sprad_v3'"), ("mpe2:no_such", "no attribute 'no_such'")],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_a_typing_mistake_is_no_missing_package(id, words, workers):
    message = refusal(pettingzoo, id=id, workers=workers)
    assert words in message
    assert "Remedy" not in message


@pytest.mark.parametrize(
    ("module", "scenario", "name"),
    [
        (lbforaging, "lbforaging:Foraging-5x5-2p-1f-v3", "lbforaging/5x5-2p-1f"),
        (lbforaging, "Foraging-5x5-2p-1f-v3", "lbforaging/5x5-2p-1f"),
        (lbforaging, "5x5-2p-1f", "lbforaging/5x5-2p-1f"),
        (rware_host, "rware:rware-tiny-2ag-v2", "rware_host/tiny-2ag"),
    ],
)
def test_a_scenario_may_be_spelled_with_its_module(module, scenario, name):
    env = module.make(module.Config(scenario=scenario))
    assert env.spec.name == name
    env.host.close()


@pytest.mark.parametrize(
    ("module", "scenario", "better"),
    [
        (lbforaging, "lbforaging:Foraging-8x8-2p-3f-v2", "8x8-2p-3f"),
        (lbforaging, "os:Foraging-8x8-2p-3f-v3", "Foraging-8x8-2p-3f"),
        (rware_host, "rware:rware-tiny-2ag-v1", "tiny-2ag"),
        (rware_host, "os.path:rware-tiny-2ag-v2", "rware-tiny-2ag"),
    ],
)
def test_another_module_or_version_is_refused_with_what_to_write(module, scenario, better):
    message = refusal(module, scenario=scenario)
    assert message.startswith(f"env.scenario={scenario} ")
    assert message.endswith(f"env.scenario={better}.")
    module.make(module.Config(scenario=better)).host.close()


def test_an_unknown_task_names_no_remedy():
    message = refusal(lbforaging, scenario="8x8-2p-3")
    assert "Foraging-8x8-2p-3" in message
    assert "Remedy" not in message


# ------------------------------------------------------------------------------------------------- room for numbers


@pytest.fixture
def memory(monkeypatch, tmp_path):
    """Where shared numbers lie: (in memory, in the temporary directory); full(folder) leaves no room there."""
    folders = [tmp_path / "memory", tmp_path / "temporary"]
    for folder in folders:
        folder.mkdir()
    monkeypatch.setattr(shared, "MEMORY", str(folders[0]))
    monkeypatch.setattr(shared.tempfile, "tempdir", str(folders[1]))
    reserve, full = os.posix_fallocate, []

    def reserved(descriptor, start, size):
        if any(os.readlink(f"/proc/self/fd/{descriptor}").startswith(str(folder)) for folder in full):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        reserve(descriptor, start, size)

    monkeypatch.setattr(os, "posix_fallocate", reserved)
    return folders, full


def test_memory_is_reserved_before_it_is_used(memory):
    with shared.shared_file(10_000) as file:
        status = os.fstat(file.fileno())
        assert os.readlink(f"/proc/self/fd/{file.fileno()}").startswith(str(memory[0][0]))
    assert status.st_size == 10_000
    assert status.st_blocks * 512 >= 10_000, "a file with holes ends a process when there is no room to fill them"


@pytest.mark.parametrize("how", ["full", "not there"])
def test_the_temporary_directory_is_the_other_place(memory, how):
    folders, full = memory
    if how == "full":
        full.append(folders[0])
    else:
        folders[0].rmdir()
    env = host.host_env("fake", FAKE, {}, host.HostConfig(1), "")
    try:
        with shared.shared_file(1000) as file:
            assert os.readlink(f"/proc/self/fd/{file.fileno()}").startswith(str(folders[1]))
        shown = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), 2))[1]
        assert np.isfinite(shown.obs).all()
    finally:
        env.host.close()


def test_no_room_anywhere_is_one_sentence_whose_remedy_works(memory):
    folders, full = memory
    full.extend(folders)
    keys = jax.random.split(jax.random.key(0), 2)
    env = host.host_env("fake", FAKE, {}, host.HostConfig(1), "")
    with pytest.raises(jax.errors.JaxRuntimeError):
        jax.block_until_ready(jax.vmap(env.reset)(keys))
    message = str(env.host.error())
    assert isinstance(env.host.error(), HostError)
    for part in (*map(str, folders), "No space left on device", "TMPDIR", "env.workers=0"):
        assert part in message
    assert "\n" not in message
    env.host.close()
    env = host.host_env("fake", FAKE, {}, host.HostConfig(0), "")
    jax.block_until_ready(jax.vmap(env.reset)(keys))
    env.host.close()
