"""What stands against WebSockets, in words, and where it is mended. Pure."""

from collections.abc import Sequence
from urllib.parse import quote

from handoff_client.products import Check, Violation

_FOLDERS = {"backend": "backends", "websocket-rule": "rules"}


def place_of(service_id: str, violation: Violation) -> str | None:
    """The page of the field, with `{draft}` for a draft's number; None where it is no setting of a
    version."""
    start = f"/services/{service_id}/versions/{{draft}}"
    name = quote(violation.name, safe="")
    if violation.object in _FOLDERS:
        return f"{start}/{_FOLDERS[violation.object]}/{name}#field-{violation.field}"
    return f"{start}#directors" if violation.object == "director" else None


def standing(violations: Sequence[Violation], where: str) -> str:
    """What stands against it, as a sentence; the WAF is no setting of a version. where: which
    version's settings they are. "" where nothing does."""
    settings = sum(one.object != "product" for one in violations)
    said = [f"{settings} setting{'s' if settings > 1 else ''} of {where}"] if settings else []
    if settings < len(violations):
        said.append("the next-gen WAF")
    verb = "stand" if settings > 1 or len(said) > 1 else "stands"
    text = f"{' and '.join(said)} {verb} against it."
    return text[0].upper() + text[1:] if said else ""


def hindrances(check: Check, *, active: bool) -> tuple[str, ...]:
    """What keeps every upgrade request from being handed off, however WebSockets is switched.
    active: whether a version is."""
    lacking = () if check.entitled else (check.entitlement or "the customer is not entitled",)
    return lacking if active else (*lacking, "no version is active")
