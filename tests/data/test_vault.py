"""Vaults of OG-MARL: against flashbax's own reader and writer, episode ends one by one, and broken files."""

import json
import shutil

import numpy as np
import pytest
import toy_data

from jaxshare.data import own, records, vault
from jaxshare.data.vault import arrays as vault_arrays
from jaxshare.data.vault import metadata as vault_metadata
from jaxshare.types import RefusedError

STEPS, AGENTS, ACTIONS, OBS, STATE = (getattr(toy_data, n) for n in ("STEPS", "AGENTS", "ACTIONS", "OBS", "STATE"))


@pytest.fixture(scope="module")
def good():
    return toy_data.dataset(extras=False)


@pytest.fixture(scope="module")
def stored(good, tmp_path_factory):
    return vault.write(good, tmp_path_factory.mktemp("vault") / "toy" / "three.vlt" / "Good")


def handmade(path, lengths, terminals=None, truncations=None, rest=0, **leaves):
    """A vault of rows numbered in their observations, written by tensorstore alone, with two agents.

    lengths: rows of each episode; terminals and truncations: by default every episode ends in a terminal state. rest:
    rows of an episode that was not finished. leaves: more or other leaves; None leaves one out.
    """
    import tensorstore

    rows = sum(lengths) + rest
    last = np.isin(np.arange(rows), np.cumsum(lengths) - 1)
    flags = np.repeat(last[:, None], 2, axis=1)
    number = np.arange(rows, dtype=np.float32)
    fields = {
        "observations": np.stack([number[:, None], 100 + number[:, None]], axis=1),
        "actions": np.tile((np.arange(rows) % 3).astype(np.int32)[:, None], (1, 2)),
        "rewards": np.repeat(number[:, None] + 1, 2, axis=1),
        "terminals": flags if terminals is None else terminals,
        "truncations": flags & False if truncations is None else truncations,
        "infos.state": number[:, None] * 2,
        "infos.legals": np.ones((rows, 2, 3), bool),
    } | leaves  # fmt: skip
    fields = {name: values for name, values in fields.items() if values is not None}
    path.mkdir(parents=True)
    for name, values in fields.items():
        shape = (1, 10**13, *values.shape[1:])
        array = tensorstore.open(
            vault_arrays.spec(path, f"{name}."), shape=shape, dtype=values.dtype.name, create=True
        ).result()
        array[0, :rows].write(values).result()
    tensorstore.open(vault_arrays.spec(path, "vault_index"), shape=(1,), dtype="int32", create=True).result().write(
        [rows]
    ).result()
    metadata = {
        "version": 1.2,
        "structure_shape": vault_metadata.tree({name: str((1, *x.shape)) for name, x in fields.items()}),
        "structure_dtype": vault_metadata.tree({name: x.dtype.name for name, x in fields.items()}),
    }
    (path / "metadata.json").write_text(json.dumps(metadata))
    return path


def ends(lengths, agents=2):
    """terminals and truncations [M, agents] of episodes of these lengths, which are cut where they are negative."""
    rows = sum(abs(n) for n in lengths)
    last = np.cumsum(np.abs(lengths)) - 1
    terminal, cut = np.zeros((rows, agents), bool), np.zeros((rows, agents), bool)
    for row, n in zip(last, lengths, strict=True):
        (terminal if n > 0 else cut)[row] = True
    return {"terminals": terminal, "truncations": cut}


# --------------------------------------------------------------------------------------------------------- round trips


def shown_by_rows(dataset):
    """What a vault can keep of a data set: the observation behind the last row is the last row's."""
    fields = {name: values.copy() for name, values in records.flat(dataset).items()}
    for episode, length in enumerate(records.lengths(dataset)):
        for name in records.SLOTS:
            fields[name][episode, length] = fields[name][episode, length - 1]
    return records.unflat(fields, dataset.card)


@pytest.mark.parametrize(
    "options", [{}, {"continuous": True}, {"individual": True}, {"labels": False, "deaths": False}]
)
def test_what_is_written_is_what_is_read(options, tmp_path):
    written = toy_data.dataset(extras=False, **options)
    path = vault.write(written, tmp_path / "toy" / "three.vlt" / "Good")
    found = vault.open(path, last_step="keep")
    assert len(found) == len(written)
    toy_data.assert_equal(found.read(), shown_by_rows(written))
    assert found.card["composition"] == "rrm + rre"
    assert found.card["common_reward"] == written.common_reward
    np.testing.assert_allclose(found.card["returns"]["mean"], records.returns(written).mean(), rtol=1e-6)


def test_the_last_step_of_an_episode_that_was_cut_is_masked(good, stored):
    read = vault.open(stored).read()
    length = records.lengths(good)
    cut = np.array(toy_data.TRUNCATED) & ~np.array(toy_data.TERMINATED)
    whole = ~(cut & (length == 1))
    assert whole.all()
    np.testing.assert_array_equal(records.lengths(read), length - cut)
    for episode in range(len(good)):
        steps = int(length[episode] - cut[episode])
        end = (read.episodes.terminated | read.episodes.truncated)[episode]
        assert np.flatnonzero(end).tolist() == [steps - 1]
        assert read.episodes.truncated[episode, steps - 1] == toy_data.TRUNCATED[episode]
        assert read.episodes.terminated[episode, steps - 1] == toy_data.TERMINATED[episode]
        if cut[episode]:  # the successor of its last step was seen
            np.testing.assert_array_equal(read.episodes.obs[episode, steps], good.episodes.obs[episode, steps])
            np.testing.assert_array_equal(read.episodes.avail[episode, steps], good.episodes.avail[episode, steps])
        for name in ("action", "reward"):
            np.testing.assert_array_equal(
                getattr(read.episodes, name)[episode, :steps], getattr(good.episodes, name)[episode, :steps]
            )
            assert not getattr(read.episodes, name)[episode, steps:].any()
    assert vault.open(stored).card["source"]["masked_steps"] == cut.sum()
    np.testing.assert_allclose(vault.open(stored).card["returns"]["mean"], records.returns(good).mean(), rtol=1e-6)


@pytest.mark.parametrize("last_step", ["mask", "keep"])
@pytest.mark.parametrize("index", [slice(2, 5), slice(5, 1, -1), [6, 0, 0, 3], 4, [], [1]])
def test_a_part_is_what_it_is_of_the_whole(stored, last_step, index):
    found = vault.open(stored, last_step=last_step)
    toy_data.assert_equal(found.read(index), found.read().take(index))


def test_standard_leaves_and_nothing_else(tmp_path):
    plain = toy_data.dataset(labels=False, deaths=False, extras=False, card=False)
    path = vault.write(plain, tmp_path / "plain.vlt" / "x")
    structure = json.loads((path / "metadata.json").read_text())
    assert structure["version"] == 1.2
    rows = sum(toy_data.LENGTHS)
    assert structure["structure_shape"] == {
        "observations": f"(1, {rows}, {AGENTS}, {OBS})", "actions": f"(1, {rows}, {AGENTS})",
        "rewards": f"(1, {rows}, {AGENTS})", "terminals": f"(1, {rows}, {AGENTS})",
        "truncations": f"(1, {rows}, {AGENTS})",
        "infos": {"state": f"(1, {rows}, {STATE})", "legals": f"(1, {rows}, {AGENTS}, {ACTIONS})"},
    }  # fmt: skip
    assert structure["structure_dtype"]["infos"] == {"state": "float32", "legals": "bool"}


def test_more_rows_than_a_chunk(good, tmp_path, monkeypatch):
    monkeypatch.setattr(vault_arrays, "chunk_rows", lambda array: 10)
    found = vault.open(vault.write(good, tmp_path / "many.vlt" / "x"), last_step="keep")
    toy_data.assert_equal(found.read(), shown_by_rows(good))


# ------------------------------------------------------------------------------------------------------------ flashbax


@pytest.fixture(scope="module")
def flashbax():
    return pytest.importorskip("flashbax.vault", reason="cross-check with flashbax's own Vault")


def test_flashbax_reads_what_we_write(flashbax, good, stored):
    theirs = flashbax.Vault("toy/three.vlt", rel_dir=str(stored.parents[2]), vault_uid="Good")
    assert theirs.vault_index == sum(toy_data.LENGTHS)
    experience = theirs.read().experience
    mask = good.episodes.mask
    for name, expected in {
        "observations": good.episodes.obs[:, :-1][mask],
        "actions": good.episodes.action[mask],
        "rewards": good.episodes.reward[mask],
        "terminals": np.repeat(good.episodes.terminated[mask][:, None], AGENTS, axis=1),
        "truncations": np.repeat(good.episodes.truncated[mask][:, None], AGENTS, axis=1),
    }.items():
        assert experience[name].shape[0] == 1
        np.testing.assert_array_equal(experience[name][0], expected, err_msg=name)
    np.testing.assert_array_equal(experience["infos"]["state"][0], good.episodes.state[:, :-1][mask])
    np.testing.assert_array_equal(experience["infos"]["legals"][0], good.episodes.avail[:, :-1][mask])
    np.testing.assert_array_equal(experience["infos"]["alive"][0], good.episodes.alive[:, :-1][mask])


def test_we_read_what_flashbax_writes(flashbax, good, tmp_path):
    import jax.numpy as jnp
    from flashbax.buffers.trajectory_buffer import TrajectoryBufferState

    mask = good.episodes.mask
    rows = {
        "observations": good.episodes.obs[:, :-1][mask],
        "actions": good.episodes.action[mask].astype(np.int32),
        "rewards": good.episodes.reward[mask],
        "terminals": np.repeat(good.episodes.terminated[mask][:, None], AGENTS, axis=1),
        "truncations": np.repeat(good.episodes.truncated[mask][:, None], AGENTS, axis=1),
        "infos": {"state": good.episodes.state[:, :-1][mask], "legals": good.episodes.avail[:, :-1][mask]},
    }
    tree = {name: jnp.asarray(x)[None] for name, x in rows.items() if name != "infos"}
    tree["infos"] = {name: jnp.asarray(x)[None] for name, x in rows["infos"].items()}
    theirs = flashbax.Vault("toy/three.vlt", tree, rel_dir=str(tmp_path), vault_uid="Good")
    count = sum(toy_data.LENGTHS)
    for part in ((0, 9), (9, count)):  # in two goes
        state = TrajectoryBufferState(experience=tree, current_index=jnp.int32(part[1]), is_full=jnp.bool_(False))
        theirs.write(state, source_interval=part)
    read = vault.open(tmp_path / "toy" / "three.vlt" / "Good", last_step="keep").read()
    expected = records.flat(shown_by_rows(good))
    for name in (*records.STEPS, "obs", "state", "avail"):
        np.testing.assert_array_equal(records.flat(read)[name], expected[name], err_msg=name)
    assert (read.level == -1).all()
    assert read.card["scenario"] == "three"
    assert read.card["environment"] == "toy"


# ---------------------------------------------------------------------------------------------------- rules of reading


def test_partial_episodes_are_dropped(tmp_path):
    path = handmade(tmp_path / "x.vlt" / "a", (3, 2, 4), rest=5)
    found = vault.open(path)
    assert len(found) == 3
    assert found.card["source"]["dropped_rows"] == 5
    assert found.card["steps"] == 9
    read = found.read()
    assert [x[m].tolist() for x, m in zip(read.episodes.reward[..., 0], read.episodes.mask, strict=True)] == [
        [1, 2, 3], [4, 5], [6, 7, 8, 9],
    ]  # fmt: skip
    without = vault.open(path, drop_first=True)
    assert len(without) == 2
    assert without.card["source"]["dropped_rows"] == 8
    np.testing.assert_array_equal(without.read().episodes.reward, read.episodes.reward[1:])


def test_observations_of_both_kinds_of_end(tmp_path):
    lengths = (3, -3, -1, 2)  # negative: cut; the one of a single step has nothing to learn from
    path = handmade(tmp_path / "x.vlt" / "a", (3, 3, 1, 2), **ends(lengths))
    masked, kept = vault.open(path).read(), vault.open(path, last_step="keep").read()
    number = lambda data: data.episodes.obs[:, :, 0, 0].tolist()  # noqa: E731
    assert number(masked) == [[0, 1, 2, 2], [3, 4, 5, 0], [7, 8, 8, 0]]
    assert number(kept) == [[0, 1, 2, 2], [3, 4, 5, 5], [6, 6, 0, 0], [7, 8, 8, 0]]
    assert masked.episodes.mask.astype(int).tolist() == [[1, 1, 1], [1, 1, 0], [1, 1, 0]]
    assert masked.episodes.truncated.astype(int).tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert masked.episodes.terminated.astype(int).tolist() == [[0, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert kept.episodes.truncated.astype(int).tolist() == [[0, 0, 0], [0, 0, 1], [1, 0, 0], [0, 0, 0]]
    card = vault.open(path).card
    assert card["source"]["name"].endswith("x.vlt/a")
    assert (card["source"]["last_step"], card["source"]["dropped_rows"], card["source"]["masked_steps"]) == (
        "mask",
        1,
        1,
    )
    assert card["returns"]["mean"] == (6 + 15 + 17) / 3  # the reward of the masked step, 6, counts in the card
    assert records.returns(masked).tolist() == [6, 9, 17]


def test_nothing_ever_bootstraps_from_what_was_not_seen(tmp_path):
    path = handmade(tmp_path / "x.vlt" / "a", (3, 3), **ends((3, -3)))
    episodes = vault.open(path).read().episodes
    bootstraps = episodes.mask & ~episodes.terminated
    successor = episodes.obs[:, 1:, 0, 0]
    np.testing.assert_array_equal(successor[bootstraps], (episodes.obs[:, :-1, 0, 0] + 1)[bootstraps])


def test_files_without_truncations_state_or_legals(tmp_path):
    leaves = {"truncations": None, "infos.state": None, "infos.legals": None}
    path = handmade(tmp_path / "x.vlt" / "a", (3, 2), **leaves)
    read = vault.open(path).read()
    assert read.episodes.avail.shape == (2, 4, 2, 3)
    assert read.episodes.avail.all()
    assert read.episodes.state[0].tolist() == [[0, 100], [1, 101], [2, 102], [2, 102]]
    assert vault.open(path, num_actions=5).read().episodes.avail.shape[-1] == 5
    with pytest.raises(RefusedError, match=r"num_actions=2, but .* holds action 2"):
        vault.open(path, num_actions=2)


def test_an_agent_that_ends_before_its_team_is_dead(tmp_path):
    terminals = np.zeros((5, 2), bool)
    terminals[1, 0] = terminals[2] = terminals[4] = True
    read = vault.open(handmade(tmp_path / "x.vlt" / "a", (3, 2), terminals=terminals)).read()
    assert read.episodes.alive[..., 0].astype(int).tolist() == [[1, 1, 0, 0], [1, 1, 1, 0]]
    assert read.episodes.alive[..., 1].astype(int).tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert read.episodes.terminated.astype(int).tolist() == [[0, 0, 1], [0, 1, 0]]


def test_terminated_agents_in_a_team_that_is_cut(tmp_path):
    terminals, cuts = np.zeros((3, 2), bool), np.zeros((3, 2), bool)
    terminals[1:, 0] = cuts[2, 1] = True
    path = handmade(tmp_path / "x.vlt" / "a", (3,), terminals=terminals, truncations=cuts)
    read = vault.open(path).read()
    assert read.episodes.mask.tolist() == [[True, True]]
    assert read.episodes.truncated.tolist() == [[False, True]]
    assert not read.episodes.terminated.any()


def test_flags_and_legals_may_be_floats_and_actions_have_an_axis(tmp_path):
    flags = ends((3, -2))
    same = handmade(tmp_path / "x.vlt" / "bool", (3, 2), **flags)
    floats = {name: x.astype(np.float32) for name, x in flags.items()}
    legals = np.ones((5, 2, 3), np.float32)
    actions = np.tile((np.arange(5) % 3).astype(np.int64)[:, None, None], (1, 2, 1))
    path = handmade(tmp_path / "x.vlt" / "f32", (3, 2), **floats, **{"infos.legals": legals, "actions": actions})
    toy_data.assert_equal(vault.open(path).read(), vault.open(same).read())


def test_rewards_that_differ_are_not_a_team_reward(tmp_path):
    rewards = np.array([[1, 1], [1, 3], [2, 2]], np.float32)
    path = handmade(tmp_path / "x.vlt" / "a", (3,), rewards=rewards)
    with pytest.raises(RefusedError, match=r"rewards differ in 1 of 3 rows.*rewards=individual.*rewards=mean"):
        vault.open(path)
    mean = vault.open(path, rewards="mean")
    assert mean.read().episodes.reward[0].tolist() == [[1, 1], [2, 2], [2, 2]]
    assert mean.card["returns"]["mean"] == 5
    alone = vault.open(path, rewards="individual")
    assert alone.read().episodes.reward[0].tolist() == rewards.tolist()
    assert alone.read().common_reward is False
    assert alone.card["returns"]["mean"] == 10
    with pytest.raises(RefusedError, match="rewards=sum is not one of team, mean, individual"):
        vault.open(path, rewards="sum")
    with pytest.raises(RefusedError, match="last_step=drop is not one of mask, keep"):
        vault.open(path, last_step="drop")


def test_an_action_that_was_not_legal_is_refused(tmp_path):
    legals = np.ones((3, 2, 3), bool)
    legals[1, 0, 1] = False
    with pytest.raises(RefusedError, match=r"action taken is not available \(episode 0 at \[1, 0\]"):
        vault.open(handmade(tmp_path / "x.vlt" / "a", (3,), **{"infos.legals": legals})).read()


# ----------------------------------------------------------------------------------------------- wrong and broken files


def spoiled(stored, tmp_path):
    return shutil.copytree(stored, tmp_path / "spoiled")


def rewrite(folder, **changes):
    path = folder / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


@pytest.mark.parametrize("version", [1.0, 1, 1.9])
def test_minor_versions_do_not_matter(stored, tmp_path, version):
    assert len(vault.open(rewrite(spoiled(stored, tmp_path), version=version))) == 7


@pytest.mark.parametrize("version", [0.9, 2.0, 2])
def test_other_major_versions_are_refused(stored, tmp_path, version):
    with pytest.raises(RefusedError, match=rf"version {version}; 1\.x can be read"):
        vault.open(rewrite(spoiled(stored, tmp_path), version=version))


def test_what_is_not_a_vault_is_refused(stored, tmp_path):
    with pytest.raises(RefusedError, match="does not exist"):
        vault.open(tmp_path / "nope.vlt")
    with pytest.raises(RefusedError, match=r"is not a vault: it has no metadata\.json"):
        vault.open(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(RefusedError, match=r"is not a vault: it has no metadata\.json"):
        vault.open(tmp_path / "file")
    for version in (None, "1.2", True):
        folder = rewrite(spoiled(stored, tmp_path), version=version)
        with pytest.raises(RefusedError, match=r"metadata\.json has no version"):
            vault.open(folder)
        shutil.rmtree(folder)
    with pytest.raises(RefusedError, match="has no structure_shape"):
        vault.open(rewrite(spoiled(stored, tmp_path), structure_shape=None))


def test_the_folder_above_is_enough_if_there_is_one(stored, tmp_path):
    shutil.copytree(stored, tmp_path / "x.vlt" / "Good")
    assert vault.open(tmp_path / "x.vlt").path.name == "Good"
    shutil.copytree(stored, tmp_path / "x.vlt" / "Poor")
    with pytest.raises(RefusedError, match=r"several data sets: Good, Poor\. Name one"):
        vault.open(tmp_path / "x.vlt")


def test_nothing_whole_is_refused(tmp_path):
    with pytest.raises(RefusedError, match="has no whole episode: in 4 rows"):
        vault.open(handmade(tmp_path / "x.vlt" / "a", (), rest=4))
    with pytest.raises(RefusedError, match="has no whole episode"):
        vault.open(handmade(tmp_path / "x.vlt" / "b", (1, 1), **ends((-1, -1))))


def test_an_empty_one_is_refused(stored, tmp_path):
    import tensorstore

    folder = spoiled(stored, tmp_path)
    tensorstore.open(vault_arrays.spec(folder, "vault_index")).result().write([0]).result()
    with pytest.raises(RefusedError, match="is empty: its vault_index is 0"):
        vault.open(folder)


@pytest.mark.parametrize(
    ("leaves", "message"),
    [
        ({"rewards": None}, "has no rewards, but observations, actions"),
        ({"observations": np.zeros((3, 2), np.float32)}, r"observations has shape \(1, 10000000000000, 2\)"),
        ({"terminals": np.ones((3, 1), bool)}, "terminals has shape"),
        ({"actions": np.zeros((3, 2), np.float32)}, "real numbers without a size"),
    ],
)
def test_vaults_of_something_else_are_refused(tmp_path, leaves, message):
    with pytest.raises(RefusedError, match=message):
        vault.open(handmade(tmp_path / "x.vlt" / "a", (3,), **leaves))


def test_a_leaf_that_is_only_in_the_metadata_is_refused(stored, tmp_path):
    structure = json.loads((stored / "metadata.json").read_text())["structure_shape"] | {"extra": "(1, 25)"}
    with pytest.raises(RefusedError, match=r"is damaged: extra\. cannot be opened"):
        vault.open(rewrite(spoiled(stored, tmp_path), structure_shape=structure))


@pytest.mark.parametrize("how", ["cut", "emptied", "removed"])
def test_a_damaged_file_is_refused_or_was_not_needed(stored, tmp_path, how):
    """A store keeps files of states that were overwritten; nothing else may be damaged without an error."""
    folder, whole = spoiled(stored, tmp_path), vault.open(stored).read()
    refused = set()
    for path in sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file()):
        if how == "removed":
            (folder / path).unlink()
        else:
            raw = (folder / path).read_bytes()
            (folder / path).write_bytes(raw[: len(raw) // 2] if how == "cut" else b"")
        try:
            toy_data.assert_equal(vault.open(folder).read(), whole)
        except RefusedError as error:
            assert "is damaged: " in str(error) or "it has no metadata.json" in str(error)  # noqa: PT017
            refused.add(path.name)
        shutil.copy(stored / path, folder / path)
    assert refused >= {"metadata.json", "manifest.ocdbt"}
    assert len(refused) > 8


def test_an_old_one_is_not_overwritten_and_a_stopped_one_is_not_taken_for_one(good, stored, tmp_path, monkeypatch):
    with pytest.raises(RefusedError, match="exists, and a vault is not overwritten"):
        vault.write(good, stored)

    def stop(*arguments):
        raise KeyboardInterrupt

    path = tmp_path / "x.vlt" / "a"
    with monkeypatch.context() as patch:
        patch.setattr(vault_metadata, "tree", stop)
        with pytest.raises(KeyboardInterrupt):
            vault.write(good, path)
    with pytest.raises(RefusedError, match="is unfinished: its writer was stopped"):
        vault.open(path)
    vault.write(good, path)
    assert len(vault.open(path)) == 7
    assert [child.name for child in path.parent.iterdir()] == ["a"]


def test_what_is_read_goes_into_our_own_format(stored, tmp_path):
    read = vault.open(stored).read()
    toy_data.assert_equal(own.load(own.save(read, tmp_path / "toy.jds", "float32")), read)
