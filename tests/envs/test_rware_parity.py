"""The warehouse against rware 2.0.0: same start, same actions, same draws of new requests; everything must be equal."""

import sys
from collections import Counter, deque
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxshare.envs.rware import environment as rware
from jaxshare.envs.rware import shelves as rules
from jaxshare.envs.rware import ties
from jaxshare.envs.rware.state import State
from jaxshare.envs.rware.task import read_layout

original = pytest.importorskip("rware.warehouse")
KINDS = {"individual": "INDIVIDUAL", "global": "GLOBAL", "two-stage": "TWO_STAGE"}


class Chooser:
    """Stands for the original's generator: takes the shelf that the other side drew for the goal in hand."""

    def __init__(self, game):
        self.game, self.places = game, (0, 0)

    def choice(self, candidates):
        caller = sys._getframe(1).f_locals
        goal = self.game.goals.index((caller["y"], caller["x"]))
        carried = {agent.carrying_shelf.id: agent.id for agent in self.game.agents if agent.carrying_shelf}
        ordered = sorted(candidates, key=lambda s: (s.id in carried, carried.get(s.id, 0), s.y, s.x))
        return ordered[int(self.places[goal])]


@cache
def compiled(config):
    env, layout = rware.make(config), read_layout(config)
    draws = jax.vmap(lambda key: rules.draws(layout, key))
    return env, layout, jax.jit(env.reset), jax.jit(env.step), jax.jit(jax.vmap(env.step)), jax.jit(draws)


def twin(config):
    layout = compiled(config)[1]
    game = original.Warehouse(
        shelf_columns=layout.shelf_columns,
        column_height=layout.column_height,
        shelf_rows=layout.shelf_rows,
        n_agents=layout.num_agents,
        msg_bits=0,
        sensor_range=layout.sensor_range,
        request_queue_size=layout.num_requests,
        max_inactivity_steps=config.max_inactivity_steps,
        max_steps=config.max_steps,
        reward_type=original.RewardType[KINDS[layout.reward_type]],
        normalised_coordinates=config.normalised_coordinates,
    )
    game.reset(seed=0)
    game._np_random = Chooser(game)
    return game


def bits(words, width):
    return np.asarray(words)[:, None] >> np.arange(width)[None, :] & 1 == 1


def load(game, state):
    """Puts a state of ours into the original."""
    width = game.grid_size[1]
    standing, requested = (np.argwhere(bits(words, width)) for words in (state.shelves, state.requests))
    requested = {(int(x), int(y)) for y, x in requested}
    places = [(int(x), int(y)) for y, x in standing]
    loaded = [i for i in range(game.n_agents) if state.carrying[i]]
    places += [(int(state.x[i]), int(state.y[i])) for i in loaded]
    queue = []
    for shelf, (x, y) in zip(game.shelfs, places, strict=True):
        shelf.x, shelf.y = x, y
    for number, (shelf, place) in enumerate(zip(game.shelfs, places, strict=True)):
        carrier = number - len(standing)
        if (state.wanted[loaded[carrier]]) if carrier >= 0 else place in requested:
            queue.append(shelf)
    assert len(queue) == game.request_queue_size
    game.request_queue = queue
    for i, agent in enumerate(game.agents):
        agent.x, agent.y = int(state.x[i]), int(state.y[i])
        agent.dir = original.Direction(int(state.direction[i]))
        agent.has_delivered = bool(state.delivered[i])
        agent.carrying_shelf = game.shelfs[len(standing) + loaded.index(i)] if i in loaded else None
    game._cur_steps, game._cur_inactive_steps = int(state.steps), int(state.inactive)
    game._recalc_grid()


def dump(game):
    """What there is to compare in the original."""
    standing = np.zeros((2, *game.grid_size), bool)
    carried = {id(agent.carrying_shelf) for agent in game.agents}
    for shelf in game.shelfs:
        if id(shelf) not in carried:
            standing[0, shelf.y, shelf.x] = True
            standing[1, shelf.y, shelf.x] = shelf in game.request_queue
    return {
        "x": [agent.x for agent in game.agents],
        "y": [agent.y for agent in game.agents],
        "direction": [agent.dir.value for agent in game.agents],
        "carrying": [agent.carrying_shelf is not None for agent in game.agents],
        "wanted": [agent.carrying_shelf in game.request_queue for agent in game.agents],
        "shelves": standing[0],
        "requests": standing[1],
    }


def assert_same(game, state, where):
    width = game.grid_size[1]
    for name, theirs in dump(game).items():
        ours = getattr(state, name)
        ours = bits(ours, width) if name in ("shelves", "requests") else ours
        assert np.array_equal(ours, theirs), f"{name} differs {where}: {np.asarray(ours)} and {np.asarray(theirs)}"


def route(game, start, wanted, loaded):
    """First cell of a shortest way to a wanted cell, or None."""
    height, width = game.grid_size
    came, queue = {start: None}, deque([start])
    while queue:
        cell = queue.popleft()
        if cell in wanted:
            while came[cell] not in (None, start):
                cell = came[cell]
            return cell
        x, y = cell
        for step in ((x, y - 1), (x, y + 1), (x - 1, y), (x + 1, y)):
            if step in came or not (0 <= step[0] < width and 0 <= step[1] < height):
                continue
            if loaded and game.grid[1, step[1], step[0]]:
                continue
            came[step] = cell
            queue.append(step)
    return None


def porter(game, agent):
    """An action that fetches, delivers or puts back."""
    here, shelf = (agent.x, agent.y), agent.carrying_shelf
    free = {s for s in game.request_queue if all(a.carrying_shelf is not s for a in game.agents)}
    if shelf is None:
        wanted = {(s.x, s.y) for s in free}
    elif shelf in game.request_queue:
        wanted = set(game.goals)
    else:
        wanted = {(int(x), int(y)) for y, x in np.argwhere((game.highways == 0) & (game.grid[1] == 0))}
        wanted |= set() if game.highways[here[::-1]] else {here}
    if here in wanted:
        return 0 if shelf in game.request_queue else 4
    step = route(game, here, wanted, shelf is not None)
    if step is None:
        return 1
    heading = {(0, -1): 0, (0, 1): 1, (-1, 0): 2, (1, 0): 3}[step[0] - here[0], step[1] - here[1]]
    if heading == agent.dir.value:
        return 1
    clockwise = [0, 3, 1, 2]
    return 3 if (clockwise.index(heading) - clockwise.index(agent.dir.value)) % 4 == 1 else 2


def policy(game, rng, obedient):
    """Each robot is a porter with probability `obedient`, else it does anything, mostly driving on."""
    anything = rng.choice(5, size=game.n_agents, p=(0.05, 0.6, 0.1, 0.1, 0.15))
    return np.array(
        [porter(game, a) if rng.random() < obedient else anything[i] for i, a in enumerate(game.agents)], np.int32
    )


def events(before, after, action):
    """What happened in a step, seen from positions."""
    old, new = (list(zip(np.asarray(s.x).tolist(), np.asarray(s.y).tolist(), strict=True)) for s in (before, after))
    moved = [a != b for a, b in zip(old, new, strict=True)]
    entered = sum(moved[i] and new[i] in old for i in range(len(old)))
    follows = {i: old.index(new[i]) for i in range(len(old)) if moved[i] and new[i] in old}
    circles = 0
    for i in follows:
        j = i
        for _ in range(len(old)):
            j = follows.get(j, -1)
            circles += j == i
    carrying = np.asarray(before.carrying), np.asarray(after.carrying)
    return Counter(
        loads=int(np.sum(~carrying[0] & carrying[1])),
        unloads=int(np.sum(carrying[0] & ~carrying[1])),
        halts=int(np.sum((action == 1) & ~np.array(moved))),
        convoys=entered,
        circles=circles,
    )


def play(config, steps, seed, obedient):
    """Plays both side by side. Returns how often each event was seen."""
    _, layout, reset, step, _, draws = compiled(config)
    game, rng = twin(config), np.random.default_rng(seed)
    state, shown = jax.device_get(reset(jax.random.key(seed)))
    load(game, state)
    obs = [game._make_obs(agent) for agent in game.agents]
    assert np.array_equal(shown.obs, np.stack(obs)), "first observations"
    keys = jax.random.split(jax.random.key(seed + 1), steps)
    places = np.asarray(draws(keys))
    seen = Counter()
    for t in range(steps):
        action = policy(game, rng, obedient)
        game._np_random.places = places[t]
        obs, rewards, done, _, _ = game.step(list(action))
        before = state
        state, shown = jax.device_get(step(state, action, keys[t]))
        where = f"at step {t} of {config.scenario}, seed {seed}"
        assert_same(game, state, where)
        assert np.array_equal(shown.obs, np.stack(obs)), f"observations differ {where}"
        assert np.array_equal(shown.reward, np.array(rewards, np.float32)), f"rewards differ {where}"
        assert bool(shown.terminated | shown.truncated) == done, where
        if layout.reward_type == "two-stage":
            assert np.array_equal(state.delivered, [agent.has_delivered for agent in game.agents]), where
        seen += events(before, state, action) + Counter(deliveries=int(shown.info["deliveries"]))
    return seen


FEW = [
    rware.Config(scenario="tiny-2ag"),
    rware.Config(scenario="tiny-4ag-easy", reward_type="two-stage", sensor_range=2),
    rware.Config(scenario="1x3-2h-10ag-4req-global", normalised_coordinates=True),
]


@pytest.mark.parametrize("config", FEW, ids=lambda c: c.scenario)
def test_same_steps(config):
    seen = play(config, 400, 0, 0.85) + play(config, 100, 1, 0.1)
    for name in ("loads", "unloads", "halts", "convoys", "deliveries"):
        assert seen[name] > 0, seen


MANY = [
    rware.Config(scenario=f"{size}-{n}ag{hard}", sensor_range=sight, reward_type=kind, max_steps=1000)
    for size, n, hard, sight, kind in (
        ("tiny", 1, "", 1, "individual"),
        ("tiny", 2, "-hard", 1, "individual"),
        ("tiny", 3, "-easy", 1, "two-stage"),
        ("tiny", 4, "", 1, "individual"),
        ("tiny", 4, "-hard", 3, "global"),
        ("tiny", 5, "", 1, "individual"),
        ("tiny", 6, "-hard", 2, "two-stage"),
        ("tiny", 8, "", 1, "individual"),
        ("tiny", 8, "-easy", 1, "global"),
        ("tiny", 10, "-hard", 1, "individual"),
        ("tiny", 10, "-easy", 1, "two-stage"),
        ("tiny", 15, "", 1, "individual"),
        ("tiny", 19, "-hard", 1, "individual"),
        ("small", 4, "", 1, "individual"),
        ("small", 4, "-hard", 5, "two-stage"),
        ("small", 10, "", 1, "global"),
        ("medium", 4, "", 1, "individual"),
        ("medium", 8, "-easy", 2, "individual"),
        ("large", 4, "-hard", 1, "individual"),
        ("large", 12, "", 1, "two-stage"),
        ("5s-2x9-4h", 6, "-5req-global", None, None),
        ("1x3-1h", 12, "-2req-indiv", None, None),
        ("1x3-2h", 20, "-4req-twostage", None, None),
        ("1x5-3h", 24, "-6req-indiv", None, None),
    )
]


@pytest.mark.slow
@pytest.mark.parametrize("config", MANY, ids=lambda c: c.scenario)
def test_same_steps_in_many_warehouses(config):
    seen = play(config, 1000, 0, 0.85) + play(config, 600, 1, 0.97) + play(config, 400, 2, 0.1)
    for name in ("loads", "unloads", "halts", "deliveries", "convoys" if config.scenario != "tiny-1ag" else "halts"):
        assert seen[name] > 0, seen


def crowd(layout, rng, driving):
    """A state with robots anywhere, some of them loaded, and actions of which most are to drive on."""
    n, cells = layout.num_agents, layout.height * layout.width
    if rng.random() < 0.5:  # all in one corner
        height, width = min(layout.height, 2 + int(np.sqrt(n))), min(layout.width, 2 + int(np.sqrt(n)))
        area = (np.arange(height)[:, None] * layout.width + np.arange(width)[None, :]).reshape(-1)
        area = area if len(area) >= n else np.arange(cells)
    else:
        area = np.arange(cells)
    cell = rng.choice(area, size=n, replace=False)
    y, x = np.divmod(cell, layout.width)
    direction = rng.integers(0, 4, n, np.int32)
    rest = (1 - driving) / 4
    action = rng.choice(5, size=n, p=(rest, driving, rest, rest, rest)).astype(np.int32)
    if n > 3 and rng.random() < 0.1:  # four in a circle
        corner = rng.integers(0, layout.height - 1), rng.integers(0, layout.width - 1)
        circle = [(0, 0, 3), (0, 1, 1), (1, 1, 2), (1, 0, 0)]
        taken = {(corner[0] + row, corner[1] + column) for row, column, _ in circle}
        others = [c for c in rng.permutation(layout.height * layout.width) if divmod(c, layout.width) not in taken]
        y[4:], x[4:] = np.divmod(others[: n - 4], layout.width)
        for i, (row, column, heading) in enumerate(circle):
            y[i], x[i], direction[i], action[i] = corner[0] + row, corner[1] + column, heading, 1
    home = layout.shelf_cells()
    total = int(home.sum())
    carrying = rng.random(n) < 0.4
    carrying &= np.cumsum(carrying) <= total - 1
    own = np.zeros_like(home)
    own[y[carrying], x[carrying]] = True
    standing = np.argwhere(home & ~own)
    spare = total - int(carrying.sum())
    if len(standing) < spare:  # a carried shelf stays at home: too few places
        return crowd(layout, rng, driving)
    standing = rng.permutation(standing)[:spare]
    requested = rng.permutation(total)[: layout.num_requests]
    words = np.zeros((2, layout.height), np.uint32)
    for number, (row, column) in enumerate(standing):
        words[0, row] |= 1 << column
        words[1, row] |= (1 << column) * (number in requested)
    wanted = np.zeros(n, bool)
    wanted[np.flatnonzero(carrying)] = np.isin(np.arange(spare, total), requested)
    state = State(
        x=x.astype(np.int32),
        y=y.astype(np.int32),
        direction=direction,
        carrying=carrying,
        wanted=wanted,
        delivered=carrying & (rng.random(n) < 0.5),
        shelves=words[0],
        requests=words[1],
        steps=np.int32(0),
        inactive=np.int32(0),
    )
    return state, action


def dense(scenario, number, seed=0):
    """One step from many crowded states."""
    config = rware.Config(scenario=scenario)
    _, layout, _, _, steps, draws = compiled(config)
    game, rng = twin(config), np.random.default_rng(seed)
    starts, actions = zip(*(crowd(layout, rng, rng.choice((0.6, 0.9, 1.0))) for _ in range(number)), strict=True)
    keys = jax.random.split(jax.random.key(seed), number)
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)
    states, shown = jax.device_get(steps(batch, jnp.stack(actions), keys))
    places, seen = np.asarray(draws(keys)), Counter()
    for i in range(number):
        load(game, starts[i])
        game._np_random.places = places[i]
        obs, rewards, *_ = game.step(list(actions[i]))
        state = jax.tree.map(lambda leaf, i=i: leaf[i], states)
        where = f"in crowd {i} of {scenario}"
        assert_same(game, state, where)
        assert np.array_equal(shown.obs[i], np.stack(obs)), f"observations differ {where}"
        assert np.array_equal(shown.reward[i], rewards), f"rewards differ {where}"
        seen += events(starts[i], state, actions[i]) + Counter(deliveries=int(shown.info["deliveries"][i]))
    return seen


def test_same_crowds():
    seen = dense("1x3-2h-12ag-4req-indiv", 600)
    for name in ("loads", "unloads", "halts", "convoys", "circles", "deliveries"):
        assert seen[name] > 0, seen


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 20, 24, 27])
def test_same_crowds_of_any_size(n):
    seen = Counter()
    for place, number in (("1x3-1h", 1500), ("1x3-3h", 1500), ("tiny", 1000)):
        seen += dense(f"{place}-{n}ag-2req-indiv", number, n)
    names = ("loads", "unloads", "halts", "convoys", "deliveries", "circles")
    assert all(seen[name] > 0 for name in names[: 6 if n > 3 else 5]), seen


def test_ties_are_decided_by_sets(monkeypatch):
    """The tests above would fail without the calculated order."""
    monkeypatch.setattr(ties, "break_ties", lambda place, *_: place)
    compiled.cache_clear()
    with pytest.raises(AssertionError, match="differs"):
        dense("1x3-2h-12ag-4req-indiv", 600)
    compiled.cache_clear()
