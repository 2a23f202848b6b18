"""A form that the API has refused: what was typed, and what is wrong with it, field by field."""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from handoff_client import Conflict, FieldError, HandoffApiError, Invalid
from handoff_console.context import Visit
from handoff_console.part_forms import NotANumber

CHANGED = (
    "Somebody else has changed this since you opened the page. What you typed is kept: look at "
    "what stands now, then save again."
)
Refusal = Invalid | Conflict


class Attempt(NamedTuple):
    """form: which of a page's forms it was. typed: field → text. errors: field → what is wrong;
    under "" what belongs to no field of it."""

    form: str = ""
    typed: Mapping[str, str] = {}
    errors: Mapping[str, str] = {}
    status: int = 200

    def value(self, form: str, field: str, held: Any = "") -> Any:
        """What stands in a field: what was typed, else what is held."""
        return self.typed.get(field, held) if form == self.form else held

    def error(self, form: str, field: str = "") -> str:
        return self.errors.get(field, "") if form == self.form else ""


FRESH = Attempt()
"""Nothing was tried yet."""


def attempt(
    visit: Visit, form: str, fields: Iterable[str], error: Exception, *, keep: bool = True
) -> Attempt:
    """From the form of a visit. keep: False where what was typed is secret.

    error: a refusal of the API, or a BadField.
    """
    names = tuple(fields)
    typed = {name: visit.field(name) for name in names} if keep else {}
    status = error.status if isinstance(error, HandoffApiError) else 422
    return Attempt(form, typed, errors_of(error, names), status)


class BadField(Exception):
    """field: that holds what the API could not even be asked with. reason: what is allowed."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


def errors_of(error: Exception, fields: Iterable[str]) -> dict[str, str]:
    """Field → what is wrong with it. What is said of other fields, and of none, is under ""."""
    if isinstance(error, BadField):
        return {error.field: error.reason}
    if isinstance(error, NotANumber):
        return {error.field.name: str(error)}
    if not isinstance(error, HandoffApiError):
        return {"": str(error)}
    if error.status == 412:
        return {"": CHANGED}
    names = frozenset(fields)
    errors = error.errors or _of_classic(error.detail, names)
    found = {one.property: one.reason for one in errors if one.property in names}
    elsewhere = [one for one in errors if one.property not in names]
    if isinstance(error, Conflict) or not errors:
        found[""] = said(error)
    elif elsewhere:
        found[""] = "; ".join(_one(field_error) for field_error in elsewhere)
    return found


def _of_classic(detail: str, names: frozenset[str]) -> tuple[FieldError, ...]:
    """A classic path says in one text what is wrong: `port: is 0; allowed: 1 to 65535; name: …`.
    Nothing where it does not begin with a field of the form."""
    if not names:
        return ()
    parts = re.split(rf"(?:^|; )({'|'.join(map(re.escape, sorted(names)))}): ", detail)
    pairs = zip(parts[1::2], parts[2::2], strict=True)
    return () if parts[0] else tuple(FieldError(*pair) for pair in pairs)


def _one(error: FieldError) -> str:
    return f"{error.property}: {error.reason}" if error.property else error.reason


def said(error: HandoffApiError) -> str:
    """The API's refusal in a line."""
    return ": ".join(part for part in (error.title, error.detail) if part) or str(error)


def instant(visit: Visit, field: str) -> datetime | None:
    """Of a `datetime-local` input, in UTC; None where it is empty. Raises BadField."""
    text = visit.field(field)
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadField(field, f"{text!r} is no date and time; as 2026-12-01T00:00") from None
