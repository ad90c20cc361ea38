"""What a run writes down, and that its counters count what they say."""

import contextlib
import dataclasses
import io
import json
import math
import re
import struct

import jax
import jax.numpy as jnp
import pytest
import tiny
from tensorboardX.proto.event_pb2 import Event

from jaxshare.results import curves
from jaxshare.run import build, metrics
from jaxshare.training.counting import start_clock
from jaxshare.training.program import Program
from jaxshare.types import LearnerState

FIRST = ["seed", "env_steps", "updates", "wall_s"]
SWEPT = (*tiny.FULL, "seeds=2", "sweep.lr=[1e-3,1e-2]")
RECALL = ("env=matrix", "env.game=recall", "env.delay=3", "algo=vdn", "algo.recurrent=false", *tiny.SIZES)
FINISHED = (*RECALL, "total_env_steps=40", "eval.every=64")


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """Two seeds times two sweep points, with TensorBoard; compiled as test_algorithms compiles the same program."""
    with tiny.optimised():
        return tiny.train(tmp_path_factory.mktemp("logged") / "run", *SWEPT, "logger=[tensorboard]")


@pytest.fixture(scope="module")
def records(run_dir):
    return tiny.records(run_dir, but=())


def streams(records):
    found = {}
    for record in records:
        found.setdefault((record["seed"], record["sweep.lr"]), []).append(record)
    return found


def test_records_are_flat_and_begin_with_the_counters(records):
    for record in records:
        keys = [key for key in record if not key.startswith("sweep.")]
        assert keys[:4] == FIRST
        assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*(/[a-z_0-9]+)+", key) for key in keys[4:]), keys
        assert all(isinstance(value, int | float) and math.isfinite(value) for value in record.values())


def test_one_stream_per_seed_and_sweep_point(records):
    found = streams(records)
    assert set(found) == {(seed, lr) for seed in (0, 1) for lr in (1e-3, 1e-2)}
    for stream in found.values():
        training = [(r["env_steps"], r["updates"]) for r in stream if "loss/td" in r]
        assert training == [(24, 8), (40, 16), (56, 24), (64, 28)]
        assert [r["env_steps"] for r in stream if "eval/return" in r] == [8, 24, 40, 56, 64]
        assert [set(r) for r in stream if "loss/td" in r] == [set(stream[1])] * 4


def test_training_records_hold_loss_values_and_returns(records):
    record = next(r for r in records if "loss/td" in r)
    wanted = {
        "loss/td", "loss/individual", "td_error/abs_mean", "q/taken_mean", "q/tot_mean", "q/target_mean",
        "grad_norm/agent", "grad_norm/mixer", "train/return", "train/length",
    }  # fmt: skip
    assert wanted <= set(record)
    assert record["train/length"] == 2.0


def test_differ_is_logged_per_agent_and_per_type(records):
    record = next(r for r in records if "loss/td" in r)
    each = {
        f"differ/{name}/{who}" for name in ("reward", "td_spread", "share", "rate", "ess")
        for who in ("agent_0", "agent_1", "type_player")
    }  # fmt: skip
    team = {"eta", "beta", "weight_mean", "distinct", "clamped", "reward", "td_spread", "ess"}
    assert {key for key in record if key.startswith("differ/")} == each | {f"differ/{name}" for name in team}
    assert record["differ/share/agent_0"] + record["differ/share/agent_1"] == pytest.approx(1.0, abs=1e-5)


def test_schedules_read_environment_steps(records):
    """paper: DIFFER's eta goes from 0.8 to 1 over 0.6 of the run; updates see the steps after their collect."""
    stream = streams(records)[0, 1e-3]
    for record, steps in zip([r for r in stream if "loss/td" in r], [(16, 24), (32, 40), (48, 56), (64,)], strict=True):
        eta = [0.8 + 0.2 * min(step / (0.6 * 64), 1.0) for step in steps]
        beta = [0.6 + 0.4 * min(step / 64, 1.0) for step in steps]
        assert record["differ/eta"] == pytest.approx(sum(eta) / len(eta), abs=1e-5)
        assert record["differ/beta"] == pytest.approx(sum(beta) / len(beta), abs=1e-5)


def test_evaluations_of_all_runs_have_the_same_metrics(records):
    names = {frozenset(r) for r in records if "eval/return" in r}
    assert names == {frozenset({*FIRST, "sweep.lr", "eval/return", "eval/length"})}


def test_evaluations_play_the_same_episodes_for_every_seed():
    """recall's return depends on the cues drawn: two seeds with the same parameters must get the same."""
    program = build.prepare(tiny.settings("unused", *RECALL))
    hparams = {name: jnp.float32(value) for name, value in program.algorithm.hparams.items()}
    evaluate = jax.jit(lambda state, clock: program.evaluate(state, hparams, clock)[0])
    state, clock = jax.jit(program.init)(jnp.int32(0)), start_clock()
    later = clock._replace(iteration=jnp.int32(7), episodes=jnp.int32(99))
    found = evaluate(state, clock)
    assert evaluate(state.replace(seed=jnp.int32(5)), later) == found


# ------------------------------------------------------------------------------------------------------------- files


def test_tensorboard_has_one_folder_per_run(run_dir, records):
    folders = sorted((run_dir / "tensorboard").iterdir())
    assert len(folders) == 4
    for folder in folders:
        (file,) = folder.glob("events.out.tfevents.*")
        seen = scalars(file)
        seed, lr = re.fullmatch(r"seed_(\d)_lr_([0-9.]+)", folder.name).groups()
        stream = streams(records)[int(seed), float(lr)]
        for name in ("loss/td", "eval/return", "differ/ess/agent_1"):
            assert seen[name] == [(r["env_steps"], pytest.approx(r[name], rel=1e-5)) for r in stream if name in r]


def scalars(file):
    """{name: [(step, value)]} of an event file: records of length, checksum, bytes, checksum."""
    found, data = {}, file.read_bytes()
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        event = Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]
        for value in event.summary.value:
            found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def test_the_picture_and_the_settings_are_there(run_dir):
    assert (run_dir / "learning_curve.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert (run_dir / "config.yaml").exists()
    assert {"jax", "jaxshare", "python"} <= set(json.loads((run_dir / "versions.json").read_text()))


def test_first_and_last_are_taken_from_the_evaluations(run_dir, records):
    *rows, mean = curves.first_and_last(metrics.records(run_dir))
    assert [row["run"] for row in rows] == [f"seed {s}, lr={lr:g}" for lr in (1e-3, 1e-2) for s in (0, 1)]
    for row, stream in zip(rows, streams(records).values(), strict=True):
        returns = [r["eval/return"] for r in stream if "eval/return" in r]
        assert (row["return first"], row["return last"]) == (returns[0], returns[-1])
        assert row["env_steps"] == 64
    assert mean["return last"] == pytest.approx(sum(row["return last"] for row in rows) / 4)


def test_the_table_and_the_picture_are_shown_at_the_end(finished):
    _, shown = finished
    wanted = ("compiling", "steps:", "return", "seed 0", "mean", "learning_curve.png")
    assert [word for word in wanted if word not in shown] == []


# ---------------------------------------------------------------------------------------------------------- counters


@pytest.mark.parametrize("num_envs", [1, 4])
@pytest.mark.parametrize(
    ("ratio", "updates"),
    [(0.125, 3), pytest.param(1, 24, marks=pytest.mark.slow), (2, 48)],  # between the two others
)
def test_updates_per_episode_do_not_depend_on_the_number_of_environments(num_envs, ratio, updates):
    """24 episodes after the prefill of 4, with 4 decision steps each."""
    arguments = (*RECALL, f"num_envs={num_envs}", f"updates_per_episode={ratio}", "total_env_steps=1000")
    clock, state = advance(build.prepare(tiny.settings("unused", *arguments)), 24 // num_envs)
    assert (clock.episodes, clock.stored) == (28, 28)
    assert clock.updates == updates
    assert state.env_steps == 28 * 4


def test_a_learner_stands_still_after_the_end():
    """It has its steps after two iterations; the clock goes on for two more."""
    run = advancing(build.prepare(tiny.settings("unused", *FINISHED)), 2)
    clock, short = run(None, start_clock())
    clock, long = run(short, clock)
    assert clock.iteration == 1 + 4
    assert long.learner.params["updates"] == long.updates == 8
    tiny.assert_equal(short.learner, long.learner)


def advance(program, iterations):
    """Clock and state after the prefill and so many iterations of a learner that counts its updates."""
    return advancing(program, iterations)(None, start_clock())


def advancing(program, iterations):
    """(state, clock) -> (clock, state) after so many iterations of such a learner; it begins without a state."""
    nothing = LearnerState({"updates": jnp.int32(0)}, {}, {}, {})
    algorithm = dataclasses.replace(
        program.algorithm,
        init=lambda key: nothing,
        initial_carry=lambda batch: (),
        act=lambda params, carry, shown, ctx, key, explore: (carry, jnp.zeros(shown.alive.shape, jnp.int32), {}),
        update=lambda learner, batch, ctx, key: (counted(learner), {"loss/td": jnp.float32(0.0)}),
    )
    idle = Program(program.env, algorithm, program.run)

    @jax.jit
    def run(state, clock):
        begun = (state, clock) if state is not None else idle.prefill(idle.init(jnp.int32(0)), {}, clock)
        (state, _), clock = idle.chunk(iterations, begun[0], {}, begun[1])
        return clock, state

    return run


def counted(learner):
    return learner.replace(params={"updates": learner.params["updates"] + 1})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of 40 steps in chunks of 64, collects of 16: it is done in the middle of its only chunk."""
    run_dir = tmp_path_factory.mktemp("finished")
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        tiny.train(run_dir, *FINISHED)
    return run_dir, shown.getvalue()


def test_env_steps_are_valid_steps_and_stop_with_the_run(finished):
    """recall with a delay of 3 has 4 steps: 16 after the prefill, and 48 is the first sum that reaches 40."""
    run_dir, _ = finished
    clock, (state,) = tiny.restore(run_dir, *FINISHED)
    assert state.env_steps == 48
    assert [r["env_steps"] for r in tiny.records(run_dir)] == [16, 48, 48]
    assert clock.iteration == 1 + 4  # the chunk went on, the learner did not
    updated = tiny.records(run_dir)[1]
    assert updated["train/length"] == 4.0


@pytest.mark.slow  # the same of a learner that only counts is above
def test_updates_after_the_end_leave_no_trace(finished, tmp_path):
    """The same run in chunks of one iteration, which ends after two of them."""
    arguments = (*FINISHED, "eval.every=16")
    tiny.train(tmp_path, *arguments)
    (_, (short,)), (_, (long,)) = tiny.restore(tmp_path, *arguments), tiny.restore(finished[0], *FINISHED)
    assert short.env_steps == 48
    tiny.assert_equal(short.learner, long.learner)
