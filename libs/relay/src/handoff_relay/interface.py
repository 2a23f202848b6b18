"""What a relay is: the types that the edge codes against, whichever implementation runs.

A relay owns pairs of connected sockets. It moves bytes between the two of a pair, untouched, until
the pair ends, and says once how it ended. All arguments and results are plain values and file
descriptors, so an implementation outside Python can keep to the same interface.

Units: `_ms` milliseconds, sizes in bytes. Byte counters start at zero behind the two handshake
heads, include frame headers, and exclude TLS overhead and the Close frames that the edge adds.
"""

from asyncio import AbstractEventLoop
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, Protocol

from handoff_relay.tls import Stream

IN_FLIGHT_MAX: Final = 256 * 1024
"""Bytes that a relay holds per direction, at most; beyond it, reading pauses."""

CLOSE_GRACE_MS: Final = 5_000
"""How long an orderly end waits: for a frame boundary, for the queues, for the peers to finish."""

Peer = Literal["client", "origin"]
ClosedBy = Literal["client", "origin", "edge"]

CAUSES: Final = frozenset(
    {
        "client_closed",
        "origin_closed",
        "client_reset",
        "origin_reset",
        "idle_timeout",
        "max_duration",
        "dead_peer",
    }
)
"""The causes that a relay finds by itself; any other is one that was given to `end` or `close`, or
RELAY_FAILED."""

RELAY_FAILED: Final = "edge_crashed"
"""The cause where the relay's own code failed on a connection (the error goes to the event loop's
exception handler). It is the reason for a connection that our own outage ended."""


class BodyCounters(NamedTuple):
    """Bytes so far. A byte counts when the kernel gave it to us, or took it from us."""

    client_received: int
    """read from the client: `req_body_bytes`"""
    client_sent: int
    """taken by the kernel towards the client: `resp_body_bytes`"""
    origin_sent: int
    """taken by the kernel towards the origin: `bereq_body_bytes`"""
    origin_received: int
    """read from the origin: `beresp_body_bytes`"""


class Messages(NamedTuple):
    """Whole WebSocket messages so far, by who sent them. Control frames are none."""

    from_client: int
    from_origin: int


@dataclass(frozen=True, slots=True)
class RelayLimits:
    """Deadlines and pace of one tunnel.

    idle_ms: no byte either way for so long ends the tunnel (`idle_timeout`, close code 1001).
    half_closed_ms: the same once one peer has said that it ends, by FIN or by a Close frame; the
        cause is then that peer's.
    max_duration_ms: counted from `start` (`max_duration`, 1001); the caller adds jitter.
    bytes_per_second: both directions together; beyond it, reading pauses. A quarter of a second's
        worth may pass at once.
    pace_key: tunnels with the same key (a service id) share one `bytes_per_second`, that of the
        tunnel that was started last. Empty: this tunnel has its own.
    close_grace_ms: see CLOSE_GRACE_MS.

    Raises ValueError where a value is below 1.
    """

    idle_ms: int = 600_000
    half_closed_ms: int = 30_000
    max_duration_ms: int | None = None
    bytes_per_second: int | None = None
    pace_key: str = ""
    close_grace_ms: int = CLOSE_GRACE_MS

    def __post_init__(self) -> None:
        for name in (
            "idle_ms",
            "half_closed_ms",
            "max_duration_ms",
            "bytes_per_second",
            "close_grace_ms",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; allowed: 1 or more")


@dataclass(frozen=True, slots=True)
class End:
    """How a tunnel ended; reported once.

    cause: one of CAUSES, RELAY_FAILED, or what was given to `end` or `close`. What came first
        counts: a Close frame or a reset that was seen before `end` was called keeps its own cause.
        Only a mere FIN, which lets the other peer go on, gives way to a later `end` or deadline.
    closed_by: the peer that closed, reset or died; "edge" for `end`, `close` and deadlines.
    close_code: what the peer in `closed_by` said in its Close frame (1005 where the frame bore no
        code, None where there was no such frame); with "edge", what the edge told at least one
        peer, None where it could tell neither.
    """

    cause: str
    closed_by: ClosedBy
    close_code: int | None
    counters: BodyCounters
    messages: Messages


class Tunnel(Protocol):
    """A running pair. It stays valid, and its counters readable, after its end."""

    def counters(self) -> BodyCounters: ...

    def messages(self) -> Messages: ...

    def end(self, code: int, reason_text: str, cause: str) -> None:
        """Ask for an orderly end; returns at once, the end itself is reported as ever.

        Each peer is sent a Close frame with `code` and `reason_text` (cut to 123 bytes of UTF-8),
        masked towards the origin: at the next frame boundary, behind what is queued, never after
        that peer's own Close or behind the other's, never into a stream that is not valid frames.
        What still comes from a peer whose stream was sealed by such a frame is read, counted and
        dropped. The peers then have `close_grace_ms` to finish, after which both are closed, with
        or without a Close frame. A second call, or one after the end, does nothing.

        Raises ValueError for a code that may not be sent (allowed: 1000-1003, 1007-1014,
        3000-4999).
        """


OnEnd = Callable[[End], None]
"""Called on the relay's event loop, never from within `start` or `end`, exactly once per tunnel.
What it raises goes to the loop's exception handler."""


class Relay(Protocol):
    """Owns many tunnels. Not thread-safe: call it on one event loop's thread only."""

    @property
    def open_tunnels(self) -> int:
        """Tunnels started whose end has not been reported yet."""

    def buffered_bytes(self) -> int:
        """Bytes that wait in the relay for a peer to take them, of all tunnels."""

    @property
    def failed(self) -> bool:
        """The relay itself ended by a fault, and every tunnel with it (RELAY_FAILED): `start`
        raises RuntimeError from here on. A relay on the event loop's own thread never does."""

    async def wait_failed(self) -> None:
        """Returns once it has `failed`, else never."""

    def start(
        self,
        client_sock: Stream,
        origin_sock: Stream,
        *,
        to_origin: bytes = b"",
        to_client: bytes = b"",
        client_eof: bool = False,
        limits: RelayLimits,
        on_end: OnEnd,
    ) -> Tunnel:
        """Relay between two connected sockets, plain or TLS streams of the implementation's own
        (`tls`) with a finished handshake.

        The relay takes both sockets over, makes them non-blocking, sets TCP_NODELAY, keep-alive
        and TCP_USER_TIMEOUT, and closes them; nobody else may have them in an event loop or touch
        them from here on.

        to_origin: bytes read from the client behind its head; they count as received from it.
        to_client: bytes read from the origin behind its 101; they count as received from it.
            Neither may be longer than IN_FLIGHT_MAX.
        client_eof: the client's FIN was read already.

        Whatever the sockets do, also at once, is reported through `on_end`. Raises RuntimeError
        where the relay is closed, ValueError for early bytes that are too long, and for a stream
        that is closed or of another implementation; the sockets then still are the caller's.
        """

    async def close(self, *, cause: str = "drained") -> None:
        """Cut whatever still runs, without Close frames (`end` those that should have one, and wait
        for their ends, first). Returns when every end was reported and every socket is closed:
        at most CLOSE_GRACE_MS later. May be called again."""


class NewRelay(Protocol):
    """Makes a relay. Opens nothing; the event loop is the one that runs at the first `start`.

    time_ns: a clock for deadlines and pace that the caller moves; None: the system's monotonic one,
        at no cost. tick_ms: how often, in real time, deadlines are looked at; an end may come up to
        twice that late, never early.
    """

    def __call__(
        self,
        *,
        time_ns: Callable[[], int] | None = ...,
        tick_ms: int = ...,
        loop: AbstractEventLoop | None = None,
    ) -> Relay: ...
