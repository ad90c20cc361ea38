"""A page for every algorithm, and the table of all of them, from the registry."""

import re

import yaml

from jaxshare import compatibility, registry
from jaxshare.learners.learner import offers
from jaxshare.settings.rows import range_text, rows
from jaxshare.types import Box, Discrete, EnvSpec
from pages import docstrings
from pages.links import ROOT

ACTIONS = {"discrete": Discrete(3), "continuous": Box(1, (-1.0,), (1.0,))}
SOURCES = {
    "replay": ("off policy", "replays whole episodes"),
    "episode": ("on policy", "learns from the episodes that it has just played"),
    "segment": ("on policy", "learns from the pieces of episodes that it has just played"),
    "dataset": ("offline", "learns from a data set and never plays while it learns"),
}
OFFERS = {
    "utilities": "a network of utilities (values of each agent's actions)",
    "mixer": "a mixer of utilities, so `differ` can go on it",
    "policy": "a network that is the policy",
    "action_critics": "critics that read the actors' actions, so `cql` can go on it",
    "personal_networks": "networks that each agent has for itself by default, so PPS can go on it as it is",
    "own_loss": "a loss that no other algorithm has; a modifier may not replace it",
    "packed": "batches with several episodes in a row",
}
HEADER = "| setting | default | may be | what it is | where the default comes from |\n|---|---|---|---|---|"
TABLE = """\
# Algorithms

Chosen by `algo=NAME`. This table and the pages behind it are made from the code when the site is built: each algorithm
was put together on a small made-up task, and was asked what it offers. Settings say where their defaults come from:
from a paper, from its authors' code, or from us.

What the choices behind the equations are is on the page about [what is computed](../../methods.md), what modifiers do
on [theirs](../modifiers.md).

| name | what | paper | actions | experience | settings |
|---|---|---|---|---|---|
"""


def pages():
    """{path below docs/generated: text}."""
    names = list(registry.modules("algo"))
    lines = [table_line(name) for name in names]
    toctree = "```{toctree}\n:hidden:\n\n" + "\n".join(names) + "\n```\n"
    made = {"algorithms/index.md": TABLE + "\n".join(lines) + "\n\n" + toctree}
    for name in names:
        made[f"algorithms/{name}.md"] = page(name)
    return made


def table_line(name):
    """A row of the table."""
    module = registry.get("algo", name)
    summary = registry.summary(module).rstrip(".")
    what = re.sub(r"\s*\([^()]*\d{4}[^()]*\)", "", summary)
    kinds = [kind for kind in ACTIONS if can_act(name, kind)]
    experience = SOURCES[learner_of(name).source.experience][0]
    cells = [f"[`{name}`]({name}.md)", docstrings.markdown_line(what), paper(module), ", ".join(kinds), experience]
    return f"| {' | '.join([*cells, str(len(list(rows(module.Config))))])} |"


def paper(module):
    """Who wrote it and when, with its address where the file has one."""
    text = " ".join(docstring(module).splitlines()[:4])
    said = re.search(r"\(((?:de )?[A-Z][^()]*?\d{4})", text)
    number = re.search(r"(?:arXiv |arxiv\.org/abs/)(\d{4}\.\d{5})", text)
    words = said[1].split(",")[0] if said else ""
    return f"[{words or 'paper'}](https://arxiv.org/abs/{number[1]})" if number else words


def docstring(module):
    """The text at the top of an entry's file, or of its package."""
    return module.__doc__ or ""


def learner_of(name, kind=None):
    """The learner on a small made-up task."""
    kind = kind or next(kind for kind in ACTIONS if can_act(name, kind))
    spec = EnvSpec(
        name="made_up",
        num_agents=2,
        obs_dim=3,
        state_dim=4,
        action=ACTIONS[kind],
        episode_limit=5,
        groups=(0, 0),
        group_names=("agent",),
    )
    module = registry.get("algo", name)
    return module.make(module.Config(), spec)


def can_act(name, kind):
    """Whether it can be used with such actions."""
    return compatibility.refusal(name, (), ACTIONS[kind]) is None


def page(name):
    """The page of one algorithm."""
    module = registry.get("algo", name)
    summary, _, rest = docstring(module).partition("\n")
    lead = docstrings.markdown_line(summary) + "\n"
    parts = [f"# {name}\n", lead, docstrings.markdown(rest) if rest.strip() else ""]
    parts += ["## What it is\n", facts(name), modifiers(name)]
    presets = presets_of(name)
    if presets:
        parts += ["## Presets\n", presets]
    parts += ["## Settings\n", settings_text(module, "algo.")]
    return "\n".join(part for part in parts if part)


def facts(name):
    """Actions, experience and what it offers, as a list."""
    learner = learner_of(name)
    policy, words = SOURCES[learner.source.experience]
    kinds = [kind for kind in ACTIONS if can_act(name, kind)]
    lines = [f"* actions: {' and '.join(kinds)}", f"* {policy}: it {words}"]
    networks = ", ".join(f"`{network}`" for network in learner.networks)
    lines.append(f"* networks: {networks}")
    have = offers(learner)
    lines += [f"* it has {OFFERS[offer]}" for offer in OFFERS if offer in have]
    return "\n".join(lines) + "\n"


def modifiers(name):
    """Which modifiers go on it, as a table."""
    kind = next(kind for kind in ACTIONS if can_act(name, kind))
    lines = ["| modifier | goes on it |", "|---|---|"]
    for modifier in registry.modules("modifiers"):
        reason = compatibility.refusal(name, (modifier,), ACTIONS[kind])
        answer = "yes"
        if reason:
            alone = compatibility.refusal(name, (modifier,), ACTIONS[kind], share_params="none")
            answer = docstrings.markdown_line(reason) if alone else "with `algo.share_params=none`"
        lines.append(f"| [`{modifier}`](../modifiers.md) | {answer} |")
    return "\n".join(lines) + "\n"


def presets_of(name):
    """The presets that choose it, as a list."""
    lines = []
    for path in sorted((ROOT / "configs" / "preset").rglob("*.yaml")):
        chosen = [entry.get("override /algo") for entry in yaml.safe_load(path.read_text()).get("defaults", [])]
        if name in chosen:
            lines.append(f"* `preset={preset_name(path)}`: {docstrings.markdown_line(first_comment(path))}")
    return "\n".join(lines) + "\n" if lines else ""


def preset_name(path):
    """Its name on the command line."""
    return str(path.relative_to(ROOT / "configs" / "preset").with_suffix(""))


def first_comment(path):
    """The comment at the top of a preset."""
    lines = path.read_text().splitlines()
    words = []
    for line in lines:
        if not line.startswith("#"):
            break
        if not line.startswith("# @"):
            words.append(line.removeprefix("#").strip())
    return " ".join(words)


def settings_text(module, prefix, stars=False):
    """What may be set, with where the defaults come from; and the run's settings that it would have otherwise."""
    text = ""
    run = getattr(module, "RUN", {})
    if run:
        text += f"Settings of the run whose defaults are its own: {', '.join(plain(run))}.\n\n"
    table = list(rows(module.Config, prefix))
    return text + (settings_table(table, stars) if table else "None.\n")


def plain(tree, prefix=""):
    """`num_envs=4` and so on of a nested dictionary."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from plain(value, f"{prefix}{key}.")
        else:
            yield f"`{prefix}{key}={value}`"


def settings_table(table, stars):
    """Rows of settings as a table."""
    lines = [HEADER]
    for row in table:
        setting = row.setting
        allowed = "true, false" if isinstance(row.value, bool) else range_text(setting.allowed, most_names=None)
        if setting.allowed and setting.allowed.choices:
            allowed = allowed.replace("|", ", ")
        star = "\\*" if stars and setting.is_swept else ""
        default = f"`{row.text}`".replace("|", "\\|") if row.text else ""
        words = [docstrings.markdown_line(text) for text in (allowed, setting.help, setting.source)]
        lines.append(f"| `{row.key}`{star} | {default} | {' | '.join(words)} |")
    return "\n".join(lines) + "\n"
