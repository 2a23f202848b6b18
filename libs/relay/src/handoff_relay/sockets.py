"""What the relay asks of a socket, plain or TLS: options, receive, send, say the end.

Non-blocking all through. An `ssl.SSLSocket` is used directly; its wants become BLOCKED here, and
its errors are sorted into an orderly end, a reset and a dead peer like those of a plain socket.
"""

import errno
import select
import socket
import ssl
from contextlib import suppress
from typing import Final

BLOCKED: Final = -1
"""Nothing can be received now."""

ENDED: Final = -1
"""Nothing will be received any more."""

KEEPALIVE_IDLE_S: Final = 60
KEEPALIVE_INTERVAL_S: Final = 15
KEEPALIVE_PROBES: Final = 3
USER_TIMEOUT_MS: Final = 100_000
"""A peer that acknowledges nothing for so long is dead: neither data, nor probes when it is idle
(the first probe after it goes unanswered 105 s after the last sign of life). It also ends a peer
that keeps its receive window shut for as long."""

_OPTIONS: Final = (
    (socket.IPPROTO_TCP, "TCP_NODELAY", 1),
    (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
    (socket.IPPROTO_TCP, "TCP_KEEPIDLE", KEEPALIVE_IDLE_S),
    (socket.IPPROTO_TCP, "TCP_KEEPINTVL", KEEPALIVE_INTERVAL_S),
    (socket.IPPROTO_TCP, "TCP_KEEPCNT", KEEPALIVE_PROBES),
    (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", USER_TIMEOUT_MS),
)

_DEAD: Final = frozenset({errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH})

_TCP_CLOSE: Final = 7

_READ: Final = select.EPOLLIN
_WRITE: Final = select.EPOLLOUT
_RECORD: Final = 16_384
"""Plaintext in a full TLS record. OpenSSL tells of what it took once all of a call has gone, so
each call brings one: what was sent before a reset then counts."""


def prepare(sock: socket.socket) -> None:
    """Non-blocking, and dead peers noticed. Raises OSError or ValueError for a closed socket."""
    sock.setblocking(False)
    if isinstance(sock, ssl.SSLSocket):
        # An end without close_notify may be a reset, see `receive_tls`.
        setattr(sock, "suppress_ragged_eofs", False)  # noqa: B010 - typeshed lacks it
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        for level, name, value in _OPTIONS:
            option = getattr(socket, name, None)
            if option is not None:
                # A peer that reset meanwhile can make this fail; reading will tell.
                with suppress(OSError):
                    sock.setsockopt(level, option, value)


def is_dead(error: OSError) -> bool:
    """Whether the peer went silent, as against having reset the connection."""
    return error.errno in _DEAD and not isinstance(error, ssl.SSLError)


def receive_tls(
    sock: ssl.SSLSocket, view: memoryview, size: int, failure: OSError | None
) -> tuple[int, int, OSError | None]:
    """Receive up to `size` plaintext bytes into `view`: `(count, wants, error)`.

    failure: what `pending_error` gave for this socket before; TLS then does not hear of it.

    count: bytes that are good, whatever came behind them; BLOCKED for none yet.
    wants: what to wait for before the next call, as epoll events; 0: call again at once, since more
        may be inside the TLS layer, where epoll does not see it; ENDED: call no more.
    error: with ENDED, what ended the connection, if it was not orderly.
    """
    count = 0
    while count < size:
        try:
            got = sock.recv_into(view[count:size])
        except ssl.SSLWantReadError:
            return count or BLOCKED, _READ, None
        except ssl.SSLWantWriteError:
            return count or BLOCKED, _WRITE, None
        except ssl.SSLEOFError as end:
            return count, ENDED, failure or _why_ragged(sock, end)
        except OSError as error:
            return count, ENDED, error
        if not got:
            return count, ENDED, None
        count += got
    return count, 0, None


def _why_ragged(sock: ssl.SSLSocket, end: ssl.SSLEOFError) -> OSError | None:
    """What an end without close_notify was: an error, or None for a FIN.

    CPython reports a reset as such an end too, without a reason; so does OpenSSL 1.1 a FIN. TCP's
    state then tells them apart. (With a reason it tells nothing: OpenSSL 3 answers a bare FIN with
    an alert, and a peer that is gone answers that with a reset.)
    """
    if not end.reason and sock.family in (socket.AF_INET, socket.AF_INET6):
        with suppress(OSError):
            state = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
            if state == _TCP_CLOSE:
                return ConnectionResetError(errno.ECONNRESET, "reset under TLS")
    return None


def send_tls(sock: ssl.SSLSocket, data: memoryview) -> tuple[int, int]:
    """Send what is taken now: `(count, wants)`, `wants` as for `receive_tls`, 0 if all was taken.

    After a want the same bytes must be offered again, with or without more behind them. Raises
    OSError, unless some bytes were taken: then the next call does.
    """
    count = 0
    try:
        while count < len(data):
            count += sock.send(data[count : count + _RECORD])
    except ssl.SSLWantWriteError:
        return count, _WRITE
    except ssl.SSLWantReadError:
        return count, _READ
    except OSError:
        if not count:
            raise
        return count, _WRITE
    return count, 0


def say_end(sock: socket.socket) -> None:
    """Tell the peer that nothing more comes; plaintext can be received no longer under TLS.

    Raises OSError where the connection is gone.
    """
    # With TLS (`python_tls`), close_notify goes before.
    sock.shutdown(socket.SHUT_WR)


def pending_error(sock: socket.socket) -> OSError | None:
    """The error that the kernel holds for this socket, taken from it."""
    number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return OSError(number, errno.errorcode.get(number, "")) if number else None
