"""Maps of SMAX: those of jaxmarl, and line-ups of SMAC's paper."""

from __future__ import annotations

Team = tuple[str, ...]  # names of unit types
Lineup = tuple[Team, Team]  # allies, enemies

STOCK = (
    "3m",
    "2s3z",
    "25m",
    "3s5z",
    "8m",
    "5m_vs_6m",
    "10m_vs_11m",
    "27m_vs_30m",
    "3s5z_vs_3s6z",
    "3s_vs_5z",
    "6h_vs_8z",
    "smacv2_5_units",
    "smacv2_10_units",
    "smacv2_20_units",
)
LINEUPS: dict[str, Lineup] = {  # SMAC's, of units that jaxmarl has
    "8m_vs_9m": (("marine",) * 8, ("marine",) * 9),
    # SMAC's corridor, whose choke point SMAX cannot have
    "corridor_open": (("zealot",) * 6, ("zergling",) * 24),
}

MMM = ("marauder",) * 2 + ("marine",) * 7 + ("medivac",)
MMM2 = ("marauder",) * 3 + ("marine",) * 8 + ("medivac",)
ONE_THREE_FIVE = ("colossus",) + ("stalker",) * 3 + ("zealot",) * 5
STALKERS = ("stalker",) * 2
COLOSSI = ("colossus",) * 2
NEW_MAPS: dict[str, Lineup] = {  # SMAC's with new units, types in the order of their names
    "MMM": (MMM, MMM),
    "MMM2": (MMM, MMM2),
    "1c3s5z": (ONE_THREE_FIVE, ONE_THREE_FIVE),
    "2s_vs_1sc": (STALKERS, ("spine_crawler",)),
    "2c_vs_64zg": (COLOSSI, ("zergling",) * 64),
}
SCENARIOS = (*STOCK, *LINEUPS, *NEW_MAPS)
