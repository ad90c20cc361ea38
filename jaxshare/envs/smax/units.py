"""Types of units: jaxmarl's six, and Medivac, Colossus and Spine Crawler.

Sources: jaxmarl 0.2.0; Liquipedia's "Legacy of the Void" pages; StarCraft II unit data.
"""

from __future__ import annotations

from typing import NamedTuple

GROUND, WALKER, AIR = range(3)  # layers of collision: a unit pushes those of its own layer only


class Line(NamedTuple):
    """What a hit burns across the line of fire."""

    half_length: float
    half_width: float


class UnitType(NamedTuple):
    """What is known of a type of unit. Seconds are of the game speed "Faster", as in jaxmarl."""

    name: str
    speed: float
    damage: float
    cooldown: float
    reach: float  # range of attack or heal
    sight: float
    radius: float
    health: float  # with shields
    bonus: float = 0.0  # further damage to targets that have `bonus_on`
    bonus_on: str = ""  # "light" or "armoured"
    armour: str = ""  # "light", "armoured" or neither
    flesh: bool = True  # can be healed
    layer: int = GROUND
    hits_air: bool = False
    heals: bool = False
    splash: Line | None = None


# the first seven numbers of these six are jaxmarl's; the rest is Liquipedia's
MARINE = UnitType("marine", 3.15, 9.0, 0.61, 5.0, 9.0, 0.375, 45.0, armour="light", hits_air=True)
MARAUDER = UnitType(
    "marauder",
    speed=2.25,
    damage=10.0,
    cooldown=1.07,
    reach=6.0,
    sight=10.0,
    radius=0.5625,
    health=125.0,
    bonus=10.0,
    bonus_on="armoured",
    armour="armoured",
)
STALKER = UnitType(
    "stalker",
    speed=4.13,
    damage=13.0,
    cooldown=1.87,
    reach=6.0,
    sight=10.0,
    radius=0.625,
    health=160.0,
    bonus=5.0,
    bonus_on="armoured",
    armour="armoured",
    flesh=False,
    hits_air=True,
)
ZEALOT = UnitType("zealot", 3.15, 8.0, 0.86, 2.0, 9.0, 0.5, 150.0, armour="light")
ZERGLING = UnitType("zergling", 4.13, 5.0, 0.5, 2.0, 8.0, 0.375, 35.0, armour="light")
HYDRALISK = UnitType(
    "hydralisk", 3.15, 12.0, 0.59, 5.0, 9.0, 0.625, 80.0, armour="light", hits_air=True
)
MEDIVAC = UnitType(
    "medivac",
    speed=3.5,  # Liquipedia
    damage=0.0,  # Liquipedia: unarmed
    cooldown=200.0,  # ours: the slot has its energy; the most of it (Liquipedia: 50 of 200)
    reach=4.0,  # Liquipedia, Heal
    sight=11.0,  # Liquipedia
    radius=0.75,  # StarCraft II unit data
    health=150.0,  # Liquipedia
    armour="armoured",  # Liquipedia
    flesh=False,  # Liquipedia: mechanical
    layer=AIR,
    heals=True,
)
COLOSSUS = UnitType(
    "colossus",
    speed=3.15,  # Liquipedia
    damage=20.0,  # Liquipedia, from patch 4.0 on: 10, twice
    cooldown=1.07,  # Liquipedia
    reach=7.0,  # Liquipedia, without Extended Thermal Lance
    sight=10.0,  # Liquipedia
    radius=1.0,  # StarCraft II unit data
    health=350.0,  # Liquipedia: 200 and shields of 150
    bonus=10.0,  # Liquipedia: 5, twice
    bonus_on="light",
    armour="armoured",  # Liquipedia
    flesh=False,  # Liquipedia: mechanical
    layer=WALKER,
    splash=Line(1.4, 0.15),  # StarCraft II unit data: a line 2.8 long and 0.3 wide
)
SPINE_CRAWLER = UnitType(
    "spine_crawler",
    speed=0.0,  # rooted
    damage=25.0,  # Liquipedia
    cooldown=1.32,  # Liquipedia
    reach=7.0,  # Liquipedia
    sight=11.0,  # Liquipedia
    radius=1.0,  # Liquipedia: a building of 2x2
    health=300.0,  # Liquipedia
    bonus=5.0,  # Liquipedia
    bonus_on="armoured",
    armour="armoured",  # Liquipedia
    flesh=False,  # Liquipedia, Heal: no structures
)
UNIT_TYPES = (
    MARINE,
    MARAUDER,
    STALKER,
    ZEALOT,
    ZERGLING,
    HYDRALISK,
    MEDIVAC,
    COLOSSUS,
    SPINE_CRAWLER,
)
NAMES = tuple(unit.name for unit in UNIT_TYPES)
NUM_BASE = 6  # jaxmarl's own


def damage(shooter: UnitType, target: UnitType) -> float:
    """Health that one hit takes from a foe; 0 where the weapon cannot hit it at all."""
    if shooter.heals or (target.layer == AIR and not shooter.hits_air):
        return 0.0

    # among themselves jaxmarl's units keep jaxmarl's flat damage
    is_new = max(NAMES.index(shooter.name), NAMES.index(target.name)) >= NUM_BASE
    has_bonus = is_new and shooter.bonus_on == target.armour
    return shooter.damage + (shooter.bonus if has_bonus else 0.0)
