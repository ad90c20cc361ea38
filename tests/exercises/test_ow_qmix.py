"""A stranger's algorithm: OW-QMIX as one file outside of the package, by CONTRIBUTING alone and with no test edited."""

import dataclasses
import importlib.util
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import outside
import pytest
from combinations import ENVS, FAST, program, small

import jaxshare
from jaxshare import registry
from jaxshare.learners.learner import offers
from jaxshare.training.counting import start_clock
from jaxshare.types import RefusedError

FILE = pathlib.Path(__file__).with_name("ow_qmix.py")


@pytest.fixture
def ow_qmix():
    """The name of the entry that the file is."""
    spec = importlib.util.spec_from_file_location("strangers_ow_qmix", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    jaxshare.register("algo", "ow_qmix", module)
    yield "ow_qmix"
    outside.forget()


def learner_of(name, modifier=None, share="none"):
    spec = ENVS["two_step"][0]().spec
    module = registry.get("algo", name)
    learner = module.make(small(module.Config, share_params=share), spec)
    if modifier is None:
        return learner
    entry = registry.get("modifiers", modifier)
    return entry.make(small(entry.Config), learner)


def test_it_is_one_short_file():
    assert len(FILE.read_text().splitlines()) <= 80


@pytest.mark.parametrize("env", ["two_step", "fading"])
def test_it_trains_all_its_networks(ow_qmix, env):
    made = program(ow_qmix, (), ENVS[env][0](), "all")
    hparams = {name: jnp.float32(value) for name, value in made.algorithm.hparams.items()}

    def train(seed, clock):
        first, clock = made.prefill(made.init(seed), hparams, clock)
        return first, made.chunk(2, first, hparams, clock)[0]

    first, (state, metrics) = jax.jit(train, compiler_options=FAST)(jnp.int32(0), start_clock())
    assert set(state.learner.params) == {"agent", "mixer", "central", "central_mixer"}
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((state.learner, metrics["update"])))
    for name, params in state.learner.params.items():
        pairs = zip(jax.tree.leaves(params), jax.tree.leaves(first.learner.params[name]), strict=True)
        assert any(np.any(new != old) for new, old in pairs), name
    assert {"loss/central", "q/taken_mean", "grad_norm/joint"} <= set(metrics["update"])


def test_differ_says_that_it_would_lose_the_loss(ow_qmix):
    assert "own_loss" in offers(learner_of(ow_qmix))
    with pytest.raises(RefusedError, match=r"modifiers=\[differ\] would replace the loss of algo=ow_qmix"):
        learner_of(ow_qmix, "differ")


def test_averaging_sees_the_network_that_it_adds(ow_qmix):
    learner = learner_of(ow_qmix, "a_pps")
    (average,) = learner.after_update
    assert set(average.args[0].tensors) == {"agent", "central"}


def test_ours_is_the_same_algorithm(ow_qmix):
    """The entry wqmix with a mixer of one size learns by the same weights and targets: equal losses."""
    module = registry.get("algo", "wqmix")
    made = {}
    for name in (ow_qmix, "wqmix"):
        learner = learner_of(name, share="all")
        networks = learner_of(ow_qmix, share="all").networks
        made[name] = learner
        if name == "wqmix":
            central = networks["central_mixer"]
            theirs = lambda params, q, reads, net=central: net.apply(params, q, reads.state)  # noqa: E731
            mixer = dataclasses.replace(learner.networks["central_mixer"], init=central.init, apply=theirs)
            made[name] = learner.with_network("central_mixer", mixer)
    assert module.Config().weighting == "optimistic"
    env = ENVS["two_step"][0]()
    losses = {}
    for name, learner in made.items():
        run = dataclasses.replace(program("qmix", (), env, "all"), algorithm=learner.assemble())
        hparams = {key: jnp.float32(value) for key, value in run.algorithm.hparams.items()}

        def train(seed, clock, run=run, hparams=hparams):
            state, clock = run.prefill(run.init(seed), hparams, clock)
            return run.chunk(2, state, hparams, clock)[0][1]["update"]

        losses[name] = jax.jit(train, compiler_options=FAST)(jnp.int32(0), start_clock())
    for key in ("loss/td", "loss/central", "q/target_mean"):
        np.testing.assert_allclose(losses["wqmix"][key], losses["ow_qmix"][key], rtol=1e-5, atol=1e-7)
