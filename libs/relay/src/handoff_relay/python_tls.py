"""TLS of the standard library, for the Python relay."""

import ssl
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from socket import socket
from tempfile import NamedTemporaryFile
from typing import Any, Final

from handoff_relay.tls import ALPN, CertificateFault, CertificateRefused, Identity, TlsStream

_FAULTS: Final[dict[int, CertificateFault]] = {
    9: "not_valid_yet",
    10: "expired",
    18: "self_signed",
    62: "name",
    64: "name",
}
"""OpenSSL's X509_V_ERR_*; all others are "untrusted"."""


class PythonTlsStream(ssl.SSLSocket):
    """See `tls.TlsStream`."""

    server_name: str | None = None

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except ssl.SSLCertVerificationError as error:
            fault = _FAULTS.get(error.verify_code, "untrusted")
            raise CertificateRefused(fault, error.verify_message) from None

    def shutdown(self, how: int) -> None:
        with suppress(OSError, ValueError):
            # Sends close_notify, then complains that the peer's has not come.
            self.unwrap()
        super().shutdown(how)


class PythonServerTls:
    """See `tls.ServerTls` and `tls.NewServerTls`."""

    def __init__(self, identities: Sequence[Identity]) -> None:
        if not identities:
            raise ValueError("no certificate was given")
        self._named: dict[str, ssl.SSLContext] = {}
        contexts = []
        for identity in identities:
            contexts.append(_serving(identity))
            for name in identity.names:
                self._named.setdefault(name, contexts[-1])
        self._first = contexts[0]
        self._first.sni_callback = self._choose

    def wrap(self, sock: socket) -> TlsStream:
        return _wrap(self._first, sock, server_side=True)

    def _choose(self, stream: Any, name: str | None, _context: ssl.SSLContext) -> None:
        stream.server_name = name
        if name is not None:
            lower = name.lower()
            _, _, domain = lower.partition(".")
            found = self._named.get(lower) or self._named.get(f"*.{domain}")
            if found is not None:
                stream.context = found


class PythonClientTls:
    """See `tls.ClientTls` and `tls.NewClientTls`."""

    def __init__(self, extra_ca: Path | None) -> None:
        self._context = ssl.create_default_context()
        self._context.set_alpn_protocols([ALPN])
        self._context.sslsocket_class = PythonTlsStream
        if extra_ca is not None:
            self._context.load_verify_locations(extra_ca)

    def wrap(self, sock: socket, server_name: str) -> TlsStream:
        return _wrap(self._context, sock, server_hostname=server_name)


def _wrap(context: ssl.SSLContext, sock: socket, **named: Any) -> TlsStream:
    # Raises where the peer has gone; `ssl` would then leave a socket behind that nobody closes.
    sock.getpeername()
    stream = context.wrap_socket(sock, do_handshake_on_connect=False, **named)
    assert isinstance(stream, PythonTlsStream)
    stream.setblocking(False)
    return stream


def _serving(identity: Identity) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([ALPN])
    context.sslsocket_class = PythonTlsStream
    context.num_tickets = 1
    # The standard library reads them from files only; this one is its owner's, and gone at once.
    with NamedTemporaryFile() as pem:
        pem.write(identity.chain + b"\n" + identity.key)
        pem.flush()
        try:
            context.load_cert_chain(pem.name, password=lambda: b"")
        except ssl.SSLError as error:
            raise ValueError(f"the certificate or its key: {error}") from None
    return context
