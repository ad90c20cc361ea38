"""Every environment in every scenario keeps the contract of `jaxshare.types.Env`. A new file is tested by existing.

By convention the first field an environment's own `Config` declares is the name of its scenario (or id).
Environments on the host that are not installed here are left out; their adapters have tests of their own.
"""

import contract
import pytest
from omegaconf import OmegaConf

from jaxshare import registry


def chosen(name, module):
    """Scenarios whose shapes are looked at: the first of one on the host, since each starts a process.

    test_smax.py and test_jaxmarl_any.py look at all of theirs.
    """
    return module.scenarios()[: 1 if getattr(module, "HOST", False) else {"smax": 4, "jaxmarl": 2}.get(name)]


ENVS = {name: module for name, module in registry.modules("env").items() if registry.lacking(module) is None}
FIRST = {"smax": 2, "jaxmarl": 1, "lbf": 2, "rware": 2}  # scenarios to compile: more are slow, and nothing new
CASES = [(name, scenario) for name, module in ENVS.items() for scenario in chosen(name, module)]
PLAYED = [(name, scenario) for name, scenario in CASES if scenario in ENVS[name].scenarios()[: FIRST.get(name)]]


@pytest.fixture
def build():
    """Makes an environment, and closes it in the end."""
    envs = []

    def make(name, scenario):
        module = ENVS[name]
        envs.append(module.make(module.Config(**{scenario_key(module): scenario})))
        return envs[-1]

    yield make
    for env in envs:
        if env.host:
            env.host.close()


def scenario_key(module):
    return next(iter(vars(module.Config)["__annotations__"]))


@pytest.mark.parametrize(("name", "scenario"), CASES)
def test_arrays_match_the_spec(build, name, scenario):
    contract.check_arrays(build(name, scenario))


@pytest.mark.parametrize(("name", "scenario"), PLAYED)
def test_a_first_step_is_fresh_and_playable(build, name, scenario):
    contract.check_first_step(build(name, scenario))


ALL = registry.modules("env")


@pytest.mark.parametrize("name", list(ALL))
def test_config_is_a_hydra_config(name):
    config = OmegaConf.to_object(OmegaConf.structured(ALL[name].Config))
    assert config == ALL[name].Config()


@pytest.mark.parametrize("name", list(ALL))
def test_default_scenario_exists(name):
    assert getattr(ALL[name].Config(), scenario_key(ALL[name])) in ALL[name].scenarios()


@pytest.mark.parametrize("name", list(ALL))
def test_what_is_declared_about_it(name):
    module = ALL[name]
    assert set(module.ACTIONS.split(" or ")) <= {"discrete", "continuous"}
    if getattr(module, "HOST", False):
        assert module.PACKAGES
        assert "pip install" in module.INSTALL
