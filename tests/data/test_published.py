"""Published sets as they are: in parts, padded with -inf, without flags of ends, with rewards for each agent."""

import shutil

import numpy as np
import pytest
import toy_data
from test_vault import ends, handmade

from jaxshare.data import hdf5, own, parts, records, vault
from jaxshare.data.formats import open_any, open_like
from jaxshare.types import RefusedError

h5py = pytest.importorskip("h5py", reason="the extra hdf5")
INF = np.float32(-np.inf)


@pytest.fixture(scope="module")
def columns(tmp_path_factory):
    """The columns of a file as PyMARL has them."""
    plain = toy_data.dataset(extras=False, labels=False, card=False, deaths=False)
    with h5py.File(hdf5.write(plain, tmp_path_factory.mktemp("h5") / "x.h5")) as file:
        return {name: file[name][()] for name in file}


def file_of(path, columns, **changes):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, values in (columns | changes).items():
            if values is not None:
                file[name] = values
    return path


# -------------------------------------------------------------------------------------------------------------- padding


@pytest.mark.parametrize("sign", [-1, 1])
def test_columns_that_are_infinite_throughout_are_padding_in_vaults(tmp_path, sign):
    obs = np.arange(20, dtype=np.float32).reshape(5, 2, 2)
    padded = obs.copy()
    padded[:, 1, 1] = sign * np.inf
    state = np.tile(np.array([1, sign * np.inf], np.float32), (5, 1))
    leaves = {"observations": padded, "infos.state": state}
    read = open_any(handmade(tmp_path / "x.vlt" / "a", (3, 2), **leaves)).read()
    expected = obs.copy()
    expected[:, 1, 1] = 0
    np.testing.assert_array_equal(read.episodes.obs[0, :3], expected[:3])
    np.testing.assert_array_equal(read.episodes.state[1, :2], [[1, 0]] * 2)
    assert read.card["source"]["notes"] == [
        "1 of 4 columns of observations are infinite throughout: padding, read as 0.",
        "1 of 2 columns of infos.state are infinite throughout: padding, read as 0.",
    ]
    # without a state of its own it is made of what was read
    leaves["infos.state"] = None
    read = open_any(handmade(tmp_path / "y.vlt" / "a", (3, 2), **leaves)).read()
    np.testing.assert_array_equal(read.episodes.state[0, :3], expected[:3].reshape(3, 4))


def test_infinity_that_is_no_padding_is_refused(tmp_path):
    """One row is finite, or one agent's column of two that share a place."""
    obs = np.full((5, 2, 2), INF)
    obs[..., 0] = obs[2, 1, 1] = 0
    with pytest.raises(RefusedError, match="obs is not a finite number"):
        open_any(handmade(tmp_path / "x.vlt" / "a", (3, 2), observations=obs)).read()
    nan = np.where(np.isinf(obs), np.float32(np.nan), obs)
    with pytest.raises(RefusedError, match="obs is not a finite number"):
        open_any(handmade(tmp_path / "y.vlt" / "a", (3, 2), observations=nan)).read()


def test_columns_that_are_infinite_throughout_are_padding_in_hdf5(columns, tmp_path):
    """Where nothing is filled there may be anything."""
    obs, filled = columns["obs"].copy(), columns["filled"][..., 0] != 0
    obs[..., 2, 1] = np.where(filled, INF, 7)
    found = open_any(file_of(tmp_path / "x.h5", columns, obs=obs))
    read = found.read([1, 2])
    expected = columns["obs"][[1, 2]].copy()
    expected[..., 2, 1] = 0
    np.testing.assert_array_equal(read.episodes.obs, expected)
    assert read.card["source"]["notes"] == ["1 of 6 columns of obs are infinite throughout: padding, read as 0."]
    obs[3, 0, 2, 1] = 1
    with pytest.raises(RefusedError, match="obs is not a finite number"):
        open_any(file_of(tmp_path / "y.h5", columns, obs=obs)).read()


# ---------------------------------------------------------------------------------------------------------------- parts


def folder_of(tmp_path, columns, names=("part_0.h5", "part_2.h5", "part_10.h5"), change=None):
    """Parts of three, two and two episodes."""
    rows = (slice(0, 3), slice(3, 5), slice(5, 7))
    for number, (name, part) in enumerate(zip(names, rows, strict=True)):
        changed = {key: values[part] for key, values in columns.items()}
        file_of(tmp_path / "set" / name, change(number, changed) if change else changed)
    return tmp_path / "set"


@pytest.mark.parametrize("index", [None, slice(2, 6), [6, 0, 3, 3], [], 4, [-1, 1]])
def test_parts_are_one_data_set_in_the_order_of_their_numbers(columns, tmp_path, index):
    folder = folder_of(tmp_path, columns)
    whole = open_any(file_of(tmp_path / "x.h5", columns))
    found = open_any(folder)
    assert isinstance(found, parts.Stored)
    assert len(found) == 7
    toy_data.assert_equal(found.read(index), whole.read(index))
    for name in ("episodes", "steps", "returns", "lengths", "histogram", "components"):
        assert found.card[name] == whole.card[name], name
    assert found.card["scenario"] == "set"
    assert found.card["source"]["parts"] == ["part_0.h5", "part_2.h5", "part_10.h5"]


def test_parts_that_are_missing_and_notes_of_parts_are_told(columns, tmp_path):
    def padded(number, part):
        part["obs"] = part["obs"].copy()
        part["obs"][..., 0, 0] = INF
        return part

    read = open_any(folder_of(tmp_path, columns, change=padded)).read()
    notes = read.card["source"]["notes"]
    assert notes[:2] == [
        "no parts are there between 0 and 2: the others are read without them.",
        "no parts are there between 2 and 10: the others are read without them.",
    ]
    assert [note.split(":")[0] for note in notes[2:]] == ["part_0.h5", "part_2.h5", "part_10.h5"]


def test_parts_that_do_not_fit_each_other_are_refused(columns, tmp_path):
    def narrower(number, part):
        return part | ({"obs": part["obs"][..., :1]} if number == 2 else {})

    with pytest.raises(
        RefusedError, match=r"part_0\.h5 and part_10\.h5 are not parts of one data set \(obs: .*Name one"
    ):
        open_any(folder_of(tmp_path, columns, change=narrower))
    shutil.rmtree(tmp_path / "set")
    with pytest.raises(RefusedError, match="has no obs"):
        open_any(folder_of(tmp_path, columns, change=lambda number, part: {"other": part["reward"]}))
    for names in (("a_0.h5", "b_1.h5", "c_2.h5"), ("part_1.h5", "part_01.h5", "part_2.h5")):
        shutil.rmtree(tmp_path / "set")
        with pytest.raises(RefusedError, match=r"not the parts of one data set.*Name one of them, or put"):
            open_any(folder_of(tmp_path, columns, names))


# --------------------------------------------------------------------------------------------------- actions as floats


def test_discrete_actions_stored_as_real_numbers_are_discrete(columns, tmp_path):
    floats = columns["actions"].astype(np.float32)
    whole = open_any(file_of(tmp_path / "x.h5", columns)).read()
    read = open_any(file_of(tmp_path / "y.h5", columns, actions=floats)).read()
    toy_data.assert_equal(read, whole)
    assert "read as choices" in read.card["source"]["notes"][0]
    floats[0, 0, 0, 0] += 0.5
    with pytest.raises(
        RefusedError, match=r"the action of agent 0 at step 0 of episode 0 is .*, which is not a choice"
    ):
        open_any(file_of(tmp_path / "z.h5", columns, actions=floats)).read()
    # nothing but actions_onehot says that they are
    real = open_any(file_of(tmp_path / "w.h5", columns, actions=floats, actions_onehot=None)).read()
    assert real.episodes.avail.shape[-1] == 0


# ----------------------------------------------------------------------------------------------- rewards for each agent


def test_hdf5_files_with_a_reward_for_each_agent(columns, tmp_path):
    filled = columns["filled"][:, 1:] != 0
    rewards = np.concatenate([columns["reward"] * (1 + agent) for agent in range(toy_data.AGENTS)], axis=2)
    path = file_of(tmp_path / "x.h5", columns, reward=rewards)
    with pytest.raises(RefusedError, match=r"rewards differ in .*dataset\.rewards=individual.*dataset\.rewards=mean"):
        open_any(path)
    alone, mean = open_any(path, rewards="individual"), open_any(path, rewards="mean")
    np.testing.assert_array_equal(alone.read().episodes.reward, rewards[:, :-1] * filled)
    average = (rewards[:, :-1] * filled).mean(2, keepdims=True)
    np.testing.assert_allclose(mean.read().episodes.reward, np.repeat(average, toy_data.AGENTS, axis=2), rtol=1e-6)
    assert (alone.card["common_reward"], mean.card["common_reward"]) == (False, True)
    for found in (alone, mean):
        np.testing.assert_allclose(found.card["returns"]["mean"], records.returns(found.read()).mean(), rtol=1e-5)
    with pytest.raises(RefusedError, match=r"dataset\.rewards=individual has no effect on it: it has one reward"):
        open_any(file_of(tmp_path / "w.h5", columns), rewards="individual")
    equal = file_of(tmp_path / "y.h5", columns, reward=np.repeat(columns["reward"], toy_data.AGENTS, axis=2))
    toy_data.assert_equal(open_any(equal).read(), open_any(file_of(tmp_path / "z.h5", columns)).read())


# ------------------------------------------------------------------------------------------------- ends without flags


def test_episodes_of_a_length_that_no_flag_shows(tmp_path):
    never = {"terminals": np.zeros((7, 2), bool), "truncations": np.zeros((7, 2), bool)}
    path = handmade(tmp_path / "x.vlt" / "a", (7,), **never)
    with pytest.raises(RefusedError, match=r"flags are 0 throughout: say .*dataset\.episode_length=25"):
        open_any(path)
    found = open_any(path, episode_length=3)
    assert (len(found), found.card["source"]["dropped_rows"], found.card["lengths"]["max"]) == (2, 1, 2)
    read = found.read()
    assert read.episodes.obs[:, :, 0, 0].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert read.episodes.truncated.tolist() == [[False, True]] * 2
    assert not read.episodes.terminated.any()
    kept = open_any(path, episode_length=3, last_step="keep").read()
    assert kept.episodes.mask.all()
    assert kept.episodes.mask.shape == (2, 3)
    with pytest.raises(RefusedError, match=r"fewer rows than dataset\.episode_length=9: choose a smaller"):
        open_any(path, episode_length=9)


def test_a_length_is_counted_from_the_last_end(tmp_path):
    """Ends at rows 1 and 6; of five rows in between the third one is cut."""
    path = handmade(tmp_path / "x.vlt" / "a", (2, 5), **ends((2, 5)))
    read = open_any(path, episode_length=3, last_step="keep").read()
    assert read.episodes.mask.sum(1).tolist() == [2, 3, 2]
    assert read.episodes.terminated.any(1).tolist() == [True, False, True]
    assert read.episodes.truncated.any(1).tolist() == [False, True, False]


def test_flags_that_never_agree_and_episodes_of_one_step_have_remedies_of_their_own(tmp_path):
    some = np.zeros((4, 2), bool)
    some[1, 0] = True
    path = handmade(tmp_path / "x.vlt" / "a", (4,), terminals=some)
    with pytest.raises(RefusedError, match=r"flags never say that all agents have ended: .*dataset\.episode_length=25"):
        open_any(path)
    path = handmade(tmp_path / "y.vlt" / "a", (1, 1), **ends((-1, -1)))
    with pytest.raises(RefusedError, match=r"use dataset\.last_step=keep"):
        open_any(path)
    assert len(open_any(path, last_step="keep")) == 2


# -------------------------------------------------------------------------------------------------------------- options


def test_options_without_an_effect_are_refused(columns, tmp_path):
    mine = own.save(toy_data.dataset(), tmp_path / "toy.jds")
    file = file_of(tmp_path / "x.h5", columns)
    for path, options, what in (
        (mine, {"rewards": "mean"}, "dataset.rewards=mean has no effect on jaxshare's own format"),
        (file, {"last_step": "keep"}, "dataset.last_step=keep has no effect on an HDF5 file of PyMARL"),
        (file, {"drop_first": True}, "dataset.drop_first=true has no effect on an HDF5 file"),
        (folder_of(tmp_path, columns), {"episode_length": 25}, "dataset.episode_length=25 has no effect on HDF5 files"),
    ):
        with pytest.raises(RefusedError, match=what):
            open_any(path, **options)
        assert len(open_like(path, options)) == 7
    for options, what in (
        ({"rewards": "sum"}, "dataset.rewards=sum is not one of team, mean, individual"),
        ({"episode_length": -1}, "dataset.episode_length=-1 must be at least 0"),
        ({"num_actions": -3}, "dataset.num_actions=-3 must be at least 0"),
    ):
        with pytest.raises(RefusedError, match=what):
            vault.open(tmp_path, **options)
