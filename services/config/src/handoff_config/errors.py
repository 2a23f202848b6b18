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


def sign_in_failed() -> ApiError:
    """One answer to a login that nobody has, a user without a password, and a wrong password."""
    return ApiError(
        401,
        "sign_in_failed",
        "Sign-in failed",
        "no user has this login and this password",
        headers={"WWW-Authenticate": "Bearer"},
    )


def too_many_sign_ins(wait_s: int) -> ApiError:
    return ApiError(
        429,
        "too_many_sign_ins",
        "Too many failed sign-ins",
        f"too many sign-ins with this login, or from this address, have failed; try again in "
        f"{wait_s} s",
        headers={"Retry-After": str(wait_s)},
    )


def sign_in_busy() -> ApiError:
    return ApiError(
        503,
        "sign_in_busy",
        "Busy",
        "too many passwords wait to be checked; try again",
        headers={"Retry-After": "1"},
    )


def wrong_current_password() -> ApiError:
    return ApiError(
        403,
        "wrong_current_password",
        "Wrong current password",
        "current_password is not the user's password",
        [FieldError("current_password", "is wrong; allowed: the user's present password")],
    )


def too_many_writes(limit: int, reset_s: int) -> ApiError:
    return ApiError(
        429,
        "too_many_writes",
        "Too many requests",
        f"this token has made {limit} writes within an hour; go on at {reset_s} (epoch seconds)",
    )
