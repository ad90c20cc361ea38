"""The page of a file or folder of studies, from the kept figures alone, in Markdown."""

from __future__ import annotations

import math
import pathlib
import shlex
from collections.abc import Iterable

from jaxshare.study.book import Book
from jaxshare.study.figures import Cell, CheckResult, Figures, Result, Value, is_claim
from jaxshare.study.language import BUDGETS
from jaxshare.study.pictures import draw
from jaxshare.study.rules import MEASURED, NOT_RUN, UNFINISHED

MARK = {
    "confirmed": "✔ confirmed",
    "not confirmed": "✘ not confirmed",
    "undecided": "? undecided",
    "not run": "– not run",
}
DECIDED = """\
**How to read it.** {legend}
Intervals are 95 % intervals of 10,000 stratified bootstraps over seeds (shares of seeds: \
Wilson's). Those of checks are
stretched for the few seeds there are: of two equal arms with three seeds about 3 % are called \
different each way. A
claim is *confirmed* if all its deciding checks are, *not confirmed* if one of them is refuted, \
*undecided* else; a
check on several tasks is of their mean, and refuted by one of them. "Confirmed" means: on these \
tasks, at this
budget. "More than" is decided by whether the interval contains the margin, "as good as" by \
whether the interval lies
within it."""
CURVES = """\
**How to read it.** {legend}
Curves and scores are interquartile means (IQM) over seeds, with 95 % intervals of bootstraps \
over seeds: 10,000 of
scores, 1,000 of curves. They hold for new seeds on these tasks. With fewer than five seeds they \
are too narrow."""
OTHERS = "Other studies"


def outcome(figures: Figures) -> dict[str, Result]:
    """{study: its result}, of the largest budget of which something was run."""
    chosen = {}
    for name, budgets in figures.items():
        order = [budgets[budget] for budget in reversed(BUDGETS) if budget in budgets]
        run = [result for result in order if result["verdict"] != NOT_RUN]
        chosen[name] = (run or order)[0]
    return chosen


def write(figures: Figures, book: Book, path: pathlib.Path) -> None:
    """The page at `path`, and in a folder beside it a picture for every study with results."""
    pictures = path.with_suffix("")
    pictures.mkdir(parents=True, exist_ok=True)
    results = outcome(figures)
    parts = [_head(results, book), _summary(results)]
    for heading, names in _sections(list(results), book.paths.sections).items():
        if heading:
            parts.append(f"## {heading[0].upper()}{heading[1:]}\n")
        for name in names:
            picture = draw(name, results[name], pictures)
            parts.append(_section(name, results[name], picture, book))
    path.write_text("\n".join(parts), encoding="utf-8")


def _sections(names: list[str], sections: dict[str, str]) -> dict[str, list[str]]:
    """Names by the heading that their first word has."""
    by_heading: dict[str, list[str]] = {heading: [] for heading in sections.values()}
    for name in names:
        heading = sections.get(name.partition("_")[0], OTHERS if sections else "")
        by_heading.setdefault(heading, []).append(name)
    return {heading: group for heading, group in by_heading.items() if group}


def _head(results: dict[str, Result], book: Book) -> str:
    with_checks = any(result["checks"] for result in results.values())
    reading = DECIDED if with_checks else CURVES
    paragraphs = [f"# {book.paths.title or book.name}"]
    if book.paths.text:
        paragraphs.append(book.paths.text)
    paragraphs.append(f"{reading.format(legend=_legend(results))} {book.paths.note}".rstrip())

    # where the numbers come from
    machines = {result["machine"] for result in results.values() if result.get("machine")}
    if machines:
        paragraphs.append(f"Machine: {'; '.join(sorted(machines))}")
    versions: set[str] = set()
    for result in results.values():
        versions |= {f"{name} {number}" for name, number in result.get("versions", {}).items()}
    text = "\n\n".join(paragraphs) + "\n"
    return text + (f"Versions of the runs: {', '.join(sorted(versions))}.\n" if versions else "")


def _legend(results: dict[str, Result]) -> str:
    """How many studies came out how."""
    verdicts = [result["verdict"] for result in results.values()]
    counts = [f"{verdicts.count(verdict)} {verdict}" for verdict in MARK]
    if all(map(is_claim, results.values())):
        return f"Of {len(verdicts)} claims: {', '.join(counts)}."
    counts += [f"{verdicts.count(verdict)} {verdict}" for verdict in (MEASURED, UNFINISHED)]
    present = [count for count in counts if not count.startswith("0 ")]
    return f"Of {len(verdicts)} studies: {', '.join(present)}."


def _row(cells: Iterable[str]) -> str:
    """A line of a table."""
    escaped = [cell.replace("|", "\\|") for cell in cells]
    return "|" + "".join(f" {cell} |" if cell else " |" for cell in escaped)


def _table(columns: list[str], rows: list[list[str]]) -> str:
    lines = [_row(columns), "|" + "---|" * len(columns), *map(_row, rows)]
    return "\n".join(lines) + "\n"


def _summary(results: dict[str, Result]) -> str:
    claims = any(map(is_claim, results.values()))
    columns = ["claim" if claims else "study", "verdict", "checks", "budget, seeds"]

    # a row for each
    rows = []
    for name, result in results.items():
        checks = result["checks"]
        confirmed = sum(check["verdict"] == "confirmed" for check in checks)
        count = f"{confirmed} of {len(checks)} confirmed" if checks else "–"
        size = "–"
        if checks or result["cells"]:
            size = f"{result['budget']}, {result['seeds']}"
        verdict = MARK.get(result["verdict"], result["verdict"])
        row = [f"[{result['title']}](#{anchor(name)})", verdict, count, size]
        rows.append([*row, result.get("comparable", "–")] if claims else row)
    return _table([*columns, "comparable"] if claims else columns, rows)


def anchor(name: str) -> str:
    """Of a study on the page."""
    return name.replace("_", "-")


def _section(name: str, result: Result, picture: str | None, book: Book) -> str:
    verdict = f": {result['verdict']}" if result["checks"] or is_claim(result) else ""
    parts = [f'<a id="{anchor(name)}"></a>', f"### {result['title']}{verdict}\n"]
    if "statement" in result:
        parts.append(result["statement"])
    if is_claim(result):
        parts.append(f"\n*Source:* {result['source']}. *Reference:* {result['reference']}")
        parts.append(f"\n*Comparable:* {result['comparable']}. {result['because']}\n")
    elif "statement" in result:
        parts.append("")

    # what came of it
    if not result["checks"] and not result["cells"]:
        return "\n".join([*parts, _not_run(result)])
    if result["checks"]:
        parts.append(_checks(result["checks"]))
    if result["cells"]:
        parts.append(_cells(result))
    if picture:
        parts.append(f"![{result['title']}]({picture})\n")
    parts.append(_commands(name, result, book))
    return "\n".join(parts)


def _not_run(result: Result) -> str:
    missing = result.get("missing", {})
    reason = result.get("reason") or next(iter(missing.values()), "")
    instead = result.get("instead", "")
    nearest = f" Nearest: [{instead}](#{anchor(instead)})." if instead else ""
    return f"**Not run.** {reason}{nearest}\n"


def _checks(checks: list[CheckResult]) -> str:
    rows = []
    for check in checks:
        says = check["says"] + ("" if check["decides"] else " (does not decide)")
        paper = check["paper"] or "no number"
        rows.append([says, paper, interval(check), _rule(check), _mark(check)])
        for task, each in check.get("each", {}).items():
            rows.append([f"– {task}", "", interval(each), "", each["verdict"]])
    return _table(["check", "paper", "here, with interval", "decided by", "verdict"], rows)


def _mark(check: CheckResult) -> str:
    note = check.get("reason") or check.get("note")
    return MARK[check["verdict"]] + (f" ({note})" if note else "")


def _rule(check: CheckResult) -> str:
    bound = number(check["bound"])
    rules = {
        "greater": f"difference > {bound}",
        "equal": f"difference within ±{bound}",
        "at_least": f"≥ {bound}",
        "above": f"> {bound}",
        "at_most": f"≤ {bound}",
    }
    return rules[check["compare"]]


def interval(value: Value) -> str:
    """A value with its bounds and the number of runs behind it."""
    if value.get("value") is None:
        return "–"
    middle = number(value["value"])
    if value["low"] is None:
        return middle
    if value["low"] == value["high"] == value["value"]:
        return f"{middle} (n = {value['runs']})"
    return f"{middle} [{number(value['low'])}, {number(value['high'])}] (n = {value['runs']})"


def number(value: float | None) -> str:
    """Three digits; small ones as powers."""
    if value is None or math.isnan(value):
        return "–"
    if value and abs(value) < 1e-3:
        return f"{value:.1e}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _cells(result: Result) -> str:
    """The scores of every arm on every task."""
    claim = is_claim(result)
    rows = []
    cells: list[Cell] = []
    for task, arms in result["cells"].items():
        for arm, cell in arms.items():
            cells.append(cell)
            paper = "–" if cell["paper"] is None else " ± ".join(map(number, cell["paper"]))
            bounds = f"{number(cell['iqm'])} [{number(cell['low'])}, {number(cell['high'])}]"
            each = ", ".join(number(score) for score in cell["scores"])
            after = f"{cell['total']:,} {cell['unit']}"
            rows.append([task, arm, *([paper] if claim else []), bounds, each, after])

    # what a score is
    last = cells[0]["last"]
    final = f"mean of the last {last} evaluations" if last > 1 else "the last evaluation"
    what = final if cells[0]["score"] == "final" else "mean of all evaluations but the first"
    middle = ["paper", "here: IQM over seeds"] if claim else ["IQM over seeds"]
    table = _table(["task", "arm", *middle, "every seed", "after"], rows)
    metric = cells[0]["metric"].replace("_", " ")
    return f"{table}\nScores: {metric}, {what}.\n"


def _commands(name: str, result: Result, book: Book) -> str:
    place = shlex.quote(book.source)
    lines = [
        f"Again: `python -m jaxshare.study run {place} {name} --budget {result['budget']}`\n",
        "<details><summary>its runs, one command a line</summary>\n",
        "```sh",
        *result["commands"],
        "```",
        "</details>\n",
    ]
    return "\n".join(lines)
