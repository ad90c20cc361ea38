"""Settings of the on-policy actor-critics, as SEAC and as EPyMARL have them."""

from __future__ import annotations

from dataclasses import dataclass

from jaxshare.models.base import INITS
from jaxshare.models.streams import ACTIVATIONS
from jaxshare.settings.fields import STEPS, UNITS, default, flag, nested, static, swept
from jaxshare.settings.shared import (
    SWEPT,
    Adam,
    Agents,
    Annealing,
    Averaging,
    CriticRate,
    Learning,
    OnPolicy,
    TargetPeriod,
)
from jaxshare.settings.validate import check_record

SEAC = "paper: SEAC Table 2; code: SEAC"
IA2C = "code: EPyMARL's ia2c.yaml"


@dataclass(frozen=True)
class HParams(Annealing, Averaging, Adam, CriticRate, Learning):
    """Swept scalars. paper: SEAC Table 2, which is also its code's."""

    lr: float = default(3e-4, SEAC)
    critic_lr: float = default(
        3e-4,
        SEAC,
        help="learning rate of the critics; only with optimizers=separate",
    )
    gamma: float = default(0.99, SEAC)
    entropy_coef: float = swept(0.01, least=0, help="weight of the policies' entropy", source=SEAC)
    value_coef: float = swept(
        0.5,
        least=0,
        help="weight of the critics' loss (R - V)^2, without a half",
        source=SEAC,
    )
    grad_clip: float = default(
        0.5,
        SEAC,
        help="largest L2 norm of a gradient, over what algo.clip says",
    )
    adam_eps: float = default(1e-3, SEAC)
    gae_lambda: float = swept(
        0.95,
        least=0,
        most=1,
        help="lambda of generalised advantages; only with returns=gae",
        source="code: SEAC, off there",
    )


@dataclass(frozen=True)
class ActorCriticConfig(OnPolicy, TargetPeriod, Agents):
    """Static settings.

    The defaults are SEAC's (paper: Table 2; code: the same); EPyMARL's are in `EpymarlConfig`.
    """

    hidden_dim: int = default(64, SEAC)
    recurrent: bool = default(False, SEAC, help="a GRU in the actors")
    critic_recurrent: bool = flag(False, help="a GRU in the critics", source=SEAC)
    share_params: str = default("none", SEAC)
    obs_last_action: bool = default(False, SEAC)
    obs_agent_id: bool = default(False, SEAC)
    returns: str = static(
        "n_step",
        choices=("n_step", "gae"),
        help="targets of the critics: n-step returns, or of generalised advantages",
        source=SEAC,
    )
    n_step: int = static(
        0,
        least=0,
        most=STEPS,
        help="steps of a return before it bootstraps; 0: to the end of the piece",
        source="code: SEAC",
    )
    body: bool = flag(
        True,
        help="a second layer, after the GRU where there is one",
        source="code: SEAC, JaxMARL; EPyMARL has none",
    )
    activation: str = static(
        "relu",
        choices=tuple(ACTIVATIONS),
        help="the function between layers",
        source="code: SEAC",
    )
    init: str = static(
        "orthogonal",
        choices=INITS,
        help="how weights are drawn at first: orthogonal, or as torch does",
        source="code: SEAC; EPyMARL has torch",
    )
    body_gain: float = static(
        2**0.5,
        above=0,
        help="gain of the second hidden layer; only with init=orthogonal",
        source="code: SEAC",
    )
    value_gain: float = static(
        2**0.5,
        above=0,
        help="gain of the value head; only with init=orthogonal",
        source="code: SEAC, as of hidden layers",
    )
    optimizers: str = static(
        "joint",
        choices=("joint", "separate"),
        help="one optimiser over actor and critic (joint), or two",
        source="code: SEAC",
    )
    clip: str = static(
        "set",
        choices=("set", "all"),
        help="over what gradients are clipped: each parameter set alone, or all of them",
        source="code: SEAC, where every agent has its optimiser",
    )
    over_agents: str = static(
        "sum",
        choices=("sum", "mean"),
        help="what is minimised: the sum of the agents' losses, or their mean",
        source="paper: SNAC; EPyMARL has mean",
    )
    target_update: str = static(
        "none",
        choices=("none", "soft", "hard"),
        help="target networks of the critics: none, slow ones by tau (soft), or copies (hard)",
        source="code: SEAC",
    )
    target_update_period: int = default(
        200,
        "code: EPyMARL's COMA",
        help="updates between copies of the critics; only with target_update=hard",
    )
    standardise_advantage: bool = flag(
        False,
        help="advantages with mean 0 and deviation 1",
        source="code: neither SEAC nor EPyMARL",
    )
    critic_dim: int = static(
        0,
        least=0,
        most=UNITS,
        help="units of the critics' layers; 0: hidden_dim",
        source="code: SEAC, EPyMARL",
    )
    hparams: HParams = nested(HParams, help=SWEPT)

    def __post_init__(self) -> None:
        check_record(self, "algo.")


@dataclass(frozen=True)
class EpymarlHParams(HParams):
    """Swept scalars as EPyMARL has them. code: its ia2c.yaml."""

    lr: float = default(5e-4, IA2C)
    critic_lr: float = default(5e-4, IA2C)
    entropy_coef: float = default(0.001, IA2C)
    value_coef: float = default(1.0, IA2C)
    grad_clip: float = default(10.0, IA2C)
    adam_eps: float = default(1e-8, "code: EPyMARL, torch's")


@dataclass(frozen=True)
class EpymarlConfig(ActorCriticConfig):
    """Static settings as EPyMARL has them (Papoudakis et al. 2021). code: its ia2c.yaml and
    default.yaml.
    """

    rollout: str = default("episodes", IA2C)
    n_step: int = default(5, IA2C)
    hidden_dim: int = default(128, IA2C)
    recurrent: bool = default(True, IA2C)
    body: bool = default(False, IA2C)
    init: str = default("torch", IA2C)
    share_params: str = default("all", IA2C)
    obs_agent_id: bool = default(True, IA2C)
    optimizers: str = default("separate", IA2C)
    clip: str = default("all", IA2C)
    over_agents: str = default("mean", IA2C)
    target_update: str = default("soft", IA2C)
    hparams: HParams = nested(EpymarlHParams)


@dataclass(frozen=True)
class CentralConfig(ActorCriticConfig):
    """Static settings of learners whose critics read what no agent sees."""

    critic_obs: bool = flag(
        False,
        help="critics read the agent's own observation as well",
        source="code: EPyMARL; lecture: V(h_i, z) has it",
    )
    critic_last_actions: bool = flag(
        False,
        help="critics read everybody's last action as well",
        source="code: EPyMARL",
    )
    critic_agent_id: bool = flag(
        True,
        help="critics read the agent's index, one-hot",
        source="code: EPyMARL",
    )


EPYMARL_RUN = {"num_envs": 10}  # code: EPyMARL's batch_size_run
