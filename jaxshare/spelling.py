"""Arguments of the command line in hydra's grammar: text as it stands, whole numbers also as 1e6.

Hydra reads a value before it knows the type of its setting, so that `run_dir=a,b`, `run_dir=x(1)`
and `run_dir=größe` are a sweep, a function and an error to it. Here the type comes first: where
hydra reads no text, text is quoted.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Protocol

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.overrides_visitor import HydraOverrideVisitor
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException

from jaxshare import registry
from jaxshare.settings.fields import declared
from jaxshare.settings.records import RunConfig
from jaxshare.types import RefusedError

LISTS = ("modifiers", "logger", "plugins")  # a single name is taken as a list of one
OF_HYDRA = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir")
UNSHARED = ("run_dir",)  # one value even in a multirun, whose jobs get numbered folders in it
PLAIN = re.compile(r"[A-Za-z0-9_\s/\-\\+.$%*@?|:]")  # what hydra takes unquoted
PLAIN_TEXT = re.compile(r"[a-zA-Z_/][\w./:-]*", re.ASCII)  # a value that needs no quotes anywhere
PLAIN_KEY = re.compile(r"[\w.-]+", re.ASCII)  # of a mapping
KEYWORDS = ("null", "true", "false", "nan", "inf")  # what is read as something else than text
MOST_DIGITS = 30  # of a whole number that is written with an exponent


@dataclass(frozen=True)
class Kind:
    """What a setting may hold, as far as its spelling depends on it."""

    text: bool = False  # nothing but text
    path: bool = False  # text that names a file or folder, or a program
    whole: bool = False  # whole numbers, and no other numbers
    number: bool = False  # nothing but whole numbers


Kinds = Mapping[str, Kind]  # of the settings that a command has, by key

# -------------------------------------------------------------------------------------------- kinds


def kinds_of(config: type, prefix: str = "") -> dict[str, Kind]:
    """The kinds of a dataclass's fields, by key; nested dataclasses included."""
    kinds: dict[str, Kind] = {}
    settings = declared(config)
    for name, hint in typing.get_type_hints(config).items():
        if dataclasses.is_dataclass(hint):
            kinds |= kinds_of(typing.cast(type, hint), f"{prefix}{name}.")
        else:
            kinds[prefix + name] = _kind(hint, settings[name].is_path)
    return kinds


def _kind(hint: object, is_path: bool) -> Kind:
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    members = set(typing.get_args(hint) if is_union else (hint,)) - {type(None)}
    text = members == {str}
    whole = int in members and float not in members
    number = members == {int}
    return Kind(text=text, path=text and is_path, whole=whole, number=number)


def training_kinds() -> Kinds:
    """The kinds of all settings of jaxshare.train; where two algorithms differ in one, no kind.

    Entries from outside count once they are imported.
    """
    configs = []
    for kind in ("algo", "env", "modifiers"):
        for name, module in registry.loaded(kind).items():
            prefix = name if kind == "modifiers" else kind
            configs.append((f"{prefix}.", module.Config))
    return _training_kinds(tuple(configs))


@lru_cache(maxsize=8)
def _training_kinds(configs: tuple[tuple[str, type], ...]) -> Kinds:
    """See `training_kinds`. configs: (what stands before the keys, class) of all entries."""
    kinds = kinds_of(RunConfig) | dict.fromkeys(OF_HYDRA, Kind(text=True, path=True))
    for prefix, config in configs:
        for key, value in kinds_of(config, prefix).items():
            kinds[key] = value if kinds.get(key, value) == value else Kind()
    return kinds


# ----------------------------------------------------------------------------------------- spelling


def spelled(argument: str, kinds: Kinds, sweeping: bool = False) -> str:
    """`key=value` so that hydra reads the value that is meant.

    sweeping: commas separate the values of a multirun, except in quotes and in run_dir.
    Raises RefusedError for bytes that are no text, and for fractions where whole numbers belong.
    """
    _check_is_text(argument)
    name, equals, value = argument.partition("=")
    key = name.lstrip("+")
    kind = kinds.get(key, Kind())
    if key in LISTS and equals and not value.startswith("["):
        value = f"[{value}]"
    elif kind.text:
        value = _text(key, value, kind, sweeping)
    elif kind.whole:
        value = ",".join(_whole(key, part, kind) for part in value.split(","))
    return f"{name}{equals}{value}"


def _check_is_text(argument: str) -> None:
    try:
        argument.encode()
    except UnicodeEncodeError:
        readable = argument.encode(errors="backslashreplace").decode()
        what = "holds bytes that are no text (UTF-8): rename the file or folder"
        raise RefusedError(f"'{readable}' {what}.") from None


def _text(key: str, value: str, kind: Kind, sweeping: bool) -> str:
    """A value that hydra reads as this text; several values, for a multirun or by mistake, stay."""
    several = sweeping and key not in UNSHARED
    if several and "," in value and not re.search(r"[\"'(]", value):
        return ",".join(_text(key, part, kind, False) for part in value.split(","))
    override = parse(f"{key}={value}")
    if override is not None:
        if override.is_sweep_override():
            is_literal = kind.path and not several
        else:
            meant = override.value()
            is_escaped = isinstance(meant, str) and (value[:1] in "\"'" or "\\" in value)
            is_literal = meant not in (value, None) and not is_escaped
        if not is_literal:
            return value
    return quoted(os.path.expanduser(value) if kind.path else value)


def _whole(key: str, value: str, kind: Kind) -> str:
    """1e6 as 1000000; what is no number at all is left to whoever knows the type."""
    try:
        number = Decimal(value)
    except InvalidOperation:
        return value
    if not number.is_finite() or number.adjusted() > MOST_DIGITS:
        return value
    if number != number.to_integral_value():
        if kind.number:
            raise RefusedError(f"{key}={value} must be a whole number.")
        return value
    return value if re.fullmatch(r"\s*[+-]?[\d_]+\s*", value) else str(int(number))


def quoted(text: str, quote: Quote = Quote.single) -> str:
    """Text as a quoted string of hydra's grammar."""
    return QuotedString(text, quote).with_quotes()


def in_grammar(value: object, quote: Quote = Quote.single) -> str:
    """A plain value of Python in hydra's grammar; text in quotes, unless it is plainly text."""
    if isinstance(value, Mapping):
        pairs = [f"{_key(name, quote)}:{in_grammar(inner, quote)}" for name, inner in value.items()]
        return "{" + ",".join(pairs) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(in_grammar(inner, quote) for inner in value) + "]"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str):
        return str(value)
    is_plain = PLAIN_TEXT.fullmatch(value) and value.lower() not in KEYWORDS
    return value if is_plain else quoted(value, quote)


def _key(name: object, quote: Quote) -> str:
    """A key of a mapping, which hydra reads without quotes only."""
    return str(name) if PLAIN_KEY.fullmatch(str(name)) else in_grammar(name, quote)


class _Node(Protocol):
    """Of hydra's grammar."""

    def getChildren(self) -> Iterator[_Node]: ...


class _WithoutMark:
    """A node of hydra's grammar without its second child, the colon or bracket after a name."""

    def __init__(self, node: _Node) -> None:
        self._node = node

    def __getattr__(self, name: str) -> object:
        return getattr(self._node, name)

    def getChildren(self) -> Iterator[_Node]:
        """Of the grammar's nodes; the name is theirs."""
        first, _, *others = self._node.getChildren()
        return iter([first, *others])


def _skip_marks(name: str) -> None:
    visit = getattr(HydraOverrideVisitor, name)
    setattr(HydraOverrideVisitor, name, lambda visitor, node: visit(visitor, _WithoutMark(node)))


if not __debug__:  # hydra 1.3.8 steps over these marks within an assert, which -O leaves out
    _skip_marks("visitDictKeyValuePair")
    _skip_marks("visitFunction")


def parse(argument: str) -> Override | None:
    """What hydra reads in an argument, or None if it cannot be read."""
    try:
        return OverridesParser.create().parse_override(argument)
    except (HydraException, RecursionError):
        return None


def overrides(arguments: Sequence[str], kinds: Kinds, sweeping: bool = False) -> list[Override]:
    """What hydra reads in arguments.

    Raises RefusedError for one that it cannot read, or that removes a setting.
    """
    parsed = []
    for argument in arguments:
        override = parse(spelled(argument, kinds, sweeping))
        if override is None:
            raise not_understood(argument)
        if override.is_delete():
            raise RefusedError(
                f"'{argument}' is not understood: settings cannot be removed. Give another value."
            )
        parsed.append(override)
    return parsed


# ----------------------------------------------------------------------------------------- refusals


def not_understood(argument: str) -> RefusedError:
    """What is wrong with an argument that hydra cannot read, and how to quote it."""
    key, equals, value = argument.partition("=")
    if not equals or parse(f"{key}=1") is None:
        return RefusedError(f"'{argument}' is not understood: write key=value, as in seeds=4.")

    # the first character that cannot stand there
    is_container = value[:1] in ("[", "{")
    allowed = "[]{},'\"" if is_container else ""
    plain = [bool(PLAIN.match(x)) or x in allowed for x in value]
    odd = None if all(plain) else plain.index(False)
    if odd is None:
        return RefusedError(f"'{argument}' is not understood: its brackets or quotes do not match.")

    # the same in quotes
    remedy = f"{key}={_quoted_around(value, odd) if is_container else quoted(value, Quote.double)}"
    if parse(remedy) is None:
        what = f"'{value[odd]}' cannot stand in it unquoted"
    else:
        shell = shlex.quote(remedy)
        what = f"'{value[odd]}' must be in quotes that the shell leaves in place: {shell}"
    return RefusedError(f"'{argument}' is not understood: {what}.")


def _quoted_around(value: str, at: int) -> str:
    """A list or dict whose entry at an index is quoted."""
    begin = max(value.rfind(mark, 0, at) for mark in "[]{},:") + 1
    ends = [value.find(mark, at) for mark in "[]{},:"]
    end = min([end for end in ends if end >= 0], default=len(value))
    entry = value[begin:end].strip()
    return value[:begin] + quoted(entry, Quote.double) + value[end:]


def several(override: Override, multirun: bool) -> RefusedError:
    """Why several values are refused where one is needed; multirun: whether the command has -m."""
    line = override.input_line or ""
    key, _, value = line.partition("=")
    remedies = []
    if multirun:
        remedies.append(f"add -m for a run of each, as in -m {shlex.quote(line)}")
    as_text = f"{key}={quoted(value, Quote.double)}"
    remedies.append(f"for a list write {shlex.quote(f'{key}=[{value}]')}")
    remedies.append(f"for one value with these characters {shlex.quote(as_text)}")
    return RefusedError(f"{line} names several values, and one is needed: {'; '.join(remedies)}.")
