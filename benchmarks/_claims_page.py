"""docs/results.md and its pictures, from benchmarks/results/claims.json alone."""

from __future__ import annotations

import math
import pathlib
from typing import Any

COLUMNS = 3  # panels in a row
MARK = {
    "confirmed": "✔ confirmed",
    "not confirmed": "✘ not confirmed",
    "undecided": "? undecided",
    "not run": "– not run",
}
PAPERS = {  # by the first word of a claim's name
    "differ": "DIFFER (Hu et al. 2023)",
    "pps": "PPS-QMIX (Zhang et al. 2024)",
    "seac": "SEAC (Christianos et al. 2020)",
    "sit": "SIT (Tian et al. 2023)",
    "lecture": "the MARL-book lecture (Albrecht, Christianos and Schäfer)",
}
FIELDS = ("title", "statement", "source", "reference", "comparable", "because", "instead")  # of a claim, kept with it
HEAD = """\
# The papers' claims, tested here

This page and its pictures are made by `python benchmarks/claims.py` alone. The claims, with the papers' numbers,
settings, budgets and the rule that decides each, are in `benchmarks/claims/*.yaml`. They were written before the runs
below; some settings and margins, though, were chosen after earlier and shorter runs of the same comparison, and the
claim says so. One command repeats a claim, and the list under each claim has every single run.

**How to read it.** {legend}
Intervals are 95 % intervals of 10,000 stratified bootstraps over seeds (shares of seeds: Wilson's). Those of checks are
stretched for the few seeds there are: of two equal arms with three seeds about 3 % are called different each way. A
claim is *confirmed* if all its deciding checks are, *not confirmed* if one of them is refuted, *undecided* else; a
check on several tasks is of their mean, and refuted by one of them. "Confirmed" means: on these tasks, at this
budget. "More than" is decided by whether the interval contains the margin, "as good as" by whether the interval lies
within it. The small budget is about a hundredth of the papers', on the cheaper of their tasks and with few seeds, so
that "undecided" is often all that can be said. SMAX is not StarCraft II: orders can be compared with the papers',
numbers cannot.

Machine: {machine}
"""


def outcome(results: dict[str, Any]) -> dict[str, Any]:
    """{claim: its result}, of the largest budget of which something was run."""
    found = {}
    for name, budgets in results["claims"].items():
        order = [budgets[budget] for budget in ("full", "small") if budget in budgets]
        found[name] = next((one for one in order if one["verdict"] != "not run"), order[0])
    return found


def write(results: dict[str, Any], docs: pathlib.Path) -> pathlib.Path:
    """The page, and a picture for every claim that has something to show."""
    pictures = docs / "results"
    pictures.mkdir(parents=True, exist_ok=True)
    shown = outcome(results)
    parts = [_head(results, shown), _summary(shown)]
    for paper, title in PAPERS.items():
        own = {name: found for name, found in shown.items() if name.partition("_")[0] == paper}
        if own:
            parts.append(f"## {title[0].upper()}{title[1:]}\n")
            parts += [_section(name, found, draw(name, found, pictures)) for name, found in own.items()]
    page = docs / "results.md"
    page.write_text("\n".join(parts), encoding="utf-8")
    return page


def _head(results: dict[str, Any], shown: dict[str, Any]) -> str:
    counts = [sum(found["verdict"] == verdict for found in shown.values()) for verdict in MARK]
    legend = ", ".join(f"{count} {verdict}" for count, verdict in zip(counts, MARK, strict=True))
    versions = sorted({f"{k} {v}" for found in shown.values() for k, v in found.get("versions", {}).items()})
    machines = sorted({found["machine"] for found in shown.values() if found.get("machine")})
    text = HEAD.format(machine="; ".join(machines), legend=f"Of {len(shown)} claims: {legend}.")
    return text + (f"Versions of the runs: {', '.join(versions)}.\n" if versions else "")


def _summary(shown: dict[str, Any]) -> str:
    lines = ["| claim | verdict | checks | budget, seeds | comparable |", "|---|---|---|---|---|"]
    for name, found in shown.items():
        checks = found["checks"]
        good = sum(check["verdict"] == "confirmed" for check in checks)
        how = f"{found['budget']}, {found['seeds']}" if checks else "–"
        many = f"{good} of {len(checks)} confirmed" if checks else "–"
        lines.append(
            f"| [{found['title']}](#{anchor(name)}) | {MARK[found['verdict']]} | {many} | {how} | "
            f"{found['comparable']} |"
        )
    return "\n".join(lines) + "\n"


def anchor(name: str) -> str:
    """Of a claim on the page."""
    return name.replace("_", "-")


def _section(name: str, found: dict[str, Any], picture: str | None) -> str:
    parts = [
        f'<a id="{anchor(name)}"></a>',
        f"### {found['title']}: {found['verdict']}\n",
        found["statement"],
    ]
    parts.append(f"\n*Source:* {found['source']}. *Reference:* {found['reference']}")
    parts.append(f"\n*Comparable:* {found['comparable']}. {found['because']}\n")
    if not found["checks"]:
        instead = (
            f" Nearest: [{found['instead']}](#{found['instead'].replace('_', '-')})." if found.get("instead") else ""
        )
        return "\n".join([*parts, f"**Not run.** {found['reason']}{instead}\n"])
    parts += [_checks(found), *([_cells(found)] if found["cells"] else [])]
    if picture:
        parts.append(f"![{found['title']}]({picture})\n")
    parts.append(_commands(name, found))
    return "\n".join(parts)


def _checks(found: dict[str, Any]) -> str:
    lines = ["| check | paper | here, with interval | decided by | verdict |", "|---|---|---|---|---|"]
    for check in found["checks"]:
        says = check["says"] + ("" if check["decides"] else " (does not decide)")
        lines.append(
            f"| {says} | {check['paper'] or 'no number'} | {interval(check)} | {_rule(check)} | {_mark(check)} |"
        )
        for task, each in check.get("each", {}).items():
            lines.append(f"| – {task} | | {interval(each)} | | {each['verdict']} |")
    return "\n".join(lines) + "\n"


def _mark(check: dict[str, Any]) -> str:
    note = check.get("reason") or check.get("note")
    return MARK[check["verdict"]] + (f" ({note})" if note else "")


def _rule(check: dict[str, Any]) -> str:
    bound = number(check["bound"])
    return {
        "greater": f"difference > {bound}", "equal": f"difference within ±{bound}",
        "at_least": f"≥ {bound}", "above": f"> {bound}", "at_most": f"≤ {bound}",
    }[check["compare"]]  # fmt: skip


def interval(found: dict[str, Any]) -> str:
    """A value with its bounds and the number of runs behind it."""
    if found.get("value") is None:
        return "–"
    if found["low"] is None:
        return number(found["value"])
    if found["low"] == found["high"] == found["value"]:
        return f"{number(found['value'])} (n = {found['runs']})"
    return f"{number(found['value'])} [{number(found['low'])}, {number(found['high'])}] (n = {found['runs']})"


def number(x: float | None) -> str:
    """Three digits; small ones as powers."""
    if x is None or math.isnan(x):
        return "–"
    return f"{x:.1e}" if x and abs(x) < 1e-3 else f"{x:.3g}" if abs(x) < 1000 else f"{x:,.0f}"


def _cells(found: dict[str, Any]) -> str:
    lines = ["| task | arm | paper | here: IQM over seeds | every seed | after |", "|---|---|---|---|---|---|"]
    for task, arms in found["cells"].items():
        for arm, cell in arms.items():
            paper = "–" if cell["paper"] is None else " ± ".join(number(x) for x in cell["paper"])
            each = ", ".join(number(x) for x in cell["scores"])
            bounds = f"{number(cell['iqm'])} [{number(cell['low'])}, {number(cell['high'])}]"
            lines.append(f"| {task} | {arm} | {paper} | {bounds} | {each} | {cell['total']:,} {cell['unit']} |")
    one = next(iter(next(iter(found["cells"].values())).values()))
    final = f"mean of the last {one['last']} evaluations" if one["last"] > 1 else "the last evaluation"
    what = final if one["score"] == "final" else "mean of all evaluations but the first"
    return "\n".join(lines) + f"\n\nScores: {one['metric'].replace('_', ' ')}, {what}.\n"


def _commands(name: str, found: dict[str, Any]) -> str:
    again = f"python benchmarks/claims.py {name} --budget {found['budget']}"
    lines = [f"Again: `{again}`\n", "<details><summary>its runs, one command a line</summary>\n", "```sh"]
    return "\n".join([*lines, *found["commands"], "```", "</details>\n"])


# ------------------------------------------------------------------------------------------------------------ pictures


def draw(name: str, found: dict[str, Any], folder: pathlib.Path) -> str | None:
    """Curves of each task, IQM with intervals, and the checks' values against their bounds: the picture's path."""
    made = [check for check in found["checks"] if check.get("value") is not None]
    panels = len(found["cells"]) + bool(made)
    path = folder / f"{name}.png"
    if not panels:
        path.unlink(missing_ok=True)  # of an earlier page
        return None
    from matplotlib.figure import Figure

    columns = min(COLUMNS, panels)
    rows = math.ceil(panels / columns)
    figure = Figure(figsize=(3.7 * columns, 2.9 * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    arms = list(dict.fromkeys(arm for own in found["cells"].values() for arm in own))
    for axis, (task, own) in zip(axes, found["cells"].items(), strict=False):
        _curves(axis, task, own, arms)
    if made:
        _bars(axes[len(found["cells"])], made)
    for axis in axes[panels:]:
        axis.axis("off")
    figure.savefig(path, dpi=80)
    return f"{folder.name}/{path.name}"


def _curves(axis: Any, task: str, own: dict[str, Any], arms: list[str]) -> None:
    from matplotlib import ticker

    for arm, cell in own.items():
        colour, curve = f"C{arms.index(arm) % 10}", cell["curve"]
        axis.plot(curve["x"], curve["y"], color=colour, label=arm, ls="-" if arms.index(arm) < 10 else "--")
        axis.fill_between(curve["x"], curve["low"], curve["high"], color=colour, alpha=0.15, lw=0)
    cell = next(iter(own.values()))
    axis.set_title(task, fontsize=9)
    axis.set_xlabel(cell["unit"], fontsize=8)
    axis.set_ylabel(cell["metric"].replace("_", " "), fontsize=8)
    axis.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
    axis.xaxis.set_major_locator(ticker.MaxNLocator(4))
    axis.tick_params(labelsize=7)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=6)


def _bars(axis: Any, checks: list[dict[str, Any]]) -> None:
    """Each check's interval in units of its own, so that its bound is at 0 and all fit in one panel."""
    for row, check in enumerate(checks):
        low, high = (check[k] if check[k] is not None else check["value"] for k in ("low", "high"))
        bound = 0.0 if check["compare"] == "equal" else check["bound"]
        unit = max(
            abs(x - bound) for x in (low, high, check["value"], bound + check["bound"] * (check["compare"] == "equal"))
        )
        place = [(x - bound) / (unit or 1.0) for x in (low, check["value"], high)]
        colour = {"confirmed": "tab:green", "not confirmed": "tab:red"}.get(check["verdict"], "tab:gray")
        axis.plot([place[0], place[2]], [-row, -row], color=colour, lw=5, alpha=0.5, solid_capstyle="butt")
        axis.plot(place[1], -row, "o", color=colour, ms=4)
        if check["compare"] == "equal":
            edge = check["bound"] / (unit or 1.0)
            axis.plot([-edge, edge], [-row, -row], "k|", ms=10)
    axis.axvline(0, color="black", lw=1)
    axis.set_yticks([-i for i in range(len(checks))], [str(i + 1) for i in range(len(checks))])
    axis.set_ylim(-len(checks) + 0.4, 0.6)
    axis.set_xlim(-1.1, 1.1)
    axis.set_xticks([0], ["bound"])
    axis.set_title("checks in their order: value and interval", fontsize=9)
    axis.tick_params(labelsize=7)
    axis.grid(alpha=0.3, axis="y")
