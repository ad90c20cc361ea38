"""env=lbf against plays and starts of lbforaging, live or kept in tests/golden/lbforaging-*.npz. To record those again:

pip install --target /tmp/lbf1015 --no-deps lbforaging==1.0.15
python tests/envs/foraging_golden.py /tmp/lbf1015
"""

import pathlib
import sys

import foraging_plays as plays
import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import chi2_contingency

from jaxshare.envs.lbf import environment as lbf
from jaxshare.envs.lbf.state import State

GOLDEN = pathlib.Path(__file__).parent.parent / "golden"
STARTS = 3000
PLAYS = [  # what a version lacks is left out of its settings
    ("8x8-2p-2f-coop", {}),
    ("10x10-3p-3f", {}),
    ("2s-7x7-4p-3f", {"penalty": 0.1}),
    ("5x5-8p-2f", {"normalize_reward": False, "max_player_level": 3}),
    ("2s-6x9-5p-2f", {"grid_observation": True}),
]
SAMPLES = [("8x8-2p-2f-coop", {}), ("10x10-3p-3f", {}), ("8x8-2p-3f", {}), ("6x9-3p-3f", {"max_player_level": 4})]


def assert_equal(config, theirs):
    """From the same starts and with the same actions env=lbf shows what the original shows, in every step."""
    env = lbf.make(config)

    def step(state, action):
        state, shown = jax.vmap(lambda s, a: env.step(s, a, jax.random.key(0)))(state, action)
        return state, (shown, state)

    start = jax.tree.map(jnp.asarray, theirs.start)
    _, (ours, state) = jax.jit(lambda s, a: jax.lax.scan(step, s, a))(start, theirs.action)
    np.testing.assert_array_equal(np.stack([state.row, state.col], axis=-1), theirs.position)
    np.testing.assert_array_equal(ours.obs, theirs.obs)
    np.testing.assert_allclose(ours.reward, theirs.reward, rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(ours.terminated, theirs.empty)
    np.testing.assert_array_equal(ours.terminated | ours.truncated, theirs.done)
    np.testing.assert_array_equal(ours.avail, theirs.valid)
    assert not np.any(ours.terminated & ours.truncated)


def drawn(env, count, seed):
    """`count` of our starts."""
    return jax.device_get(jax.jit(jax.vmap(lambda k: env.reset(k)[0]))(jax.random.split(jax.random.key(seed), count)))


def features(s):
    """What is compared of starts [B, ...]: {name: [B] i64}."""

    def code(*columns):
        return sum((np.asarray(x, np.int64) + 2) * 40**k for k, x in enumerate(columns))

    foods = list(zip(s.food_row.T, s.food_col.T, strict=True))
    players = list(zip(s.row.T, s.col.T, strict=True))
    codes = {
        "player levels": code(*s.level.T[:4]),
        "food levels": code(*s.food_level.T[:3], np.sort(s.level)[:, :3].sum(1)),
        "food count": s.num_spawned,
        "first player": code(*players[0]),
        "last player": code(*players[-1]),
        "first food": code(*foods[0]),
        "last food": code(*foods[-1]),
        "player to food": code(np.abs(players[0][0] - foods[0][0]), np.abs(players[0][1] - foods[0][1])),
        "player to player": code(np.abs(players[0][0] - players[-1][0]), np.abs(players[0][1] - players[-1][1])),
    }
    if len(foods) > 1:
        codes["food to food"] = code(foods[1][0] - foods[0][0], np.abs(foods[1][1] - foods[0][1]))
    return codes


def p_value(a, b):
    """Of one distribution behind both samples; rare values count as one."""
    values, where = np.unique(np.concatenate([a, b]), return_inverse=True)
    table = np.stack([np.bincount(w, minlength=len(values)) for w in np.split(where, [len(a)])])
    rare = table.sum(0) * len(a) < 8 * table.sum()
    table = np.concatenate([table[:, ~rare], table[:, rare].sum(1, keepdims=True)], axis=1)
    table = table[:, table.sum(0) > 0]
    return chi2_contingency(table).pvalue if table.shape[1] > 1 else 1.0


def p_values(config, theirs):
    """{feature: p-value} of the original's starts [B, ...] and 20,000 of ours having one distribution."""
    theirs = features(theirs)
    ours = features(drawn(lbf.make(config), 20_000, seed=1))
    return {name: p_value(theirs[name], ours[name]) for name in theirs}


# --------------------------------------------------------------------------------------------------------- golden files


def flat(prefix, record):
    """{name: array} of a Play or a State, small whole numbers as int8."""
    fields = record._asdict() if isinstance(record, plays.Play) else vars(record)
    arrays = {}
    for name, value in fields.items():
        if isinstance(value, State):
            arrays |= flat(f"{prefix}/{name}", value)
        elif name == "reward":
            arrays[f"{prefix}/{name}"] = value.astype(np.float32)
        else:
            small = np.asarray(value).astype(np.int8)
            np.testing.assert_array_equal(small, value)
            arrays[f"{prefix}/{name}"] = small
    return arrays


def stored_state(kept, prefix):
    names = State.__dataclass_fields__
    return State(**{name: kept[f"{prefix}/{name}"].astype(np.int32) for name in names})


def stored_play(kept, prefix):
    """A Play of a golden file."""
    rest = {name: kept[f"{prefix}/{name}"] for name in plays.Play._fields[1:]}
    rest["action"] = rest["action"].astype(np.int32)
    return plays.Play(start=stored_state(kept, f"{prefix}/start"), **rest)


def record(folder):
    """Write the golden file of the version in this folder."""
    foraging, version = plays.load_older(folder), plays.version_in(folder)
    arrays = {"version": np.array(version)}
    for i, (scenario, settings) in enumerate(PLAYS):
        config = lbf.Config(scenario=scenario, **plays.without(settings, version))
        game = plays.older(foraging, config, plays.LACKS[version])
        game.seed(i)
        arrays |= flat(f"play{i}", plays.play(game, seed=i)[0])
    for i, (scenario, settings) in enumerate(SAMPLES):
        game = plays.older(foraging, lbf.Config(scenario=scenario, **settings), plays.LACKS[version])
        game.seed(i)
        arrays |= flat(f"start{i}", plays.starts(game, STARTS))
    path = GOLDEN / f"lbforaging-{version}.npz"
    path.parent.mkdir(exist_ok=True)
    np.savez_compressed(path, **arrays)
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        record(argument)
