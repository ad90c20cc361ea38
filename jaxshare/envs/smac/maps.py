"""Maps of SMAC, and their episode limits."""

from __future__ import annotations

# SMAC's map table
LIMITS = {
    "3m": 60, "8m": 120, "25m": 150, "5m_vs_6m": 70, "8m_vs_9m": 120, "10m_vs_11m": 150,
    "27m_vs_30m": 180, "MMM": 150, "MMM2": 180, "2s3z": 120, "3s5z": 150, "3s5z_vs_3s6z": 170,
    "3s_vs_3z": 150, "3s_vs_4z": 200, "3s_vs_5z": 250, "1c3s5z": 180, "2m_vs_1z": 150,
    "corridor": 400, "6h_vs_8z": 150, "2s_vs_1sc": 300, "so_many_baneling": 100,
    "bane_vs_bane": 200, "2c_vs_64zg": 400,
}  # fmt: skip
