"""Rewards times a factor, before anything is learned from them."""

from dataclasses import dataclass

from jaxshare.settings.fields import swept, swept_values


@dataclass(frozen=True)
class Config:
    """Settings of scaled."""

    factor: float = swept(0.5, above=0, help="what rewards are multiplied by")


def make(config, learner):
    """The learner, with other rewards in its batches."""

    def relabel(view):
        reward = view.hparams["scaled.factor"] * view.batch.reward
        return view.batch.replace(reward=reward), view.stats

    hparams = {f"scaled.{name}": value for name, value in swept_values(config).items()}
    return learner.extend(relabel=relabel, hparams=hparams)
