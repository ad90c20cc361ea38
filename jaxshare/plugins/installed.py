"""What installed packages offer by entry points. Nothing is imported before it is asked for."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import pathlib
import sys
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache

from jaxshare.plugins.entries import (
    GROUPS,
    INSTALLED,
    Entry,
    Origin,
    checked,
    imported,
    in_words,
    keep,
)
from jaxshare.types import RefusedError


@dataclass(frozen=True)
class Offer:
    """One entry point of an installed package."""

    kind: str
    name: str
    package: str
    version: str
    point: importlib.metadata.EntryPoint

    def about(self) -> str:
        """How messages name it."""
        line = f"{self.name} = {self.point.value}"
        group = GROUPS[self.kind]
        return f"the entry point '{line}' (group {group}) of the installed package {self.package}"

    def origin(self) -> Origin:
        """What a run directory keeps of it."""
        return Origin(
            INSTALLED, module=self.point.value, package=self.package, version=self.version
        )


def offers(kind: str) -> dict[str, list[Offer]]:
    """What installed packages offer, by name; several of one name if packages disagree."""
    return _offers(kind, tuple(sys.path))


@lru_cache(maxsize=64)
def _offers(kind: str, path: tuple[str, ...]) -> dict[str, list[Offer]]:
    """See `offers`. path: where packages are looked for; another one gives another answer."""
    by_name: dict[str, list[Offer]] = defaultdict(list)
    for point in importlib.metadata.entry_points(group=GROUPS[kind]):
        package = point.dist.name if point.dist else "?"
        version = point.dist.version if point.dist else ""
        by_name[point.name].append(Offer(kind, point.name, package, version, point))
    return dict(sorted(by_name.items()))


def the_offer(kind: str, name: str) -> Offer:
    """The one offer of this name. Raises RefusedError if several packages have it."""
    several = offers(kind)[name]
    if len(several) > 1:
        packages = " and ".join(sorted(offer.package for offer in several))
        raise RefusedError(
            f"{kind}={name} is offered by several installed packages, {packages}: uninstall all "
            f"but one of them."
        )
    return several[0]


def load(kind: str, name: str) -> Entry:
    """Import what is offered under this name. Raises RefusedError with package and entry point."""
    known = imported(kind).get(name)
    if known is not None:
        return known
    offer = the_offer(kind, name)
    if kind == "preset":
        return keep(
            Entry(kind, name, checked(kind, name, _folder(offer), offer.about()), offer.origin())
        )
    try:
        thing = offer.point.load()
    except (Exception, SystemExit) as error:  # whatever their code does
        raise RefusedError(
            f"{offer.about()} cannot be imported ({in_words(error)}): correct or update the "
            f"package, or uninstall it."
        ) from error
    return keep(Entry(kind, name, checked(kind, name, thing, offer.about()), offer.origin()))


def _folder(offer: Offer) -> pathlib.Path:
    """The folder of a package, which is found without importing it (but the packages around it)."""
    try:
        spec = importlib.util.find_spec(offer.point.value)
    except (Exception, SystemExit) as error:
        raise RefusedError(
            f"{offer.about()} cannot be imported ({in_words(error)}): correct or update the "
            f"package, or uninstall it."
        ) from error
    places = list(spec.submodule_search_locations or ()) if spec else []
    if not places:
        raise RefusedError(
            f"{offer.about()} names no folder: name the package that holds the YAML files."
        )
    return pathlib.Path(places[0])


def problems(ours: dict[str, list[str]]) -> list[str]:
    """What is wrong with installed entries that a command might ask for; each is a sentence.

    ours: names that are taken, by kind.
    """
    sentences = []
    for kind in GROUPS:
        for name, several in offers(kind).items():
            if name in ours.get(kind, ()):
                sentences += [
                    f"{offer.about()} is not used: {taken(kind, name)}" for offer in several
                ]
                continue
            try:
                load(kind, name)
            except RefusedError as error:
                sentences.append(str(error))
    return sentences


def taken(kind: str, name: str) -> str:
    """Why a name cannot be had."""
    return f"jaxshare has {kind}={name} itself, so it needs another name."


def provides(module: str) -> bool:
    """Whether an installed package offers this import path as an entry, of whatever kind."""
    for kind in GROUPS:
        for several in offers(kind).values():
            if any(offer.point.value == module for offer in several):
                return True
    return False
