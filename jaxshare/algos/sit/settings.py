"""SIT's settings."""

from __future__ import annotations

from dataclasses import dataclass

from jaxshare.algos.sit.networks import DECOMPOSITIONS, GRAPHS
from jaxshare.settings.fields import COUNT, UNITS, default, flag, nested, size, static, swept
from jaxshare.settings.shared import SWEPT, CriticRate, Learning, PolicyWidth, RMSprop, TargetPeriod
from jaxshare.settings.validate import check_record
from jaxshare.types import RefusedError

NO_DECOMPOSITION = "none"
FILTERS = ("advantage", "q", "exponential", "binary")
PRIORITIES = ("mean_to_go", "return", "uniform")

TABLE_11 = "paper: SIT Table 11"


@dataclass(frozen=True)
class HParams(PolicyWidth, RMSprop, CriticRate, Learning):
    """Swept scalars. paper: Tables 10 and 11, unless stated."""

    lr: float = default(5e-4, TABLE_11, help="learning rate of the actors")
    critic_lr: float = default(1e-4, TABLE_11)
    reward_lr: float = swept(
        1e-4,
        least=0,
        help="learning rate of the reward decomposition",
        source="paper: SIT Table 10",
    )
    gamma: float = default(0.99, TABLE_11)
    grad_clip: float = default(
        10.0,
        "paper: SIT Tables 10, 11",
        help="largest L2 norm of a gradient: of the ensemble, of each actor, of each critic",
    )
    rms_decay: float = default(0.99, 'code: torch; paper: SIT says "RMS"')
    alpha: float = swept(
        0.2,
        above=0,
        note="algo.priority=uniform is what alpha becomes in the limit.",
        help="temperature of priorities",
        source=TABLE_11,
    )
    priority_range: float = swept(
        20.0, above=0, help="priorities of a buffer are mapped onto [0, this]", source=TABLE_11
    )
    min_ess: float = swept(
        256.0,
        least=0,
        help="alpha grows until so many trajectories count (or half of them); 0: alpha as it is",
        source="ours; paper: SIT has alpha as it is",
    )
    beta: float = swept(0.1, above=0, help="temperature of the filter", source=TABLE_11)
    eta: float = swept(1.0, least=0, help="scale of the uncertainty weight", source=TABLE_11)
    kappa: float = swept(
        1.0,
        least=0,
        most=1,
        help="how much the uncertainty counts: the weight is 1 - kappa + kappa omega",
        source="ours",
    )
    omega_floor: float = swept(
        0.05,
        least=0,
        help="share of the median u that is added to u; not with literal_weight",
        source="ours",
    )
    omega_low: float = swept(
        0.1,
        least=0,
        help="least weight omega; not with literal_weight",
        source="ours",
    )
    omega_high: float = swept(
        10.0,
        least=0,
        help="largest weight omega; not with literal_weight",
        source="ours",
    )
    filter_cap: float = swept(
        20.0, above=0, help="largest weight of filter=exponential", source="code: CRR as in d3rlpy"
    )

    def __post_init__(self) -> None:
        check_record(self, "algo.hparams.")
        if self.omega_low > self.omega_high:
            raise RefusedError(
                f"algo.hparams.omega_low={self.omega_low} must lie between 0 and "
                f"omega_high={self.omega_high}."
            )


@dataclass(frozen=True)
class Config(TargetPeriod):
    """Static settings."""

    stage1_updates: int = static(
        20_000,
        least=0,
        most=COUNT,
        help="updates of the reward decomposition; the rest of total_updates is of policies",
        source="paper: SIT Table 10",
    )
    capacity: int = static(
        0,
        least=0,
        most=COUNT,
        help="episodes to keep tables of; 0: as many as the data set has",
        source="ours: the paper's data sets have 10,000 (SIT Tables 10, 11)",
    )
    decomposition: str = static(
        "attention",
        choices=(*DECOMPOSITIONS, NO_DECOMPOSITION),
        help="how r_tot is split: by attention, a sum, monotonically (MNC), or not (r_tot for all)",
        source="paper: SIT; monotone: its app. E.1",
    )
    ensemble: int = static(
        5,
        least=1,
        most=UNITS,
        help="networks of the decomposition; 1: no uncertainty, all weights 1",
        source="paper: SIT Table 10",
    )
    reward_dim: int = size(64, help="units of the reward networks", source="paper: SIT Table 10")
    attention_dim: int = size(64, help="units of the attention", source="paper: SIT Table 10")
    lift_rewards: bool = flag(
        True,
        help="what is decomposed is above the least reward of the data, see algos/sit/algorithm.py",
        source="ours; paper: SIT does not",
    )
    scaled_attention: bool = flag(
        False, help="scores are divided by sqrt(attention_dim)", source="paper: SIT eq. 1 does not"
    )
    priority: str = static(
        "mean_to_go",
        choices=PRIORITIES,
        help="priorities: mean reward to go, discounted return of the whole trajectory, or uniform",
        source="paper: SIT",
    )
    hidden_dim: int = size(64, help="units of the actors' GRU", source=TABLE_11)
    critic_dim: int = size(32, help="units of the critics' layers", source=TABLE_11)
    graph: str = static(
        "attention",
        choices=GRAPHS,
        help="how a critic sees all agents: by attention, as their mean, or not",
        source="paper: SIT eq. 8",
    )
    filter: str = static(
        "advantage",
        choices=FILTERS,
        help="X of the filter: advantage, q, or one of CRR's weights: exponential, binary",
        source="code: ICQ; paper: SIT eq. 10 has q",
    )
    filter_axis: str = static(
        "batch_time",
        choices=("batch_time", "batch"),
        help="what the softmax is over: all valid steps of the batch, or those of each time index",
        source="ours: batch_time; code: ICQ has batch",
    )
    filter_samples: int = static(
        4,
        least=1,
        most=UNITS,
        help="actions drawn for an advantage of a continuous policy",
        source="ours",
    )
    mask_dead: bool = flag(
        False,
        help="policies do not learn from steps of dead agents",
        source="ours; paper: SIT says nothing",
    )
    share_params: str = static(
        "type",
        choices=("all", "type", "none"),
        help="who has the same policy: agents of a type, none, or all, with one buffer",
        source="ours: type; paper: SIT has none",
    )
    target_update_period: int = default(100, TABLE_11)
    literal_return: bool = flag(
        False,
        help="gamma^(t-t') in eq. 6, as printed",
        source="ours; paper: SIT eq. 6",
    )
    literal_bootstrap: bool = flag(
        False,
        help="bootstrap after terminal steps too, as eq. 9 is printed",
        source="ours; paper: SIT eq. 9",
    )
    literal_weight: bool = flag(
        False,
        help="eta / u without bounds, as in eqs. 9 and 10",
        source="ours; paper: SIT eqs. 9, 10",
    )
    literal_actor: bool = flag(
        False,
        help="Q in the place of log pi, as eq. 10 is printed: actors do not learn",
        source="ours; paper: SIT eq. 10",
    )
    hparams: HParams = nested(HParams, help=SWEPT)

    def __post_init__(self) -> None:
        check_record(self, "algo.")
        self._check_together()

    def _check_together(self) -> None:
        """Raise RefusedError for settings that have no meaning beside one another."""
        if self.decomposition == NO_DECOMPOSITION and self.stage1_updates:
            raise RefusedError(
                "algo.decomposition=none leaves nothing to learn for "
                f"algo.stage1_updates={self.stage1_updates}. Use algo.stage1_updates=0, and "
                "total_updates for the policies alone."
            )
        if self.scaled_attention and self.decomposition != "attention":
            raise RefusedError(
                "algo.scaled_attention=true has no effect with "
                f"algo.decomposition={self.decomposition}: only attention has scores. Leave it out."
            )

        # of the last stage
        if self.literal_weight and not self.weighted:
            raise RefusedError(
                f"algo.literal_weight=true: with algo.decomposition={self.decomposition} and "
                f"algo.ensemble={self.ensemble} the uncertainty is 0 everywhere, and eta / 0 has "
                "no value. Leave it out: all weights are 1 then."
            )
        if self.filter_axis == "batch" and self.filter in ("exponential", "binary"):
            raise RefusedError(
                f"algo.filter_axis=batch has no effect with algo.filter={self.filter}, which has "
                "no normaliser. Leave it out, or use algo.filter=advantage or q."
            )

    @property
    def weighted(self) -> bool:
        """Whether there is an uncertainty to weigh by."""
        return self.ensemble > 1 and self.decomposition != NO_DECOMPOSITION
