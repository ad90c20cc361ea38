"""What may be set of DIFFER."""

from __future__ import annotations

from dataclasses import dataclass

from jaxshare.ops import differ
from jaxshare.settings.fields import flag, static, swept
from jaxshare.settings.validate import check_record

NORMALISERS = ("individual", "team")

TABLE_1 = "paper: DIFFER Table 1"


@dataclass(frozen=True)
class Config:
    """Settings of DIFFER.

    `sweep.differ.alpha=[...]` varies what is `swept`, the others are static.
    """

    select: str = static(
        "per",
        choices=differ.SELECTIONS,
        help="how individual transitions are selected; per: by priorities, with weights",
        source="paper: DIFFER, prioritised with importance weights",
    )
    alpha: float = swept(
        0.8,
        least=0,
        help="exponent of priorities",
        source="paper: DIFFER Table 1; code: 0.6, its README 0.8",
    )
    epsilon_p: float = swept(
        0.01,
        least=0,
        help="added to |delta|",
        source="code: DIFFER; blank in the paper's table",
    )
    beta_start: float = swept(
        0.6,
        least=0,
        help="exponent of importance weights at the start, annealed over the whole run",
        source=TABLE_1,
    )
    beta_end: float = swept(
        1.0,
        least=0,
        help="exponent of importance weights at the end",
        source=TABLE_1,
    )
    eta_start: float = swept(
        0.8,
        above=0,
        most=1,
        help="selected fraction at the start",
        source=TABLE_1,
    )
    eta_end: float = swept(
        1.0,
        above=0,
        most=1,
        help="selected fraction at the end",
        source=TABLE_1,
    )
    eta_portion: float = swept(
        0.6,
        above=0,
        most=1,
        help="share of the run until eta_end is reached",
        source=TABLE_1,
    )
    l1_coef: float = swept(
        0.0,
        least=0,
        help="weight of the L1 norm of parameters",
        source="code: DIFFER has none; paper: Table 1 lists 5e-4",
    )
    g_clamp: float | None = static(
        10.0,
        above=0,
        note="null stands for none.",
        help="g_i is clamped to [-g_clamp, g_clamp]; null: off",
        source="code: DIFFER",
    )
    alive_mask: bool = flag(
        True,
        help="dead agents are left out",
        source="code: DIFFER; plain QMIX keeps them",
    )
    normaliser: str = static(
        "individual",
        choices=NORMALISERS,
        help="what losses are divided by: the number of individual transitions, or the team's",
        source="code: DIFFER",
    )

    def __post_init__(self) -> None:
        check_record(self, "differ.")
