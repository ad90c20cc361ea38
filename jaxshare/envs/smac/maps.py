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
MARINES = ("3m", "8m", "25m", "5m_vs_6m", "8m_vs_9m", "10m_vs_11m", "27m_vs_30m", "2m_vs_1z")
UNITS = {name: {"marine": int(name.partition("m")[0])} for name in MARINES}
UNITS["MMM"] = {"marauder": 2, "marine": 7, "medivac": 1}
UNITS["MMM2"] = UNITS["MMM"]
UNITS["2s3z"] = {"stalker": 2, "zealot": 3}
UNITS["3s5z"] = {"stalker": 3, "zealot": 5}
UNITS["3s5z_vs_3s6z"] = UNITS["3s5z"]
UNITS["3s_vs_3z"] = {"stalker": 3}
UNITS["3s_vs_4z"] = {"stalker": 3}
UNITS["3s_vs_5z"] = {"stalker": 3}
UNITS["1c3s5z"] = {"colossus": 1, "stalker": 3, "zealot": 5}
UNITS["corridor"] = {"zealot": 6}
UNITS["6h_vs_8z"] = {"hydralisk": 6}
UNITS["2s_vs_1sc"] = {"stalker": 2}
UNITS["so_many_baneling"] = {"zealot": 7}
UNITS["bane_vs_bane"] = {"baneling": 4, "zergling": 20}
UNITS["2c_vs_64zg"] = {"colossus": 2}
