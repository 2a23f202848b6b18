"""Errors with a code, so that a program can tell them apart.

HandoffError
├── SettingError            a setting is missing or wrong; stops the start
├── LogError
│   ├── LogWriteFailed      an append was not acknowledged (disk full, broker away, closed)
│   ├── LogUnreachable      the broker does not answer
│   ├── LogCorrupt          a record or page cannot be read; says where
│   ├── PositionLost        a reader's position is not in the log any more, or not yet
│   └── AlreadyInUse        another process owns the folder
├── Unreadable              one record cannot be decoded; it is parked
├── DatabaseAway            the database does not answer now; ask again later
├── DatabaseInUse           workers use the database, or it is being made anew
├── PositionConflict        another worker moved the position first; roll back and re-read
└── ApiError                an answer of a REST API, with its HTTP status
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal


class HandoffError(Exception):
    """Root of everything Handoff raises on purpose. `code` is stable; the text may change."""

    code = "internal"


class SettingError(HandoffError):
    """A wrong setting: names it, its value and what it takes."""

    code = "wrong_setting"


class LogError(HandoffError):
    code = "log"


class LogWriteFailed(LogError):
    """An append was not acknowledged. With the embedded log nothing of it is stored; with Kafka a
    part, or all of it, may be: who appends again repeats it."""

    code = "log_write_failed"


class LogUnreachable(LogError):
    """The broker does not answer within the time that it had."""

    code = "log_unreachable"


class LogCorrupt(LogError):
    """A part of the log cannot be read. `place` names file, topic, partition and offset."""

    code = "log_corrupt"

    def __init__(self, place: str, detail: str) -> None:
        super().__init__(f"{place}: {detail}")
        self.place = place
        self.detail = detail


class PositionLost(LogError):
    """A position lies outside what the log holds, or belongs to another topic of that name."""

    code = "position_lost"


class AlreadyInUse(LogError):
    """Another process holds the lock of a data folder."""

    code = "already_in_use"


class Unreadable(HandoffError):
    """A record that cannot be folded. `kind` is one of `malformed`, `unknown_type`, `skewed`,
    `retired`; `customer_id` is the customer it belongs to where that can still be told."""

    code = "unreadable"

    def __init__(
        self,
        kind: Literal["malformed", "unknown_type", "skewed", "retired"],
        detail: str,
        customer_id: str | None = None,
    ) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.detail = detail
        self.customer_id = customer_id


class PositionConflict(HandoffError):
    """A compare-and-set of a stored position matched no row: another worker took over."""

    code = "position_conflict"


class DatabaseAway(HandoffError):
    """The database cannot be asked now: it is down, starting, full, or its wait was over.

    The transaction may have been committed where its answer was lost: whoever repeats it must be
    able to tell, or do no harm by repeating. HTTP answers 503 with Retry-After.
    """

    code = "database_away"


class DatabaseInUse(HandoffError):
    """Workers use the database that somebody wants alone, or somebody has it alone."""

    code = "database_in_use"


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong with one field: `property` is its path (`contracts.0.starts_at`), `reason`
    says the value and what is allowed."""

    property: str
    reason: str


class ApiError(HandoffError):
    """An HTTP error answer. `http` renders it as `{"msg","detail"}` on classic paths and as
    problem+json elsewhere.

    status: HTTP status. code: stable machine-readable cause, the last part of problem `type`.
    title: short, the same for each `code`. detail: this occurrence, for a person.
    """

    def __init__(
        self,
        status: int,
        code: str,
        title: str,
        detail: str = "",
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail or title)
        self.status = status
        self.code = code
        self.title = title
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = dict(headers or {})


def not_found(what: str, identifier: str) -> ApiError:
    """404, also for what exists but belongs to another customer."""
    return ApiError(404, "not_found", "Record not found", f"no {what} {identifier!r}")


def forbidden(detail: str) -> ApiError:
    return ApiError(403, "forbidden", "You are not authorized to perform this action", detail)


def invalid(errors: Sequence[FieldError], *, status: int = 422) -> ApiError:
    """A request with wrong fields; `errors` names each field, its value and what is allowed."""
    detail = "; ".join(f"{e.property}: {e.reason}" for e in errors)
    return ApiError(status, "invalid", "Invalid request", detail, errors)


def conflict(code: str, detail: str) -> ApiError:
    return ApiError(409, code, "Conflict", detail)


def log_away() -> ApiError:
    """503: the log cannot be asked now, ask again."""
    return ApiError(
        503,
        "log_away",
        "Log away",
        "the log does not answer now; try again",
        headers={"Retry-After": "5"},
    )


def database_away() -> ApiError:
    """503: nothing is known of what was asked, ask again. A write may have been done all the same;
    an Idempotency-Key makes its repeat safe."""
    return ApiError(
        503,
        "database_away",
        "Database away",
        "the database does not answer now; try again",
        headers={"Retry-After": "5"},
    )
