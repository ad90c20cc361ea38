"""What messages about data sets advise exists: every setting that they name is tried on the command that has it."""

import ast
import dataclasses
import json
import re
import tomllib

import numpy as np
import pytest
import test_offline_run
import tiny
from test_offline_run import GAME, arguments_of, written

from jaxshare import cli
from jaxshare.commands import collect, convert
from jaxshare.data import hdf5, own, records, vault
from jaxshare.data.vault.arrays import spec as vault_spec
from jaxshare.run import build, fleet, offline
from jaxshare.types import RefusedError

refused = test_offline_run.refused  # a fixture
BC = ("algo=bc", *GAME, "batch_size=16", "total_updates=20")
NO_SETTINGS = {
    "action": "a value of a data set", "episodes": "an index in Python", "common_reward": "of a card", "env": "a group",
}  # fmt: skip


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """64 episodes of two steps, without a card, so that it fits by its sizes."""
    made = own.load(written(tmp_path_factory.mktemp("sets") / "two.jds", *GAME), dtype="float32")
    return dataclasses.replace(made, card={})


# --------------------------------------------------------------------------------------------------- what messages name


def texts(node):
    """The message in a node, with what is only known later as 0."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(texts(value) for value in node.values)
    if isinstance(node, ast.FormattedValue):
        return "0"
    return " ".join(texts(child) for child in ast.iter_child_nodes(node))


def messages():
    """Every text in a `raise`, or in a function that makes one, of jaxshare/data."""
    for path in sorted((tiny.REPOSITORY / "jaxshare" / "data").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise | ast.Return) or (
                isinstance(node, ast.Assign) and "INSTALL" in ast.dump(node)
            ):
                yield path.name, texts(node)


def named():
    """(file, key, value) of every setting in a message."""
    for name, text in messages():
        for key, value in re.findall(r"(?<![\w.])([a-z_]+(?:\.[a-z_]+)*)=([\w.]*\w)?", text):
            if key not in NO_SETTINGS:
                yield name, key, value


def test_messages_are_found():
    keys = {key for _, key, _ in named()}
    assert {"dataset.rewards", "dataset.last_step", "dataset.episode_length", "dataset.num_actions"} <= keys
    assert {"dtype", "overwrite"} <= keys


@pytest.mark.parametrize(("name", "key", "value"), sorted(set(named())))
def test_every_setting_that_a_message_names_exists_on_a_command(name, key, value):
    for command in (collect, convert):
        if key in {field.name for field in dataclasses.fields(command.Config)}:
            default = getattr(command.Config(), key)
            chosen = cli.small_config(command.Config, [f"{key}={value if value not in ('', '0') else default}"])
            assert hasattr(chosen, key)
            break
    else:
        found = cli.settings(["env=matrix", f"{key}={value or 'team'}"])
        for part in key.split("."):
            found = getattr(found.run if part == "dataset" else found, part)


def test_every_package_and_command_that_a_message_names_exists():
    extras = tomllib.loads((tiny.REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    everything = " ".join(text for _, text in messages())
    assert set(re.findall(r"jaxshare\[(\w+)\]", everything)) == {"hdf5"}
    assert "hdf5" in extras
    for module in re.findall(r"python -m jaxshare\.(\w+)", everything):
        assert (tiny.REPOSITORY / "jaxshare" / f"{module}.py").is_file()


# ----------------------------------------------------------------------------------------------- sets that were refused


def as_vault(path, dataset, **changes):
    """A vault as others write them: its leaves changed, and nothing of jaxshare in it."""
    import tensorstore

    folder = vault.write(dataset, path)
    metadata = json.loads((folder / vault.METADATA).read_text())
    foreign = {key: value for key, value in metadata.items() if not key.startswith("jaxshare")}
    (folder / vault.METADATA).write_text(json.dumps(foreign))
    for name, values in changes.items():
        tensorstore.open(vault_spec(folder, f"{name}.")).result()[0, : len(values)].write(values).result()
    return folder


def loaded(tmp_path, data, *arguments):
    """The episodes that the train command would learn from."""
    settings = cli.settings([*BC, f"data={data}", f"run_dir={tmp_path / 'run'}", *arguments])
    program = build.prepare(settings)
    return offline.load(settings, program)


def test_done_flags_of_zero_and_a_length(dataset, refused, tmp_path, capsys):
    rows = int(dataset.episodes.mask.sum())
    never = {name: np.zeros((rows, 2), bool) for name in ("terminals", "truncations")}
    data = as_vault(tmp_path / "x.vlt" / "never", dataset, **never)
    message = refused(*BC, f"data={data}", f"run_dir={tmp_path / 'run'}")
    assert "flags are 0 throughout" in message
    assert "dataset.episode_length=25" in message
    episodes = loaded(tmp_path, data, "dataset.episode_length=2", "dataset.last_step=keep")
    assert episodes.mask.shape == (64, 2)
    assert episodes.truncated[:, 1].all()
    np.testing.assert_array_equal(episodes.action, dataset.episodes.action)


def test_unequal_rewards(dataset, refused, tmp_path):
    rows = int(dataset.episodes.mask.sum())
    rewards = np.random.default_rng(0).normal(size=(rows, 2)).astype(np.float32)
    data = as_vault(tmp_path / "x.vlt" / "unequal", dataset, rewards=rewards)
    message = refused(*BC, f"data={data}", f"run_dir={tmp_path / 'run'}")
    assert "rewards differ" in message
    episodes = loaded(tmp_path, data, "dataset.rewards=mean")
    np.testing.assert_allclose(episodes.reward.reshape(rows, 2)[:, 0], rewards.mean(1), rtol=1e-6)
    # individual rewards are for an environment that has them
    message = refused(*BC, f"data={data}", f"run_dir={tmp_path / 'run'}", "dataset.rewards=individual")
    assert "common_reward: False in the data, True in matrix/two_step" in message
    assert "use dataset.rewards=mean" in message  # which is what was tried above
    assert not (tmp_path / "run").exists()


def test_equal_rewards_and_an_environment_with_rewards_for_each_agent(tmp_path):
    """What a foreign vault holds is taken for a team reward, until it is said that it is none."""
    game = ("algo=bc", "env=matrix", "env.game=stag_hunt", "batch_size=16", "total_updates=20")
    alone = own.load(written(tmp_path / "x.jds", "env=matrix", "env.game=stag_hunt"), dtype="float32")
    data = as_vault(tmp_path / "x.vlt" / "equal", alone, rewards=np.ones((len(alone), 2), np.float32))

    def load(*arguments):
        settings = cli.settings([*game, f"data={data}", f"run_dir={tmp_path / 'run'}", *arguments])
        return offline.load(settings, build.prepare(settings))

    with pytest.raises(RefusedError, match=r"True in the data, False in .*use dataset\.rewards=individual"):
        load()
    assert (load("dataset.rewards=individual").reward == 1).all()


def test_padded_sets_and_sets_in_parts_are_told_of_and_learned_from(dataset, tmp_path, capsys):
    pytest.importorskip("h5py", reason="the extra hdf5")
    for number, part in enumerate((slice(0, 40), slice(40, 64))):
        hdf5.write(dataset.take(part), tmp_path / "set" / f"part_{2 * number}.h5")
    episodes = loaded(tmp_path, tmp_path / "set")
    np.testing.assert_array_equal(episodes.obs, dataset.episodes.obs)
    assert f"note: data={tmp_path / 'set'}: no parts are there between 0 and 2" in capsys.readouterr().err

    obs = np.asarray(dataset.episodes.obs)[:, :-1].reshape(-1, *dataset.episodes.obs.shape[2:]).copy()
    obs[:, 1, 0] = -np.inf
    data = as_vault(tmp_path / "x.vlt" / "padded", dataset, observations=obs)
    episodes = loaded(tmp_path, data)
    assert (episodes.obs[:, :, 1, 0] == 0).all()
    assert "columns of observations are infinite throughout: padding, read as 0." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["dataset.rewards=sum"], "dataset.rewards=sum is not one of team, mean, individual"),
        (["dataset.rewards=mean"], "dataset.rewards=mean has no effect on jaxshare's own format. Leave it out."),
        (["data=", "algo=vdn", "dataset.rewards=mean"], "dataset.rewards=mean has no effect without data=SET"),
        (["dataset.reward=mean"], "Did you mean dataset.rewards"),
    ],
    ids=" ".join,
)
def test_settings_that_cannot_be_are_refused(dataset, refused, tmp_path, arguments, told):
    data = own.save(dataset, tmp_path / "two.jds", "float32")
    assert told in refused(*BC, f"data={data}", f"run_dir={tmp_path / 'run'}", *arguments)
    assert not (tmp_path / "run").exists()


def test_how_a_set_is_read_belongs_to_the_run(dataset, refused, tmp_path):
    data = as_vault(tmp_path / "x.vlt" / "good", dataset)
    arguments = (*arguments_of("bc", data), "dataset.last_step=keep")
    run_dir = tiny.train(tmp_path / "run", *arguments, max_chunks=1)
    assert "last_step: keep" in (run_dir / "config.yaml").read_text()
    message = refused(*arguments, f"run_dir={run_dir}", "resume=auto", "dataset.last_step=mask")
    assert "dataset.last_step was keep, now mask" in message
    tiny.train(run_dir, *arguments, "resume=auto")
    assert tiny.records(run_dir)[-1]["updates"] == 30


# ----------------------------------------------------------------------------------- ranges of the dtypes of the replay


def larger(monkeypatch, scale):
    """The game with observations that are `scale` times as large."""
    make_env = build.make_env

    def make(settings):
        env = make_env(settings)

        def scaled(timestep):
            return timestep.replace(obs=timestep.obs * scale)

        def reset(key):
            state, timestep = env.reset(key)
            return state, scaled(timestep)

        def step(state, action, key):
            state, timestep = env.step(state, action, key)
            return state, scaled(timestep)

        return dataclasses.replace(env, reset=reset, step=step)

    monkeypatch.setattr(build, "make_env", make)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "scale", "limits"), [("float16", 1e5, "65504"), ("int8", 2.0, "[-1, 1]")])
def test_observations_beyond_the_range_of_the_replay_are_named(tmp_path, monkeypatch, dtype, scale, limits):
    larger(monkeypatch, scale)
    arguments = (*tiny.PLAIN, f"replay.dtype={dtype}")
    with pytest.raises(
        RefusedError, match=rf"^replay.dtype={dtype} keeps numbers within .*replay.dtype=bfloat16"
    ) as told:
        tiny.train(tmp_path / "first", *arguments)
    assert limits in str(told.value)

    # found only after the replay was full enough: the loss is nan, and the cause is named
    monkeypatch.setattr(fleet.Fleet, "prefill", lambda self, interrupted=(): self.advance.prefill(interrupted))
    with pytest.raises(RefusedError, match=rf"became nan .* last good checkpoint .*replay.dtype={dtype} keeps") as told:
        tiny.train(tmp_path / "later", *arguments)
    assert "hparams.lr" not in str(told.value)


@pytest.mark.slow
def test_bfloat16_has_the_range_of_float32(tmp_path, monkeypatch):
    larger(monkeypatch, 1e5)
    run_dir = tiny.train(tmp_path / "run", *tiny.PLAIN, "replay.dtype=bfloat16")
    assert tiny.records(run_dir)


def test_a_rollout_and_a_set_beyond_the_range_of_their_dtype_are_named(dataset, tmp_path):
    large = dataclasses.replace(dataset, episodes=dataset.episodes.replace(obs=dataset.episodes.obs * 1e5))
    path = own.save(large, tmp_path / "x.jds", "float32")
    with pytest.raises(RefusedError, match=r"dtype=float16 cannot hold obs, which reaches 1e\+05\. Use dtype=float32"):
        own.load(path, dtype="float16")
    batch = dataset.episodes.replace(
        **{
            field.name: np.swapaxes(getattr(large.episodes, field.name), 0, 1)
            for field in dataclasses.fields(large.episodes)
            if field.name != "extras"
        },
        extras={},
    )
    with pytest.raises(RefusedError, match=r"dtype=float16 holds numbers within \[-65504, 65504\] only"):
        records.from_rollout(batch, dtype="float16")
    assert np.isfinite(records.from_rollout(batch, dtype="float32").episodes.obs).all()
