"""The data sets of SIT's tables: who acts in them, and what they return.

Source: Tian et al. 2023 (SIT), tables 4-6 (pools) and 7-9 (sets of 10000 episodes each).
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxshare.data.pools import Pools
from jaxshare.registry import one_of
from jaxshare.types import RefusedError

Task = tuple[str, str]  # environment and scenario

# how sure a composition is
HIGH = "high"  # clear in the text
INFERRED = "inferred"  # from the text against the table
LOW = "low"  # see the note
WRONG = "wrong"  # see the note


@dataclass(frozen=True)
class Preset:
    """A data set of the paper."""

    composition: str
    confidence: str
    average: float | None = None  # the paper's mean return
    note: str = ""


# of SMAC all have the same
_SMAC_POOLS = Pools(0.0, 20.0, (6.0, 14.0))
_SMAC_TASKS = ("2s_vs_1sc", "3s_vs_5z", "2s3z", "8m", "1c3s5z", "10m_vs_11m")
PAPER_POOLS: dict[Task, Pools] = {("smax", name): _SMAC_POOLS for name in _SMAC_TASKS}
PAPER_POOLS["mpe", "CN_3ls3l"] = Pools(-174.41, -37.32, (-133.28, -78.44))
PAPER_POOLS["mpe", "CN_4ls4l"] = Pools(-288.89, -40.81, (-214.47, -115.24))
PAPER_POOLS["mpe", "PP_3p1p"] = Pools(-306.57, -54.96, (-231.08, -130.44))
PAPER_POOLS["mamujoco", "HalfCheetah_2l"] = Pools(-203.47, 198.70, (-69.42, 64.63))
PAPER_POOLS["mamujoco", "Walker_2l"] = Pools(-74.51, 231.09, (27.35, 129.21))

UNCERTAIN = "The table's letters are uncertain in our copy of the paper."
MEDIUM_HALF = (
    "A team of medium policies alone returns 6 or more, so the printed half of it hardly fits the "
    "average."
)
TWO_READINGS = (
    "Table 7 prints mmmmm as the second half, the text reree + rmrmm. The text's first half is the "
    "whole medium set, which alone returns 7.04; figure 3 has the first stalker and zealot random "
    "throughout."
)
NO_EXPERTS = (
    "A team of experts alone returns 14 or more, so some agents must have been random: vary their "
    "number until the quality lies in its window."
)
MISPRINT = "Our copy of table 9 prints m and l; Walker_2l has rm."
ONE_LEVEL = "Figure 4c; one data set for each level."

PRESETS: dict[Task, dict[str, Preset]] = {}
PRESETS["smax", "2s_vs_1sc"] = {
    "low": Preset("rr + rm", HIGH, 2.84),
    "medium": Preset("re", HIGH, 9.86),
}
PRESETS["smax", "3s_vs_5z"] = {
    "low": Preset("rrr + rrm", HIGH, 2.94),
    "medium": Preset("rre", HIGH, 7.06),
}
PRESETS["smax", "2s3z"] = {
    "low": Preset("rrrrr + rmrmm", INFERRED, 3.24, TWO_READINGS),
    "medium": Preset("reree", HIGH, 7.04),
    "extreme": Preset("99.5% rrrrr + 0.5% mmmmm", HIGH),
}
PRESETS["smax", "2s3z"] |= {
    "balanced_random": Preset("rrrrr", HIGH, note=ONE_LEVEL),
    "balanced_medium": Preset("mmmmm", HIGH, note=ONE_LEVEL),
    "balanced_expert": Preset("eeeee", HIGH, note=ONE_LEVEL),
}
PRESETS["smax", "8m"] = {
    "low": Preset("r*8 + m*8", LOW, 3.10, MEDIUM_HALF),
    "medium": Preset("r e*7", LOW, 9.85, UNCERTAIN),
}
PRESETS["smax", "1c3s5z"] = {
    "low": Preset("r*9 + m*9", LOW, 5.56, UNCERTAIN),
    "medium": Preset("e rre rrrre", LOW, 10.31, UNCERTAIN),
}
PRESETS["smax", "10m_vs_11m"] = {
    "low": Preset("r*10 + m*10", LOW, 3.82, MEDIUM_HALF),
    "medium": Preset("e*10", WRONG, 9.23, NO_EXPERTS),
}
PRESETS["mpe", "CN_3ls3l"] = {
    "low": Preset("rrr + rrm", HIGH, -157.70),
    "medium": Preset("rme", HIGH, -107.46),
}
PRESETS["mpe", "CN_4ls4l"] = {
    "low": Preset("rrrr + rrrm", HIGH, -278.40),
    "medium": Preset("rree", HIGH, -166.26),
}
PRESETS["mpe", "PP_3p1p"] = {
    "low": Preset("rrr + rrm", HIGH, -249.58),
    "medium": Preset("rme", HIGH, -155.46),
}
PRESETS["mamujoco", "HalfCheetah_2l"] = {
    "low": Preset("rm", INFERRED, -110.52, MISPRINT),
    "medium": Preset("re", HIGH, 41.79),
}
PRESETS["mamujoco", "Walker_2l"] = {
    "low": Preset("rm", HIGH, -21.67),
    "medium": Preset("re", HIGH, 71.68),
}


def preset(environment: str, scenario: str, name: str) -> Preset:
    """A data set of the paper by environment, scenario and name.

    Raises RefusedError with those that there are.
    """
    tasks = [task for kind, task in PRESETS if kind == environment]
    if not tasks:
        kinds = ", ".join(sorted({kind for kind, _ in PRESETS}))
        raise RefusedError(
            f"env={environment}: the paper has no data set for it, only for {kinds}. Write a "
            "composition."
        )
    one_of("env.scenario", scenario, tasks)
    one_of("composition", name, PRESETS[environment, scenario])
    return PRESETS[environment, scenario][name]
