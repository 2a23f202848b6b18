"""Metering's own refusals. All are `handoff_common.errors.ApiError` or `HandoffError`.

HandoffError
├── RebuildUnfinished       a rebuild was interrupted, or is under way; its tables are not whole
└── ApiError
    ├── bad_parameter()     400: a query parameter, its value, what is allowed
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
    return ApiError(
        400, "bad_parameter", "Bad request", f"{name}: {reason}", [FieldError(name, reason)]
    )


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
