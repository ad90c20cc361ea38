"""The seams that modifiers use: every additive part is called, keeps its state, and composes in any order."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from combinations import takes_choices

from jaxshare import registry
from jaxshare.learners.learner import offers
from jaxshare.learners.records import Optimizer, Source, Targets
from jaxshare.models.base import Network
from jaxshare.modifiers import a_pps
from jaxshare.modifiers.differ import modifier as differ
from jaxshare.modifiers.periodic.sharing import decided
from jaxshare.run.build import prepare
from jaxshare.training import replay, rollout
from jaxshare.training.counting import start_clock
from jaxshare.types import Box, Context, Discrete, EnvSpec, RefusedError


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return prepare(tiny.settings(tmp_path_factory.mktemp("parts") / "run", *tiny.FULL))


def parts_of(program, name="vdn"):
    module = registry.get("algo", name)
    return module.make(module.Config(hidden_dim=8), program.env.spec)


def one_update(program, algorithm):
    """(learner before, learner after, metrics) of one update on a fresh collect."""
    hparams = {name: jnp.float32(value) for name, value in algorithm.hparams.items()}
    ctx = Context(hparams=hparams, clock=start_clock(), env_steps=jnp.int32(0), total_env_steps=64)
    learner = algorithm.init(jax.random.key(0))
    played = rollout.episodes(rollout.Players(program.env, algorithm, learner.params, ctx, True), jax.random.key(1), 4)
    ring = replay.add(replay.init(played.episode, 4, "float32"), played.episode, start_clock())
    batch = replay.gather(ring, jnp.arange(4))
    return learner, *jax.jit(algorithm.update)(learner, batch, ctx, jax.random.key(2))


def halve_rewards(view):
    batch, stats = view.batch, view.stats
    return batch.replace(reward=batch.reward / 2), {**stats, "seen": stats["seen"] + batch.mask.sum()}


@pytest.mark.slow
def test_relabel_changes_the_batch_and_keeps_statistics(program):
    parts = parts_of(program).extend(relabel=halve_rewards, stats={"seen": jnp.float32(0)})
    _, learner, metrics = one_update(program, parts.assemble())
    _, _, plain = one_update(program, parts_of(program).assemble())
    assert learner.stats["seen"] == 8  # four episodes of two steps
    assert metrics["loss/td"] != plain["loss/td"]


def test_after_update_sees_the_batch_and_the_stepped_parameters(program):
    def zero_heads(view):
        learner, batch = view.state, view.batch
        agent = {**learner.params["agent"], "head": jax.tree.map(jnp.zeros_like, learner.params["agent"]["head"])}
        return learner.replace(params={**learner.params, "agent": agent}), {"hook/steps": batch.mask.sum()}

    _, learner, metrics = one_update(program, parts_of(program).extend(after_update=zero_heads).assemble())
    assert metrics["hook/steps"] == 8
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(learner.params["agent"]["head"]))


def test_parts_draw_from_keys_of_their_own(program):
    drawn = []

    def aux(view):
        drawn.append(view.key)
        return 0.0 * view.values.q_taken.sum(), {f"aux/{len(drawn)}": jax.random.uniform(view.key)}

    parts = parts_of(program).extend(aux=aux).extend(aux=aux)
    parts = parts.extend(after_update=lambda view: (view.state, {"aux/hook": jax.random.uniform(view.key)}))
    _, _, metrics = one_update(program, parts.assemble())
    found = [float(value) for name, value in metrics.items() if name.startswith("aux/")]
    assert len(found) == len(set(found)) == 3


@pytest.mark.parametrize("differ_first", [pytest.param(True, marks=pytest.mark.slow), False])
def test_modules_train_before_and_after_a_modifier_that_sets_groups(program, differ_first):
    def extra(view):
        loss = jnp.square(view.params["probe"]["w"] - 1.0).sum()
        return loss, {"loss/probe": loss}

    def add(parts):
        probe = Network(init=lambda key: {"w": jnp.zeros(3)}, apply=lambda params: params["w"])
        return parts.extend(networks={"probe": probe}, aux=extra)

    parts = parts_of(program, "qmix")
    parts = add(differ.make(differ.Config(), parts)) if differ_first else differ.make(differ.Config(), add(parts))
    before, after, metrics = one_update(program, parts.assemble())
    assert np.all(after.params["probe"]["w"] > before.params["probe"]["w"])
    assert metrics["grad_norm/modules"] > 0


def test_two_owners_of_a_part_are_refused_by_name(program):
    parts = differ.make(differ.Config(), parts_of(program))
    with pytest.raises(RefusedError, match=r"differ and other both replace the loss of vdn"):
        parts.claim("other", loss=main_loss(parts))


def main_loss(parts):
    return parts.steps[parts.main].loss


def optimistic_loss(view):
    """That of an algorithm written here: errors below count a tenth (as OW-QMIX has it)."""
    values, batch = view.values, view.batch
    delta = values.team_reward + values.discount * values.next_q_tot - values.q_tot
    loss = (jnp.where(delta > 0, 1.0, 0.1) * jnp.square(delta) * batch.mask).sum()
    return loss, {"loss/optimistic": loss}


def ow_qmix(program, **more):
    return dataclasses.replace(parts_of(program, "qmix"), name="ow_qmix", **more).with_own_loss(optimistic_loss)


def test_an_algorithms_own_loss_is_not_replaced_without_a_word(program):
    with pytest.raises(
        RefusedError, match=r"modifiers=\[differ\] would replace the loss of algo=ow_qmix.*modifiers=\[\]"
    ):
        differ.make(differ.Config(), ow_qmix(program))
    differ.make(differ.Config(), ow_qmix(program, yields=("loss",)))  # it says that it may be


def test_a_modifier_that_keeps_the_loss_within_its_own_may_claim_it(program):
    parts = ow_qmix(program)
    doubled = parts.claim("double", wraps=("loss",), loss=lambda view: (2 * main_loss(parts)(view)[0], {}))
    assert doubled.owners == {"loss": "double"}
    with pytest.raises(RefusedError, match=r"double and differ both replace the loss of ow_qmix"):
        differ.make(differ.Config(), doubled)


@pytest.mark.parametrize("name", ["maddpg", "facmac", "iac"])
def test_own_losses_of_all_families_are_kept(name):
    module = registry.get("algo", name)
    spec = EnvSpec("fake", 2, 3, 2, Discrete(3), 5, (0, 0), ("unit",))
    parts = module.make(module.Config(hidden_dim=4), spec)
    assert parts.claim("other", loss=main_loss(parts)).owners == {"loss": "other"}  # the family's
    own = dataclasses.replace(parts, name="mine").with_own_loss(optimistic_loss)
    with pytest.raises(RefusedError, match=r"modifiers=\[other\] would replace the loss of algo=mine"):
        own.claim("other", loss=main_loss(parts))


def test_sample_is_a_part(program):
    first = lambda key, stored, capacity, batch_size, ctx: jnp.arange(batch_size)  # noqa: E731
    algorithm = dataclasses.replace(parts_of(program), source=Source(sample=first)).assemble()
    assert algorithm.sample(jax.random.key(0), jnp.int32(8), 8, 3, None).tolist() == [0, 1, 2]


OFFERS = {
    "qmix": {"utilities", "mixer", "packed"},
    "iql": {"utilities", "packed"},
    "pqn": {"utilities", "mixer"},
    "maddpg": {"utilities", "policy", "action_critics", "packed"},
    "facmac": {"utilities", "mixer", "policy", "action_critics", "packed"},
    "seac": {"policy", "personal_networks", "own_loss"},
    "icq": {"policy", "own_loss", "packed"},
    "sit": {"policy", "own_loss"},
}


@pytest.mark.parametrize("name", OFFERS)
def test_what_learners_offer(name):
    module = registry.get("algo", name)
    spec = EnvSpec("fake", 2, 3, 2, Discrete(3), 5, (0, 0), ("unit",))
    config = module.Config(hidden_dim=4)
    assert offers(module.make(config, spec)) == OFFERS[name]
    apart = dataclasses.replace(config, share_params="none")
    assert offers(module.make(apart, spec)) == OFFERS[name] | {"personal_networks"}


def test_a_network_that_says_that_it_is_nobodys_is_not_taken_for_the_agents():
    """SIT's ensemble has five members, and there are five agents."""
    module = registry.get("algo", "sit")
    spec = EnvSpec("fake", 5, 3, 2, Discrete(3), 5, (0,) * 5, ("unit",))
    config = module.Config(hidden_dim=4, ensemble=5, share_params="none")
    parts = module.make(config, spec)
    sizes = {x.shape[0] for x in jax.tree.leaves(parts.networks["reward"].init(jax.random.key(0)))}
    assert sizes == {5}
    a_pps.make(a_pps.Config(), parts)
    assert set(decided("a_pps", a_pps.Config(), parts).tensors) == {"actor", "critic"}

    # of one that does not say so it cannot be told
    reward = dataclasses.replace(parts.networks["reward"], param_sets=None)
    with pytest.raises(RefusedError, match=r"whether agents have reward of algo=sit for themselves"):
        a_pps.make(a_pps.Config(), parts.with_network("reward", reward))


# ---------------------------------------------------------------------------- what is told before anything is compiled


def probe():
    return Network(init=lambda key: {"w": jnp.zeros(3)}, apply=lambda params: params["w"])


@pytest.mark.parametrize("name", registry.modules("algo"))
def test_a_network_that_is_added_is_trained_by_every_learner(name):
    module = registry.get("algo", name)
    action = Discrete(3) if takes_choices(name) else Box(1, (-1.0,), (1.0,))
    spec = EnvSpec("fake", 2, 3, 2, action, 5, (0, 0), ("unit",))
    settings = {"capacity": 4} if "capacity" in module.Config.__dataclass_fields__ else {}
    learner = module.make(module.Config(**settings), spec).extend(networks={"probe": probe()})
    state = jax.eval_shape(learner.assemble().init, jax.random.key(0))
    trained = {jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state.opt_state)}
    assert any("'probe'" in path for path in trained)


def with_step(learner, **parts):
    return learner.with_main(**parts)


def another_phase(learner, **parts):
    return dataclasses.replace(learner, phases=(*learner.phases, dataclasses.replace(learner.phases[0], **parts)))


def first_phase(learner, **parts):
    return dataclasses.replace(learner, phases=(dataclasses.replace(learner.phases[0], **parts),))


BROKEN = {
    "old hooks": (
        lambda it: it.extend(relabel=lambda batch, stats, ctx: (batch, stats)),
        r"relabel.*must take one View",
    ),
    "old loss": (
        lambda it: with_step(it, loss=lambda values, batch, ctx, key: 0),
        r"loss of its step joint.*one View",
    ),
    "old play": (
        lambda it: it.extend(before_update=lambda view: view.state),
        r"before_update.*a function that plays",
    ),
    "left out": (
        lambda it: with_step(it, rest="", optimizer_groups={"a": ("agent",)}),
        r"no step trains its network mixer",
    ),
    "same step": (another_phase, r"two phases have a step joint"),
    "no draw": (
        lambda it: another_phase(it, steps={"second": dataclasses.replace(it.steps["joint"], rest="")}),
        r"each of several phases must draw",
    ),
    "epochs": (lambda it: first_phase(it, epochs=4), r"on policy only"),
    "schedule": (
        lambda it: dataclasses.replace(it, schedule=lambda view: view.ctx),
        r"schedule is for learners on policy",
    ),
    "same name": (lambda it: it.extend(networks={"mixer": probe()}), r"has mixer already"),
    "no such part": (lambda it: it.extend(name="x"), r"nothing is added to this part"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_broken_is_told_in_words(program, what):
    damage, words = BROKEN[what]
    with pytest.raises(RefusedError, match=words):
        damage(parts_of(program, "qmix")).assemble()


@pytest.mark.parametrize(
    ("record", "settings"),
    [
        (Optimizer, {"kind": "sgd"}),
        (Optimizer, {"clip": "none"}),
        (Targets, {"update": "sotf"}),
        (Source, {"experience": "x"}),
    ],
)
def test_a_misspelt_kind_is_an_error(record, settings):
    with pytest.raises(ValueError, match="is none of"):
        record(**settings)


@pytest.mark.parametrize("name", ["bc", "icq", "macql", "mabcq", "sit"])
def test_offline_losses_are_their_own(name):
    module = registry.get("algo", name)
    spec = EnvSpec("fake", 2, 3, 2, Discrete(3), 5, (0, 0), ("unit",))
    learner = module.make(module.Config(), spec)
    with pytest.raises(RefusedError, match=rf"modifiers=\[other\] would replace the loss of algo={name}"):
        learner.claim("other", loss=optimistic_loss)
