"""Settings that several algorithms have, declared once: classes to inherit from.

An algorithm whose default is another says only that, `lr: float = default(1e-4, "code: SEQL")`.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxshare.settings.fields import COUNT, STEPS, UNITS, flag, size, static, swept

PYMARL = "code: PyMARL's default.yaml"
EPYMARL = "code: EPyMARL's default.yaml"
SWEPT = "what a sweep may vary"
SHARING = ("all", "type", "none")

# --------------------------------------------------------------------------- scalars of a sweep


@dataclass(frozen=True)
class Learning:
    """What every learner has."""

    lr: float = swept(5e-4, least=0, help="learning rate", source=PYMARL)
    gamma: float = swept(0.99, least=0, most=1, help="discount per step", source=PYMARL)
    grad_clip: float = swept(
        10.0,
        above=0,
        infinite=True,
        help="largest L2 norm of a gradient, over each optimiser group",
        source=PYMARL,
    )


@dataclass(frozen=True)
class CriticRate:
    """Of learners whose critics have an optimiser of their own."""

    critic_lr: float = swept(5e-4, least=0, help="learning rate of the critics", source=EPYMARL)


@dataclass(frozen=True)
class RMSprop:
    """Of torch's RMSprop."""

    rms_decay: float = swept(
        0.99,
        least=0,
        below=1,
        help="decay of RMSprop's mean of squared gradients",
        source=PYMARL,
    )
    rms_eps: float = swept(
        1e-5,
        above=0,
        help="RMSprop's epsilon, outside the square root as torch has it",
        source=PYMARL,
    )


@dataclass(frozen=True)
class Adam:
    """Of Adam."""

    adam_eps: float = swept(1e-8, above=0, help="Adam's epsilon", source="code: torch")


@dataclass(frozen=True)
class Averaging:
    """Of target networks that follow slowly."""

    tau: float = swept(
        0.01,
        least=0,
        most=1,
        help="step of target networks towards the online ones; only with target_update=soft",
        source=EPYMARL,
    )


@dataclass(frozen=True)
class Lambda:
    """Of lambda-returns."""

    td_lambda: float = swept(0.8, least=0, most=1, help="lambda of the lambda-returns")


@dataclass(frozen=True)
class Annealing:
    """Of learning rates that fall over a run."""

    lr_anneal: float = swept(
        0.0,
        least=0,
        most=1,
        help="share of the learning rates that is gone, evenly, by total_env_steps",
        source="code: SEAC, EPyMARL",
    )


@dataclass(frozen=True)
class EpsilonRange:
    """Between which values the share of random actions falls."""

    epsilon_start: float = swept(
        1.0,
        least=0,
        most=1,
        help="share of uniformly random actions at the start",
        source=PYMARL,
    )
    epsilon_end: float = swept(
        0.05,
        least=0,
        most=1,
        help="share of uniformly random actions once it has fallen",
        source=PYMARL,
    )


@dataclass(frozen=True)
class Epsilon(EpsilonRange):
    """Exploration by random actions, ever fewer of them."""

    epsilon_anneal_steps: float = swept(
        50_000.0,
        least=0,
        help="environment steps until epsilon_end is reached",
        source=PYMARL,
    )
    epsilon_anneal_fraction: float = swept(
        0.0,
        least=0,
        most=1,
        help="the same as a share of total_env_steps; 0: epsilon_anneal_steps",
        source="ours: off",
    )


@dataclass(frozen=True)
class Noise:
    """Exploration with continuous actions."""

    action_noise: float = swept(
        0.1,
        least=0,
        help="standard deviation of the noise on actions, where their box is [-1, 1]",
        source="code: FACMAC",
    )
    uniform_steps: float = swept(
        0.0,
        least=0,
        help="environment steps of uniformly random actions before all else",
        source="code: FACMAC",
    )


@dataclass(frozen=True)
class PolicyWidth:
    """Of continuous policies that are learned from data."""

    action_std: float = swept(
        0.2,
        above=0,
        help="standard deviation of a continuous policy, where the action box is [-1, 1]",
        source="ours",
    )


# ---------------------------------------------------------------------------------- static ones


@dataclass(frozen=True)
class Agents:
    """The agents' networks, and what they read."""

    hidden_dim: int = size(64, help="units of the agents' layers", source=PYMARL)
    recurrent: bool = flag(
        True,
        help="a GRU in the agents' networks; false: feed-forward",
        source=PYMARL,
    )
    share_params: str = static(
        "all",
        choices=SHARING,
        help="who has the same parameters: all agents, those of a type, or none",
        source=PYMARL,
    )
    obs_last_action: bool = flag(True, help="agents read their last action", source=PYMARL)
    obs_agent_id: bool = flag(True, help="agents read their index, one-hot", source=PYMARL)


@dataclass(frozen=True)
class OnPolicy:
    """What is learned from as soon as it is collected, and how often."""

    rollout: str = static(
        "segments",
        choices=("segments", "episodes"),
        help="what is learned from: pieces of streams of episodes (segments), or whole ones",
        source="code: SEAC; EPyMARL has episodes",
    )
    segment_length: int = static(
        5,
        least=1,
        most=STEPS,
        help="steps of a piece",
        source="paper: SEAC's n",
    )
    epochs: int = static(
        1,
        least=1,
        most=UNITS,
        help="passes over what was collected",
        source="code: SEAC",
    )
    minibatches: int = static(
        1,
        least=1,
        most=UNITS,
        help="parts of what was collected, in each pass",
        source="code: SEAC",
    )


@dataclass(frozen=True)
class TargetPeriod:
    """How often target networks follow."""

    target_update_period: int = static(
        200,
        least=1,
        most=COUNT,
        help="updates between copies of the online networks to the target networks",
        source="paper: DIFFER; code: PyMARL, 200 episodes at one update each",
    )


@dataclass(frozen=True)
class TargetNetworks(TargetPeriod):
    """How target networks follow, and where targets end."""

    target_update: str = static(
        "hard",
        choices=("hard", "soft"),
        help="how target networks follow: by copies (hard), or a little at every update (soft)",
        source=PYMARL,
    )
    bootstrap_on_timeout: bool = flag(
        False,
        help="the value of the state counts after a time limit; false: as after a true end",
        source="code: PyMARL, SMAC counts a time-out as terminal",
    )


@dataclass(frozen=True)
class Optimizer:
    """Which optimiser."""

    optimizer: str = static(
        "rmsprop",
        choices=("rmsprop", "adam", "radam"),
        help="the optimiser: torch's RMSprop, Adam, or rectified Adam",
        source=PYMARL,
    )


@dataclass(frozen=True)
class MixerWidth:
    """A mixer with a layer of its own."""

    embed_dim: int = size(32, help="units of the mixer's layer", source="code: PyMARL's qmix.yaml")


@dataclass(frozen=True)
class HyperNetwork(MixerWidth):
    """QMIX's mixer, whose weights other networks make from the state."""

    hypernet_dim: int = size(
        64,
        help="hidden units of what makes the mixer's weights; only with hypernet_layers=2",
        source="code: PyMARL's qmix.yaml",
    )
    hypernet_layers: int = static(
        2,
        choices=(1, 2),
        help="layers of the networks that make the mixer's weights",
        source="code: PyMARL's qmix.yaml",
    )
