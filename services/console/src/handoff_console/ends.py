"""How connections end, in words for people. Pure."""

from typing import Literal

from handoff_common.events import Reason

Kind = Literal["", "ok", "warn", "bad"]

TITLES: dict[str, str] = {
    Reason.CLIENT_CLOSED: "client closed",
    Reason.ORIGIN_CLOSED: "origin closed",
    Reason.CLIENT_RESET: "client vanished",
    Reason.ORIGIN_RESET: "origin vanished",
    Reason.IDLE_TIMEOUT: "idle",
    Reason.MAX_DURATION: "longest life",
    Reason.DEAD_PEER: "dead peer",
    Reason.DRAINED: "edge drained",
    Reason.DISABLED: "switched off",
    Reason.ENDED_BY_OPERATOR: "ended by hand",
    Reason.CONTRACT_ENDED: "contract ended",
    Reason.OVER_BUDGET: "over budget",
    Reason.NEVER_ESTABLISHED: "not established",
    Reason.EDGE_CRASHED: "edge crashed",
    Reason.EDGE_LOST: "edge lost",
}
"""As short as a table takes."""

EXPLAINED: dict[str, str] = {
    Reason.CLIENT_CLOSED: "The client closed it.",
    Reason.ORIGIN_CLOSED: "The origin closed it.",
    Reason.CLIENT_RESET: "The client's side was cut without a close.",
    Reason.ORIGIN_RESET: "The origin's side was cut without a close.",
    Reason.IDLE_TIMEOUT: "No byte went either way for as long as the service's limit allows.",
    Reason.MAX_DURATION: "It had lived as long as the service's limit allows.",
    Reason.DEAD_PEER: "A peer did not take what was sent to it and was given up.",
    Reason.DRAINED: "The edge was about to stop; clients connect again to another one.",
    Reason.DISABLED: "WebSockets was switched off for the service.",
    Reason.ENDED_BY_OPERATOR: "Somebody ended it, here or by the API.",
    Reason.CONTRACT_ENDED: "The contract for WebSockets ended.",
    Reason.OVER_BUDGET: "A hard cap of the account was reached.",
    Reason.NEVER_ESTABLISHED: "It ended before the client had the origin's answer.",
    Reason.EDGE_CRASHED: "The edge stopped without a farewell. Nothing after its last proof of "
    "life is billed.",
    Reason.EDGE_LOST: "The edge has not been heard of. Nothing after its last proof of life is "
    "billed.",
}

_CODES = {
    1000: "normal end",
    1001: "going away",
    1002: "protocol error",
    1003: "data of a kind that is not taken",
    1005: "no code was given",
    1006: "cut without a close",
    1007: "data that does not fit its kind",
    1008: "against a policy",
    1009: "message too big",
    1010: "an extension is missing",
    1011: "error at the server",
    1012: "server restarts",
    1013: "try again later",
    1014: "bad gateway",
    1015: "TLS failed",
}
"""RFC 6455 and the registry of WebSocket close codes."""

_BY = {"client": "the client", "origin": "the origin", "edge": "the edge", "lost": "our own outage"}

_KINDS: dict[str, Kind] = {
    Reason.CLIENT_RESET: "warn",
    Reason.ORIGIN_RESET: "warn",
    Reason.DEAD_PEER: "warn",
    Reason.OVER_BUDGET: "bad",
    Reason.CONTRACT_ENDED: "bad",
    Reason.NEVER_ESTABLISHED: "warn",
    Reason.EDGE_CRASHED: "bad",
    Reason.EDGE_LOST: "bad",
}


def title(reason: str | None) -> str:
    """A reason that this release does not know is shown as it came."""
    return "" if reason is None else TITLES.get(reason, reason.replace("_", " "))


def explained(reason: str | None) -> str:
    return "" if reason is None else EXPLAINED.get(reason, "")


def kind(reason: str | None) -> Kind:
    """How a badge shows it."""
    return "" if reason is None else _KINDS.get(reason, "")


def close_code(code: int | None) -> str:
    """1008 (against a policy)."""
    if code is None:
        return "none"
    if code in _CODES:
        return f"{code} ({_CODES[code]})"
    if 3000 <= code < 4000:
        return f"{code} (registered by a library)"
    return f"{code} (the application's own)" if 4000 <= code < 5000 else str(code)


def by(closed_by: str | None) -> str:
    """Who ended it."""
    return "" if closed_by is None else _BY.get(closed_by, closed_by)
