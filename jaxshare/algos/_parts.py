"""What the records of all families have in common: how modifiers replace their parts and add to them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

from jaxshare.types import RefusedError

Record = TypeVar("Record")


def claimed(record: Record, owner: str, **parts: Any) -> Record:
    """The record with single-owner parts replaced. Raises RefusedError naming both owners if one is taken."""
    owners, name = record.owners, record.name  # type: ignore[attr-defined]
    for part in parts:
        if part in owners:
            raise RefusedError(f"modifiers {owners[part]} and {owner} both replace the {part} of {name}: use one.")
    return replace(record, owners={**owners, **dict.fromkeys(parts, owner)}, **parts)  # type: ignore[type-var]


def extended(record: Record, **parts: Any) -> Record:
    """The record with an entry more in parts that are tuples, with entries more in those that are dicts."""
    longer: dict[str, Any] = {}
    for name, part in parts.items():
        old = getattr(record, name)
        longer[name] = {**old, **part} if isinstance(old, dict) else (*old, part)
    return replace(record, **longer)  # type: ignore[type-var]
