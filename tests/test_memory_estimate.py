"""What a run is expected to take: all of it is counted, and what does not fit is refused with a remedy that works."""

import jax
import jax.numpy as jnp
import pytest
import tiny

from jaxshare.run import build, memory, parallel
from jaxshare.training import replay
from jaxshare.training.counting import start_clock
from jaxshare.types import RefusedError

GB = 10**9


def needs(*arguments, runs=1):
    settings = tiny.settings("unused", "env=matrix", *arguments)
    program = build.prepare(settings)
    return program, parallel.layout(settings.run.parallel, runs, pure=True)


@pytest.mark.parametrize("algo", ["qmix", "ippo", "ia2c"])
def test_the_whole_state_is_counted_to_the_byte(algo):
    program, layout = needs(f"algo={algo}", "replay.capacity=128")
    estimate = memory.needs(program, layout)
    state = jax.eval_shape(program.init, jnp.int32(0))
    counters = replay.num_bytes((state.seed, state.env_steps, state.updates))
    assert estimate.replays + estimate.learners == replay.num_bytes(state) - counters


def test_parameters_and_optimisers_count():
    small, large = (
        memory.needs(*needs("algo=qmix", f"algo.hidden_dim={size}", "replay.capacity=64")) for size in (64, 2048)
    )
    assert large.learners > 300_000_000 > 1000 * small.learners / 10
    assert large.updates > 2 * large.learners / 3  # gradients, as large as parameters


@pytest.mark.parametrize("algo", ["iql", "ippo"])
def test_evaluation_episodes_count(algo):
    """As many as are played at all: those of one round are kept until the last is over."""
    few, many = (memory.needs(*needs(f"algo={algo}", f"eval.episodes={n}", "eval.num_envs=8")) for n in (32, 320))
    assert many.evaluation == 10 * few.evaluation > 0
    program, _ = needs(f"algo={algo}")
    state = jax.eval_shape(program.init, jnp.int32(0))
    hparams = {name: jnp.float32(value) for name, value in program.algorithm.hparams.items()}
    played = jax.eval_shape(lambda s: program.play(s, hparams, start_clock(), 32).episode, state)
    assert few.evaluation == pytest.approx(replay.num_bytes(played), rel=0.35)


def test_runs_of_one_device_are_counted_together():
    one = memory.needs(*needs("algo=vdn", "parallel.devices=1"))
    four = memory.needs(*needs("algo=vdn", "parallel.devices=1", "parallel.strategy=map", "seeds=4", runs=4))
    assert four.replays == 4 * one.replays
    assert four.learners == 4 * one.learners
    assert four.updates == one.updates  # one after the other


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["algo=vdn", "replay.capacity=100000000"], ["replay.capacity=100000000", "Use replay.capacity=", "bfloat16"]),
        (["algo=vdn", "algo.hidden_dim=16384"], ["parameters and optimisers", "algo.hidden_dim"]),
        (["algo=vdn", "eval.episodes=100000000"], ["eval.episodes=100000000", "fewer eval.episodes"]),
        (
            ["algo=ippo", "num_envs=65536", "algo.segment_length=1000", "replay.capacity=65536"],
            ["num_envs=65536", "smaller num_envs"],
        ),
    ],
)
def test_what_takes_most_is_named(monkeypatch, arguments, words):
    monkeypatch.setattr(parallel, "available_bytes", lambda: GB)
    program, layout = needs(*arguments)
    with pytest.raises(RefusedError) as refusal:
        memory.check_memory(program, layout)
    assert [word for word in words if word not in str(refusal.value)] == [], refusal.value
    assert "but 1.0 GB are free" in str(refusal.value)


def test_the_capacity_that_is_named_fits(monkeypatch):
    monkeypatch.setattr(parallel, "available_bytes", lambda: GB)
    with pytest.raises(RefusedError) as refusal:
        memory.check_memory(*needs("algo=vdn", "replay.capacity=100000000"))
    capacity = str(refusal.value).split("Use replay.capacity=")[1].split(",")[0]
    assert memory.check_memory(*needs("algo=vdn", f"replay.capacity={capacity}")) <= 0.9 * GB
