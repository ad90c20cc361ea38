"""Agents of a type exchanged: everything that is an agent's goes with it, and nothing else moves."""

import dataclasses

import numpy as np
import pytest
import toy_data

from jaxshare import cli
from jaxshare.commands import convert
from jaxshare.data import exchanging, own, records
from jaxshare.types import RefusedError

MOVED = ("obs", "avail", "alive", "action", "reward", "extras.log_prob", "level", "policy")
STAYS = ("state", "terminated", "truncated", "mask", "component")


def agents_first(name, x):
    """[N, E, ...]"""
    return np.moveaxis(np.asarray(x), 1 if name in ("level", "policy") else 2, 0)


@pytest.mark.parametrize("continuous", [False, True])
def test_an_agent_takes_all_that_is_its_own_along(continuous):
    """Types a, b, b: agent 0 stays, the other two stay or change places, for each episode anew."""
    dataset = toy_data.dataset(individual=True, continuous=continuous, copies=20)
    mixed = exchanging.exchange(dataset, seed=3)
    before, after = records.flat(dataset), records.flat(mixed)
    order = exchanging.orders(dataset.card["agent_types"], len(dataset), 3)
    assert (order[:, 0] == 0).all()
    np.testing.assert_array_equal(np.sort(order, axis=1), np.tile([0, 1, 2], (len(dataset), 1)))
    swapped = order[:, 1] == 2
    assert 0.3 < swapped.mean() < 0.7
    for name in MOVED:
        old, new = agents_first(name, before[name]), agents_first(name, after[name])
        assert new.dtype == old.dtype
        np.testing.assert_array_equal(new[0], old[0])
        for one, other in ((1, 2), (2, 1)):
            np.testing.assert_array_equal(new[one][~swapped], old[one][~swapped])
            np.testing.assert_array_equal(new[one][swapped], old[other][swapped])
    for name in STAYS:
        np.testing.assert_array_equal(after[name], before[name])
    assert set(after) == {*MOVED, *STAYS}
    np.testing.assert_allclose(records.returns(mixed), records.returns(dataset), rtol=1e-4, atol=1e-5)
    assert mixed.card["exchanged"] == {"seed": 3}


def test_a_seed_gives_the_same_orders_and_another_one_others():
    types = ["a"] * 4 + ["b"] * 3
    first, again, other = (exchanging.orders(types, 50, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    counts = np.stack([(first[:, :4] == agent).sum(0) for agent in range(4)])
    assert (counts > 3).all()  # everybody stands in everybody's place
    assert set(np.unique(first[:, 4:])) == {4, 5, 6}


def test_agents_that_are_all_different_are_refused():
    dataset = toy_data.dataset()
    alone = dataclasses.replace(dataset, card={**dataset.card, "agent_types": ["a", "b", "c"]})
    with pytest.raises(RefusedError, match=r"exchange=true: each of the 3 agents .*\(a, b, c\).* Leave it out"):
        exchanging.exchange(alone, seed=0)


def test_the_command_writes_such_a_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own.save(toy_data.dataset(extras=False, copies=5), "two.jds", "float32")
    arguments = ["data=two.jds", "out=mixed.jds", "exchange=true", "exchange_seed=7", "progress=false"]
    convert.convert(cli.small_config(convert.Config, arguments))
    written = own.open("mixed.jds")
    assert written.card["exchanged"] == {"seed": 7}
    expected = exchanging.exchange(own.load("two.jds"), seed=7)
    toy_data.assert_equal(written.read(), expected)
    assert (written.read().level != own.load("two.jds").level).any()
