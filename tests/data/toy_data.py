"""Small data sets for the tests of data/."""

import numpy as np

from jaxshare.data import records
from jaxshare.data.card import card_of
from jaxshare.types import Box, Discrete, EnvSpec, Episode

STEPS, AGENTS, ACTIONS, OBS, STATE, DIM = 5, 3, 4, 2, 3, 2
LENGTHS = (5, 1, 3, 5, 2, 4, 5)  # the ends below: at the time limit, early, and both at once
TERMINATED = (False, True, True, True, False, True, True)
TRUNCATED = (True, False, False, True, True, False, False)


def spec(continuous=False, **changes):
    action = Box(DIM, (-1.0,) * DIM, (1.0,) * DIM) if continuous else Discrete(ACTIONS)
    usual = {
        "name": "toy/three", "num_agents": AGENTS, "obs_dim": OBS, "state_dim": STATE, "action": action,
        "episode_limit": STEPS, "groups": (0, 1, 1), "group_names": ("a", "b"),
    }  # fmt: skip
    return EnvSpec(**(usual | changes))


def dataset(seed=0, continuous=False, individual=False, labels=True, deaths=True, card=True, extras=True, copies=1):
    """Seven episodes (times `copies`) of all kinds of ends; canonical padding as a rollout leaves it."""
    rng = np.random.default_rng(seed)
    length = np.tile(LENGTHS, copies)
    num = len(length)
    mask = np.arange(STEPS) < length[:, None]
    reached = np.arange(STEPS + 1) <= length[:, None]
    last = np.arange(STEPS) == length[:, None] - 1
    normal = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    avail = rng.random((num, STEPS + 1, AGENTS, 0 if continuous else ACTIONS)) < 0.5
    if continuous:
        action = np.clip(normal(num, STEPS, AGENTS, DIM), -1, 1) * mask[..., None, None]
    else:
        action = rng.integers(0, ACTIONS, (num, STEPS, AGENTS)) * mask[..., None]
        np.put_along_axis(avail[:, :-1], action[..., None], True, axis=-1)
        avail[..., 0] |= ~avail.any(-1)
        avail |= ~reached[..., None, None]
    alive = np.ones((num, STEPS + 1, AGENTS), bool)
    if deaths:
        alive[:, 2:, 1] = False
    reward = normal(num, STEPS, AGENTS if individual else 1) * mask[..., None]
    fields = {
        "obs": normal(num, STEPS + 1, AGENTS, OBS) * reached[..., None, None],
        "state": normal(num, STEPS + 1, STATE) * reached[..., None],
        "avail": avail,
        "alive": alive & reached[..., None],
        "action": action,
        "reward": np.broadcast_to(reward, (num, STEPS, AGENTS)).copy(),
        "terminated": last & np.tile(TERMINATED, copies)[:, None],
        "truncated": last & np.tile(TRUNCATED, copies)[:, None],
        "mask": mask,
    }
    known = {}
    if labels:
        known["level"] = rng.integers(0, 3, (num, AGENTS))
        known["policy"] = rng.integers(0, 9, (num, AGENTS))
        known["component"] = np.arange(num) % 2
    more = {"log_prob": normal(num, STEPS, AGENTS)} if extras else {}
    about = card_of(spec(continuous, common_reward=not individual), "rrm + rre") if card else {}
    return records.make(Episode(**fields, extras=more), card=about, **known)


def assert_equal(a, b, but=()):
    """Equal arrays, dtypes included; the cards are not compared."""
    first, second = records.flat(a), records.flat(b)
    assert first.keys() - set(but) == second.keys() - set(but)
    for name in first.keys() - set(but):
        assert first[name].dtype == second[name].dtype, name
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
