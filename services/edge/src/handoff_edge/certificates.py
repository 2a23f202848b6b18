"""The certificates that the TLS port serves: read from a folder, and read again when it changes.

A certificate is `NAME.crt` or `NAME.pem` (its chain, PEM) with its key in `NAME.key` or in the
same file; in the folder itself or one below, which is how Kubernetes mounts a TLS secret. Each
serves the DNS names that it bears. The first by name, `default` before all others, serves clients
that ask for no name or for one that none has.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from handoff_common.errors import HandoffError
from handoff_common.telemetry import get_logger
from handoff_edge.metrics import Metrics
from handoff_relay import Identity, NewServerTls, ServerTls

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

_ENDINGS: Final = (".crt", ".pem")


class BadCertificate(HandoffError):
    """A file of the folder cannot be used; the text names it and says what is wrong."""


class Found(NamedTuple):
    """What a folder holds. files: of the identities, in their order. not_after: when the first of
    them ends, in seconds since 1970. digest: tells whether anything has changed."""

    files: tuple[Path, ...]
    identities: tuple[Identity, ...]
    not_after: float
    digest: bytes


def read(folder: Path) -> Found:
    """Raises BadCertificate."""
    identities: list[Identity] = []
    ends: list[float] = []
    digest = hashlib.sha256()
    files = tuple(_files(folder))
    for path in files:
        chain, key = _contents(path)
        digest.update(hashlib.sha256(chain).digest() + hashlib.sha256(key).digest())
        names, not_after = _said_by(path, chain)
        if not names:
            raise BadCertificate(f"{path}: the certificate bears no DNS name")
        identities.append(Identity(names, chain, key))
        ends.append(not_after)
    if not identities:
        raise BadCertificate(f"{folder}: it holds no *.crt or *.pem")
    return Found(files, tuple(identities), min(ends), digest.digest())


def _files(folder: Path) -> Sequence[Path]:
    try:
        # What Kubernetes keeps in hidden folders is linked to from the visible ones.
        found = [
            path
            for place in (folder, *(p for p in folder.iterdir() if p.is_dir()))
            if not place.name.startswith(".")
            for path in place.iterdir()
            if path.suffix in _ENDINGS and not path.name.startswith(".")
        ]
    except OSError as error:
        raise BadCertificate(f"{folder}: {error.strerror}") from None

    def order(path: Path) -> tuple[bool, str]:
        inner = path.relative_to(folder)
        return not inner.parts[0].startswith("default"), str(inner)

    return sorted(found, key=order)


def _contents(path: Path) -> tuple[bytes, bytes]:
    """Chain and key."""
    key = path.with_suffix(".key")
    try:
        chain = path.read_bytes()
        if key.exists():
            return chain, key.read_bytes()
    except OSError as error:
        raise BadCertificate(f"{path}: {error.strerror}") from None
    if b"PRIVATE KEY-----" not in chain:
        raise BadCertificate(f"{path}: its key is neither in it nor in {key.name}")
    return chain, chain


def _said_by(path: Path, chain: bytes) -> tuple[tuple[str, ...], float]:
    """The names that the certificate bears, and when it ends."""
    # Most edges have no certificates, and this is a tenth of an edge's start.
    from cryptography import x509

    try:
        certificate = x509.load_pem_x509_certificate(chain)
        return _names(certificate), certificate.not_valid_after_utc.timestamp()
    except Exception as error:
        # What the library raises has no common base: an unknown version is no ValueError.
        text = f"{path}: it holds no certificate in PEM that can be read: {error}"
        raise BadCertificate(text) from None


def _names(certificate: "Certificate") -> tuple[str, ...]:
    from cryptography import x509

    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return ()
    return tuple(name.lower() for name in found.value.get_values_for_type(x509.DNSName))


class Certificates:
    """What is served now. A folder that cannot be used changes nothing once one was: it is said in
    the log at each look, and the metric of the first end goes on towards it."""

    def __init__(
        self, folder: Path, new_tls: NewServerTls, metrics: Metrics, *, interval: float
    ) -> None:
        self._folder = folder
        self._new_tls = new_tls
        self._metrics = metrics
        self._interval = interval
        self._logger = get_logger("edge")
        self._digest = b""
        self._tls: ServerTls | None = None

    def now(self) -> ServerTls:
        assert self._tls is not None, "loaded at the start"
        return self._tls

    def load(self) -> None:
        """Serve what is in the folder. Raises BadCertificate, and then goes on as before."""
        found = read(self._folder)
        if found.digest != self._digest:
            self._serve(found)
        self._metrics.certificates_unusable.set(0)

    def _serve(self, found: Found) -> None:
        try:
            self._tls = self._new_tls(found.identities)
        except Exception as error:
            # Whatever it is, it must not end an edge that has certificates to serve.
            raise BadCertificate(f"{self._culprit(found)}: {error}") from None
        self._digest = found.digest
        self._metrics.certificate_ends.set(found.not_after)
        names = sorted({name for identity in found.identities for name in identity.names})
        self._logger.info("certificates_loaded", names=names, not_after=found.not_after)

    def _culprit(self, found: Found) -> Path:
        """The first file that cannot be served even by itself; the folder, where each can."""
        for path, identity in zip(found.files, found.identities, strict=True):
            try:
                self._new_tls((identity,))
            except Exception:
                return path
        return self._folder

    async def run(self) -> None:
        """Look again from time to time."""
        while True:
            await asyncio.sleep(self._interval)
            try:
                await asyncio.to_thread(self.load)
            except BadCertificate as error:
                self._metrics.certificates_unusable.set(1)
                self._logger.error("certificates_unusable", error=str(error))
