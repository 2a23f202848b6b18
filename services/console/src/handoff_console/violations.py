"""Where what stands against WebSockets is mended. Pure."""

from urllib.parse import quote

from handoff_client.products import Violation

_FOLDERS = {"backend": "backends", "websocket-rule": "rules"}


def place_of(service_id: str, violation: Violation) -> str | None:
    """The page of the field, with `{draft}` for a draft's number; None where it is no setting of a
    version."""
    start = f"/services/{service_id}/versions/{{draft}}"
    name = quote(violation.name, safe="")
    if violation.object in _FOLDERS:
        return f"{start}/{_FOLDERS[violation.object]}/{name}#field-{violation.field}"
    return f"{start}#directors" if violation.object == "director" else None
