"""The code of CONTRIBUTING.md, used as a stranger would: files outside of the package, trained with each other."""

import dataclasses
import importlib.util
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import outside
import pytest
import tiny
from combinations import ENVS, FAST, program, small

import jaxshare
from jaxshare import registry
from jaxshare.learners.learner import offers
from jaxshare.training.counting import start_clock
from jaxshare.types import RefusedError

TEXT = (tiny.REPOSITORY / "CONTRIBUTING.md").read_text()


def block(heading):
    """The code of a section."""
    section = TEXT.partition(f"\n## {heading}")[2].partition("\n## ")[0]
    (code,) = re.findall(r"^```python\n(.*?)^```$", section, re.M | re.S)
    return code


def loaded(folder, name, code):
    """A module of this code in a file of its own."""
    path = folder / f"{name}.py"
    path.write_text(code)
    spec = importlib.util.spec_from_file_location(f"strangers_{name}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def entries(tmp_path):
    """The algorithm and the modifier by their names, and the module of the network."""
    jaxshare.register("algo", "my_algo", loaded(tmp_path, "my_algo", block("Add an algorithm")))
    jaxshare.register("modifiers", "my_modifier", loaded(tmp_path, "my_modifier", block("Add a modifier")))
    yield loaded(tmp_path, "novelty", block("Give it a network"))
    outside.forget()


def learner_of(algo, share="none"):
    module = registry.get("algo", algo)
    return module.make(small(module.Config, share_params=share), ENVS["two_step"][0]().spec)


def modified(name, learner, **settings):
    module = registry.get("modifiers", name)
    return module.make(small(module.Config, **settings), learner)


def trained(learner):
    """(state before, state after two iterations, metrics of the updates)."""
    made = dataclasses.replace(program("qmix", (), ENVS["two_step"][0](), "all"), algorithm=learner.assemble())
    hparams = {name: jnp.float32(value) for name, value in made.algorithm.hparams.items()}

    def train(seed, clock):
        first, clock = made.prefill(made.init(seed), hparams, clock)
        return first, made.chunk(2, first, hparams, clock)[0]

    first, (state, metrics) = jax.jit(train, compiler_options=FAST)(jnp.int32(0), start_clock())
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((state.learner, metrics["update"])))
    return first.learner, state.learner, metrics["update"]


def moved(first, last, name):
    pairs = zip(jax.tree.leaves(first.params[name]), jax.tree.leaves(last.params[name]), strict=True)
    return any(np.any(new != old) for new, old in pairs)


def test_the_algorithm_with_its_network_and_the_modifier_train(entries):
    learner = modified("my_modifier", entries.with_novelty(learner_of("my_algo", "all")), largest=0.5)
    first, last, metrics = trained(learner)
    assert all(moved(first, last, name) for name in ("agent", "mixer", "novelty"))
    assert {"loss/td", "loss/novelty", "q/taken_mean"} <= set(metrics)


def test_the_modifier_cuts_rewards(entries):
    """Rewards of the second step are 7 and more."""
    targets = {}
    for largest in (0.5, 100.0):
        learner = modified("my_modifier", learner_of("my_algo", "all"), largest=largest)
        targets[largest] = trained(learner)[2]["q/target_mean"]
    assert (targets[0.5] < targets[100.0]).all()
    assert targets[0.5].mean() < targets[100.0].mean() - 1


def test_refusals_are_in_words(entries):
    assert {"mixer", "own_loss", "personal_networks"} <= offers(learner_of("my_algo"))
    with pytest.raises(RefusedError, match=r"my_modifier.*algo=iql: it has no mixer"):
        modified("my_modifier", learner_of("iql"))
    with pytest.raises(RefusedError, match=r"modifiers=\[differ\] would replace the loss of algo=my_algo"):
        modified("differ", learner_of("my_algo"))
    modified("differ", dataclasses.replace(learner_of("my_algo"), yields=("loss",)))


def test_averaging_takes_every_personal_network(entries):
    learner = modified("a_pps", entries.with_novelty(learner_of("my_algo")))
    (average,) = learner.after_update
    assert set(average.args[0].tensors) == {"agent", "novelty"}


def test_evaluations_show_what_the_network_says(entries):
    learner = entries.with_novelty(learner_of("my_algo", "all"))
    made = dataclasses.replace(program("qmix", (), ENVS["two_step"][0](), "all"), algorithm=learner.assemble())
    hparams = {name: jnp.float32(value) for name, value in made.algorithm.hparams.items()}

    def look(seed, clock):
        state = made.init(seed)
        episode = made.play(state, hparams, clock, episodes=3).episode
        return made.algorithm.inspect(state.learner, episode, made.context(state, hparams, clock)), episode.reward

    columns, reward = jax.jit(look, compiler_options=FAST)(jnp.int32(0), start_clock())
    assert columns["novelty"].shape == reward.shape


def test_every_block_of_code_is_run():
    blocks = re.findall(r"^```python\n", TEXT, re.M)
    assert len(blocks) == 4  # three here, and the environment in tests/envs/test_grid_game.py
