"""Pages about modifiers and examples, and parts that other pages include: scenarios, presets, verdicts."""

import pathlib
import re

from jaxshare import registry
from pages import algorithms, docstrings
from pages.links import DOCS, ROOT

TEXTS = ("differ", "pps", "seac", "sit", "lecture")  # beginnings of claims' names, and folders of presets
MODIFIERS = """\
# Modifiers

A modifier is put on an algorithm by `modifiers=[NAME]`, several by `modifiers=[differ,standardise]`. It is a function
from a learner to a learner: it adds to a part, or replaces one. Settings with a star may be swept.

"""
EXAMPLE = """\
---
orphan: true
---

# {name}

```{{literalinclude}} ../../examples/{name}
:language: python
```
"""


def pages():
    """{path below docs/generated: text}."""
    made = {"modifiers.md": modifiers(), "parts/scenarios.md": scenarios()}
    for path in sorted((DOCS / "examples").glob("*.py")):
        made[f"examples/{path.stem}.md"] = EXAMPLE.format(name=path.name)
    results = (DOCS / "results.md").read_text()
    for name in TEXTS:
        made[f"parts/claims_{name}.md"] = claims(name, results)
        made[f"parts/presets_{name}.md"] = presets(name)
    return made


def modifiers():
    """The page of all modifiers."""
    parts = [MODIFIERS]
    for name, module in registry.modules("modifiers").items():
        summary, _, rest = algorithms.docstring(module).partition("\n")
        parts += [f"## {name}\n", docstrings.markdown_line(summary) + "\n", docstrings.markdown(rest)]
        parts.append(algorithms.settings_text(module, f"{name}.", stars=True))
    return "\n".join(parts)


def scenarios():
    """The environments with where they run, their actions and their scenarios."""
    lines = ["| environment | runs | actions | scenarios |", "|---|---|---|---|"]
    for name, module in registry.modules("env").items():
        where = "on the host" if getattr(module, "HOST", False) else "in JAX"
        names = module.scenarios() if hasattr(module, "scenarios") else []
        listed = ", ".join(f"`{scenario}`".replace("|", "\\|") for scenario in names)
        lines.append(f"| `{name}` | {where} | {getattr(module, 'ACTIONS', '')} | {listed} |")
    return "\n".join(lines) + "\n"


def claims(name, results):
    """The rows of a text in the table at the top of docs/results.md."""
    table = [line for line in results.split("\n## ", 1)[0].splitlines() if line.startswith("|")]
    mine = [line for line in table if re.match(rf"\| \[[^\]]*\]\(#{name}-", line)]
    linked = [line.replace("](#", "](../../results.md#") for line in mine]
    return "\n".join([*table[:2], *linked]) + "\n"


def presets(name):
    """The presets of a text as a table."""
    lines = ["| preset | what it is |", "|---|---|"]
    for path in sorted(pathlib.Path(ROOT / "configs" / "preset" / name).glob("*.yaml")):
        words = docstrings.markdown_line(algorithms.first_comment(path))
        lines.append(f"| `{algorithms.preset_name(path)}` | {words} |")
    return "\n".join(lines) + "\n"
