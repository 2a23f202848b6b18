"""The byte relay: two connected sockets in, one end out.

`interface` says what a relay is; `frames` follows WebSocket frame headers without I/O; `python`
relays with nothing but the standard library. It owns bytes, deadlines and pace from behind the
handshake to the end of a connection, and nothing else: no handshake, no events, no decisions.

`active` names the implementation that `load()` returns. Another one joins by adding itself to
IMPLEMENTATIONS; the contract tests run over all that are there.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from handoff_relay.interface import (
    CAUSES,
    CLOSE_GRACE_MS,
    IN_FLIGHT_MAX,
    RELAY_FAILED,
    BodyCounters,
    ClosedBy,
    End,
    Messages,
    NewRelay,
    OnEnd,
    Relay,
    RelayLimits,
    Tunnel,
)
from handoff_relay.python import PythonRelay

IMPLEMENTATIONS: Final[Mapping[str, NewRelay]] = MappingProxyType({"python": PythonRelay})
active: Final = "python"


def load(name: str = active) -> NewRelay:
    """The implementation of that name; the active one by default.

    Raises ValueError for a name that is not in IMPLEMENTATIONS.
    """
    try:
        return IMPLEMENTATIONS[name]
    except KeyError:
        allowed = ", ".join(IMPLEMENTATIONS)
        raise ValueError(f"relay is {name!r}; allowed: {allowed}") from None


__all__ = [
    "CAUSES",
    "CLOSE_GRACE_MS",
    "IMPLEMENTATIONS",
    "IN_FLIGHT_MAX",
    "RELAY_FAILED",
    "BodyCounters",
    "ClosedBy",
    "End",
    "Messages",
    "NewRelay",
    "OnEnd",
    "PythonRelay",
    "Relay",
    "RelayLimits",
    "Tunnel",
    "active",
    "load",
]
