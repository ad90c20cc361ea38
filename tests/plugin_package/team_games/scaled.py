"""Rewards times a factor, before anything is learned from them."""

from dataclasses import dataclass

from jaxshare.settings.fields import swept, swept_values


@dataclass(frozen=True)
class Config:
    """Settings of scaled."""

    factor: float = swept(0.5, above=0)


def make(config, parts):
    """The learner, with other rewards in its batches."""

    def relabel(batch, stats, ctx):
        return batch.replace(reward=ctx.hparams["scaled.factor"] * batch.reward), stats

    hparams = {f"scaled.{name}": value for name, value in swept_values(config).items()}
    return parts.extend(relabel=relabel, hparams=hparams)
