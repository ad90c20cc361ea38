"""The units that SMAX lacks: the old rules against jaxmarl's own game, the new ones on battlefields set up by hand."""

import inspect
from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxshare.envs import _raster
from jaxshare.envs._jaxmarl import import_jaxmarl, lenient
from jaxshare.envs.smax import environment as smax
from jaxshare.envs.smax.army import NUM_MOVES, STOP
from jaxshare.envs.smax.combat import SECONDS, WORLD_STEPS, Melee, shots
from jaxshare.envs.smax.maps import LINEUPS, NEW_MAPS, STOCK
from jaxshare.envs.smax.skirmish import Skirmish
from jaxshare.envs.smax.state import SIDE
from jaxshare.envs.smax.units import NAMES, NUM_BASE, UNIT_TYPES, damage

BITS = len(NAMES)
SIZES = {  # agents, enemies, obs, state, actions
    "MMM": (10, 10, 19 * 16 + 13, 20 * 15, 15),
    "MMM2": (10, 12, 21 * 16 + 13, 22 * 15, 17),
    "1c3s5z": (9, 9, 17 * 16 + 13, 18 * 15, 14),
    "2s_vs_1sc": (2, 1, 2 * 16 + 13, 3 * 15, 6),
    "2c_vs_64zg": (2, 64, 65 * 16 + 13, 66 * 15, 69),
}
GROUPS = {
    "MMM": ((1, 1, 0, 0, 0, 0, 0, 0, 0, 2), ("marine", "marauder", "medivac")),
    "MMM2": ((1, 1, 0, 0, 0, 0, 0, 0, 0, 2), ("marine", "marauder", "medivac")),
    "1c3s5z": ((2, 0, 0, 0, 1, 1, 1, 1, 1), ("stalker", "zealot", "colossus")),
    "2s_vs_1sc": ((0, 0), ("stalker",)),
    "2c_vs_64zg": ((0, 0), ("colossus",)),
}
PUBLISHED = {  # speed, damage, cooldown, reach, sight, health with shields
    "medivac": (3.5, 0.0, 200.0, 4.0, 11.0, 150.0),
    "colossus": (3.15, 20.0, 1.07, 7.0, 10.0, 350.0),
    "spine_crawler": (0.0, 25.0, 1.32, 7.0, 11.0, 300.0),
}
HOSPITAL = (("marine", "marauder", "stalker", "medivac"), ("marine", "zealot", "medivac"))
LASER = (("colossus", "stalker"), (*("zergling",) * 5, "spine_crawler"))
DUEL = (("marine", "marine", "marauder", "medivac"),) * 2
TYPES = dict(zip(NAMES, UNIT_TYPES, strict=True))


@cache
def battle(allies, enemies, enemy_shoots=False, reward="dense", max_steps=100):
    """A game on a line-up of one's own, with compiled functions; actions may be any, available or not."""
    game = Skirmish(allies, enemies, "closest", enemy_shoots)
    env = smax.game_env(game, smax.Config(reward=reward, max_steps=max_steps))
    return env, jax.jit(env.reset), jax.jit(env.step)


def hospital(**settings):
    """Units 0 marine, 1 marauder, 2 stalker, 3 medivac against 4 marine, 5 zealot, 6 medivac."""
    return battle(*HOSPITAL, **settings)


def laser(**settings):
    """Units 0 colossus, 1 stalker against 2 to 6 zerglings, 7 spine crawler."""
    return battle(*LASER, **settings)


def placed(setup, positions=None, health=None, energy=None):
    """A first state with some units moved, hurt, or charged: {unit: value}."""
    state, _ = setup[1](jax.random.key(0))
    units = state.state
    for unit, position in (positions or {}).items():
        units = replace(units, unit_positions=units.unit_positions.at[unit].set(jnp.array(position)))
    for unit, value in (health or {}).items():
        units = replace(units, unit_health=units.unit_health.at[unit].set(value))
    for unit, value in (energy or {}).items():
        units = replace(units, unit_weapon_cooldowns=units.unit_weapon_cooldowns.at[unit].set(value))
    return replace(state, state=replace(units, unit_alive=units.unit_health > 0))


def after(setup, state, actions, times=1):
    for t in range(times):
        state, shown = setup[2](state, jnp.array(actions, jnp.int32), jax.random.key(t))
    return state, shown


def apart(count):
    """Corners where nobody is in reach of anybody."""
    return {i: (2.0 + 28.0 * (i % 2), 2.0 + 4.0 * i) for i in range(count)}


def original(scenario, attack_mode):
    package = import_jaxmarl("smax")
    theirs = package.HeuristicEnemySMAX(
        scenario=package.map_name_to_scenario(scenario), max_steps=99, attack_mode=attack_mode
    )
    names = [NAMES[int(kind)] for kind in theirs.scenario]
    return theirs, Skirmish(names[: theirs.num_allies], names[theirs.num_allies :], attack_mode, True)


def without_new_types(features, known):
    """Feature rows with the type bits of jaxmarl's six units only."""
    kept = known + NUM_BASE
    return np.asarray(features).reshape(-1, known + BITS)[:, :kept].reshape(-1)


def compare(ours, theirs, agents):
    """Observations, states and available actions, less the three additional type bits."""
    (obs, state, avail), (their_obs, their_state, their_avail) = ours, theirs
    for name in ("unit_positions", "unit_health", "unit_weapon_cooldowns"):
        np.testing.assert_allclose(getattr(state.state, name), getattr(their_state.state, name), atol=1e-4)
    for name in ("unit_alive", "step"):
        np.testing.assert_array_equal(getattr(state.state, name), getattr(their_state.state, name))
    living = np.asarray(state.state.unit_alive)  # orders to the dead differ, and nobody sees them
    for name in ("prev_movement_actions", "prev_attack_actions"):
        ordered, theirs_ordered = (np.asarray(getattr(s.state, name))[living] for s in (state, their_state))
        np.testing.assert_allclose(ordered, theirs_ordered, atol=1e-6)
    for agent in agents:
        np.testing.assert_array_equal(np.asarray(avail[agent]), np.asarray(their_avail[agent], bool))
        seen, own = np.split(np.asarray(obs[agent]), [-(4 + BITS)])
        cut = np.concatenate([without_new_types(seen, 7), without_new_types(own, 4)])
        np.testing.assert_allclose(cut, their_obs[agent], atol=1e-5)
    units = len(state.state.unit_alive)
    features, rest = np.split(np.asarray(obs["world_state"]), [-2 * units])
    cut = np.concatenate([without_new_types(features, 4), rest])
    np.testing.assert_allclose(cut, their_obs["world_state"], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("scenario", "attack_mode"), [("2s3z", "closest"), ("5m_vs_6m", "random")])
def test_the_old_rules_are_jaxmarls(scenario, attack_mode):
    theirs, ours = original(scenario, attack_mode)
    agents, random = list(ours.agents), np.random.default_rng(0)
    functions = [jax.jit(f) for f in (ours.reset, ours.step_env, ours.get_avail_actions)]
    their_functions = [jax.jit(lenient(f)) for f in (theirs.reset, theirs.step_env, theirs.get_avail_actions)]
    (reset, step, show), (their_reset, their_step, their_show) = functions, their_functions
    (obs, state), (their_obs, their_state) = reset(jax.random.key(3)), their_reset(jax.random.key(3))
    for t in range(100):
        avail = show(state)
        compare((obs, state, avail), (their_obs, their_state, their_show(their_state)), agents)
        if not np.any(state.state.unit_alive[: len(agents)]) or not np.any(state.state.unit_alive[len(agents) :]):
            break
        action = {}
        for agent in agents:
            choices = np.flatnonzero(avail[agent])
            forward = np.array([a for a in choices if a in (1, *range(NUM_MOVES, 99))])
            action[agent] = jnp.int32(random.choice(forward if len(forward) and random.random() < 0.7 else choices))
        obs, state, reward, _, _ = step(jax.random.key(t), state, action)
        their_obs, their_state, their_reward, _, _ = their_step(jax.random.key(t), their_state, action)
        np.testing.assert_allclose(reward[agents[0]], their_reward[agents[0]], atol=1e-5)
    assert t > 8
    assert np.sum(state.state.unit_alive) < len(state.state.unit_alive)


def test_maps_without_new_units_are_jaxmarls_own_game():
    package = import_jaxmarl("smax")
    for scenario in (*STOCK, *LINEUPS):
        assert type(smax.choose_game(smax.Config(scenario=scenario))) is package.HeuristicEnemySMAX
    for scenario in NEW_MAPS:
        assert type(smax.choose_game(smax.Config(scenario=scenario))) is Skirmish
    assert set(smax.scenarios()) == {*STOCK, "8m_vs_9m", "corridor_open", *SIZES}


@pytest.mark.parametrize(("scenario", "sizes"), SIZES.items())
def test_sizes(scenario, sizes):
    spec = smax.make(smax.Config(scenario=scenario)).spec
    agents, enemies, obs, state, actions = sizes
    assert (spec.num_agents, spec.obs_dim, spec.state_dim, spec.action.num_actions) == (agents, obs, state, actions)
    assert actions == NUM_MOVES + (max(agents, enemies) if scenario.startswith("MMM") else enemies)
    assert (spec.groups, spec.group_names) == GROUPS[scenario]
    assert spec.episode_limit == 100


def test_six_types_have_the_numbers_of_jaxmarl():
    default = {
        name: parameter.default
        for name, parameter in inspect.signature(import_jaxmarl("smax").SMAX.__init__).parameters.items()
    }
    base = UNIT_TYPES[:NUM_BASE]
    assert [unit.name for unit in base] == default["unit_type_names"]
    for ours, theirs in (
        ("speed", "velocities"),
        ("damage", "attacks"),
        ("cooldown", "weapon_cooldowns"),
        ("reach", "attack_ranges"),
        ("sight", "sight_ranges"),
        ("radius", "radiuses"),
        ("health", "health"),
    ):
        np.testing.assert_allclose([getattr(unit, ours) for unit in base], default[f"unit_type_{theirs}"], rtol=1e-6)
    assert (default["map_width"], default["map_height"]) == (SIDE, SIDE)
    assert default["time_per_step"] == SECONDS
    assert default["world_steps_per_env_step"] == WORLD_STEPS


@pytest.mark.parametrize(("name", "numbers"), PUBLISHED.items())
def test_new_types_have_published_numbers(name, numbers):
    unit = TYPES[name]
    assert (unit.speed, unit.damage, unit.cooldown, unit.reach, unit.sight, unit.health) == numbers


@pytest.mark.parametrize(
    ("shooter", "target", "expected"),
    [
        ("marine", "medivac", 9),
        ("stalker", "medivac", 18),  # armoured
        ("marauder", "medivac", 0),
        ("zealot", "medivac", 0),
        ("colossus", "medivac", 0),
        ("medivac", "marine", 0),
        ("marauder", "stalker", 10),  # jaxmarl's flat damage among its own
        ("marauder", "colossus", 20),
        ("stalker", "spine_crawler", 18),
        ("spine_crawler", "stalker", 30),
        ("spine_crawler", "zealot", 25),
        ("colossus", "zergling", 30),
        ("colossus", "stalker", 20),
    ],
)
def test_damage(shooter, target, expected):
    assert damage(TYPES[shooter], TYPES[target]) == expected


def test_a_medivac_heals_for_energy():
    setup = hospital()
    state = placed(setup, {**apart(7), 0: (10.0, 10.0), 3: (10.0, 13.0)}, health={0: 20.0})
    healed, shown = after(setup, state, [STOP, STOP, STOP, NUM_MOVES + 0])
    np.testing.assert_allclose(healed.state.unit_health[0], 20 + 12.6 / 2, rtol=1e-5)
    np.testing.assert_allclose(healed.state.unit_weapon_cooldowns[3], 50 - 12.6 / 2 / 3 + 0.7875 / 2, rtol=1e-5)
    np.testing.assert_allclose(shown.obs[3, -(4 + BITS) + 3], healed.state.unit_weapon_cooldowns[3] / 200, rtol=1e-5)
    assert shown.reward[0] == 0
    far = placed(setup, {**apart(7), 0: (10.0, 10.0), 3: (10.0, 14.5)}, health={0: 20.0})
    assert after(setup, far, [STOP, STOP, STOP, NUM_MOVES + 0])[0].state.unit_health[0] == 20
    whole, _ = after(setup, state, [STOP, STOP, STOP, NUM_MOVES + 0], times=6)
    assert whole.state.unit_health[0] == 45


def test_without_energy_only_what_grows_back_heals():
    setup = hospital()
    state = placed(setup, {**apart(7), 0: (10.0, 10.0), 3: (10.0, 13.0)}, health={0: 5.0}, energy={3: 0.5})
    state, _ = after(setup, state, [STOP, STOP, STOP, NUM_MOVES + 0])
    np.testing.assert_allclose(state.state.unit_health[0], 5 + 3 * (0.5 + 0.7875 * 7 / 16), rtol=1e-5)
    np.testing.assert_allclose(state.state.unit_weapon_cooldowns[3], 0.7875 / 16, rtol=1e-4)
    empty = placed(setup, {**apart(7), 0: (10.0, 10.0), 3: (10.0, 13.0)}, health={0: 5.0}, energy={3: 0.0})
    game = Skirmish(*HOSPITAL, "closest", False)
    assert not np.any(game.get_avail_actions(empty)["ally_3"][NUM_MOVES:])


def test_whom_a_healer_can_heal_and_who_can_hit_it():
    """All allies hurt and around the medivac: it may heal the marauder only; the marine is whole, or dead."""
    setup = hospital()
    game = Skirmish(*HOSPITAL, "closest", False)
    together = {i: (10.0 + 0.1 * i, 10.0) for i in range(7)}
    hurt = dict.fromkeys(range(1, 7), 20.0)
    for marine in (45.0, 0.0):
        state = placed(setup, together, health={**hurt, 0: marine})
        avail = {name: np.flatnonzero(mask).tolist() for name, mask in game.get_avail_actions(state).items()}
        assert avail["ally_3"] == [0, 1, 2, 3, STOP, NUM_MOVES + 1]
        assert avail["ally_1"] == [0, 1, 2, 3, STOP, NUM_MOVES + 0, NUM_MOVES + 1], "marauders do not reach the air"
        assert avail["ally_2"] == [0, 1, 2, 3, STOP, NUM_MOVES + 0, NUM_MOVES + 1, NUM_MOVES + 2]
        for target in (0, 2, 3):
            state_after, _ = after(setup, state, [STOP, STOP, STOP, NUM_MOVES + target])
            np.testing.assert_array_equal(state_after.state.unit_health[:4], state.state.unit_health[:4])


def test_zealots_cannot_hit_and_do_not_chase_a_medivac():
    setup = hospital(enemy_shoots=True)
    dead = {0: 0.0, 1: 0.0, 4: 0.0, 6: 0.0}
    state = placed(setup, {2: (2.0, 30.0), 3: (16.0, 15.0), 5: (16.0, 16.0)}, health=dead)
    state = replace(state, default_target=jnp.array([[30.0, 16.0]] * 3))
    later, _ = after(setup, state, [STOP] * 4, times=2)
    assert later.state.unit_health[3] == 150
    assert later.state.unit_positions[5, 0] > 18
    seen, _ = after(setup, placed(setup, {2: (16.0, 15.0), 5: (16.0, 16.0)}, health=dead), [STOP] * 4)
    assert seen.state.unit_health[2] == 160 - 8


def test_a_colossus_burns_a_line_across_its_fire():
    """East: unit 2 is the target, 3 is beside it, 4 touches the line's end, 5 is behind, 6 beyond the end."""
    game = Skirmish(["colossus", "marine"], ["zergling"] * 5, "closest", False)
    x, y = jnp.array([[10.0, 10], [15.9, 10], [16, 10], [16, 11], [16, 8.3], [17, 10], [16, 12]]).T
    target = jnp.array([2, 1, 2, 3, 4, 5, 6])  # the others aim at nobody
    start, ready = jnp.asarray(game.army.health), jnp.zeros(7)
    hurt, left, cooldown = shots(game.army, Melee(x, y, start, ready), target, ready)
    np.testing.assert_array_equal(hurt, [0, 0, 30, 30, 30, 0, 0])  # no friend is hurt
    np.testing.assert_array_equal(left, start - hurt)
    assert cooldown[0] == np.float32(1.07)
    turned, _, _ = shots(game.army, Melee(y, x, start, ready), target, ready)  # the same battlefield, mirrored
    np.testing.assert_array_equal(turned, hurt)
    waiting, _, _ = shots(game.army, Melee(x, y, start, ready + 0.1), target, ready)
    assert not np.any(waiting)


def test_zerglings_die_to_splash():
    setup = laser(enemy_shoots=True)
    state = placed(setup, {0: (10.0, 16.0), 1: (2.0, 30.0), **{i: (17.0, 13.5 + i / 2) for i in range(2, 7)}})
    for t in range(5):
        nearest = np.argmin(np.linalg.norm(np.asarray(state.state.unit_positions[2:7]) - [10.0, 16.0], axis=-1))
        state, _ = setup[2](state, jnp.array([NUM_MOVES + nearest, STOP], jnp.int32), jax.random.key(t))
    dead = ~np.asarray(state.state.unit_alive[2:7])
    assert dead.sum() >= 3, "three shots of 30 would kill one zergling and a half one by one"


def test_a_spine_crawler_stays_and_a_colossus_walks_over_others():
    setup = laser()
    state = placed(setup, {0: (16.0, 16.0), 2: (16.2, 16.0), 1: (24.5, 20.0), 7: (24.0, 20.0)})
    later, _ = after(setup, state, [STOP, 3], times=3)
    np.testing.assert_array_equal(later.state.unit_positions[7], [24.0, 20.0])
    assert np.linalg.norm(later.state.unit_positions[1] - jnp.array([24.0, 20.0])) > 1, "the stalker was pushed off"
    np.testing.assert_array_equal(later.state.unit_positions[0], [16.0, 16.0])
    assert later.state.prev_movement_actions[7].tolist() == [0, 0]


def test_a_team_of_healers_has_lost():
    setup = hospital(reward="sparse")
    lost, shown = after(setup, placed(setup, apart(7), health={0: 0.0, 1: 0.0, 2: 0.0}), [STOP] * 4)
    assert shown.terminated
    assert shown.reward.tolist() == [-1] * 4
    assert lost.state.unit_alive[3]
    won, shown = after(setup, placed(setup, apart(7), health={4: 0.0, 5: 0.0}), [STOP] * 4)
    assert shown.terminated
    assert (shown.reward.tolist(), float(shown.info["won"])) == ([1] * 4, 1)
    assert won.state.unit_alive[6]
    _, shown = after(setup, placed(setup, apart(7), health=dict.fromkeys((0, 1, 2, 4, 5), 0.0)), [STOP] * 4)
    assert (shown.reward.tolist(), bool(shown.terminated)) == ([0] * 4, True)
    _, shown = after(setup, placed(setup, apart(7)), [STOP] * 4)
    assert not shown.terminated


def test_healed_enemies_change_no_reward():
    """The enemy medivac (6) heals the zealot (5), shot or not; what is paid is the damage, up to its health once."""
    setup = hospital()
    place = {**apart(7), 1: (10.0, 15.0), 5: (10.0, 10.0), 6: (10.0, 9.0), 4: (30.0, 2.0)}
    state = placed(setup, place, health={5: 50.0})
    rested, shown = after(setup, state, [STOP] * 4)
    np.testing.assert_allclose(rested.state.unit_health[5], 50 + 12.6 / 2, rtol=1e-5)
    assert shown.reward[0] == 0
    shot, shown = after(setup, state, [STOP, NUM_MOVES + 1, STOP, STOP])
    np.testing.assert_allclose(shot.state.unit_health[5], 50 - 10 + 12.6 / 2, rtol=1e-5)
    np.testing.assert_allclose(shown.reward[0], 10 * 10 / 150 / 3, rtol=1e-5)
    nearly = replace(state, lost_health=jnp.array([0.0, 146.0, 0.0]))  # paid for before, and healed since
    _, shown = after(setup, nearly, [STOP, NUM_MOVES + 1, STOP, STOP])
    np.testing.assert_allclose(shown.reward[0], 10 * 4 / 150 / 3, rtol=1e-4)


def test_an_enemy_healer_follows_the_hurt():
    setup = hospital()
    state = placed(setup, {**apart(7), 4: (20.0, 10.0), 5: (20.0, 30.0), 6: (20.0, 20.0)}, health={4: 10.0})
    near, _ = after(setup, state, [STOP] * 4, times=3)
    assert near.state.unit_positions[6, 1] < 16
    assert near.state.unit_health[4] == 10
    beside = near.state.unit_positions.at[4].set(near.state.unit_positions[6] + 2.0)
    state = replace(near, state=replace(near.state, unit_positions=beside))
    there, _ = after(setup, state, [STOP] * 4, times=3)
    assert there.state.unit_health[4] > 10


def fight(shown, game):
    """The lowest-numbered target in reach; otherwise east, towards the enemy."""
    shoot = jnp.argmax(shown.avail[:, NUM_MOVES:], axis=-1) + NUM_MOVES
    ahead = jnp.where(shown.avail[:, 1], 1, STOP)
    return jnp.where(jnp.any(shown.avail[:, NUM_MOVES:], axis=-1), shoot, ahead).astype(jnp.int32)


def test_won_battles_return_exactly_20():
    env, _, _ = battle(*DUEL, enemy_shoots=True)

    def step(carry, key):
        state, shown = carry
        carry = jax.vmap(env.step)(state, jax.vmap(fight, (0, None))(shown, env), jax.random.split(key, 32))
        return carry, (carry[1], carry[0].state.unit_alive)

    def run(key):
        first = jax.vmap(env.reset)(jax.random.split(key, 32))
        return jax.lax.scan(step, first, jax.random.split(key, 100))[1]

    shown, alive = jax.device_get(jax.jit(run)(jax.random.key(0)))
    over = shown.terminated | shown.truncated
    assert over.any(0).all()
    last = np.argmax(over, axis=0)
    during = np.arange(100)[:, None] <= last
    returns = (shown.reward[..., 0] * during).sum(0)
    won = shown.info["won"][last, np.arange(32)] == 1
    assert 4 < won.sum() < 28
    np.testing.assert_allclose(returns[won], 20.0, rtol=1e-5)
    assert np.all(returns[~won] < 10)
    assert alive[last, np.arange(32)][won][:, 7].any(), "some are won against a medivac that lives"
    assert np.all(shown.reward[during] >= 0)
    for array in (shown.obs, shown.state):
        assert np.isfinite(array).all()
        assert np.abs(array).max() <= 1.001


def test_a_timeout_cuts_after_exactly_max_steps():
    setup = hospital(max_steps=3)
    state, _ = setup[1](jax.random.key(0))
    ends = []
    for t in range(3):
        state, shown = setup[2](state, jnp.full(4, STOP), jax.random.key(t))
        ends.append((bool(shown.terminated), bool(shown.truncated)))
    assert ends == [(False, False), (False, False), (False, True)]


def test_a_random_battle_on_mmm2_is_finite():
    env = smax.make(smax.Config(scenario="MMM2"))

    def step(carry, key):
        state, shown = carry
        action = jax.random.categorical(key, jnp.where(shown.avail, 0.0, -jnp.inf)).astype(jnp.int32)
        carry = env.step(state, action, key)
        return carry, carry[1]

    run = jax.jit(lambda key: jax.lax.scan(step, env.reset(key), jax.random.split(key, 100))[1])
    shown = jax.device_get(run(jax.random.key(0)))
    for array in (shown.obs, shown.state, shown.reward):
        assert np.isfinite(array).all()
    assert np.abs(shown.obs).max() <= 1.001
    assert shown.state.min() >= 0
    assert shown.state.max() <= 1.001
    assert shown.avail.any(-1).all()
    assert (~shown.alive).any()


def test_picture_shows_air_units_as_rings():
    env, reset, _ = hospital()
    state, _ = reset(jax.random.key(0))
    spread = replace(state, state=replace(state.state, unit_positions=jnp.array([apart(7)[i] for i in range(7)])))
    picture = env.render(spread)
    row, column = (int(300 - value * 300 / 32) for value in (apart(7)[3][1], 32 - apart(7)[3][0]))
    assert picture[row, column].tolist() == list(_raster.WHITE)
    assert np.all(picture[row - 6 : row + 7, column - 6 : column + 7] == _raster.BLUE, axis=-1).any()
