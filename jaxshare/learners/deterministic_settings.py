"""Settings that learners of deterministic policies share."""

from __future__ import annotations

from dataclasses import dataclass

from jaxshare.learners.windows import Windows
from jaxshare.settings.fields import default, nested, static, swept
from jaxshare.settings.shared import (
    SWEPT,
    Adam,
    Averaging,
    CriticRate,
    Epsilon,
    Lambda,
    Learning,
    Noise,
    TargetNetworks,
)
from jaxshare.settings.validate import check_record
from jaxshare.types import RefusedError

MADDPG = "code: EPyMARL's maddpg.yaml"


@dataclass(frozen=True)
class DeterministicHParams(Noise, Epsilon, Lambda, Averaging, Adam, CriticRate, Learning):
    """Swept scalars. code: EPyMARL's maddpg.yaml and default.yaml."""

    lr: float = default(5e-4, MADDPG, help="learning rate of the actors")
    critic_lr: float = default(5e-4, MADDPG)
    gamma: float = default(0.99, MADDPG)
    tau: float = default(0.01, "code: openai/maddpg")
    grad_clip: float = default(10.0, MADDPG)
    action_reg: float = swept(
        1e-3,
        least=0,
        help="weight of the mean square of available logits, or of continuous actions",
        source=MADDPG,
    )
    temperature: float = swept(
        1.0,
        above=0,
        help="temperature of the Gumbel-softmax",
        source=MADDPG,
    )
    td_lambda: float = default(
        0.8,
        "code: FACMAC's facmac_smac.yaml",
        help="lambda of the lambda-returns; only with target=td_lambda",
    )
    epsilon_start: float = default(0.0, "code: EPyMARL has none but the policy's own samples")
    epsilon_end: float = default(0.0, "code: EPyMARL has none but the policy's own samples")
    epsilon_anneal_steps: float = default(50_000.0, "code: FACMAC's facmac_smac.yaml")


@dataclass(frozen=True)
class DeterministicConfig(TargetNetworks, Windows):
    """Static settings. code: EPyMARL's maddpg.yaml, where it has them."""

    hidden_dim: int = default(128, MADDPG, help="units of the actors' and critics' layers")
    recurrent: bool = default(True, MADDPG, help="a GRU in the actors; critics have none")
    obs_last_action: bool = default(False, MADDPG)
    obs_agent_id: bool = default(True, MADDPG)
    target: str = static(
        "one_step",
        choices=("one_step", "td_lambda"),
        help="targets of the critics: of one step, or lambda-returns",
        source="code: EPyMARL; FACMAC has td_lambda in SMAC",
    )
    target_action: str = static(
        "greedy",
        choices=("greedy", "sample"),
        help="discrete actions in the targets: the likeliest, or samples",
        source="code: EPyMARL; openai/maddpg samples",
    )
    relaxation: str = static(
        "hard",
        choices=("hard", "soft"),
        help="discrete actions in the actors' loss: one-hot, straight through (hard), or soft",
        source="code: EPyMARL; openai/maddpg has soft",
    )
    bootstrap_on_timeout: bool = default(True, "code: EPyMARL, a time limit is no terminal state")
    clip: str = static(
        "all",
        choices=("all", "set"),
        help="over what gradients are clipped: each optimiser group, or each parameter set",
        source="code: EPyMARL; openai/maddpg has set",
    )
    target_update: str = default("hard", MADDPG)
    target_update_period: int = default(200, MADDPG)
    hparams: DeterministicHParams = nested(DeterministicHParams, help=SWEPT)

    def __post_init__(self) -> None:
        check_record(self, "algo.")
        self.check_window()
        if self.window == 1 and self.target == "td_lambda":
            raise RefusedError(
                "algo.target=td_lambda: with algo.window=1 there is no step to look ahead to. Use "
                "algo.target=one_step, a larger algo.window, or 0 for whole episodes."
            )
