"""The page of a report escapes what it shows, wherever it comes from."""

import html.parser
import json

import numpy as np
import yaml

from jaxshare.commands import report
from jaxshare.results.markup import Markup, element, image

SCRIPT = "<script>alert('1')</script>\"&"
TAGS = {
    *("html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "ul", "li", "div"),
    *("table", "thead", "tbody", "tr", "th", "td", "img", "code"),
}
ATTRIBUTES = {"lang", "charset", "class", "alt", "src"}


def hostile(what):
    return f"{what}{SCRIPT}"


class Parsed(html.parser.HTMLParser):
    """Tags, attributes and text as a browser sees them."""

    def __init__(self, page):
        super().__init__()
        self.tags = set()
        self.attributes = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


def write_run(run_dir, seed, group):
    """A directory that another person has made, every text of which is markup."""
    points = [1.0, 2.0] if group == "$a" else [1.0]  # a label has one configuration
    run = {
        "seed": seed,
        "total_env_steps": 10,
        "eval": {"policy": hostile("policy"), "episodes": 4},
        hostile("key"): hostile(f"value {group}"),
    }
    settings = {
        "run": run,
        "algo": {"hparams": {"lr": 1}},
        "algo_name": hostile("algo"),
        "modifiers": {hostile("modifier"): {"x": group}},
        "env_name": hostile("env").replace("/", "|"),
        "env": {"scenario": hostile("scenario"), hostile("own"): 1},
        "sweep": {hostile("sweep"): points},
    }
    rows = []
    for step in (0, 10):
        for point in points:
            counters = {"seed": seed, "env_steps": step, "updates": step, "wall_s": step}
            metric = {"eval/return": point * step, f"eval/{hostile('metric')}": step}
            rows.append({**counters, f"sweep.{hostile('sweep')}": point, **metric})
    run_dir.mkdir(parents=True)
    (run_dir / "config.yaml").write_text(yaml.safe_dump(settings))
    (run_dir / "versions.json").write_text(json.dumps({"jaxshare": hostile(f"1.{seed}")}))
    (run_dir / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def test_no_name_becomes_markup(tmp_path):
    folder = tmp_path / "<b>runs</b> & 'more'"
    for group in ("$a", "b_"):
        for seed in range(2):
            write_run(folder / f"<i>{group}{seed}", seed, group)
    out = tmp_path / "out"
    labelled = f"<u>{SCRIPT.replace('/', '')}={folder / '<i>b_*'}"
    config = report.Config(
        runs=[str(folder / "<i>$a*"), labelled],
        out=str(out),
        metric=hostile("metric"),
        resamples=9,
    )
    report.report(config)
    page = (out / "report.html").read_text()
    parsed = Parsed(page)

    # nothing but what the page is made of
    assert parsed.tags <= TAGS
    assert {name for name, _ in parsed.attributes} <= ATTRIBUTES
    assert {value for name, value in parsed.attributes if name == "class"} == {"wide"}
    assert page.count("<script") == 0

    # and every text, as it is
    versions = hostile("1.0")
    texts = [
        *(hostile(what) for what in ("algo", "modifier", "scenario", "policy", "metric", "sweep")),
        *(hostile(what) for what in ("key", "value $a", "value b_")),
        hostile("env").replace("/", "|"),
        f"jaxshare {versions}",
        str(folder / "<i>$a0"),
        labelled.partition("=")[0],
    ]
    assert [text for text in texts if text not in parsed.text] == []


def test_an_element_escapes_all_but_elements():
    inner = element("b", "<i>", 1.5)
    assert inner == "<b>&lt;i&gt;1.5</b>"
    assert element("p", inner, "&", **{"class": "'"}) == f"<p class='&#x27;'>{inner}&amp;</p>"
    assert element("td", np.float64(2.0)) == "<td>2.0</td>"
    assert image("x'y", "<") == "<img alt='&lt;' src='x&#x27;y'>"
    assert isinstance(element("p", Markup("<br>")), Markup)
