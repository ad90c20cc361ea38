"""docs/settings.md, which is made from the declarations, as several pages."""

PARTS = {
    "run": ("Settings of the run", "## Run", "## Algorithms"),
    "algorithms": ("Settings of algorithms", "## Algorithms", "## Environments"),
    "environments": ("Settings of environments", "## Environments", "## Modifiers"),
    "modifiers": ("Settings of modifiers", "## Modifiers", "## Defaults that"),
    "departures": ("Defaults that are not the papers'", "the papers'", None),
}
PAGE = """\
# {title}

```{{include}} ../../settings.md
:start-after: {start}
{end}:raise-headings: 1
```
"""
INDEX = """\
```{include} ../../settings.md
:end-before: ## Run
```

The page of [each algorithm](../algorithms/index.md) has all of its settings together; here what several have stands in
one table.

```{toctree}
run
algorithms
environments
modifiers
departures
```
"""


def pages():
    """{path below docs/generated: text}."""
    made = {"settings/index.md": INDEX}
    for name, (title, start, end) in PARTS.items():
        before = f":end-before: {end}\n" if end else ""
        made[f"settings/{name}.md"] = PAGE.format(title=title, start=start, end=before)
    return made
