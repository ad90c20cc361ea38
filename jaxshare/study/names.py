"""Names of runs and of their kinds. Runs are looked for by them, so what they are made of stays."""

from __future__ import annotations

import hashlib
import json
import pathlib
import re
from collections.abc import Sequence

from jaxshare.settings.hydra import config_dir
from jaxshare.study.language import Settings

WORDS = ("preset", "algo", "modifiers", "env.scenario", "env.game", "data")  # that a name has
SPEED = (  # settings that do not change how fast a run is, or make it faster, by their beginnings
    "seed", "seeds", "sweep.", "total_",
    "eval.", "checkpoint.", "replay.", "differ.", "algo.hparams.",
    "algo.stage1_updates", "algo.lift_rewards", "algo.priority",
    "algo.decomposition", "algo.ensemble", "algo.graph", "a_pps.", "rs_pps.", "pp_pps.",
    "env.rules",
)  # fmt: skip


def label(settings: Settings) -> str:
    """A run's folder: what people look for, and a hash of its settings and of the preset's file."""
    text = json.dumps(sorted(settings.items()))
    if "preset" in settings:
        path = config_dir() / "preset" / f"{settings['preset']}.yaml"
        text += path.read_text(encoding="utf-8") if path.is_file() else ""
    stems = [pathlib.Path(settings[word]).stem for word in WORDS if word in settings]
    short = re.sub(r"[^A-Za-z0-9_]+", "-", "-".join(stems)).strip("-")
    return f"{short}-{_hash(text)}"


def script(step: str, run: Sequence[str]) -> str:
    """The result of a script, without .json: its step, and a hash of file name and arguments."""
    words = [pathlib.Path(run[0]).name, *run[1:]]
    return f"{step}-{_hash(json.dumps(words))}"


def speed(settings: Settings, alike: Settings) -> str:
    """What a run's speed depends on.

    alike: {setting: another one that makes runs as fast, or ""}.
    """
    words = []
    for name, value in sorted({**settings, **_data(settings)}.items()):
        word = f"{name}={value}"
        if not name.startswith(SPEED):
            words.append(alike.get(word, word))
    return " ".join(word for word in words if word)


def _data(settings: Settings) -> Settings:
    """All data sets are as fast to learn from."""
    return {"data": "set"} if "data" in settings else {}


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
