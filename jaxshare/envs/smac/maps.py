"""Maps of SMAC: their episode limits, and our units in the order in which SMAC numbers agents."""

from __future__ import annotations

# SMAC's map table
LIMITS = {
    "3m": 60, "8m": 120, "25m": 150, "5m_vs_6m": 70, "8m_vs_9m": 120, "10m_vs_11m": 150,
    "27m_vs_30m": 180, "MMM": 150, "MMM2": 180, "2s3z": 120, "3s5z": 150, "3s5z_vs_3s6z": 170,
    "3s_vs_3z": 150, "3s_vs_4z": 200, "3s_vs_5z": 250, "1c3s5z": 180, "2m_vs_1z": 150,
    "corridor": 400, "6h_vs_8z": 150, "2s_vs_1sc": 300, "so_many_baneling": 100,
    "bane_vs_bane": 200, "2c_vs_64zg": 400,
}  # fmt: skip

# code: SMAC sorts its units by the number of their type, which follows this order on each map
UNITS = {
    "3m": {"marine": 3},
    "8m": {"marine": 8},
    "25m": {"marine": 25},
    "5m_vs_6m": {"marine": 5},
    "8m_vs_9m": {"marine": 8},
    "10m_vs_11m": {"marine": 10},
    "27m_vs_30m": {"marine": 27},
    "MMM": {"marauder": 2, "marine": 7, "medivac": 1},
    "MMM2": {"marauder": 2, "marine": 7, "medivac": 1},
    "2s3z": {"stalker": 2, "zealot": 3},
    "3s5z": {"stalker": 3, "zealot": 5},
    "3s5z_vs_3s6z": {"stalker": 3, "zealot": 5},
    "3s_vs_3z": {"stalker": 3},
    "3s_vs_4z": {"stalker": 3},
    "3s_vs_5z": {"stalker": 3},
    "1c3s5z": {"colossus": 1, "stalker": 3, "zealot": 5},
    "2m_vs_1z": {"marine": 2},
    "corridor": {"zealot": 6},
    "6h_vs_8z": {"hydralisk": 6},
    "2s_vs_1sc": {"stalker": 2},
    "so_many_baneling": {"zealot": 7},
    "bane_vs_bane": {"baneling": 4, "zergling": 20},
    "2c_vs_64zg": {"colossus": 2},
}
