"""The refusals of the config service that more than one module makes; each has its own code.

Field errors (422 `invalid`), 403, 404 and the bare 409 come from `handoff_common.errors`.
"""

from handoff_common.errors import ApiError, FieldError


def duplicate(what: str, name: str) -> ApiError:
    return ApiError(
        409, "duplicate", "Duplicate record", f"Duplicate {what}: {name!r} is already taken"
    )


def version_locked(number: int, *, active: bool) -> ApiError:
    why = "active" if active else "locked"
    return ApiError(
        422,
        "version_locked",
        "Version locked",
        f"version {number} is {why} and cannot be changed; clone it",
    )


def version_invalid(number: int, reasons: list[str]) -> ApiError:
    return ApiError(
        422,
        "version_invalid",
        "Version is not valid",
        f"version {number} cannot be activated: " + "; ".join(reasons),
    )


def concurrent_change(stream: str) -> ApiError:
    return ApiError(
        409,
        "concurrent_change",
        "Conflict",
        f"{stream} was changed by someone else at the same time; read it again and repeat",
    )


def key_reused() -> ApiError:
    return ApiError(
        422,
        "idempotency_key_reused",
        "Idempotency-Key was used for another request",
        "the same key came with another path or body within 24 hours; use a new key",
        [FieldError("Idempotency-Key", "allowed: one key per request, repeated only unchanged")],
    )


def too_many_writes(limit: int, reset_s: int) -> ApiError:
    return ApiError(
        429,
        "too_many_writes",
        "Too many requests",
        f"this token has made {limit} writes within an hour; go on at {reset_s} (epoch seconds)",
    )
