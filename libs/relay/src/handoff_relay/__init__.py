"""The byte relay: two connected sockets in, one end out.

`interface` says what a relay is; `frames` follows WebSocket frame headers without I/O. `native` is
in Rust, on a thread of its own, where it was built; `python` relays with nothing but the standard
library, and is what the other is held to. A relay owns bytes, deadlines and pace from behind the
handshake to the end of a connection, and nothing else: no handshake, no events, no decisions.

`active` names the implementation that `load()` returns: the native one where it is there. The
contract tests run over all that are in IMPLEMENTATIONS.
"""

from collections.abc import Mapping
from importlib.util import find_spec
from types import MappingProxyType
from typing import Final, NamedTuple

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
from handoff_relay.python_tls import PythonClientTls, PythonServerTls
from handoff_relay.tls import (
    CertificateFault,
    CertificateRefused,
    ClientTls,
    Identity,
    NewClientTls,
    NewServerTls,
    ServerTls,
    Stream,
    Tls,
    TlsStream,
)


class Implementation(NamedTuple):
    """A relay, and the TLS whose streams it takes over."""

    relay: NewRelay
    tls: Tls


def _implementations() -> dict[str, Implementation]:
    """All that there are, the best first."""
    found: dict[str, Implementation] = {}
    # One that was built and does not load is a fault to be seen, and no reason for the other.
    if find_spec("handoff_relay._native") is not None:
        from handoff_relay import native

        tls = Tls(native.NativeServerTls, native.NativeClientTls)
        found["native"] = Implementation(native.NativeRelay, tls)
    found["python"] = Implementation(PythonRelay, Tls(PythonServerTls, PythonClientTls))
    return found


IMPLEMENTATIONS: Final[Mapping[str, Implementation]] = MappingProxyType(_implementations())
active: Final = next(iter(IMPLEMENTATIONS))


def load(name: str = active) -> NewRelay:
    """The relay of that name; the active one by default.

    Raises ValueError for a name that is not in IMPLEMENTATIONS.
    """
    return _named(name).relay


def load_tls(name: str = active) -> Tls:
    """The TLS that goes with the relay of that name. Raises as `load`."""
    return _named(name).tls


def _named(name: str) -> Implementation:
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
    "CertificateFault",
    "CertificateRefused",
    "ClientTls",
    "ClosedBy",
    "End",
    "Identity",
    "Implementation",
    "Messages",
    "NewClientTls",
    "NewRelay",
    "NewServerTls",
    "OnEnd",
    "PythonRelay",
    "Relay",
    "RelayLimits",
    "ServerTls",
    "Stream",
    "Tls",
    "TlsStream",
    "Tunnel",
    "active",
    "load",
    "load_tls",
]
