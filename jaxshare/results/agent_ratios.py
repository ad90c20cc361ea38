"""Shares of SEAC's importance ratios, read from the log of a run."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from jaxshare.results.curves import Record, by_run

SHARE = re.compile(r"ratio/from_(\d+)_percent")  # of importance ratios in a bin
LOWEST = "ratio/from_0_percent"  # the first bin, which all records with ratios have


def ratio_shares(records: Sequence[Record]) -> dict[str, dict[float, float]]:
    """{run: {lower end of a bin: share of the ratios in it, a mean over training}}.

    Runs that log no ratios are left out.
    """
    shares: dict[str, dict[float, float]] = {}
    for name, of_run in by_run(records, LOWEST).items():
        shares[name] = {}
        for key in of_run[0]:
            match = SHARE.fullmatch(key)
            if match:
                low = int(match[1]) / 100
                shares[name][low] = float(np.mean([record[key] for record in of_run]))
    return shares
