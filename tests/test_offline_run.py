"""Learning from a data set by the command: without playing, exactly resumable, and evaluated without the data set."""

import dataclasses
import json
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import yaml

from jaxshare.algos.sit import algorithm as sit
from jaxshare.commands import collect, evaluate, train
from jaxshare.data import card, own, records
from jaxshare.run import build, memory, offline, parallel
from jaxshare.run.folder import read_config
from jaxshare.training import replay, rollout
from jaxshare.training.counting import start_clock
from jaxshare.training.program import Program
from jaxshare.types import Context, Episode, RefusedError

EPISODES = 64
RESUME = "resume=auto"
GAME = ("env=matrix", "env.game=two_step")
# three chunks of ten updates, an evaluation after each and at the start
SIZES = ("total_updates=30", "batch_size=16", "eval.every=10", "eval.episodes=4", "checkpoint.every=10")
SIZES += ("algo.hidden_dim=8", "progress=false", "seed=1")  # with which all of them begin at 7
LEARNERS = {
    "bc": ("algo=bc", "algo.recurrent=false", "algo.hparams.lr=0.02"),
    "qmix": ("algo=qmix", "algo.embed_dim=4", "algo.hypernet_dim=4", "algo.target_update_period=3",
             "algo.recurrent=false", "algo.hparams.lr=0.02"),
    "sit": ("algo=sit", "algo.stage1_updates=15", "algo.ensemble=2", "algo.reward_dim=4", "algo.attention_dim=4",
            "algo.critic_dim=4", "algo.target_update_period=4", "algo.hparams.lr=0.02", "algo.hparams.reward_lr=0.05",
            "algo.hparams.min_ess=16", "algo.hparams.beta=100"),  # the critics have learned nothing to filter by
}  # fmt: skip


def mostly(action, params, carry, timestep, ctx, key, explore):
    """Acts so nine times in ten, else at random."""
    first, second = jax.random.split(key)
    shape = timestep.alive.shape
    return (
        carry,
        jnp.where(jax.random.bernoulli(first, 0.8, shape), action, jax.random.bernoulli(second, 0.5, shape) + 0),
        {},
    )


def written(path, *arguments, episodes=EPISODES):
    """A data set of teams that mostly take their second actions, which in this game pay 8."""
    program = build.prepare(tiny.settings("unused", "algo=vdn", *arguments))
    algorithm = dataclasses.replace(
        program.algorithm, initial_carry=lambda batch: (), act=lambda *args: mostly(1, *args)
    )
    ctx = Context(hparams={}, clock=start_clock(), env_steps=jnp.int32(0))
    players = rollout.Players(program.env, algorithm, {}, ctx, explore=True)
    play = jax.jit(lambda key: rollout.episodes(players, key, episodes).episode)
    played = jax.tree.map(np.asarray, play(jax.random.key(0)))
    return own.save(records.from_rollout(played, card=card.card_of(program.env.spec)), path)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return written(tmp_path_factory.mktemp("sets") / "two.jds", *GAME)


@pytest.fixture
def refused(monkeypatch, capsys):
    """Run the command in this process; its one message."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["jaxshare-train", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            train.main()
        assert stopped.value.code == 1
        message = capsys.readouterr().err
        assert message.startswith("error: ")
        assert len(message.strip().splitlines()) == 1
        return message.removeprefix("error: ")

    return run


def arguments_of(learner, data):
    return (*LEARNERS[learner], *GAME, *SIZES, f"data={data}")


def restored(run_dir, *arguments):
    """(clock, states) of the newest checkpoint, by what the run directory says of its settings."""
    found = yaml.safe_load((run_dir / "config.yaml").read_text())["algo"]
    more = [f"algo.capacity={found['capacity']}"] if "capacity" in found else []
    return tiny.restore(run_dir, *arguments, *more)


def evaluations(run_dir):
    return {r["updates"]: r["eval/return"] for r in tiny.records(run_dir) if "eval/return" in r}


slow = pytest.mark.slow


@pytest.fixture(scope="module", params=["bc", pytest.param("qmix", marks=slow), pytest.param("sit", marks=slow)])
def whole(request, data, tmp_path_factory):
    """(name of the learner, a run of it without interruption)."""
    run_dir = tmp_path_factory.mktemp(request.param) / "run"
    return request.param, tiny.train(run_dir, *arguments_of(request.param, data))


# ------------------------------------------------------------------------------------------------------------- learning


def test_it_learns_and_never_plays(whole, data):
    learner, run_dir = whole
    clock, (state,) = restored(run_dir, *arguments_of(learner, data))
    assert (clock.updates, clock.iteration, clock.episodes, clock.stored) == (30, 30, 0, 0)
    assert (state.updates, state.env_steps, state.replay, state.streams) == (30, 0, None, None)
    found = evaluations(run_dir)
    assert list(found) == [0, 10, 20, 30]
    assert (found[0], found[30]) == (7.0, 8.0)
    assert not [name for r in tiny.records(run_dir) for name in r if name.startswith("train/")]
    if learner == "sit":
        stages = {r["updates"]: r["sit/stage"] for r in tiny.records(run_dir) if "sit/stage" in r}
        assert (stages[10], stages[20], stages[30]) == (1, 2, 3)  # 2: half of the chunk was in either stage


@pytest.mark.slow
@pytest.mark.parametrize("chunks", [1, 2])
def test_stopped_and_resumed_it_is_the_same_run(whole, data, tmp_path, chunks):
    """SIT stops in its first stage, or in its last one."""
    learner, run_dir = whole
    arguments = arguments_of(learner, data)
    tiny.train(tmp_path, *arguments, max_chunks=chunks)
    clock, (state,) = restored(tmp_path, *arguments)
    assert clock.updates == 10 * chunks
    if learner == "sit":
        assert state.learner.stats["sit"]["reward"].any() == (chunks == 2)
    tiny.train(tmp_path, *arguments, RESUME)
    tiny.assert_equal(restored(tmp_path, *arguments), restored(run_dir, *arguments))
    assert tiny.records(tmp_path) == tiny.records(run_dir)


def test_it_is_evaluated_without_its_data_set(whole, data, tmp_path):
    run_dir = whole[1]
    moved = shutil.copytree(run_dir, tmp_path / "run")
    config = moved / "config.yaml"
    config.write_text(config.read_text().replace(str(data), str(tmp_path / "gone.jds")))
    assert str(data) not in config.read_text()
    found = evaluate.evaluate(evaluate.Config(run_dir=str(moved), episodes=8))
    assert found["mean"]["return"] == 8.0
    assert json.loads((moved / "evaluation.json").read_text())["episodes"] == 8


@pytest.mark.slow
def test_seeds_learn_side_by_side_from_one_data_set(data, tmp_path):
    arguments = arguments_of("bc", data)
    _, states = restored(tiny.train(tmp_path / "both", *arguments, "seeds=2"), *arguments, "seeds=2")
    _, (alone,) = restored(tiny.train(tmp_path / "alone", *arguments, "seed=2"), *arguments, "seed=2")
    tiny.assert_close(states[1], alone)


@pytest.mark.slow
def test_runs_from_a_data_set_are_pools_as_well(data, tmp_path):
    """Of a learner whose agents act by two networks; its checkpoints are told apart by their updates."""
    arguments = ("algo=mabcq", *GAME, *SIZES, "checkpoint.keep=9", "algo.hparams.lr=0.02", f"data={data}")
    run_dir = tiny.train(tmp_path / "run", *arguments)
    collect.collect(
        collect.Config(run_dir=str(run_dir), out=str(tmp_path / "best.jds"), composition="ee", episodes=4, epsilon=0.0)
    )
    pools, found = own.open(tmp_path / "best.jds").card["pools"], own.load(tmp_path / "best.jds")
    assert pools["policies"] == [f"seed 1, {updates} updates" for updates in (0, 10, 20, 30)]
    assert dict(zip((0, 10, 20, 30), pools["returns"], strict=True)) == evaluations(run_dir)
    same = (found.policy == found.policy[:, :1]).all(1)  # teams of one checkpoint
    assert same.any()
    np.testing.assert_array_equal(records.returns(found)[same], np.array(pools["returns"])[found.policy[same, 0]])


# ------------------------------------------------------------------------------------------------------ SIT's capacity


@pytest.mark.slow
def test_the_run_directory_holds_how_many_episodes_sit_has_tables_for(refused, data, tmp_path):
    """So that a run, even one that is only begun, is read without its data set; another one is noticed."""
    arguments = arguments_of("sit", data)
    assert tiny.settings(tmp_path, *arguments).algo.capacity == 0
    run_dir = tiny.train(tmp_path / "run", *arguments, max_chunks=0)
    assert read_config(run_dir)["algo"]["capacity"] == EPISODES
    _, (state,) = restored(run_dir, *arguments)
    assert state.learner.stats["sit"]["reward"].shape == (EPISODES, 2, 2)
    assert state.learner.stats["sit"]["priority"].shape == (EPISODES, 2)
    before, smaller = tiny.files(run_dir), written(tmp_path / "two.jds", *GAME, episodes=32)
    message = refused(*arguments, f"data={smaller}", f"run_dir={run_dir}", RESUME)
    assert "algo.capacity was 64, now 32" in message
    assert tiny.files(run_dir) == before


def test_settings_are_fitted_only_to_a_data_set(data):
    assert sit.fitted(sit.Config(), 7, 35_000).capacity == 7
    assert sit.fitted(sit.Config(capacity=9), 7, 35_000).capacity == 9
    with pytest.raises(RefusedError, match=r"algo.capacity=6 is less than the 7 episodes .*Use algo.capacity=7"):
        sit.fitted(sit.Config(capacity=6), 7, 35_000)
    chosen = tiny.settings("unused", *arguments_of("sit", data))
    assert offline.fitted(chosen).algo == dataclasses.replace(chosen.algo, capacity=EPISODES)
    for learner, arguments in (("sit", ("data=",)), ("bc", ()), ("qmix", ("data=",))):
        as_it_is = tiny.settings("unused", *arguments_of(learner, data), *arguments)
        assert offline.fitted(as_it_is) is as_it_is


# -------------------------------------------------------------------------------------------------- memory and padding


def padded(dataset, extra):
    """The same episodes, with more steps after their ends."""

    def longer(name, x):
        more = np.ones if name == "avail" else np.zeros
        return np.concatenate([x, more((x.shape[0], extra, *x.shape[2:]), x.dtype)], axis=1)

    fields = {name: longer(name, getattr(dataset.episodes, name)) for name in (*records.SLOTS, *records.STEPS)}
    extras = {name: longer(name, x) for name, x in dataset.episodes.extras.items()}
    return dataclasses.replace(dataset, episodes=Episode(**fields, extras=extras))


def test_a_data_set_is_cut_to_its_longest_episode(data):
    dataset = own.load(data)
    assert offline.cropped(dataset.episodes) is dataset.episodes
    mask = dataset.episodes.mask.copy()
    mask[::2, 1:] = False
    extras = {"note": np.arange(mask.size).reshape(mask.shape)}
    short = dataclasses.replace(dataset, episodes=dataset.episodes.replace(mask=mask, extras=extras))
    found = offline.cropped(padded(short, 3).episodes)
    tiny.assert_equal(found, short.episodes)
    ones = offline.cropped(short.take(slice(0, None, 2)).episodes)
    assert (ones.obs.shape[1], ones.action.shape[1], ones.extras["note"].shape[1]) == (2, 1, 1)
    assert all(x.flags.c_contiguous and x.base is None for x in jax.tree.leaves(ones))  # what was cut off is freed


@pytest.mark.slow
@pytest.mark.parametrize("learner", LEARNERS)
def test_what_is_cut_off_changes_nothing(learner, data):
    """Thirty updates, small ones, in an environment that might last five steps longer."""
    dataset, rates = own.load(data), ["algo.hparams.lr=1e-3", *["algo.hparams.reward_lr=1e-3"] * (learner == "sit")]
    chosen = offline.fitted(tiny.settings("unused", *arguments_of(learner, data), *rates))
    env = build.make_env(chosen)
    spec = dataclasses.replace(env.spec, episode_limit=7)
    algorithm = dataclasses.replace(build.make_algorithm(chosen, spec), experience="dataset")
    program = Program(dataclasses.replace(env, spec=spec), algorithm, chosen.run)
    hparams = {name: jnp.float32(value) for name, value in algorithm.hparams.items()}
    advance = jax.jit(
        lambda data: program.chunk_offline(30, program.init(jnp.int32(0)), hparams, (start_clock(), data))
    )
    (long, _), _ = advance(padded(dataset, 5).episodes)
    (short, _), _ = advance(dataset.episodes)
    tiny.assert_close(long.learner.params, short.learner.params)
    moved = jax.tree.map(lambda x, y: np.any(x != y), short.learner.params, program.init(jnp.int32(0)).learner.params)
    assert any(jax.tree.leaves(moved))


def test_memory_counts_every_copy_of_the_data_set_and_what_is_kept_of_it(data, monkeypatch):
    settings = offline.fitted(tiny.settings("unused", *arguments_of("sit", data), "seeds=4"))
    program, layout = build.lay_out(settings)
    devices = layout.mesh.size  # two, unless a test before this one has let a single run choose
    size = offline.num_bytes(settings, program)
    assert size == replay.num_bytes(own.load(data).episodes)
    without = memory.check_memory(program, layout)
    assert memory.check_memory(program, layout, size) - without == (1 + devices) * size  # as it was read, and on each
    larger = dataclasses.replace(settings, algo=dataclasses.replace(settings.algo, capacity=10 * EPISODES))
    more = memory.check_memory(build.prepare(larger), layout) - without
    tables = 9 * EPISODES * (2 * 2 * 2 + 2 + 2) * 4  # rewards, uncertainties; priorities; two leaves of a tree
    assert more == pytest.approx((4 + devices * memory.TABLE_COPIES) * tables, rel=0.1)  # of the runs; at work
    assert offline.num_bytes(settings, build.prepare(tiny.settings("unused", *tiny.PLAIN))) == 0
    monkeypatch.setattr(parallel, "available_bytes", lambda: without)
    with pytest.raises(
        RefusedError, match=rf"data={data}: .* 4 run.s. make of it .*batch_size, parallel.devices=1, few"
    ):
        memory.check_memory(program, layout, size)


# ------------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["env.game=climbing"], ["is not of the environment matrix/climbing", "matrix/two_step in the data"]),
        (["batch_size=65"], ["batch_size=65", "holds 64 episodes", "Use batch_size=64 at most"]),
        (["data=gone.jds"], ["gone.jds does not exist"]),
        (["data="], ["algo=bc learns from a data set", "data=sets/2s3z_low.jds"]),
        (["algo=iac"], ["algo=iac with these modifiers must play to learn", "such as qmix"]),
        (["algo=qmix", "modifiers=[pp_pps]", "algo.share_params=none"], ["algo=qmix with these modifiers must play"]),
        (["algo=sit", "algo.capacity=63"], ["algo.capacity=63 is less than the 64 episodes", "algo.capacity=64"]),
        (["algo=sit", "data=gone.jds"], ["gone.jds does not exist"]),
        (["algo=sit", "data="], ["algo=sit learns from a data set"]),
    ],
    ids=" ".join,
)
def test_what_cannot_be_learned_from_is_refused_before_anything_is_written(refused, data, tmp_path, arguments, told):
    target = tmp_path / "run"
    message = refused(*GAME, "algo=bc", f"data={data}", f"run_dir={target}", "batch_size=16", *arguments)
    assert [word for word in told if word not in message] == [], message
    assert not target.exists()


def cut(path):
    chunk = next(iter((path / "action" / "c").rglob("*")))
    while chunk.is_dir():
        chunk = next(chunk.iterdir())
    chunk.write_bytes(chunk.read_bytes()[:-3])


DAMAGE = {
    "a chunk is cut off": cut,
    "a field is gone": lambda path: shutil.rmtree(path / "mask"),
    "the card is cut off": lambda path: (path / own.CARD).write_text((path / own.CARD).read_text()[:50]),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_data_set_is_refused(refused, data, tmp_path, damage):
    bad = shutil.copytree(data, tmp_path / "bad.jds")
    damage(bad)
    target = tmp_path / "run"
    message = refused(*GAME, "algo=bc", f"data={bad}", f"run_dir={target}", "batch_size=16")
    assert f"{bad} is damaged" in message
    assert not target.exists()
