"""Metering's own refusals. All are `handoff_common.errors.ApiError` or `HandoffError`.

HandoffError
├── RebuildUnfinished       a rebuild was interrupted, or is under way; its tables are not whole
└── ApiError
    ├── bad_parameter()     400: a query parameter, its value, what is allowed
    ├── range_too_long()    400: `from` and `to` lie further apart than `by` allows
    ├── too_many_connections() 400: more began or ended in the range than is read at once
    ├── connections_gone()  400: connections of the range are not kept any more
    ├── already_closed()    409: the connection has ended
    ├── not_parked()        404: no parked record is there
    ├── already_decided()   409: somebody has decided about the record
    └── cannot_be_retried() 409: the record can only be discarded
"""

from handoff_common.errors import ApiError, FieldError, HandoffError, conflict, not_found


class RebuildUnfinished(HandoffError):
    """The projection tables were dropped and not replayed to the end; run the rebuild again."""

    code = "rebuild_unfinished"


def bad_parameter(name: str, reason: str) -> ApiError:
    return _bad("bad_parameter", "Bad request", name, reason)


def range_too_long(by: str, asked_ms: int, longest: str) -> ApiError:
    """asked_ms: how far `from` and `to` lie apart."""
    reason = (
        f"lies {asked_ms // 1_000} s before `to`; allowed with by={by}: at most {longest}; "
        "ask for less, or by a longer period"
    )
    return _bad("range_too_long", "Range too long", "from", reason)


def too_many_connections(count: int, most: int) -> ApiError:
    """count: of acceptances and ends in the range's hours."""
    reason = (
        f"the hours of the range have {count} acceptances and ends of connections; allowed: at "
        f"most {most}; ask for less, or for one region"
    )
    return _bad("too_many_connections", "Too many connections", "from", reason)


def connections_gone(name: str, instant: str) -> ApiError:
    """instant: what the range begins with, RFC 3339."""
    reason = (
        f"{instant} lies in a time of which connections are not kept any more "
        "(HANDOFF_METERING_KEEP_MONTHS); allowed: a later one"
    )
    return _bad("connections_gone", "Connections are gone", name, reason)


def already_closed(connection_id: str, reason: str, ended_at: str) -> ApiError:
    return conflict("already_closed", f"connection {connection_id!r} ended at {ended_at}: {reason}")


def not_parked(partition: int, offset: int) -> ApiError:
    return not_found("parked record", f"{partition}/{offset}")


def already_decided(partition: int, offset: int, what: str) -> ApiError:
    return conflict("already_decided", f"record {partition}/{offset} was decided: {what}")


def cannot_be_retried(partition: int, offset: int, why: str) -> ApiError:
    return conflict(
        "cannot_be_retried",
        f"record {partition}/{offset} can only be discarded, or decided by a release that reads "
        f"it: {why}",
    )


def _bad(code: str, title: str, name: str, reason: str) -> ApiError:
    return ApiError(400, code, title, f"{name}: {reason}", [FieldError(name, reason)])
