"""Entries as the arguments of a command name them: imported, and replaced by their short names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from urllib.parse import parse_qsl, urlencode

from jaxshare import registry
from jaxshare.plugins import installed, presets, references
from jaxshare.plugins.entries import FILE, MODULE, imported

KINDS = ("algo", "env", "modifiers", "logger")
WORD = re.compile(r"""'[^']*'|"[^"]*"|[^\s,\[\](){}'"]+""")  # of a value: a name, or text in quotes


def understood(arguments: Sequence[str]) -> list[str]:
    """`algo=my_pkg.my_algo` as `algo=my_algo`, and so for all from outside, which are imported.

    Raises RefusedError in one sentence for what cannot be imported.
    """
    named = {
        (kind, references.target(word))
        for kind, word in _words(arguments)
        if references.is_reference(word)
    }
    return [_understood(argument, named) for argument in arguments]


def _words(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(kind, name) of everything that the arguments name."""
    for argument in arguments:
        key, value = _parts(argument)
        if key in KINDS:
            yield from ((key, _unquoted(word)) for word in WORD.findall(value))


def _parts(argument: str) -> tuple[str, str]:
    """Key and value; no key for hydra's own options, nor for values that refer to others."""
    key, equals, value = argument.partition("=")
    if not equals or key.startswith(("-", "~")) or "${" in value:
        return "", ""
    return key.lstrip("+"), value


def _understood(argument: str, named: set[tuple[str, str]]) -> str:
    key, value = _parts(argument)
    if key in KINDS:
        short = WORD.sub(lambda match: _entry(key, match[0]), value)
    elif key == "preset":
        short = WORD.sub(lambda match: _preset(match[0], named), value)
    else:
        _import_owner(key)
        return argument
    return f"{argument.partition('=')[0]}={short}"


def _unquoted(word: str) -> str:
    return word[1:-1] if word[0] in "'\"" else word


def _entry(kind: str, word: str) -> str:
    text = _unquoted(word)
    name = presets.named_entry(kind, text)
    return word if name == text else name


def _preset(word: str, named: set[tuple[str, str]]) -> str:
    text = _unquoted(word)
    if presets.is_file(text):
        return presets.choose_file(text, named)
    presets.choose(text)
    return word


def _import_owner(key: str) -> None:
    """Import an installed modifier whose settings are named, as in `their_modifier.rate=0.1`."""
    first = key.removeprefix("sweep.").split(".")[0]
    if first in installed.offers("modifiers") and first not in registry.modules("modifiers"):
        installed.load("modifiers", first)


# ---------------------------------------------------------------------------------- other processes


def to_send() -> str:
    """What this process imported by dotted path or file, for a process of its jobs; "" if nothing.

    Installed entries are found there by their names.
    """
    sent = []
    for kind in (*KINDS, "preset"):
        for entry in imported(kind).values():
            if entry.origin is not None and entry.origin.how in (MODULE, FILE):
                sent.append((kind, entry.origin.file or entry.origin.module))
    return urlencode(sent)


def receive(text: str) -> None:
    """Import what another process sent."""
    for kind, reference in parse_qsl(text):
        if kind == "preset":
            presets.choose_file(reference)
        else:
            references.load(kind, reference)
