"""What people's environments do that the interface allows, or that must be refused in one sentence."""

import itertools
import re

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import troubled
from gymnasium import spaces

from jaxshare.envs import gymnasium as gymnasium_adapter
from jaxshare.envs import pettingzoo as pettingzoo_adapter
from jaxshare.envs.hosted import errors, layout, parallel, tuples
from jaxshare.envs.hosted import spaces as declared
from jaxshare.envs.hosted.slots import Slots
from jaxshare.types import RefusedError

BOX = troubled.BOX
MULTI = spaces.MultiDiscrete([2, 9, 2])


def team(name, **kwargs):
    """A hosted environment of tests/envs/troubled.py, without the bridge."""
    return parallel.Parallel(f"troubled:{name}", kwargs)


def rowers(name, **kwargs):
    return tuples.Tuples(registered(name), kwargs=kwargs)


def registered(name):
    if f"{name}-v0" not in gymnasium.registry:
        gymnasium.register(f"{name}-v0", f"troubled:{name}")
    return f"{name}-v0"


def episode(env, action=(1, 1), steps=20):
    """Everything that is shown until the end."""
    shown = [env.reset(0)]
    while len(shown) <= steps and not (shown[-1]["terminated"] or shown[-1]["truncated"]):
        shown.append(env.step(np.array(action)))
    return shown


def refusal(kind, name, settings=None, **kwargs):
    """What the user reads when an environment is made."""
    module, id = (pettingzoo_adapter, f"troubled:{name}") if kind == "zoo" else (gymnasium_adapter, registered(name))
    with pytest.raises(RefusedError) as error:
        module.make(module.Config(id=id, kwargs=kwargs, **(settings or {}))).host.close()
    assert "\n" not in str(error.value), "one sentence"
    assert "Remedy" not in str(error.value), "nothing is to be installed"
    return str(error.value)


def test_the_plain_ones_are_understood():
    shown = episode(team("Porters"))
    assert [step["truncated"] for step in shown] == [False] * 6 + [True]
    assert shown[6]["reward"] == [1, 1]
    shown = episode(rowers("Rowers"), steps=3)
    assert np.asarray(shown[3]["obs"]).tolist() == [[0, 3, 1], [1, 3, 1]]
    assert list(shown[3]["reward"]) == [1, 2]


# ------------------------------------------------------------------------------------------------- no observation


def test_a_last_step_without_observations_shows_the_one_before():
    last = episode(team("ShowsWhoIsLeft"))[-1]
    assert np.asarray(last["obs"]).tolist() == [[0, 5, 1], [1, 5, 1]]
    assert last["truncated"]
    assert all(last["alive"])
    assert last["avail"].all(), "the actions of what is shown again: a value is taken from there"
    assert last["reward"] == [1, 1]
    won = episode(team("WinsUnseen"))[-1]
    assert won["terminated"]
    assert won["avail"].any(1).all()
    assert np.isfinite(np.asarray(won["obs"])).all()


def test_an_agent_that_sees_nothing_waits():
    shown = episode(team("Blinks"))
    assert [step["obs"][1][1] for step in shown] == [0, 1, 1, 1, 4, 5, 6]
    for time, step in enumerate(shown):
        assert all(step["alive"])
        assert step["avail"][1].tolist() == ([True, False, False] if time in (2, 3) else [True] * 3)
        assert step["avail"][0].all()
    first = team("BlindAtFirst").reset(0)
    assert first["obs"][1].tolist() == [0, 0, 0]
    assert first["avail"][1].tolist() == [True, False, False]


def test_nothing_is_carried_into_the_next_episode():
    env = team("ShowsWhoIsLeft")
    episode(env)
    env.env.shown = lambda names: []
    env.reset(0)
    assert env.step(np.array([1, 1]))["obs"][1].tolist() == [1, 0, 1]


@pytest.mark.parametrize("raises", [True, False])
def test_a_state_of_those_who_are_left_keeps_its_size(raises):
    shown = episode(team("StateOfWhoIsLeft", raises=raises))
    assert [step["state"].tolist() for step in shown[-2:]] == [[0, 5, 1, 1, 5, 1]] * 2


# ---------------------------------------------------------------------------------------------- comings and goings


@pytest.mark.parametrize("name", ["Returns", "NeverPruned"])
def test_who_comes_back_is_alive_again(name):
    env = team(name)
    shown = episode(env)
    assert [step["alive"][1] for step in shown] == [True, True, False, False, True, True, True]
    assert [step["obs"][1].tolist() for step in shown[2:5]] == [[0, 0, 0], [0, 0, 0], [1, 4, 1]]
    assert shown[3]["avail"][1].tolist() == [True, False, False]
    assert shown[4]["avail"][1].all()
    assert [step["reward"][1] for step in shown[5:]] == [1, 1], "it acts, and is paid"
    assert shown[6]["truncated"]
    assert shown[6]["alive"] == [True, True]


def test_strangers_and_empty_episodes_are_refused():
    assert "agent porter_2 is in `agents`, but not in `possible_agents`" in refusal("zoo", "Stranger")
    assert "`agents` is empty after reset()" in refusal("zoo", "NobodyThere")


# -------------------------------------------------------------------------------------------------- what is shown


def test_everything_beside_a_mask_is_seen():
    env = team("WithGoal")
    assert env.describe()["obs_dim"] == 3 + 2 + 2
    shown = env.reset(0)
    assert shown["obs"][1].tolist() == [5, 6, 0, 1, 1, 0, 1]  # goal, load, observation, as Gymnasium orders keys
    assert shown["avail"].tolist() == [[True, True, False]] * 2
    assert "porter_0 has 3 actions, but its mask has 2 entries" in refusal("zoo", "WithGoal", mask=(1, 1))


CODED = [
    (MULTI, [0, 9, 0]),
    (MULTI, [0, -1, 0]),
    (MULTI, [0, 1.5, 0]),
    (MULTI, [0, 1]),
    (spaces.Discrete(4), 4),
    (spaces.Discrete(4), -1),
    (spaces.Discrete(4, start=3), 2),
    (spaces.Discrete(4), "2"),
    (spaces.MultiBinary(3), [0, 1, 2]),
    (spaces.Dict({"a": BOX, "b": MULTI}), {"a": np.zeros(3), "b": [0, 9, 0]}),
    (spaces.Dict({"a": BOX}), {"b": np.zeros(3)}),
    (spaces.Tuple([BOX, spaces.Discrete(2)]), (np.zeros(3), 2)),
    (spaces.Tuple([BOX]), (np.zeros(3), 1)),
    (BOX, np.zeros(2)),  # would be padded
    (BOX, np.zeros(4)),
    (BOX, None),
    (BOX, ["a", "b", "c"]),
    (spaces.Text(3), "abcd"),
]


@pytest.mark.parametrize(("space", "value"), CODED)
def test_values_outside_their_space_are_refused(space, value):
    if value is None:
        value = np.array([None] * 3)
    message = refusal("zoo", "Shows", obs=space, value=value)
    for part in ("env.id=troubled:Shows", "agent porter_0 shows", "which is not in its space"):
        assert part in message
    if isinstance(space, spaces.Dict) and "b" in space.spaces:
        assert "shows [0, 9, 0] as b, which is not in its space MultiDiscrete([2 9 2])" in message
    elif not isinstance(space, spaces.Tuple):
        assert f"in its space {space}" in message
    message = refusal("gym", "RowersShow", obs=space, value=(value, value))
    assert "agent 0 shows" in message


def test_such_a_value_later_in_an_episode_stops_the_run_in_a_sentence():
    env = team("Shows", obs=MULTI, good=[0, 8, 1], value=[0, 9, 1], since=4)
    with pytest.raises(Exception, match=re.escape("agent porter_0 shows [0, 9, 1]")) as error:
        episode(env)
    facts = errors.SlotError({**errors.NOWHERE, "slot": 0, "doing": "step"}, error.value).facts
    assert facts["error"] == "agent porter_0 shows [0, 9, 1], which is not in its space MultiDiscrete([2 9 2])"
    assert facts["traceback"] == ""


SOUND = [
    (MULTI, [1, 8, 0]),
    (MULTI, (1, 8, 0)),
    (spaces.MultiDiscrete([[2, 3], [4, 2]]), np.array([[1, 2], [3, 0]])),
    (spaces.MultiDiscrete([3, 4], start=[1, -2]), np.array([3, -2])),
    (spaces.Discrete(4, start=3), 5),
    (spaces.Discrete(4), np.int64(2)),
    (spaces.MultiBinary([2, 2]), np.array([[1, 0], [0, 1]], np.int8)),
    (spaces.Box(0, 255, (2, 2, 1), np.uint8), np.full((2, 2, 1), 200, np.uint8)),
    (spaces.Box(0, 1, (), np.float32), np.float32(0.5)),
    (spaces.Dict({"b": spaces.Discrete(3), "a": spaces.Tuple([BOX, MULTI])}), {"b": 2, "a": (np.ones(3), [0, 8, 1])}),
]


@pytest.mark.parametrize(("space", "value"), SOUND)
def test_sound_values_are_flattened_as_gymnasium_does(space, value):
    reader = declared.Reader(space)
    as_declared = np.asarray(value) if isinstance(space, spaces.MultiDiscrete) else value
    if isinstance(space, spaces.Dict):
        as_declared = {**value, "a": (value["a"][0], np.asarray(value["a"][1]))}
    assert reader.size == spaces.flatdim(space)
    np.testing.assert_array_equal(reader(value, 0), spaces.flatten(space, as_declared))


@pytest.mark.parametrize("value", [np.array([2]), np.array(2), np.int8(2), 2.0])
def test_one_number_is_one_number_whoever_shows_it(value):
    assert team("Shows", obs=spaces.Discrete(4), value=value).reset(0)["obs"][0].tolist() == [0, 0, 1, 0]


@pytest.mark.parametrize("value", [np.array([2.0]), np.float32(2), np.array(2), True + 1, np.array([[2]])])
def test_rewards_are_whatever_numpy_calls_a_number(value):
    assert episode(team("Pays", value=value))[1]["reward"] == [2.0, 2.0]
    assert episode(rowers("RowersPay", value=[value, value]), steps=1)[1]["reward"].tolist() == [2, 2]
    env = rowers("RowersPay", value=value)
    assert env.describe()["common_reward"]
    assert episode(env, steps=1)[1]["reward"] == 2


@pytest.mark.parametrize("value", [None, "1", [1, 2], {"a": 1}, 1j])
def test_other_rewards_are_refused(value):
    assert "the reward of agent porter_0 is" in refusal("zoo", "Pays", value=value)
    if value != [1, 2]:
        assert "its reward is" in refusal("gym", "RowersPay", value=value)


@pytest.mark.parametrize("kind", [np.bool_, np.array, lambda flag: np.array([flag]), int, np.float32])
def test_flags_are_whatever_numpy_calls_a_flag(kind):
    assert [step["truncated"] for step in episode(team("Flags", kind=kind))] == [False] * 6 + [True]
    with pytest.raises(Exception, match="is not a flag"):
        episode(team("Flags", kind=lambda flag: [flag, flag]))


def test_infos_may_be_nothing():
    assert episode(team("NoInfos"))[-1]["truncated"]


# ---------------------------------------------------------------------------------------------------- interfaces


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        ("zoo", "OldReset", "reset() returns observations only, as the old interface had it: (observations, infos)"),
        ("zoo", "OldStep", "step() returns four results, as the old interface had it: (observations, rewards, term"),
        ("zoo", "TeamReward", "the rewards of its step() are 1.0: a dict by the names of agents is expected"),
        ("zoo", "NoSeed", "reset() takes no seed: PettingZoo's is reset(seed=None, options=None)"),
        ("zoo", "Wrapped", "reset() takes no seed"),
        ("gym", "RowersOldReset", "as the old interface had it: (observations, info) is expected"),
        ("gym", "RowersOldStep", "step() returns four results, as the old interface had it: (observations, reward"),
        ("gym", "RowersNoSeed", "reset() is not reset(*, seed=None, options=None)"),
        ("gym", "RowersState", "its get_state() gives {'time': 0}: an array of numbers is expected"),
    ],
)
def test_another_interface_is_told_in_a_sentence(kind, name, words):
    assert words in refusal(kind, name, {"max_steps": 6} if kind == "gym" else None)


def test_a_mistake_of_the_environments_own_stays_one():
    class Wrong(troubled.Porters):
        def reset(self, seed=None, options=None):
            raise TypeError("unsupported operand")

    env = team("Porters")
    env.env = Wrong()
    with pytest.raises(TypeError, match="unsupported operand"):
        env.reset(0)


@pytest.mark.parametrize("first", [0, 1])
def test_actions_of_different_kinds_are_refused_whoever_comes_first(first):
    for message in (refusal("zoo", "Mixed", first=first), refusal("gym", "RowersMixed", first=first)):
        assert "actions of kind Box, Discrete: all agents must have Discrete ones, or all Boxes" in message


def test_a_state_that_is_a_dict():
    space = spaces.Dict({"time": spaces.Discrete(3), "load": BOX})
    env = team("State", whole={"time": 2, "load": np.ones(3)}, state_space=space)
    assert env.reset(0)["state"].tolist() == [1, 1, 1, 0, 0, 1]
    assert "env.state=concat takes the observations instead" in refusal("zoo", "State", whole={"time": 2})
    module = pettingzoo_adapter
    made = module.make(module.Config(id="troubled:State", kwargs={"whole": {"time": 2}}, state="concat"))
    assert made.spec.state_dim == 6
    made.host.close()


# --------------------------------------------------------------------------------------------------- flags per agent


@pytest.mark.parametrize("kind", [list, np.array, tuple])
def test_an_episode_ends_when_every_agent_has_ended(kind):
    shown = episode(rowers("OneByOne", kind=kind))
    assert [bool(step["truncated"]) for step in shown] == [False] * 4 + [True]
    assert not any(step["terminated"] for step in shown)


def test_every_agent_terminated_is_a_true_end_whatever_else_is_said():
    shown = episode(rowers("BothTerminated"))
    # the second was truncated all the time: at step 2 both have ended, one of them by time
    assert [bool(step["truncated"]) for step in shown] == [False, False, True]
    env = rowers("BothTerminated")
    env.game.ends = lambda: ([True, True], [False, True])
    assert [bool(step["terminated"]) for step in episode(env)] == [False, True]


@pytest.mark.parametrize("flags", list(itertools.product([False, True], repeat=4)))
def test_flags_are_combined_agent_by_agent(flags):
    terminated, truncated = flags[:2], flags[2:]
    env = rowers("Rowers")
    env.game.ends = lambda: (list(terminated), list(truncated))
    env.reset(0)
    shown = env.step(np.array([0, 0]))
    assert shown["terminated"] == all(terminated)
    ended = all(a or b for a, b in zip(terminated, truncated, strict=True))
    assert shown["truncated"] == (ended and not all(terminated))


# ------------------------------------------------------------------------------------------------- whole-number boxes


@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [([0], [9], np.int64), ([-2], [2], np.int32), ([0, -3], [1, 3], np.int16), ([0], [255], np.uint8)],
)
def test_every_whole_number_has_an_equal_share(low, high, dtype):
    env = team("Whole", low=low, high=high, dtype=dtype)
    about = env.describe()
    shared = layout.layout_of(about, 1)
    arrays = layout.arrays_in(bytearray(layout.size_of(shared)), shared)
    slots = Slots("troubled:Whole", {}, about, range(1), arrays)
    counts = [{} for _ in low]
    count = 256 * 40
    for value in np.linspace(-1, 1, count, endpoint=False) + 1 / count:
        (action, _) = slots._scaled(np.full((2, len(low)), value, np.float32))
        chosen = declared.action_for(env.action_spaces[0], action)
        assert chosen.dtype == dtype
        for i, number in enumerate(chosen):
            counts[i][int(number)] = counts[i].get(int(number), 0) + 1
    for i, (a, b) in enumerate(zip(low, high, strict=True)):
        assert sorted(counts[i]) == list(range(a, b + 1))
        share = count / (b - a + 1)
        assert max(abs(number - share) for number in counts[i].values()) <= 2
    for end, bound in ((-1.0, low), (-7.0, low), (1.0, high), (7.0, high)):
        (action, _) = slots._scaled(np.full((2, len(low)), end, np.float32))
        assert declared.action_for(env.action_spaces[0], action).tolist() == bound


def test_whole_numbers_without_bounds_are_refused():
    limits = np.iinfo(np.int64)
    assert "has no bounds" in refusal("zoo", "Whole", low=[limits.min], high=[limits.max], dtype=np.int64)


# ---------------------------------------------------------------------------------------------------------- pictures


def test_pictures_are_asked_for_only_where_they_are_wanted_and_offered(monkeypatch):
    assert episode(team("HumanOnly"))[-1]["truncated"]
    assert parallel.Parallel("troubled:HumanOnly", draw=True).reset(0)
    assert tuples.Tuples(registered("RowersHumanOnly"), draw=True).reset(0)
    monkeypatch.setattr(troubled.Draws, "ready", 0)
    assert team("Draws").env.render_mode is None
    assert troubled.Draws.ready == 0
    assert parallel.Parallel("troubled:Draws", draw=True).env.render_mode == "rgb_array"
    monkeypatch.setattr(troubled.Draws, "broken", True)
    assert parallel.Parallel("troubled:Draws", draw=True).env.render_mode is None
    assert rowers("RowersDraw").env.render_mode is None
    assert tuples.Tuples(registered("RowersDraw"), draw=True).env.render_mode == "rgb_array"


@pytest.mark.parametrize("kind", ["zoo", "gym"])
def test_a_recorded_episode_has_its_pictures(kind):
    module, id = (
        (pettingzoo_adapter, "troubled:Draws") if kind == "zoo" else (gymnasium_adapter, registered("RowersDraw"))
    )
    env = module.make(module.Config(id=id))
    try:
        keys = jax.random.split(jax.random.key(0), 2)
        reset, step = jax.jit(jax.vmap(env.reset)), jax.jit(jax.vmap(env.step))
        state, before = reset(keys)
        env.host.record()
        state, shown = reset(keys)
        np.testing.assert_array_equal(before.obs, shown.obs)
        for _ in range(2):
            state, _ = step(state, jnp.zeros((2, 2), jnp.int32), keys)
        assert env.render(jax.tree.map(lambda x: x[0], state)).tolist() == np.full((2, 2, 3), 2).tolist()
    finally:
        env.host.close()
