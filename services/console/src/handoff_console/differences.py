"""What a draft would change beside another version. Pure."""

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import msgspec

from handoff_client.services import VersionDetail

_OBJECTS = (
    ("domain", "domains"),
    ("backend", "backends"),
    ("director", "directors"),
    ("websocket rule", "websocket_rules"),
)
_BOOKKEEPING = {"name", "service_id", "version", "locked", "created_at", "updated_at"}


class FieldChange(NamedTuple):
    """before, after: None where it is not set."""

    field: str
    before: Any
    after: Any


class Change(NamedTuple):
    """One part that is not the same on both sides. fields: all that are set, for one that came or
    went."""

    kind: Literal["added", "removed", "changed"]
    object: str
    name: str
    fields: tuple[FieldChange, ...]


def differences(before: VersionDetail | None, after: VersionDetail) -> list[Change]:
    """From `before` (None: from nothing) to `after`, by object and name."""
    changes: list[Change] = []
    for noun, attribute in _OBJECTS:
        old = _parts(getattr(before, attribute)) if before is not None else {}
        new = _parts(getattr(after, attribute))
        for name in sorted(old.keys() | new.keys()):
            fields = _fields(old.get(name, {}), new.get(name, {}))
            if name not in old:
                changes.append(Change("added", noun, name, fields))
            elif name not in new:
                changes.append(Change("removed", noun, name, fields))
            elif fields:
                changes.append(Change("changed", noun, name, fields))
    return changes


def _parts(parts: Iterable[Any]) -> dict[str, dict[str, Any]]:
    return {part.name: _settings(part) for part in parts}


def _settings(part: Any) -> dict[str, Any]:
    found = {}
    for name, value in msgspec.structs.asdict(part).items():
        if name == "backends":
            found[name] = ", ".join(sorted(backend.name for backend in value))
        elif name not in _BOOKKEEPING:
            found[name] = value
    return found


def _fields(old: dict[str, Any], new: dict[str, Any]) -> tuple[FieldChange, ...]:
    names = [*old, *(name for name in new if name not in old)]
    return tuple(
        FieldChange(name, old.get(name), new.get(name))
        for name in names
        if _said(old.get(name)) != _said(new.get(name))
    )


def _said(value: Any) -> Any:
    """None and an empty text say the same: nothing."""
    return None if value == "" else value
