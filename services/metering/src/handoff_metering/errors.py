"""Metering's own refusals. All are `handoff_common.errors.ApiError` or `HandoffError`.

HandoffError
├── RebuildUnfinished       a rebuild was interrupted; its tables are not whole
└── ApiError
    ├── bad_parameter()     400: a query parameter, its value, what is allowed
    └── already_closed()    409: the connection has ended
"""

from handoff_common.errors import ApiError, FieldError, HandoffError, conflict


class RebuildUnfinished(HandoffError):
    """The projection tables were dropped and not replayed to the end; run the rebuild again."""

    code = "rebuild_unfinished"


def bad_parameter(name: str, reason: str) -> ApiError:
    return ApiError(
        400, "bad_parameter", "Bad request", f"{name}: {reason}", [FieldError(name, reason)]
    )


def already_closed(connection_id: str, reason: str, ended_at: str) -> ApiError:
    return conflict("already_closed", f"connection {connection_id!r} ended at {ended_at}: {reason}")
