"""Data sets in memory: dtypes of storage, labels, statistics, and every way in which one can be wrong."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_data

from jaxshare.data import card, checks, environment, records
from jaxshare.training import replay
from jaxshare.types import Discrete, Episode, RefusedError


@pytest.fixture(scope="module")
def good():
    return toy_data.dataset()


def changed(dataset, **fields):
    """A data set with some arrays replaced: name -> function of a copy of the array, or the new array."""
    flat = {name: values.copy() for name, values in records.flat(dataset).items()}
    for name, change in fields.items():
        new = change(flat[name]) if callable(change) else change
        flat[name] = flat[name] if new is None else new
    return records.unflat(flat, dataset.card)


def put(*index, value):
    def change(values):
        values[index] = value

    return change


# ------------------------------------------------------------------------------------------------------------- records


def test_arrays_lie_and_are_kept_as_in_the_ring(good):
    rollout = jax.tree.map(lambda x: np.swapaxes(x, 0, 1), good.episodes)
    rollout = rollout.replace(action=rollout.action.astype(np.int32), mask=rollout.mask.astype(np.float32))
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), rollout)
    ring = replay.storage(shapes, len(good), "float32")
    assert jax.tree.map(lambda x: (x.shape, x.dtype), good.episodes) == jax.tree.map(lambda x: (x.shape, x.dtype), ring)
    labels = {name: getattr(good, name) for name in records.LABELS}
    toy_data.assert_equal(records.from_rollout(jax.tree.map(jnp.asarray, rollout), **labels), good)


def test_unknown_labels_and_low_precision():
    plain = toy_data.dataset(labels=False)
    assert (plain.level == -1).all()
    assert (plain.policy == -1).all()
    assert (plain.component == 0).all()
    assert [plain.level.dtype, plain.policy.dtype, plain.component.dtype] == [np.int8, np.int32, np.int8]
    half = records.make(plain.episodes.replace(obs=plain.episodes.obs.astype(np.float16)))
    assert half.episodes.obs.dtype == half.episodes.state.dtype == np.float16
    doubled = records.make(plain.episodes.replace(reward=plain.episodes.reward.astype(np.float64)))
    assert doubled.episodes.reward.dtype == np.float32


@pytest.mark.parametrize("action", [-1, 4, 256])
def test_an_action_that_storage_cannot_hold_is_refused(good, action):
    wrong = good.episodes.action.astype(np.int64)
    wrong[0, 0, 0] = action
    with pytest.raises(RefusedError, match=rf"action=.*{action}.* is not within 0\.\.3"):
        records.make(good.episodes.replace(action=wrong))


@pytest.mark.parametrize(
    ("index", "numbers"),
    [(None, range(7)), (slice(2, 5), (2, 3, 4)), (slice(None, None, -2), (6, 4, 2, 0)), (3, (3,)), (-1, (6,)),
     ([5, 0, 5], (5, 0, 5)), ([], ()), (np.arange(7) > 4, (5, 6))],
)  # fmt: skip
def test_an_index_means_what_it_means_to_numpy(good, index, numbers):
    part = good.take(index)
    assert len(part) == len(numbers)
    np.testing.assert_array_equal(part.episodes.obs, good.episodes.obs[list(numbers)])
    np.testing.assert_array_equal(part.level, good.level[list(numbers)])
    assert part.card is good.card


@pytest.mark.parametrize("index", [7, [0, 99], -8, np.ones(3, bool)])
def test_an_index_outside_is_refused(good, index):
    with pytest.raises(RefusedError, match="There are 7 episodes"):
        good.take(index)


def test_flat_and_unflat_are_inverse(good):
    toy_data.assert_equal(records.unflat(records.flat(good), good.card), good)
    assert "extras.log_prob" in records.flat(good)


def test_concatenate(good):
    toy_data.assert_equal(records.concatenate([good.take(slice(0, 3)), good.take(slice(3, None))]), good)


def test_returns_are_of_the_team(good):
    alone = toy_data.dataset(individual=True)
    rewards, mask = alone.episodes.reward, alone.episodes.mask
    expected = [sum(rewards[e, t].sum() for t in range(mask[e].sum())) for e in range(len(alone))]
    np.testing.assert_allclose(records.returns(alone), expected, rtol=1e-6)
    rewards, mask = good.episodes.reward, good.episodes.mask
    expected = [sum(rewards[e, t, 0] for t in range(mask[e].sum())) for e in range(len(good))]
    np.testing.assert_allclose(records.returns(good), expected, rtol=1e-5)
    np.testing.assert_array_equal(records.lengths(good), toy_data.LENGTHS)
    noise = changed(good, reward=np.where(mask[..., None], rewards, 7.0).astype(np.float32))
    np.testing.assert_array_equal(records.returns(noise), records.returns(good))


# ---------------------------------------------------------------------------------------------------------------- card


def test_the_card_counts_by_agent_and_level(good):
    counted = card.summary(records.returns(good), records.lengths(good), good.level, good.component)
    assert (counted["episodes"], counted["steps"]) == (7, sum(toy_data.LENGTHS))
    assert counted["returns"]["mean"] == pytest.approx(records.returns(good).mean())
    assert counted["lengths"] == {"mean": 25 / 7, "std": pytest.approx(np.std(toy_data.LENGTHS)), "min": 1, "max": 5}
    histogram = counted["histogram"]
    assert len(histogram["edges"]) == card.BINS + 1
    for agent in range(toy_data.AGENTS):
        by_level = histogram["agents"][agent]
        assert np.sum(list(by_level.values()), axis=0).tolist() == histogram["all"]
        for level, name in enumerate(records.LEVELS):
            assert sum(by_level.get(name, [])) == (good.level[:, agent] == level).sum()
    assert [counted["components"][str(i)]["episodes"] for i in (0, 1)] == [4, 3]
    json.dumps(counted, allow_nan=False)
    same = card.summary(np.zeros(2), np.ones(2, int), np.full((2, 1), -1), np.zeros(2, int))
    assert same["histogram"]["agents"][0]["unknown"][0] == 2


def test_the_card_says_where_it_comes_from(good):
    assert good.card["environment"] == "toy"
    assert good.card["scenario"] == "three"
    assert good.card["agent_types"] == ["a", "b", "b"]
    assert good.card["composition"] == "rrm + rre"
    assert {"jaxshare", "python", "jax", "numpy", "tensorstore"} <= good.card["versions"].keys()
    commit = good.card["git_commit"]
    assert commit is None or len(commit.removesuffix("-dirty")) == 40
    json.dumps(good.card, allow_nan=False)


def test_a_folder_that_is_no_checkout_has_no_commit(tmp_path):
    assert card._commit(tmp_path) is None
    (tmp_path / ".git").mkdir()  # and one that git cannot read
    assert card._commit(tmp_path) is None


@pytest.mark.parametrize("continuous", [False, True])
def test_the_environment_comes_back_from_the_card(continuous):
    spec = toy_data.spec(continuous)
    assert environment.spec_from_card(json.loads(json.dumps(card.card_of(spec)))) == spec


def test_a_card_without_environment_is_refused():
    with pytest.raises(RefusedError, match="does not describe its environment"):
        environment.spec_from_card({})


# -------------------------------------------------------------------------------------------------------------- checks


@pytest.mark.parametrize("options", [{}, {"continuous": True}, {"individual": True}, {"labels": False}])
def test_what_is_right_passes(options):
    checks.check(toy_data.dataset(**options))


BLOCK = checks.BLOCK
WRONG = {
    "no episode": (lambda d: d.take([]), "no episode"),
    "obs nan": (lambda d: changed(d, obs=put(2, 1, 0, 0, value=np.nan)), r"obs is not .*episode 2 at \[1, 0, 0\]"),
    "obs nan in padding": (lambda d: changed(d, obs=put(1, 4, 0, 0, value=np.nan)), "obs is not a finite number"),
    "state infinite": (lambda d: changed(d, state=put(0, 0, 0, value=np.inf)), "state is not a finite number"),
    "reward nan": (lambda d: changed(d, reward=put(0, 0, 0, value=np.nan)), "reward is not a finite number"),
    "extras nan": (lambda d: changed(d, **{"extras.log_prob": put(0, 0, 0, value=np.nan)}), "log_prob is not a finite"),
    "no step": (lambda d: changed(d, mask=put(3, slice(None), value=False)), "no step.*episode 3"),
    "mask with a hole": (lambda d: changed(d, mask=put(0, 2, value=False)), r"not a run of ones.*episode 0 at \[3\]"),
    "no end": (lambda d: changed(d, terminated=put(2, 2, value=False)), r"neither terminated nor.*episode 2 at \[2\]"),
    "two ends": (lambda d: changed(d, truncated=put(0, 1, value=True)), r"does not end.*episode 0 at \[1\]"),
    "end in padding": (lambda d: changed(d, terminated=put(1, 3, value=True)), r"does not end.*episode 1 at \[3\]"),
    "nothing available": (lambda d: changed(d, avail=put(0, 2, 1, value=False)), r"no action is av.*at \[2, 1\]"),
    "nothing at the end": (lambda d: changed(d, avail=put(1, 5, 0, value=False)), r"no action is av.*at \[5, 0\]"),
    "action outside": (lambda d: changed(d, action=put(0, 0, 0, value=4)), "action is none of 4"),
    "level outside": (lambda d: changed(d, level=put(0, 0, value=3)), r"level is none of.*episode 0 at \[0\]"),
    "obs too short": (lambda d: changed(d, obs=lambda x: x[:, :-1]), r"obs has shape \(7, 5, 3, 2\).*\(7, 6, 3, 2\)"),
    "state of others": (lambda d: changed(d, state=lambda x: x[:4]), "state has shape"),
    "alive without agents": (lambda d: changed(d, alive=lambda x: x[..., 0]), "alive has shape"),
    "level of fewer": (lambda d: changed(d, level=lambda x: x[:, :2]), "level has shape"),
    "component of fewer": (lambda d: changed(d, component=lambda x: x[:2]), "component has shape"),
    "extras of fewer": (lambda d: changed(d, **{"extras.log_prob": lambda x: x[:2]}), "extras.log_prob has shape"),
    "reward of the team": (lambda d: changed(d, reward=lambda x: x[..., 0]), r"shapes .* are not obs \[E, T\+1"),
    "mask of floats": (lambda d: changed(d, mask=lambda x: x.astype(np.float32)), "mask is float32, not bool"),
    "no choices": (lambda d: changed(d, avail=lambda x: x[..., :0]), "whole numbers and avail has 0 actions"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_refused(good, name):
    spoil, message = WRONG[name]
    with pytest.raises(RefusedError, match=f"here: .*{message}"):
        checks.check(spoil(good), "here")


def test_an_action_that_was_not_available_is_refused(good):
    action = int(good.episodes.action[0, 1, 2])
    wrong = changed(good, avail=put(0, 1, 2, value=np.arange(toy_data.ACTIONS) != action))
    with pytest.raises(RefusedError, match=r"the action taken is not available \(episode 0 at \[1, 2\]"):
        checks.check(wrong)
    checks.check(changed(good, action=lambda x: np.where(good.episodes.mask[..., None], x, 3).astype(np.uint8)))


def test_the_place_is_right_beyond_the_first_block():
    many = toy_data.dataset(copies=BLOCK // 7 + 2)
    number = BLOCK + 3
    with pytest.raises(RefusedError, match=rf"episode {number} at \[0, 0\]"):
        checks.check(changed(many, state=put(number, 0, 0, value=np.nan)))


SPECS = {
    "num_agents": ({"num_agents": 2, "groups": (0, 1)}, "num_agents: 3 in the data, 2 in toy/three"),
    "obs_dim": ({"obs_dim": 9}, "obs_dim: 2 in the data, 9"),
    "state_dim": ({"state_dim": 1}, "state_dim: 3 in the data, 1"),
    "actions": ({"action": Discrete(5)}, "action: 4 choices in the data, 5 choices"),
    "kind of action": ({"action": toy_data.spec(True).action}, "action: 4 choices in the data, 2 numbers"),
    "name": ({"name": "toy/four"}, "name: toy/three in the data, toy/four"),
    "groups": ({"groups": (0, 0, 1)}, "groups: "),
    "group_names": ({"group_names": ("a", "c")}, "group_names: "),
    "limit": ({"episode_limit": 6}, "episode_limit: 5 in the data, 6"),
    "reward": ({"common_reward": False}, "common_reward: True in the data, False"),
}


@pytest.mark.parametrize("name", SPECS)
def test_a_data_set_of_another_environment_is_refused(good, name):
    changes, message = SPECS[name]
    environment.check_spec(good, toy_data.spec())
    with pytest.raises(RefusedError, match=message):
        environment.check_spec(good, toy_data.spec(**changes))


def test_everything_that_differs_is_named(good):
    with pytest.raises(RefusedError, match=r"obs_dim.*; state_dim.*Choose the environment"):
        environment.check_spec(good, toy_data.spec(obs_dim=1, state_dim=1))


def test_without_a_card_only_sizes_are_compared():
    plain = toy_data.dataset(card=False)
    environment.check_spec(plain, toy_data.spec(name="toy/other", episode_limit=6))
    with pytest.raises(RefusedError, match="longest episode: 5 in the data, at most 4"):
        environment.check_spec(plain, toy_data.spec(episode_limit=4))


def test_continuous_actions_lie_in_their_box():
    plain = toy_data.dataset(continuous=True)
    environment.check_spec(plain, toy_data.spec(True))
    beyond = changed(plain, action=put(0, 0, 0, 0, value=1.2))
    with pytest.raises(RefusedError, match="actions within their bounds: False"):
        environment.check_spec(beyond, toy_data.spec(True))
    rounded = changed(plain, action=put(0, 0, 0, 0, value=1.0001))
    environment.check_spec(rounded, toy_data.spec(True))
    padding = changed(plain, action=put(1, 3, 0, 0, value=9.0))
    environment.check_spec(padding, toy_data.spec(True))


def test_an_episode_is_a_pytree_of_numpy(good):
    assert isinstance(good.episodes, Episode)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(good.episodes))
