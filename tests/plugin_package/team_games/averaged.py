"""Q_tot is the mean of the agents' utilities, with a weight in front."""

from dataclasses import dataclass

from jaxshare.learners.learner import Learner
from jaxshare.learners.value import value_learner
from jaxshare.learners.value_losses import team_td_loss
from jaxshare.learners.value_settings import ValueConfig
from jaxshare.models.mixers import Mixer
from jaxshare.settings.fields import static
from jaxshare.types import EnvSpec

RUN = {"num_envs": 4}  # its own defaults of run settings


@dataclass(frozen=True)
class Config(ValueConfig):
    """Settings of the value family, and the weight."""

    weight: float = static(2.0, above=0, help="of the mean")


def make(config: Config, spec: EnvSpec) -> Learner:
    """A mixer without parameters, and the family's team loss."""
    mixer = Mixer(
        init=lambda key: {},
        apply=lambda params, q, inputs: config.weight * q.mean(-1),
    )
    return value_learner("averaged", config, spec, mixer=mixer, loss=team_td_loss)
