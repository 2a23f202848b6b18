"""TLS on either side of a tunnel: what is waited on during a handshake, and a relay takes over.

A stream is used like a non-blocking `ssl.SSLSocket`: `do_handshake`, `recv` and `send` raise
`ssl.SSLWantReadError` or `ssl.SSLWantWriteError` where they would wait. Each implementation of the
relay has its own: the Python relay takes `ssl.SSLSocket`s, the native one takes streams whose TLS
never meets Python again. `load_tls(name)` gives those that go with the relay of that name.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from socket import socket
from typing import Final, Literal, NamedTuple, Protocol, runtime_checkable

CertificateFault = Literal["expired", "not_valid_yet", "self_signed", "name", "untrusted"]

ALPN: Final = "http/1.1"
"""The only protocol that is spoken behind TLS."""


class CertificateRefused(OSError):
    """The peer's certificate is not good. fault: why, in a word; its text says more."""

    def __init__(self, fault: CertificateFault, text: str) -> None:
        super().__init__(text)
        self.fault = fault
        self.text = text


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate with its chain and key, in PEM. names: whom it serves, exact names or `*.` and
    a domain, lower case."""

    names: tuple[str, ...]
    chain: bytes
    key: bytes


@runtime_checkable
class Stream(Protocol):
    """What an edge does with a client's or an origin's connection: a plain `socket` is one too."""

    def fileno(self) -> int: ...

    def recv(self, size: int, /) -> bytes: ...

    def send(self, data: bytes | memoryview, /) -> int: ...

    def shutdown(self, how: int, /) -> None:
        """Say that nothing more is sent: with TLS, close_notify and then FIN."""

    def close(self) -> None: ...


@runtime_checkable
class TlsStream(Stream, Protocol):
    """TLS over a socket that it owns."""

    @property
    def server_name(self) -> str | None:
        """The name that a client asked for; known once the handshake is done."""

    def do_handshake(self) -> None:
        """One step. Raises the wants of `ssl`, CertificateRefused, or another OSError."""

    def version(self) -> str | None: ...


class ServerTls(Protocol):
    """What a listener serves: certificates by name, TLS 1.2 and later, ALPN."""

    def wrap(self, sock: socket) -> TlsStream:
        """Takes the socket over; the handshake has not begun."""


class ClientTls(Protocol):
    """How origins are verified."""

    def wrap(self, sock: socket, server_name: str) -> TlsStream:
        """Takes the socket over. The server must be the one named, by name or by address. Raises
        ValueError for what is neither; the socket then still is the caller's."""


class NewServerTls(Protocol):
    def __call__(self, identities: Sequence[Identity]) -> ServerTls:
        """The first identity serves those who ask for no name, or for one that none has. Raises
        ValueError for an identity that cannot be used."""


class NewClientTls(Protocol):
    def __call__(self, extra_ca: Path | None) -> ClientTls:
        """Origins are signed by the system's roots or by those in a PEM file. Raises OSError or
        ValueError for a file that is none."""


class Tls(NamedTuple):
    """TLS that goes with one implementation of the relay."""

    server: NewServerTls
    client: NewClientTls
