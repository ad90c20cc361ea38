"""Settings that learners of utilities share."""

from __future__ import annotations

from dataclasses import dataclass

from jaxshare.learners.windows import Windows
from jaxshare.models.base import INITS
from jaxshare.settings.fields import default, flag, nested, static
from jaxshare.settings.shared import (
    PYMARL,
    SWEPT,
    Adam,
    Averaging,
    Epsilon,
    Learning,
    RMSprop,
    TargetNetworks,
)
from jaxshare.settings.shared import Optimizer as OptimizerSettings
from jaxshare.settings.validate import check_record

DIFFER = "paper: DIFFER appendix B; code: PyMARL's default.yaml"
CLIPS = ("agent", "all")


@dataclass(frozen=True)
class ValueHParams(Averaging, Adam, RMSprop, Epsilon, Learning):
    """Swept scalars of the value family. paper: DIFFER appendix B; code: PyMARL's default.yaml."""

    lr: float = default(5e-4, DIFFER)
    gamma: float = default(0.99, DIFFER)
    grad_clip: float = default(
        10.0, "paper: DIFFER Table 1 (norm), appendix B (each entry within); code: PyMARL, the norm"
    )
    epsilon_start: float = default(1.0, DIFFER)
    epsilon_end: float = default(0.05, DIFFER)
    epsilon_anneal_steps: float = default(50_000.0, DIFFER)


@dataclass(frozen=True)
class ValueConfig(OptimizerSettings, TargetNetworks, Windows):
    """Static settings of the value family."""

    hidden_dim: int = default(64, DIFFER)
    double_q: bool = flag(True, help="the online networks choose the next actions", source=PYMARL)
    init: str = static(
        "torch",
        choices=INITS,
        help="how the agents' weights are drawn at first: as torch does, or orthogonal",
        source="code: PyMARL; paper: PPS Table 1 has orthogonal",
    )
    hparams: ValueHParams = nested(ValueHParams, help=SWEPT)

    def __post_init__(self) -> None:
        check_record(self, "algo.")
        self.check_window()


@dataclass(frozen=True)
class IndependentConfig(ValueConfig):
    """Of learners whose agents learn alone, each by a loss of its own."""

    clip: str = static(
        "all",
        choices=CLIPS,
        help="over what gradients are clipped: each network alone (agent), or all of them",
        source="code: PyMARL; SEQL has agent",
    )
