"""Which connections a page is about, as its query string says it. Pure.

The same query string names the page, its live updates and a link from an invoice's line:
`/connections?service_id=&region=&from=&to=`.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, cast
from urllib.parse import urlencode

from handoff_common.events import Reason

_LONGEST = 200
LAST_YEAR = 9998
"""The period after an instant must have an end as well."""
_STATES = ("open", "closed")
RANGE = ("from", "to")
"""What people type; the other filters are chosen."""


class BadFilter(ValueError):
    """name: the parameter. The text says what is wrong and what is allowed."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name


class Filters(NamedTuple):
    """Everything that is given must hold. from_, to: connections that lived between, `to`
    exclusive. at: names a page of the list behind its first one."""

    service_id: str | None = None
    state: Literal["open", "closed"] | None = None
    region: str | None = None
    reason: str | None = None
    from_: datetime | None = None
    to: datetime | None = None
    at: str | None = None

    @property
    def ranged(self) -> bool:
        return self.from_ is not None or self.to is not None

    @property
    def given(self) -> bool:
        """Whether anything is filtered."""
        return self._replace(at=None) != Filters()

    def query(self, **changes: Any) -> str:
        """As a query string, without the `?`; what is None is left out."""
        names = {"from_": "from"}
        found = self._replace(**changes)._asdict()
        return urlencode(
            {
                names.get(name, name): written(value) if isinstance(value, datetime) else value
                for name, value in found.items()
                if value is not None
            }
        )


def filters_of(query: Mapping[str, str]) -> Filters:
    """What a query string asks for; empty values ask for nothing, and unknown names are passed
    over, since people come with links of other releases. Raises BadFilter."""
    given = {name: value.strip() for name, value in query.items() if value.strip()}
    for name in Filters._fields:
        if len(given.get(name, "")) > _LONGEST:
            raise BadFilter(name, f"{name} is longer than {_LONGEST} characters")
    state, reason = given.get("state"), given.get("reason")
    if state is not None and state not in _STATES:
        raise BadFilter("state", f"state is {state!r}; it must be open or closed")
    if reason is not None and reason not in set(Reason):
        raise BadFilter("reason", f"reason is {reason!r}; it must be one of {', '.join(Reason)}")
    from_, to = instant("from", given.get("from")), instant("to", given.get("to"))
    if from_ is not None and to is not None and from_ > to:
        raise BadFilter("from", "from lies after to; it must be before it")
    return Filters(
        given.get("service_id"),
        cast("Literal['open', 'closed'] | None", state),
        given.get("region"),
        reason,
        from_,
        to,
        given.get("at"),
    )


def instant(name: str, text: str | None) -> datetime | None:
    """An instant of a query string: a date or a time, in UTC where no zone is given. Raises
    BadFilter."""
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise BadFilter(
            name, f"{name} is {text[:40]!r}; it must be a time as 2026-11-01 or 2026-11-01T12:00Z"
        ) from None
    if found.tzinfo is None:
        found = found.replace(tzinfo=UTC)
    try:
        found = found.astimezone(UTC)
    except OverflowError:
        found = datetime.min.replace(tzinfo=UTC)
    if not 1970 <= found.year <= LAST_YEAR:
        raise BadFilter(
            name, f"{name} is {text[:40]!r}; it must lie in the years 1970 to {LAST_YEAR}"
        )
    return found


def written(at: datetime) -> str:
    """As links have it: 2026-11-01T00:00:00Z; a fraction of a second only where there is one."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def field(at: datetime | None) -> str:
    """As an `input` of type `datetime-local` has it, UTC."""
    return "" if at is None else f"{at.astimezone(UTC):%Y-%m-%dT%H:%M}"
